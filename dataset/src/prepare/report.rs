//! The results and errors of [`super::prepare`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::leftovers::Swept;
use crate::labels::{LabelRemark, LabelsError};
use crate::{Counts, Flaw, GRADES, GradeScale, ManifestError, Split};
use fovea_core::count;
use fovea_core::pipeline::Pipeline;

/// The dataset that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareReport {
    /// The dataset's folder.
    pub dir: PathBuf,
    /// The dataset's digest.
    pub digest: String,
    /// How photographs became its images.
    pub pipeline: Pipeline,
    /// What the grades mean.
    pub scale: GradeScale,
    /// Samples by side and grade.
    pub counts: Counts,
    /// Patients of each side, in the order of [`Split::ALL`].
    pub patients: [usize; 3],
    /// Number of packs.
    pub packs: usize,
    /// Rows that were left out, in the order of the label file.
    pub excluded: Vec<Excluded>,
    /// Things that a person should check.
    pub warnings: Vec<Warning>,
    /// How many photographs have which flaw; `quality.csv` in the dataset's folder names them.
    pub flaws: BTreeMap<Flaw, usize>,
}

/// A row of the label file that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// Its line in the label file, from 1; 0 if the labels are no table.
    pub line: u64,
    /// The image it names; may be empty.
    pub image: String,
    /// Why.
    pub reason: String,
    /// Whether the data set is known to hold such rows: they do not count as bad.
    pub expected: bool,
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.image.is_empty() {
            "(no name)"
        } else {
            &self.image
        };
        match self.line {
            0 => write!(f, "{name}: {}", self.reason),
            line => write!(f, "{name} (line {line}): {}", self.reason),
        }
    }
}

/// Something that does not prevent the dataset but that a person should know.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// Photographs on which no circle was found; the bounding box of the bright part was used.
    NoCircle {
        /// Their images.
        images: Vec<String>,
    },
    /// Images of different names that show one photograph.
    SamePixels {
        /// Whether their pixels are the very same; else it was saved again, perhaps at another size.
        exact: bool,
        /// The images, each with its grade.
        images: Vec<(String, u8)>,
        /// Whether they belong to different patients.
        across_patients: bool,
        /// The sides on which they are.
        splits: Vec<Split>,
    },
    /// Photographs of different patients that look like one eye, though not like copies.
    OneEye {
        /// How many pairs there are.
        pairs: usize,
        /// The most alike, at most 48: their images, and the correlation of their detail.
        most_alike: Vec<(String, String, f32)>,
    },
    /// About the label file.
    Labels(LabelRemark),
    /// The pictures of an archive are smaller than any photograph that is read, and were enlarged.
    Enlarged {
        /// Their width in pixels.
        width: u32,
        /// Their height in pixels.
        height: u32,
    },
    /// On a side, all images are referable (grade 2 and above), or none is.
    OneClass {
        /// The side.
        split: Split,
        /// Its images of each grade.
        counts: [u64; GRADES],
    },
    /// Photographs that the label file does not name.
    Unlabelled {
        /// How many.
        count: usize,
        /// Some of their files.
        examples: Vec<String>,
    },
    /// A temporary folder of a killed process was removed.
    Leftover {
        /// The folder.
        path: PathBuf,
    },
    /// The dataset that a killed process was replacing was moved back to its place.
    Restored {
        /// The dataset's folder.
        path: PathBuf,
    },
}

impl From<Swept> for Warning {
    fn from(swept: Swept) -> Self {
        match swept {
            Swept::Removed(path) => Warning::Leftover { path },
            Swept::Restored(path) => Warning::Restored { path },
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::NoCircle { images } => write!(
                f,
                "no fundus circle found in {}, the bounding box of the bright part was used: {}",
                images.len(),
                shortened(images, 20)
            ),
            Warning::SamePixels {
                exact,
                images,
                across_patients,
                splits,
            } => {
                let list: Vec<String> = images
                    .iter()
                    .map(|(image, grade)| format!("{image} (grade {grade})"))
                    .collect();
                let what = if *exact {
                    "same pixels"
                } else {
                    "one photograph, saved again"
                };
                write!(f, "{what}: {}", shortened(&list, 20))?;
                if images.iter().any(|(_, grade)| *grade != images[0].1) {
                    f.write_str("; their labels conflict")?;
                }
                if *across_patients {
                    f.write_str("; labelled as different patients")?;
                }
                if let [first, .., last] = splits.as_slice() {
                    write!(f, "; in both {first} and {last}")?;
                }
                Ok(())
            }
            Warning::OneEye { pairs, most_alike } => {
                let list: Vec<String> = most_alike
                    .iter()
                    .map(|(a, b, likeness)| format!("{a} and {b} ({likeness:.2})"))
                    .collect();
                write!(
                    f,
                    "{} though they are of different patients, perhaps of one eye (in brackets how alike, at most 1; copies reach \
                     {:.2}): {}{}; if they are, put them under one patient",
                    count::count(*pairs, "pair looks alike", "pairs look alike"),
                    crate::likeness::LEAST,
                    list.join(", "),
                    if *pairs > list.len() { ", ..." } else { "" }
                )
            }
            Warning::Labels(remark) => remark.fmt(f),
            Warning::Enlarged { width, height } => write!(
                f,
                "the pictures have only {width} x {height} pixels and were enlarged: most lesions cannot be seen in them; take a \
                 larger edition, such as retinamnist_224.npz"
            ),
            Warning::OneClass { split, counts } => {
                let none = counts[2..].iter().all(|n| *n == 0);
                let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
                write!(
                    f,
                    "the {split} split has images of one class only: {} is referable (images of grades 0 \
                     to 4: {}); nothing can be learned or measured there with positive_from = 2",
                    if none { "none" } else { "every one" },
                    counts.join("/")
                )
            }
            Warning::Unlabelled { count, examples } => write!(
                f,
                "{} not used: {}{}",
                count::count(
                    *count,
                    "image has no label and is",
                    "images have no label and are"
                ),
                examples.join(", "),
                if *count > examples.len() { ", ..." } else { "" }
            ),
            Warning::Leftover { path } => write!(
                f,
                "removed {}, which a killed process had left",
                path.display()
            ),
            Warning::Restored { path } => write!(
                f,
                "{}: restored the dataset that a killed process was replacing",
                path.display()
            ),
        }
    }
}

fn shortened(items: &[String], most: usize) -> String {
    let shown = items[..items.len().min(most)].join(", ");
    match items.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Why no dataset was made. Nothing was written to the destination.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// An option has an impossible value.
    #[error("{option} {problem}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The label file cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// More bad rows and photographs than allowed.
    #[error("{}", too_many(excluded, *total, *unlabelled, unlabelled_examples, *allowed))]
    TooManyBad {
        /// All of them, in the order of the label file.
        excluded: Vec<Excluded>,
        /// Rows of the label file.
        total: usize,
        /// Photographs without a label, if they count.
        unlabelled: usize,
        /// Some of their files.
        unlabelled_examples: Vec<String>,
        /// How many were allowed.
        allowed: usize,
    },
    /// The split file cannot be used.
    #[error("split file {}: {problem}", path.display())]
    SplitFile {
        /// The split file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The split file puts a patient on two sides.
    #[error(
        "split file {}: patient {patient:?} is in both {} ({}) and {} ({}); put all images of a patient \
         on one side", path.display(), images[0].0, images[0].1, images[1].0, images[1].1
    )]
    PatientInTwoSplits {
        /// The split file.
        path: PathBuf,
        /// The patient.
        patient: String,
        /// Two sides, and one of the patient's images on each.
        images: [(Split, String); 2],
    },
    /// Copies of a photograph belong to different patients.
    #[error("{}", copies_text(copies))]
    Copies {
        /// What is known of each.
        copies: Vec<Warning>,
    },
    /// One side would be empty.
    #[error("the {split} split would be empty: {}", why_empty(*split, *imposed))]
    EmptySplit {
        /// The side.
        split: Split,
        /// Whether a file imposes the split.
        imposed: bool,
    },
    /// Something is at the destination already.
    #[error("{} exists already: {hint}", out.display())]
    Exists {
        /// The destination.
        out: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A photograph is there, and the disk does not give it. What it shows and whose it is is not known.
    #[error(
        "{}: cannot be read now: {source}. That says nothing about the photograph, so it is not left out as a bad one: correct the \
         cause and prepare again, or take the file out of the images folder", path.display()
    )]
    Unreadable {
        /// The photograph.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The threads cannot be started.
    #[error("cannot start the threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// [`super::Progress::cancelled`] returned true.
    #[error("stopped on request; nothing was written")]
    Cancelled,
    /// A reader would refuse the manifest.
    #[error("no valid manifest can be written for the dataset: {0}")]
    Manifest(#[from] ManifestError),
}

fn why_empty(split: Split, imposed: bool) -> String {
    let least = match split {
        Split::Test => "three",
        Split::Train | Split::Validation => "two",
    };
    match imposed {
        true => "the split file names no usable image for it".to_owned(),
        false => {
            format!("too few patients, at least {least} of one grade are needed to hold one out")
        }
    }
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> PrepareError {
    PrepareError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> PrepareError {
    PrepareError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

/// Most unusable images that an error lists.
const LISTED: usize = 20;

fn too_many(
    excluded: &[Excluded],
    total: usize,
    unlabelled: usize,
    examples: &[String],
    allowed: usize,
) -> String {
    let mut parts = Vec::new();
    if !excluded.is_empty() {
        parts.push(format!("{} of {total} rows cannot be used", excluded.len()));
    }
    if unlabelled > 0 {
        parts.push(count::count(
            unlabelled,
            "image has no label",
            "images have no label",
        ));
    }
    let allowed = count::count(allowed, "is allowed", "are allowed");
    let mut text = format!(
        "{}, {allowed}; repair them, or allow more bad images:",
        parts.join(" and "),
    );
    if unlabelled > 0 {
        let more = if unlabelled > examples.len() {
            ", ..."
        } else {
            ""
        };
        text += &format!("\n  without a label: {}{more}", examples.join(", "));
    }
    for one in excluded.iter().take(LISTED) {
        text += &format!("\n  {one}");
    }
    if let more @ 1.. = excluded.len().saturating_sub(LISTED) {
        text += &format!("\n  ... and {more} more");
    }
    text
}

fn copies_text(copies: &[Warning]) -> String {
    let mut text = format!(
        "{} under names of different patients, so what is trained on could be evaluated with; remove the \
         copies, or put all images of a patient under one patient:",
        count::count(
            copies.len(),
            "photograph is there several times",
            "photographs are there several times"
        )
    );
    for one in copies.iter().take(LISTED) {
        text += &format!("\n  {one}");
    }
    if let more @ 1.. = copies.len().saturating_sub(LISTED) {
        text += &format!("\n  ... and {more} more");
    }
    text
}
