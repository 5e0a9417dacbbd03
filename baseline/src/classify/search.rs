//! The choice of parameters by cross-validation.

use fovea_core::metrics::{Ranking, quadratic_kappa};
use rayon::prelude::*;
use serde::Serialize;

use super::folds::Fold;
use super::mlp::{self, Mlp};
use super::pairwise::{coupled, pairs};
use super::svm::{Kernel, Pair, Parameters, Sigmoid};
use super::{FitError, Training};

/// What parameters are chosen by, over all held-out samples of the folds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// Area under the ROC curve, of two classes.
    Auc,
    /// Quadratic weighted kappa, of more.
    Kappa,
}

/// Parameters that were chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chosen {
    /// By name.
    pub parameters: Vec<(&'static str, f64)>,
    /// What they were chosen by.
    pub criterion: Criterion,
    /// Its value; it looks better than it is, as the best of several.
    pub value: f64,
    /// Samples of the folds.
    pub samples: usize,
}

/// Powers of 2 from 2^`from` to 2^`to`, every other one.
fn powers(from: i32, to: i32) -> Vec<f64> {
    (from..=to)
        .step_by(2)
        .map(|e| f64::from(e).exp2())
        .collect()
}

/// All that are tried; of equally good ones the first is taken, which is the smoothest.
fn grid(kernel: Kernel) -> Vec<Parameters> {
    let (costs, gammas) = match kernel {
        Kernel::Rbf => (powers(-5, 9), powers(-9, 1)),
        Kernel::Linear => (powers(-9, 5), vec![1.0]),
        Kernel::Polynomial => (powers(-7, 3), powers(-7, -1)),
    };
    let of_gamma = |gamma: f64| costs.iter().map(move |&c| Parameters { kernel, c, gamma });
    gammas.into_iter().flat_map(of_gamma).collect()
}

/// The best parameters of a support vector machine, and the sigmoid of each pair of classes, from held-out decision values.
pub(super) fn svm(
    training: &Training,
    folds: &[Fold],
    kernel: Kernel,
    weights: &[f64],
) -> Result<(Parameters, Chosen, Vec<Sigmoid>), FitError> {
    let tried = |parameters: &Parameters| {
        let decisions = decisions(training, folds, *parameters, weights)?;
        let sigmoids = sigmoids(training, &decisions);
        let value = match training.scheme.classes {
            // Of the decision values themselves: the sigmoid may be flat.
            2 => auc(training, |sample| -decisions[sample][0]),
            _ => kappa(training, |sample| {
                let p = decisions[sample].iter().zip(&sigmoids);
                coupled(training.scheme.classes, p.map(|(v, sigmoid)| sigmoid.p(*v)))
            }),
        };
        Ok((*parameters, value, sigmoids))
    };
    let all = grid(kernel);
    let all = all.par_iter().map(tried);
    let all = all.collect::<Result<Vec<_>, FitError>>()?;
    let (parameters, value, sigmoids) = best(all, |tried| tried.1);
    let mut named = vec![("C", parameters.c)];
    if kernel != Kernel::Linear {
        named.push(("gamma", parameters.gamma));
    }
    Ok((parameters, chosen(training, named, value), sigmoids))
}

/// The best parameters of a perceptron.
pub(super) fn mlp(
    training: &Training,
    folds: &[Fold],
    weights: &[f64],
    seed: u64,
) -> (mlp::Parameters, Chosen) {
    let tried = |parameters: &mlp::Parameters| {
        let mut p = vec![Vec::new(); training.rows.len()];
        for fold in folds {
            let mlp = Mlp::fit(&fold.rows, &fold.labels, weights, *parameters, seed);
            for (&sample, row) in fold.held_out.iter().zip(&fold.held_out_rows) {
                p[sample] = mlp.probabilities(row);
            }
        }
        let value = match training.scheme.classes {
            2 => auc(training, |sample| p[sample][1]),
            _ => kappa(training, |sample| p[sample].clone()),
        };
        (*parameters, value)
    };
    let all: Vec<_> = mlp::Parameters::grid().par_iter().map(tried).collect();
    let (parameters, value) = best(all, |tried| tried.1);
    let named = vec![
        ("hidden", parameters.hidden as f64),
        ("decay", parameters.decay),
    ];
    (parameters, chosen(training, named, value))
}

fn chosen(training: &Training, parameters: Vec<(&'static str, f64)>, value: f64) -> Chosen {
    Chosen {
        parameters,
        criterion: match training.scheme.classes {
            2 => Criterion::Auc,
            _ => Criterion::Kappa,
        },
        value,
        samples: training.rows.len(),
    }
}

/// The first of those with the highest value.
fn best<T>(all: Vec<T>, value: impl Fn(&T) -> f64) -> T {
    all.into_iter()
        .reduce(|best, next| {
            if value(&next) > value(&best) {
                next
            } else {
                best
            }
        })
        .expect("a grid is never empty")
}

/// Of each sample, when its fold was held out, the decision value of each pair of classes.
fn decisions(
    training: &Training,
    folds: &[Fold],
    parameters: Parameters,
    weights: &[f64],
) -> Result<Vec<Vec<f64>>, FitError> {
    let mut decisions = vec![Vec::new(); training.rows.len()];
    for fold in folds {
        for pair in pairs(training.scheme.classes) {
            let machine = Pair::fit(&fold.rows, &fold.labels, pair, parameters, weights)?;
            for (&sample, row) in fold.held_out.iter().zip(&fold.held_out_rows) {
                decisions[sample].push(machine.decision(row));
            }
        }
    }
    Ok(decisions)
}

fn sigmoids(training: &Training, decisions: &[Vec<f64>]) -> Vec<Sigmoid> {
    let sigmoid = |(at, (first, second)): (usize, (usize, usize))| {
        let labels = training.labels.iter().zip(decisions);
        let labels = labels.filter(|(l, _)| **l == first || **l == second);
        let (values, is_first): (Vec<f64>, Vec<bool>) =
            labels.map(|(l, values)| (values[at], *l == first)).unzip();
        Sigmoid::of(&values, &is_first)
    };
    let pairs = pairs(training.scheme.classes);
    pairs.into_iter().enumerate().map(sigmoid).collect()
}

/// Of `score`, higher for the second of two classes.
fn auc(training: &Training, score: impl Fn(usize) -> f64) -> f64 {
    let labels = training.labels.iter().enumerate();
    let ranking = Ranking::new(labels.map(|(sample, &label)| (score(sample), label == 1)));
    ranking.auc(|_| 1).unwrap_or(0.0)
}

fn kappa(training: &Training, p: impl Fn(usize) -> Vec<f64>) -> f64 {
    let classes = training.scheme.classes;
    let mut confusion = vec![vec![0u64; classes]; classes];
    for (sample, &label) in training.labels.iter().enumerate() {
        let p: Vec<f32> = p(sample).into_iter().map(|p| p as f32).collect();
        confusion[label][training.scheme.head.predicted(&p)] += 1;
    }
    quadratic_kappa(&confusion).unwrap_or(0.0)
}
