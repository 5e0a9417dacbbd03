//! What both programs are asked for in the same words.

use std::path::PathBuf;

use fovea_dataset::Preprocessing;
use fovea_dataset::patient::PatientPattern;

/// Explains the table, below the help of both programs.
pub const HELP: &str = "\
The table has a row for each photograph: file, patient and eye where the name (10_left, P003-OD) or a DICOM
tag tells them, the class that the model names, score (the probability of the positive classes), the
probability of each class, and notes on the quality: dark, blurred, no disc, not red. A photograph that cannot be
read has a row with the reason in the column error; the others are scored, and the exit code is 9.

Photographs are prepared as those that the model learnt from: the model says how. Another pipeline is refused.

--rotations scores each photograph at 0, 90, 180 and 270 degrees and takes the mean of the probabilities.
--fuse-eyes adds patient_score: the mean of both eyes' scores, or that of the one eye that is there; several
photographs of an eye count as their mean. All scored rows of a patient have the same. It averages out errors, and
findings, too: a patient with one ill eye scores lower than that eye.

--maps DIR writes a picture for each photograph: beside it, in colour, where the evidence for positive lies
(class activation map, Zhou et al. 2016). It shows what the model looked at, and no outline of lesions.

Research software, not a medical device.";

/// What to predict and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// Photographs (JPEG, PNG, TIFF, BMP, WebP, DICOM), and folders that are searched with their sub-folders
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The table to write (CSV) [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write a picture of each photograph's class activation map into this folder
    #[arg(long, value_name = "DIR")]
    pub maps: Option<PathBuf>,
    /// The mean over four rotations of each photograph: four times the work
    #[arg(long)]
    pub rotations: bool,
    /// Add a column with the patient's score: the mean of both eyes
    #[arg(long)]
    pub fuse_eyes: bool,
    /// Regular expression whose first group is the patient in a file's name, such as '^([0-9]+)_'
    #[arg(long, value_name = "REGEX")]
    pub patient_pattern: Option<PatientPattern>,
    /// How the model's photographs were prepared, where its file does not say: crop, none, ben-graham, clahe:clip=3,tiles=4
    #[arg(long, value_name = "METHOD")]
    pub preprocess: Option<Preprocessing>,
    /// Replace the table and pictures that are there
    #[arg(long)]
    pub overwrite: bool,
}
