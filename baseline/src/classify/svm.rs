//! Support vector machines, one for each pair of classes, by LIBSVM's algorithm (Chang and Lin, 2011).

use libsvm_rs::predict::predict_values;
use libsvm_rs::probability::{sigmoid_predict, sigmoid_train};
use libsvm_rs::train::svm_train;
use libsvm_rs::types::check_parameter;
use libsvm_rs::{
    KernelType, SvmModel, SvmNode, SvmParameter, SvmParameterBuilder, SvmProblem, SvmType,
};
use serde::Serialize;

use super::FitError;
use super::pairwise::{coupled, pairs};

/// A kernel function of two rows of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernel {
    /// exp(-gamma |x - y|²).
    Rbf,
    /// x y.
    Linear,
    /// (gamma x y + 1)³.
    Polynomial,
}

/// A machine's parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Parameters {
    pub kernel: Kernel,
    pub c: f64,
    /// Not used by the linear kernel.
    pub gamma: f64,
}

/// P(first of two classes) = 1 / (1 + exp(a f + b)) of a decision value f (Platt, 2000; fitted as Lin, Lin and Weng, 2007).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sigmoid {
    a: f64,
    b: f64,
}

impl Sigmoid {
    /// Of decision values and whether each is of the first class. They must be of samples that the machine was not fitted to:
    /// on its own it is too sure.
    pub fn of(values: &[f64], first: &[bool]) -> Self {
        let signs: Vec<f64> = first.iter().map(|&f| if f { 1.0 } else { -1.0 }).collect();
        let (a, b) = sigmoid_train(values, &signs);
        Self { a, b }
    }

    /// Kept from 0 and 1 as LIBSVM does.
    pub fn p(self, value: f64) -> f64 {
        sigmoid_predict(value, self.a, self.b).clamp(1e-7, 1.0 - 1e-7)
    }
}

/// The machine of two classes.
#[derive(Debug, Clone)]
pub(super) enum Pair {
    Machine {
        model: Box<SvmModel>,
        /// Whether a positive decision means the second class.
        turned: bool,
    },
    /// There was one class only; its decision value.
    Constant(f64),
}

impl Pair {
    /// Fits the samples of the classes `first` and `second`. Positive decisions mean `first`.
    pub fn fit(
        rows: &[Vec<f64>],
        labels: &[usize],
        (first, second): (usize, usize),
        parameters: Parameters,
        weights: &[f64],
    ) -> Result<Self, FitError> {
        let of_both = rows.iter().zip(labels);
        let of_both = of_both.filter(|(_, l)| **l == first || **l == second);
        let (instances, signs): (Vec<Vec<SvmNode>>, Vec<f64>) = of_both
            .map(|(row, l)| (nodes(row), if *l == first { 1.0 } else { -1.0 }))
            .unzip();
        let has = |sign: f64| signs.contains(&sign);
        if !has(1.0) || !has(-1.0) {
            return Ok(Self::Constant(if has(1.0) { 1.0 } else { -1.0 }));
        }
        let problem = SvmProblem {
            labels: signs,
            instances,
        };
        let parameters = parameters.of_library([weights[first], weights[second]])?;
        check_parameter(&problem, &parameters).map_err(|e| FitError::Svm(e.to_string()))?;
        let model = svm_train(&problem, &parameters);
        Ok(Self::Machine {
            turned: model.labels().first() == Some(&-1),
            model: Box::new(model),
        })
    }

    pub fn decision(&self, row: &[f64]) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Machine { model, turned } => {
                let mut values = [0.0];
                predict_values(model, &nodes(row), &mut values);
                if *turned { -values[0] } else { values[0] }
            }
        }
    }
}

impl Parameters {
    fn of_library(self, [first, second]: [f64; 2]) -> Result<SvmParameter, FitError> {
        let (kernel, coefficient) = match self.kernel {
            Kernel::Rbf => (KernelType::Rbf, 0.0),
            Kernel::Linear => (KernelType::Linear, 0.0),
            Kernel::Polynomial => (KernelType::Polynomial, 1.0),
        };
        SvmParameterBuilder::new()
            .svm_type(SvmType::CSvc)
            .kernel_type(kernel)
            .degree(3)
            .coef0(coefficient)
            .gamma(self.gamma)
            .c(self.c)
            .weights(vec![(1, first), (-1, second)])
            .build()
            .map_err(|e| FitError::Svm(e.to_string()))
    }
}

fn nodes(row: &[f64]) -> Vec<SvmNode> {
    let node = |(at, value): (usize, &f64)| SvmNode {
        index: at as i32 + 1,
        value: *value,
    };
    row.iter().enumerate().map(node).collect()
}

/// A machine and a sigmoid for each pair of classes.
#[derive(Debug, Clone)]
pub(super) struct Svm {
    classes: usize,
    pairs: Vec<(Pair, Sigmoid)>,
}

impl Svm {
    /// Fits all machines. `sigmoids`: of each pair, from held-out samples.
    pub fn fit(
        rows: &[Vec<f64>],
        labels: &[usize],
        parameters: Parameters,
        weights: &[f64],
        sigmoids: Vec<Sigmoid>,
    ) -> Result<Self, FitError> {
        let classes = weights.len();
        let machines = pairs(classes)
            .into_iter()
            .map(|pair| Pair::fit(rows, labels, pair, parameters, weights));
        let machines = machines.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            classes,
            pairs: machines.into_iter().zip(sigmoids).collect(),
        })
    }

    pub fn probabilities(&self, row: &[f64]) -> Vec<f64> {
        let first = |(machine, sigmoid): &(Pair, Sigmoid)| sigmoid.p(machine.decision(row));
        coupled(self.classes, self.pairs.iter().map(first))
    }
}
