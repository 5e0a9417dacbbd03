//! The arguments of `fovea baseline`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use fovea_baseline::{FeatureSet, Kernel, Method};
use fovea_core::spec::{Labels, Part};

use super::evaluate_args::share;
use crate::error::Error;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea baseline eyepacs-512                              three published ways, side by side
  fovea baseline eyepacs-512 --features all --kernel linear --csv all.csv
  fovea evaluate dr-1 --csv dr-1.csv                      then, without a coordinator:
  fovea baseline eyepacs-512 --scores dr-1=dr-1.csv       a network and the baselines in one table
  fovea baseline eyepacs-512 --run dr-1 --run dr-2        the same, scores from the coordinator
  fovea baseline eyepacs-512 --masks masks                pictures of what was taken for vessels and lesions

Features are measured on the prepared photographs: areas of vessels, exudates, microaneurysms and
haemorrhages by morphology, and texture. The classifier learns from the training split; its parameters are
chosen there by 5-fold cross-validation over patients. Figures are of the validation split, with 95 %
intervals from a bootstrap over patients as in `fovea evaluate`; the difference of two AUCs has an interval
of its own. Prepare with --size 512 or more: microaneurysms are lost in smaller photographs.

docs/baselines.md says what each feature is and where it comes from.")]
pub struct Baseline {
    /// The folder of a prepared dataset
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,
    /// Which features: acharya2009 (areas of vessels, microaneurysms, exudates and haemorrhages), nayak2008 (areas of vessels
    /// and exudates, contrast), all of these with more texture, or cnn (with --cnn-features); several with commas
    #[arg(
        long,
        value_name = "SETS",
        value_delimiter = ',',
        default_value = "acharya2009,nayak2008,all",
        hide_possible_values = true
    )]
    pub features: Vec<FeatureName>,
    /// Classifier: svm or mlp (a perceptron with one hidden layer); several with commas [default: mlp for nayak2008, else svm]
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        hide_possible_values = true
    )]
    pub classifier: Vec<ClassifierName>,
    /// Kernel of the support vector machine: rbf, linear or polynomial (of degree 3) [default: linear for cnn, else rbf]
    #[arg(long, value_name = "NAME", hide_possible_values = true)]
    pub kernel: Option<KernelName>,
    /// Let errors on a class count in inverse proportion to its number of photographs
    #[arg(long)]
    pub class_weights: bool,
    /// Label scheme, as model.labels in run.toml: any_dr, referable, four_classes or grades
    #[arg(long, value_name = "NAME", default_value = "referable", value_parser = labels)]
    pub labels: Labels,
    /// The first positive grade, with four_classes or grades [default: 2]
    #[arg(long, value_name = "GRADE", value_parser = clap::value_parser!(u32).range(1..=4))]
    pub positive_from: Option<u32>,
    /// The part that the figures are of: validation, or test, once, when everything is decided
    #[arg(
        long,
        value_name = "PART",
        default_value = "validation",
        hide_possible_values = true
    )]
    pub split: FiguresOf,
    /// Compare with this run; may be given several times
    #[arg(long = "run", value_name = "RUN")]
    pub runs: Vec<String>,
    /// Compare with the scores in a file that `fovea evaluate --csv` or `fovea baseline --csv` wrote; may be given several times
    #[arg(long, value_name = "NAME=FILE")]
    pub scores: Vec<NamedFile>,
    /// The features of `fovea-worker features`, for --features cnn
    #[arg(long, value_name = "FILE")]
    pub cnn_features: Option<PathBuf>,
    /// Print all figures of each baseline, as `fovea evaluate` does; of a single one they are printed in any case
    #[arg(long)]
    pub details: bool,
    /// Write the score of each photograph to this CSV file; of several baselines, each to a file with its name added
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write pictures of the photographs that the first baseline is most wrong and most right about to this folder, with the
    /// outlines of what was measured
    #[arg(long, value_name = "DIR")]
    pub masks: Option<PathBuf>,
    /// Replace files that --csv and --masks name
    #[arg(long)]
    pub overwrite: bool,
    /// Seed of the perceptron's first weights, and of the patients by whom parameters are chosen where there are more than 4,000 training
    /// photographs
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Sensitivity that the high-sensitivity point must reach on the validation split
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub sensitivity: f64,
    /// Specificity that the high-specificity point must reach on the validation split
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub specificity: f64,
    /// Draws of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub draws: u32,
}

/// A set of features, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FeatureName {
    #[value(name = "acharya2009")]
    Acharya2009,
    #[value(name = "nayak2008")]
    Nayak2008,
    All,
    Cnn,
}

impl FeatureName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acharya2009 => "acharya2009",
            Self::Nayak2008 => "nayak2008",
            Self::All => "all",
            Self::Cnn => "cnn",
        }
    }

    /// The features that are measured; None for those of the network.
    pub fn explicit(self) -> Option<FeatureSet> {
        match self {
            Self::Acharya2009 => Some(FeatureSet::Acharya2009),
            Self::Nayak2008 => Some(FeatureSet::Nayak2008),
            Self::All => Some(FeatureSet::All),
            Self::Cnn => None,
        }
    }
}

/// A classifier, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClassifierName {
    Svm,
    Mlp,
}

/// A kernel, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KernelName {
    Rbf,
    Linear,
    #[value(alias = "poly")]
    Polynomial,
}

/// The part that the figures are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FiguresOf {
    Validation,
    Test,
}

impl From<FiguresOf> for Part {
    fn from(of: FiguresOf) -> Self {
        match of {
            FiguresOf::Validation => Self::Validation,
            FiguresOf::Test => Self::Test,
        }
    }
}

/// `NAME=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    pub name: String,
    pub file: PathBuf,
}

/// Not `NAME=FILE`.
#[derive(Debug, thiserror::Error)]
#[error("write NAME=FILE, such as dr-1=dr-1.csv")]
pub struct NamedFileError;

impl FromStr for NamedFile {
    type Err = NamedFileError;

    fn from_str(text: &str) -> Result<Self, NamedFileError> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok(Self {
                name: name.to_owned(),
                file: file.into(),
            }),
            _ => Err(NamedFileError),
        }
    }
}

fn labels(text: &str) -> Result<Labels, String> {
    let found = Labels::ALL.into_iter().find(|labels| labels.name() == text);
    found.ok_or_else(|| {
        let all = Labels::ALL.map(Labels::name);
        format!("it is none of {}", all.join(", "))
    })
}

impl Baseline {
    /// Features, the classifier's name and the method, of each baseline that is asked for.
    ///
    /// # Errors
    /// Options that do not go together.
    pub fn wanted(&self) -> Result<Vec<(FeatureName, Method)>, Error> {
        let has_cnn = self.features.contains(&FeatureName::Cnn);
        if has_cnn != self.cnn_features.is_some() {
            return Err(Error::Usage(
                "--features cnn and --cnn-features FILE go together; `fovea-worker features` makes the file".into(),
            ));
        }
        let mut wanted = Vec::new();
        for &features in &self.features {
            let usual = match features {
                FeatureName::Nayak2008 => ClassifierName::Mlp,
                _ => ClassifierName::Svm,
            };
            let classifiers = match self.classifier.is_empty() {
                true => &[usual][..],
                false => &self.classifier,
            };
            for classifier in classifiers {
                let kernel = match (self.kernel, features) {
                    (Some(KernelName::Rbf), _) => Kernel::Rbf,
                    (Some(KernelName::Linear), _) | (None, FeatureName::Cnn) => Kernel::Linear,
                    (Some(KernelName::Polynomial), _) => Kernel::Polynomial,
                    (None, _) => Kernel::Rbf,
                };
                let method = match classifier {
                    ClassifierName::Svm => Method::Svm(kernel),
                    ClassifierName::Mlp => Method::Mlp,
                };
                if !wanted.contains(&(features, method)) {
                    wanted.push((features, method));
                }
            }
        }
        let svm = wanted.iter().any(|(_, m)| matches!(m, Method::Svm(_)));
        if self.kernel.is_some() && !svm {
            return Err(Error::Usage(
                "--kernel is for a support vector machine: give --classifier svm".into(),
            ));
        }
        Ok(wanted)
    }

    /// The first positive grade.
    ///
    /// # Errors
    /// The labels say another, or have no class that begins there.
    pub fn positive_from(&self) -> Result<u32, Error> {
        match (self.labels.positive_from(), self.positive_from) {
            (Some(said), Some(given)) if said != given => Err(Error::Usage(format!(
                "--labels {} means grade {said} and above: leave --positive-from out",
                self.labels
            ))),
            (Some(said), _) => Ok(said),
            (None, Some(4)) if self.labels == Labels::FourClasses => Err(Error::Usage(
                "--positive-from 4: with four_classes grades 3 and 4 are one class; give 1 to 3"
                    .into(),
            )),
            (None, given) => Ok(given.unwrap_or(2)),
        }
    }
}
