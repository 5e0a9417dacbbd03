//! Classical classifiers of feature vectors, fitted and chosen on training samples alone.
//!
//! [`fit`] chooses the parameters of a method by a cross-validation grouped by patient, then fits it to all training samples.
//! Everything that is learnt from data, the means and deviations of the features included, comes from the training side of
//! each fold. The same samples, settings and program give the same model, to the bit.

mod folds;
mod mlp;
mod pairwise;
mod scale;
mod search;
mod svm;

use fovea_core::count::count;
use fovea_core::fold::FoldError;
use fovea_core::spec::Scheme;

pub use search::{Chosen, Criterion};
pub use svm::Kernel;

use mlp::Mlp;
use scale::Scale;
use svm::Svm;

/// Most photographs that parameters are chosen on; of more, patients are drawn. The time of a support vector machine grows with
/// the square of their number.
pub const SEARCH_AT_MOST: usize = 4000;

/// Samples to learn from. The samples of a patient are neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// The features of each sample; all have the same number of them.
    pub rows: Vec<Vec<f64>>,
    /// The class of each.
    pub labels: Vec<usize>,
    /// The patient of each.
    pub patients: Vec<u32>,
    /// How many classes there are, and which are positive.
    pub scheme: Scheme,
}

/// A method, and how it is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub method: Method,
    /// Errors on a class count in inverse proportion to its number of samples.
    pub class_weights: bool,
    /// Of first weights, and of which patients the parameters are chosen on.
    pub seed: u64,
}

/// A kind of classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A support vector machine, one against one (Acharya et al., 2009).
    Svm(Kernel),
    /// A multilayer perceptron with one hidden layer (Nayak et al., 2008).
    Mlp,
}

/// Why nothing can be fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Labels, patients and features are not of the same samples.
    #[error(
        "{rows} rows of features, {labels} labels and {patients} patients: they must be as many"
    )]
    Lengths {
        rows: usize,
        labels: usize,
        patients: usize,
    },
    /// A row with another number of features, or a value that is not finite.
    #[error("training sample {sample} has {found} features, and the first one {features}")]
    Count {
        sample: usize,
        features: usize,
        found: usize,
    },
    /// A value that is not finite.
    #[error("feature {feature} of training sample {sample} is {value}, which is not finite")]
    Value {
        sample: usize,
        feature: usize,
        value: f64,
    },
    /// A label that is no class.
    #[error("training sample {sample}: its label is {label}, and there are {classes} classes")]
    Label {
        sample: usize,
        label: usize,
        classes: usize,
    },
    /// A class that cannot be learnt, or not be cross-validated.
    #[error(
        "class {class} has training samples of {patients} patients, and 2 are needed to choose parameters: choose other labels"
    )]
    Class { class: usize, patients: usize },
    /// There are fewer patients than folds.
    #[error(
        "its photographs are of {}, and parameters are chosen by a cross-validation of {of} folds: prepare the dataset with {of} \
         training patients or more",
        count(*patients, "patient", "patients")
    )]
    Patients { of: u32, patients: usize },
    /// The library refuses the parameters.
    #[error("the support vector machine refuses its parameters: {0}")]
    Svm(String),
}

impl From<FoldError> for FitError {
    fn from(error: FoldError) -> Self {
        let FoldError::TooFewPatients { of, patients } = error;
        Self::Patients { of, patients }
    }
}

/// A fitted classifier.
#[derive(Debug, Clone)]
pub struct Classifier {
    scale: Scale,
    model: Model,
    /// The parameters that were chosen, and by what.
    pub chosen: Chosen,
}

#[derive(Debug, Clone)]
enum Model {
    Svm(Svm),
    Mlp(Mlp),
}

/// Chooses the parameters of a method on `training` and fits it.
///
/// # Errors
/// The samples cannot be learnt from.
pub fn fit(training: &Training, settings: Settings) -> Result<Classifier, FitError> {
    check(training)?;
    // The library would write its remarks to standard error.
    libsvm_rs::set_quiet(true);
    let weights = class_weights(training, settings.class_weights);
    let subset = folds::subset(training, SEARCH_AT_MOST, settings.seed);
    let cross = folds::cross(&subset)?;
    let scale = Scale::of(training.rows.iter());
    let rows = scale.all(&training.rows);
    match settings.method {
        Method::Svm(kernel) => {
            let (parameters, chosen, pairs) = search::svm(&subset, &cross, kernel, &weights)?;
            let svm = Svm::fit(&rows, &training.labels, parameters, &weights, pairs)?;
            let model = Model::Svm(svm);
            Ok(Classifier {
                scale,
                model,
                chosen,
            })
        }
        Method::Mlp => {
            let (parameters, chosen) = search::mlp(&subset, &cross, &weights, settings.seed);
            let mlp = Mlp::fit(&rows, &training.labels, &weights, parameters, settings.seed);
            let model = Model::Mlp(mlp);
            Ok(Classifier {
                scale,
                model,
                chosen,
            })
        }
    }
}

impl Classifier {
    /// The probability of each class. They add up to 1.
    pub fn probabilities(&self, row: &[f64]) -> Vec<f32> {
        let row = self.scale.row(row);
        let p = match &self.model {
            Model::Svm(svm) => svm.probabilities(&row),
            Model::Mlp(mlp) => mlp.probabilities(&row),
        };
        p.into_iter().map(|p| p as f32).collect()
    }
}

fn check(training: &Training) -> Result<(), FitError> {
    let Training {
        rows,
        labels,
        patients,
        scheme,
    } = training;
    if rows.len() != labels.len() || rows.len() != patients.len() {
        return Err(FitError::Lengths {
            rows: rows.len(),
            labels: labels.len(),
            patients: patients.len(),
        });
    }
    let features = rows.first().map_or(0, Vec::len);
    for (sample, row) in rows.iter().enumerate() {
        if row.len() != features {
            let found = row.len();
            return Err(FitError::Count {
                sample,
                features,
                found,
            });
        }
        if let Some(feature) = row.iter().position(|v| !v.is_finite()) {
            let value = row[feature];
            return Err(FitError::Value {
                sample,
                feature,
                value,
            });
        }
    }
    let classes = scheme.classes;
    if let Some(sample) = labels.iter().position(|&label| label >= classes) {
        return Err(FitError::Label {
            sample,
            label: labels[sample],
            classes,
        });
    }
    for class in 0..classes {
        let of_class = labels.iter().zip(patients).filter(|(l, _)| **l == class);
        let mut patients: Vec<u32> = of_class.map(|(_, &patient)| patient).collect();
        patients.sort_unstable();
        patients.dedup();
        if patients.len() < 2 {
            return Err(FitError::Class {
                class,
                patients: patients.len(),
            });
        }
    }
    Ok(())
}

/// How much an error on a sample of each class counts: 1, or n / (k n_c), which leaves the sum over samples as it is.
fn class_weights(training: &Training, wanted: bool) -> Vec<f64> {
    let classes = training.scheme.classes;
    let of_class = |class: usize| training.labels.iter().filter(|&&l| l == class).count();
    let weight = |class: usize| match wanted {
        false => 1.0,
        true => training.labels.len() as f64 / (classes * of_class(class).max(1)) as f64,
    };
    (0..classes).map(weight).collect()
}

#[cfg(test)]
mod tests;
