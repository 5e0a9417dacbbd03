//! What a report says.

use fovea_core::checkpoint::Fingerprint;
use fovea_core::run::EpochResult;
use fovea_core::spec::Head;
use fovea_evaluation::{Evaluated, FellowEye};

/// Everything about a run that its report shows. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub run: RunFacts,
    pub labels: Labels,
    /// Results of the validation split after each epoch.
    pub epochs: Vec<EpochResult>,
    /// The learning rate over the run; empty if it is not known.
    pub learning_rates: Vec<LearningRate>,
    pub judged: Judged,
    pub dataset: Dataset,
    /// The parts on which the checkpoint was judged. The first one is shown in the head.
    pub results: Vec<JudgedPart>,
    /// Each evaluation of the run that read a test part, by itself or among others.
    pub test_uses: Vec<TestUse>,
    pub worst_errors: Option<WorstErrors>,
    /// What the reader must know, in words. The report adds those that follow from its own data, such as patients on both
    /// sides of the split.
    pub warnings: Vec<String>,
    pub written_at_ms: u64,
    /// Fovea's version that wrote the report, with its commit.
    pub written_by: String,
}

/// The run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFacts {
    pub id: String,
    pub name: String,
    /// Id of the group to which it belongs.
    pub group: Option<String>,
    pub submitted_at_ms: u64,
    /// Who submitted it; None without TLS.
    pub submitted_by: Option<String>,
    /// Its phase in one word, such as "completed".
    pub state: String,
    /// Why it is in that state, where there is a reason.
    pub reason: Option<String>,
    /// The spec as TOML.
    pub spec: String,
    /// Machine and libraries; None before the first checkpoint.
    pub fingerprint: Option<Fingerprint>,
    pub cost: Cost,
}

/// What the run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Training images a second over all workers; None if nobody measured it.
    pub images_per_s: Option<f64>,
    /// Hours from its first step to its last, pauses included.
    pub hours: Option<f64>,
    /// Committed steps.
    pub steps: u64,
    /// The largest number of workers at a time.
    pub workers: u32,
}

/// What the model's classes mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// Name of each class.
    pub classes: Vec<String>,
    /// The first class that counts as positive.
    pub positive_class: usize,
    /// The first grade that counts as positive, 1 to 4.
    pub positive_from: u8,
    /// What positive means, such as "referable DR".
    pub positive: String,
    /// It decides which class the model names.
    pub head: Head,
}

impl Labels {
    /// The class that the model names, in words.
    pub(crate) fn named(&self) -> &'static str {
        match self.head {
            Head::Softmax => "most probable class",
            Head::Ordinal => "median class",
        }
    }
}

/// The learning rate at a time of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// Epochs since the start of the run; 1.5 is in the middle of the second.
    pub epochs: f64,
    pub rate: f64,
}

/// The checkpoint that is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Committed steps.
    pub step: u64,
    /// The epoch that ends with it, 0-based; None for a checkpoint within an epoch.
    pub epoch: Option<u32>,
    /// How it was chosen, such as "highest validation AUC of 30 epochs".
    pub chosen: String,
}

/// The data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    pub name: String,
    /// SHA-256 in hexadecimal.
    pub digest: String,
    /// None if the data set is not there any more.
    pub facts: Option<DatasetFacts>,
}

/// What is known of a data set that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetFacts {
    /// Training, validation and test, as far as there are such.
    pub splits: Vec<Split>,
    /// The steps from a photograph to the model's input, in words.
    pub preprocessing: Vec<String>,
    /// What the grades mean, in words.
    pub scale: String,
    pub leak_check: LeakCheck,
}

/// A part of the data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Such as "Training".
    pub name: String,
    /// Number of photographs of each grade, 0 to 4.
    pub by_grade: [u64; 5],
    /// Number of patients; None if it is not known whose photographs they are.
    pub patients: Option<u64>,
}

/// Whether something of one side of the split is on another one, too.
#[derive(Debug, Clone, PartialEq)]
pub struct LeakCheck {
    pub patients: Patients,
    /// None if it was not recorded whether anybody looked for duplicates.
    pub duplicates: Option<Duplicates>,
}

/// Patients and the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patients {
    /// The number of patients with photographs on more than one side.
    OnSeveralSides(u64),
    /// It is not known whose photographs they are: each was taken as a patient of its own.
    Unknown,
}

/// Photographs that are on one side of the split and, the same or nearly so, on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicates {
    /// With the very same pixels.
    pub exact: u64,
    /// Saved again; None if those were not sought.
    pub near: Option<u64>,
    /// Photographs that are there several times, on one side or several.
    pub found: u64,
}

/// A set of photographs on which the checkpoint was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedPart {
    /// Such as "Test" or "messidor2, all".
    pub title: String,
    /// What the reader should know of it, such as that the checkpoint was chosen on it.
    pub about: Option<String>,
    pub evaluated: Evaluated,
    /// What copying the other eye's grade would score; None where no patient has both eyes in the part.
    pub fellow_eye: Option<FellowEye>,
    pub points_from: PointsFrom,
}

/// Where the operating points were chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointsFrom {
    /// On another part, of this name.
    Other(String),
    /// On the part itself: what they give is better than it would be elsewhere.
    Same,
    /// Nowhere: there is only the threshold 0.5.
    Fixed,
}

/// Somebody looked at how a checkpoint does on the test part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestUse {
    pub at_ms: u64,
    /// None without TLS.
    pub by: Option<String>,
    /// Name of the data set whose test part it is.
    pub dataset: String,
    /// What was scored, such as "test of eyes" or "all of eyes".
    pub scored: String,
}

/// Photographs about which the model is most wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct WorstErrors {
    /// Title of the part they are from.
    pub part: String,
    /// The worst first.
    pub all: Vec<WorstError>,
}

/// A photograph about which the model is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct WorstError {
    pub image: String,
    pub patient: String,
    /// The grade that people gave, 0 to 4.
    pub grade: u8,
    /// Class index of that grade.
    pub label: usize,
    /// The class that the model names.
    pub predicted: usize,
    /// The model's probability that it is positive, 0 to 1.
    pub p_positive: f64,
    /// Such as "dark" or "blurred"; None if nothing was noted.
    pub quality: Option<String>,
    /// A PNG of where the model looked, over the photograph.
    pub heat_map: Option<Vec<u8>>,
}

impl JudgedPart {
    /// "1,812 photographs of 906 patients".
    pub(crate) fn basis(&self) -> String {
        crate::number::basis(self.evaluated.samples, self.evaluated.patients)
    }
}

/// A grade of the International Clinical Diabetic Retinopathy scale, with its name.
pub(crate) fn grade(grade: u8) -> String {
    let name = match grade {
        0 => "no DR",
        1 => "mild",
        2 => "moderate",
        3 => "severe",
        4 => "proliferative",
        _ => return grade.to_string(),
    };
    format!("{grade} {name}")
}
