//! Reading the label files that diabetic-retinopathy datasets come with.
//!
//! The columns are found by their header: EyePACS (`image,level`), APTOS (`id_code,diagnosis`),
//! IDRiD (`Image name,Retinopathy grade`) and the adjudicated Messidor-2 grades
//! (`image_id,adjudicated_dr_grade`); spaces and case of the header do not matter, other columns
//! are ignored. The patient is taken from a column `patient` if there is one, else from the image's
//! name ([`crate::eye::patient_and_eye`]).

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::eye::{Eye, name_problem, patient_and_eye};
use crate::lines::Lines;

/// Reads the label file at `path`.
///
/// Rows that cannot be used do not fail the file: they are returned as [`Problem`]s, each naming
/// its row, and the caller decides how many are too many. An error means that the
/// file as a whole cannot be read.
pub fn read(path: &Path, options: &LabelOptions) -> Result<Labels, LabelsError> {
    let at = |source| LabelsError::Io {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(at)?.len();
    if size > MAX_BYTES {
        return Err(LabelsError::TooLarge {
            path: path.to_owned(),
            size,
        });
    }
    let bytes = fs::read(path).map_err(at)?;
    parse(&bytes, path, options)
}

/// Label files are text of tens of bytes a row; the largest public one has 2 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Which columns to read where the header is none of the known ones.
#[derive(Debug, Clone, Default)]
pub struct LabelOptions {
    /// Name of the column with the images' names.
    pub image_column: Option<String>,
    /// Name of the column with the grades.
    pub grade_column: Option<String>,
    /// Name of the column with the patients. Without it a column `patient` is used if there is one.
    pub patient_column: Option<String>,
}

/// A label file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The usable rows in the order of the file; no image is in it twice.
    pub rows: Vec<LabelRow>,
    /// What was wrong with the others, by row.
    pub problems: Vec<Problem>,
    /// Rows of the file, usable or not, without the header and empty lines.
    pub total: usize,
}

/// A usable row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// Line in the file, counting from 1; the header is line 1.
    pub line: u64,
    /// Name of the image, without folder and file ending.
    pub image: String,
    /// Whose eye it is.
    pub patient: String,
    /// Which eye, if the name contains it.
    pub eye: Eye,
    /// 0 to 4.
    pub grade: u8,
}

/// A row that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, counting from 1.
    pub line: u64,
    /// The image's name as the row gives it; may be empty.
    pub image: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?}: {}", self.line, self.image, self.reason)
    }
}

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
    /// The text is not CSV in UTF-8.
    #[error("label file {} is not CSV text in UTF-8: {source}", path.display())]
    Csv {
        /// The label file.
        path: PathBuf,
        /// Where and why.
        source: csv::Error,
    },
    /// The header names no known columns.
    #[error(
        "label file {}: no {column} column in its header ({header}); known headers are \
         'image,level', 'id_code,diagnosis', 'Image name,Retinopathy grade' and \
         'image_id,adjudicated_dr_grade'", path.display()
    )]
    Header {
        /// The label file.
        path: PathBuf,
        /// Which column is missing.
        column: String,
        /// The header as it stands.
        header: String,
    },
    /// There is a header and nothing below it.
    #[error("label file {} has no rows", path.display())]
    Empty {
        /// The label file.
        path: PathBuf,
    },
}

/// Known names of the (image, grade) columns, in lower case.
const KNOWN_HEADERS: [(&str, &str); 4] = [
    ("image", "level"),
    ("id_code", "diagnosis"),
    ("image name", "retinopathy grade"),
    ("image_id", "adjudicated_dr_grade"),
];

struct Columns {
    image: usize,
    grade: usize,
    patient: Option<usize>,
}

fn parse(bytes: &[u8], path: &Path, options: &LabelOptions) -> Result<Labels, LabelsError> {
    let csv_error = |source| LabelsError::Csv {
        path: path.to_owned(),
        source,
    };
    // Spreadsheet programs write a byte-order mark in front of the first column's name.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let columns = find_columns(reader.headers().map_err(csv_error)?, path, options)?;

    let mut collector = Collector::default();
    let mut lines = Lines::new(bytes);
    for record in reader.records() {
        let record = record.map_err(csv_error)?;
        if record.iter().all(str::is_empty) {
            continue;
        }
        let line = lines.of(&record);
        let cell = |column: usize| record.get(column).unwrap_or_default();
        collector.add(
            line,
            without_ending(cell(columns.image)),
            cell(columns.grade),
            columns.patient.map(cell).unwrap_or_default(),
        );
    }
    let labels = collector.finish();
    if labels.total == 0 {
        return Err(LabelsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(labels)
}

fn find_columns(
    header: &csv::StringRecord,
    path: &Path,
    options: &LabelOptions,
) -> Result<Columns, LabelsError> {
    // Copies of IDRiD differ in the spaces of their header, even inside a name.
    let names: Vec<String> = header
        .iter()
        .map(|name| {
            let words: Vec<&str> = name.split_whitespace().collect();
            words.join(" ").to_lowercase()
        })
        .collect();
    let find = |wanted: &str| {
        names
            .iter()
            .position(|n| *n == wanted.trim().to_lowercase())
    };
    let need = |wanted: &str, kind: &str| {
        find(wanted).ok_or_else(|| LabelsError::Header {
            path: path.to_owned(),
            column: format!("{kind} {wanted:?}"),
            header: header.iter().take(20).collect::<Vec<_>>().join(","),
        })
    };
    let known = KNOWN_HEADERS
        .iter()
        .find(|(image, grade)| find(image).is_some() && find(grade).is_some());
    let (known_image, known_grade) = known.copied().unwrap_or(KNOWN_HEADERS[0]);
    let image = options.image_column.as_deref().unwrap_or(known_image);
    let grade = options.grade_column.as_deref().unwrap_or(known_grade);
    Ok(Columns {
        image: need(image, "image")?,
        grade: need(grade, "grade")?,
        patient: match &options.patient_column {
            Some(name) => Some(need(name, "patient")?),
            None => find("patient"),
        },
    })
}

/// Some lists name files; the name of the image is what stands before the ending.
fn without_ending(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, ending)) if crate::folder::is_image_ending(ending) => stem,
        _ => name,
    }
}

/// Gathers rows, watching for images that come twice.
#[derive(Default)]
struct Collector {
    rows: Vec<LabelRow>,
    /// Where an image's first row stands in `rows`.
    first: HashMap<String, usize>,
    /// Rows whose image has another grade elsewhere: nobody knows which is right.
    conflicting: Vec<bool>,
    problems: Vec<Problem>,
    total: usize,
}

impl Collector {
    fn add(&mut self, line: u64, image: &str, grade: &str, patient: &str) {
        self.total += 1;
        match self.check(line, image, grade, patient) {
            Ok(row) => {
                self.first.insert(row.image.clone(), self.rows.len());
                self.rows.push(row);
                self.conflicting.push(false);
            }
            Err(error) => self.problems.push(Problem {
                line,
                // What a broken file holds may be huge; a message stays short.
                image: image.chars().take(80).collect(),
                reason: error.to_string(),
            }),
        }
    }

    fn check(
        &mut self,
        line: u64,
        image: &str,
        grade: &str,
        patient: &str,
    ) -> Result<LabelRow, RowError> {
        if let Some(problem) = name_problem(image) {
            return Err(RowError::Image(problem));
        }
        let grade = parse_grade(grade)?;
        if let Some(&at) = self.first.get(image) {
            let first = &self.rows[at];
            if first.grade == grade {
                return Err(RowError::Duplicate { line: first.line });
            }
            let conflict =
                |here: u8, there: u8, line: u64| RowError::Conflict { here, there, line };
            if !self.conflicting[at] {
                self.conflicting[at] = true;
                self.problems.push(Problem {
                    line: first.line,
                    image: image.to_owned(),
                    reason: conflict(first.grade, grade, line).to_string(),
                });
            }
            return Err(conflict(grade, first.grade, first.line));
        }
        let (from_name, eye) = patient_and_eye(image);
        let patient = if patient.is_empty() {
            from_name
        } else {
            patient
        };
        if let Some(problem) = name_problem(patient) {
            return Err(RowError::Patient(problem));
        }
        Ok(LabelRow {
            line,
            image: image.to_owned(),
            patient: patient.to_owned(),
            eye,
            grade,
        })
    }

    fn finish(mut self) -> Labels {
        let mut conflicting = self.conflicting.iter();
        self.rows.retain(|_| conflicting.next() == Some(&false));
        self.problems.sort_by_key(|problem| problem.line);
        Labels {
            rows: self.rows,
            problems: self.problems,
            total: self.total,
        }
    }
}

/// Why a row cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum RowError {
    /// The image's name.
    #[error("{0}")]
    Image(&'static str),
    /// The patient's name.
    #[error("patient: {0}")]
    Patient(&'static str),
    /// The image has a row already, with the same grade.
    #[error("duplicate row: the image is on line {line} already, with the same grade")]
    Duplicate {
        /// That row's line.
        line: u64,
    },
    /// The image has another row, with another grade.
    #[error(
        "conflicting labels: grade {here} here, grade {there} on line {line}; the image is left out"
    )]
    Conflict {
        /// The grade of this row.
        here: u8,
        /// The grade of the other.
        there: u8,
        /// The other's line.
        line: u64,
    },
    /// A number that is no grade.
    #[error("grade {0} is outside 0 to 4")]
    GradeOutside(i64),
    /// No grade.
    #[error("the grade is empty")]
    GradeEmpty,
    /// A text that is no number, shortened.
    #[error("grade {0:?} is not a whole number from 0 to 4")]
    GradeText(String),
}

fn parse_grade(text: &str) -> Result<u8, RowError> {
    // A column that also has empty cells is often saved as 0.0, 1.0, ...
    let digits = text.strip_suffix(".0").unwrap_or(text);
    match digits.parse::<i64>() {
        Ok(grade @ 0..=4) => Ok(grade as u8),
        Ok(grade) => Err(RowError::GradeOutside(grade)),
        Err(_) if text.is_empty() => Err(RowError::GradeEmpty),
        Err(_) => Err(RowError::GradeText(text.chars().take(40).collect())),
    }
}

#[cfg(test)]
mod tests;
