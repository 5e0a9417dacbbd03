//! What the report of a group of runs shows.

use fovea_evaluation::{Estimate, Evaluated};

use crate::model::{JudgedPart, Labels};
use crate::number::Unit;

/// Runs that were submitted together, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupReport {
    /// Id of the group.
    pub id: String,
    /// Name of the spec from which its runs were made.
    pub name: String,
    /// What its runs differ in, such as "5 folds".
    pub differing: String,
    /// Milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    pub submitted_by: Option<String>,
    /// Name of the dataset that was judged on.
    pub dataset: String,
    /// On which photographs, and which checkpoints, such as "what each run held out, newest checkpoints".
    pub judged: String,
    pub labels: Labels,
    /// Its judged runs.
    pub runs: Vec<GroupRun>,
    /// Runs that are not judged, because they have not completed or were removed.
    pub left_out: Vec<String>,
    /// Figures over the runs.
    pub spread: Vec<SpreadRow>,
    /// All held-out photographs together, of each seed; empty unless the runs are folds.
    pub together: Vec<JudgedPart>,
    /// What the reader should know of the figures, as sentences.
    pub notes: Vec<String>,
    /// The spec of the first run as TOML.
    pub spec: String,
    /// Milliseconds since the Unix epoch.
    pub written_at_ms: u64,
    /// Version of Fovea.
    pub written_by: String,
}

/// A run of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRun {
    pub id: String,
    /// What it differs in, such as "fold 2 of 5".
    pub title: String,
    /// Step of its checkpoint.
    pub step: u64,
    pub evaluated: Evaluated,
    /// At the threshold 0.5, which nobody chose.
    pub sensitivity: Option<Estimate>,
    pub specificity: Option<Estimate>,
}

/// A figure over the runs.
#[derive(Debug, Clone, PartialEq)]
pub struct SpreadRow {
    /// Such as "AUC".
    pub name: String,
    pub unit: Unit,
    /// Number of runs in which it is defined.
    pub runs: usize,
    pub mean: f64,
    /// Standard deviation. None for one run.
    pub deviation: Option<f64>,
    pub lowest: f64,
    pub highest: f64,
}
