//! The arguments of `fovea evaluate` and `fovea report`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use fovea_core::spec::Part;
use fovea_judging::Which;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea evaluate dr-1                              on the validation split, from the scores that are kept
  fovea evaluate dr-1 --split test                 on the test part: once, when everything is decided
  fovea evaluate dr-1 --dataset messidor2          on all photographs of another dataset
  fovea evaluate dr-1 --rotations                  the mean over four rotations of each photograph
  fovea evaluate dr-1 --csv scores.csv             and the score of each photograph

Anything but the validation split after an epoch is scored on the cluster by a run of its own, which is
listed, watched and cancelled like any other. What was scored before is not scored again.

Each figure has a 95 % interval from a bootstrap over patients: the two eyes of a patient are not
independent. Thresholds are chosen on the validation split of the run, scored in the same way, and used
on what is evaluated: on the validation split itself they look better than they are, and so does the
checkpoint that was chosen as the best of several. The test part of a dataset is for one final figure.
Each use of it is recorded in the run and shown.

The fellow-eye reference is what copying the grade of the patient's other eye would score. A model that
does not beat it has not been shown to see anything.")]
pub struct Evaluate {
    /// The run's id, such as dr-1
    pub run: String,
    /// The part to evaluate on: validation, test, train or all [default: validation; with --dataset all]
    #[arg(long, value_name = "PART", hide_possible_values = true)]
    pub split: Option<PartName>,
    /// Another dataset of the coordinator
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// The checkpoint: best (by the validation metric that the run keeps checkpoints by), newest, or a step
    #[arg(long, value_name = "STEP", default_value = "best")]
    pub checkpoint: WhichCheckpoint,
    /// Score each photograph as the mean over its four rotations by a quarter turn: four times the work
    #[arg(long)]
    pub rotations: bool,
    /// Sensitivity that the high-sensitivity point must reach on the validation split
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub sensitivity: f64,
    /// Specificity that the high-specificity point must reach on the validation split
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub specificity: f64,
    /// Draws of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub draws: u32,
    /// Write the score of each photograph to this CSV file
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Replace the file that --csv names
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea report dr-1                                 writes dr-1.html
  fovea evaluate dr-1 --split test && fovea report dr-1 -o final.html
  fovea report dr-1 --photographs eyepacs-224       with heat maps of the worst errors

The report is one HTML file that loads nothing: curves, ROC with operating points, reliability diagram,
confusion matrix, the worst errors, split and leak check, spec, fingerprint and cost. It shows the
validation split and all that this checkpoint was evaluated on before; it never uses the test part by
itself.")]
pub struct Report {
    /// The run's id, such as dr-1
    pub run: String,
    /// The file to write [default: RUN.html]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The checkpoint: best, newest, or a step, as in `fovea evaluate`
    #[arg(long, value_name = "STEP", default_value = "best")]
    pub checkpoint: WhichCheckpoint,
    /// The folder of the prepared dataset that was judged: the worst errors then show where the model looked
    ///
    /// A worker computes these class activation maps, as for `fovea predict --maps`: of the last module, coarse, in log-odds.
    #[arg(long, value_name = "DIR")]
    pub photographs: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub overwrite: bool,
}

/// A part of a dataset, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    Train,
    Validation,
    Test,
    All,
}

impl From<PartName> for Part {
    fn from(name: PartName) -> Self {
        match name {
            PartName::Train => Self::Train,
            PartName::Validation => Self::Validation,
            PartName::Test => Self::Test,
            PartName::All => Self::All,
        }
    }
}

/// A checkpoint, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhichCheckpoint(pub Which);

/// Neither a word that is known nor a number.
#[derive(Debug, thiserror::Error)]
#[error("give best, newest, or the step as a number")]
pub struct WhichError;

impl FromStr for WhichCheckpoint {
    type Err = WhichError;

    fn from_str(text: &str) -> Result<Self, WhichError> {
        Ok(Self(match text {
            "best" => Which::Best,
            "newest" => Which::Newest,
            _ => Which::At(text.parse().map_err(|_| WhichError)?),
        }))
    }
}

/// A share above 0.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("give a number above 0 and at most 1, such as 0.95".into()),
    }
}
