//! Why a label file as a whole cannot be read.

use std::io;
use std::path::PathBuf;

use super::{ColumnsError, FoldersError, TableError};

/// Why a label file as a whole cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// The file cannot be opened or read.
    #[error("label file {}: {source}", path.display())]
    Io {
        /// The label file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No label file is that large.
    #[error("label file {} has {size} bytes: is it really a CSV of labels?", path.display())]
    TooLarge {
        /// The label file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file is no table.
    #[error("label file {}: {}", path.display(), table_problem(source))]
    Table {
        /// The label file.
        path: PathBuf,
        /// Where and why.
        source: TableError,
    },
    /// The header does not tell the columns.
    #[error("label file {}: {source}", path.display())]
    Columns {
        /// The label file.
        path: PathBuf,
        /// Which, and what to do.
        source: ColumnsError,
    },
    /// The folders are no labels.
    #[error("{}: {source}", path.display())]
    Folders {
        /// The folder with the folders.
        path: PathBuf,
        /// What is wrong.
        source: FoldersError,
    },
    /// There is a header and nothing below it.
    #[error("label file {} has no rows", path.display())]
    Empty {
        /// The label file.
        path: PathBuf,
    },
    /// The patients of too many images are not known.
    #[error(
        "label file {}: {untold} of {total} images do not tell their patient ({}), so photographs of \
         one patient could be both trained on and held out. {}{}", path.display(), examples.join(", "),
        what_to_do(.missing_pairs.as_deref()), perhaps(.repeating.as_deref())
    )]
    Untold {
        /// The label file.
        path: PathBuf,
        /// How many.
        untold: usize,
        /// Usable rows.
        total: usize,
        /// Some of their names.
        examples: Vec<String>,
        /// A column that is not read and may be the patient.
        repeating: Option<String>,
        /// The table that would tell, which is missing.
        missing_pairs: Option<String>,
    },
    /// A column with patients and a pattern for names.
    #[error(
        "label file {}: the column {column:?} tells the patient, and --patient-pattern would too: leave \
         the pattern out, or give --columns patient=none", path.display()
    )]
    ColumnAndPattern {
        /// The label file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// The patients of a column are not those of the names.
    #[error(
        "label file {}: the column {column:?} gives {} and {}, by their names eyes of one patient, to \
         different patients (so do {patients} patients' photographs): if the column is right, give \
         --columns \"patient={column}\", else --columns patient=none", path.display(), images[0], images[1]
    )]
    ColumnSplitsPatients {
        /// The label file.
        path: PathBuf,
        /// The column.
        column: String,
        /// How many patients by name.
        patients: usize,
        /// Two images.
        images: [String; 2],
    },
    /// Names give one patient more photographs than anybody has.
    #[error(
        "label file {}: by their names, {images} images are of one patient, {patient:?}: say which part \
         of a name is the patient with --patient-pattern, or give a column with the patient",
        path.display()
    )]
    Crowded {
        /// The label file.
        path: PathBuf,
        /// The patient.
        patient: String,
        /// The patient's images.
        images: usize,
    },
    /// Names give no patient both eyes.
    #[error(
        "label file {}: by their names, such as {}, the images are of {patients} patients, of whom none has both eyes: perhaps \
         the name numbers the photograph or the visit. Give a column with the patient, or say which part of a name is the patient \
         with --patient-pattern (if it is all before the eye: '{}'), or --each-image-a-patient if each shows another \
         patient", path.display(), images.join(" and "), BEFORE_THE_EYE
    )]
    NoneHasBoth {
        /// The label file.
        path: PathBuf,
        /// How many patients by name.
        patients: usize,
        /// Some images.
        images: Vec<String>,
    },
    /// The table that pairs images cannot be used.
    #[error("{}: {problem}", path.display())]
    Pairs {
        /// That table.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A pattern for names that end with the eye.
const BEFORE_THE_EYE: &str = "(?i)^(.+)[_. -](?:left|right|l|r|os|od)$";

fn table_problem(source: &TableError) -> String {
    // A sentence whose subject is the file goes on after its name.
    let text = source.to_string();
    match text.starts_with("line ") {
        true => text,
        false => format!("it {text}"),
    }
}

fn what_to_do(missing_pairs: Option<&str>) -> String {
    let usual = "Give a column with the patient (--columns patient=NAME), a pattern for the names \
                 (--patient-pattern), or --each-image-a-patient if each shows another patient";
    match missing_pairs {
        Some(name) => {
            format!("Put {name}, which comes with the photographs, beside the label file. {usual}")
        }
        None => usual.to_owned(),
    }
}

fn perhaps(repeating: Option<&str>) -> String {
    repeating.map_or_else(String::new, |column| {
        format!(". The values of the column {column:?} repeat as those of patients do")
    })
}
