//! Reading the label files that diabetic-retinopathy datasets come with.
//!
//! The columns are found by their header, named by a person ([`ColumnNames`]), or known of a public data
//! set ([`Importer`]); spaces and case of the header do not matter. The patient is taken from the one
//! column that is the patient, else from the image's name ([`crate::patient`]). A column that only looks
//! like the patient is refused by name: read wrongly, it would put eyes of a patient on both sides of
//! the split.

mod columns;
mod error;
mod folders;
mod grade;
mod importer;
mod likeness;
pub(crate) mod npz;
mod pairs;
mod patients;
mod remarks;
mod rows;

use std::fmt;
use std::fs;
use std::path::Path;

use crate::patient::PatientPattern;
use crate::table::{self, Header, Row, Table};
use crate::{Eye, GradeScale};

pub use crate::table::{EncodingRemark, TableError};
pub use columns::{ColumnNames, ColumnNamesError, ColumnsError, PatientColumn};
pub use error::LabelsError;
pub use folders::FoldersError;
pub use grade::Scale;
pub use importer::{Importer, ImporterError};
pub use remarks::LabelRemark;

use columns::Columns;
use importer::Patients;
use pairs::Pairs;
use rows::{Cells, Collector, PatientFindings};

/// Reads the label file at `path`, or what the data set has in its place: a folder with a folder for each
/// grade, or an archive.
///
/// Rows that cannot be used do not fail the file: they are returned as [`Problem`]s, each naming
/// its row, and the caller decides how many are too many. An error means that the
/// file as a whole cannot be read. Whether enough images tell their patient is
/// [`check_told`]'s question, because the photographs may tell more of them.
pub fn read(path: &Path, options: &LabelOptions) -> Result<Labels, LabelsError> {
    let at = |source| LabelsError::Io {
        path: path.to_owned(),
        source,
    };
    match options.from {
        Some(Importer::Folders) => {
            let images = folders::list(path).map_err(|source| LabelsError::Folders {
                path: path.to_owned(),
                source,
            })?;
            let rows = images
                .iter()
                .map(|(image, grade)| (&**image, grade.to_string()));
            return without_table(rows, path, options);
        }
        Some(Importer::Retinamnist) => {
            let archive = npz::Archive::open(path).map_err(at)?;
            let rows = archive.images.iter();
            let rows = rows.map(|(image, grade, _)| (&**image, grade.clone()));
            return without_table(rows, path, options);
        }
        _ => {}
    }
    let size = fs::metadata(path).map_err(at)?.len();
    if size > MAX_BYTES {
        return Err(LabelsError::TooLarge {
            path: path.to_owned(),
            size,
        });
    }
    let bytes = fs::read(path).map_err(at)?;
    let pairs = match options.from.map(|importer| importer.recipe().patients) {
        Some(Patients::Pairs(name)) => pairs::read(path, name)?,
        _ => Pairs::new(),
    };
    parse(&bytes, path, options, &pairs)
}

/// Label files are text of tens of bytes a row; the largest public one has 2 MB.
const MAX_BYTES: u64 = 256 << 20;

/// How to read a label file.
#[derive(Debug, Clone, Default)]
pub struct LabelOptions {
    /// The data set that it is.
    pub from: Option<Importer>,
    /// Its columns, where the header or the data set does not tell them.
    pub columns: ColumnNames,
    /// How images' names tell the patient, instead of the usual forms.
    pub patient_pattern: Option<PatientPattern>,
    /// Whether images that tell no patient count as a patient each, however many they are.
    pub each_image_a_patient: bool,
}

impl LabelOptions {
    /// What the grades mean, as far as the data set tells.
    pub fn scale(&self) -> GradeScale {
        match self.from {
            // Whoever made the folders named them.
            None | Some(Importer::Folders) => GradeScale::Unstated,
            Some(from) => match from.recipe().scale {
                Scale::Icdr => GradeScale::Icdr,
                Scale::Messidor => GradeScale::Messidor,
            },
        }
    }
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
    /// What a person should know about the file.
    pub remarks: Vec<LabelRemark>,
    /// A column of a name that says nothing, whose values repeat as those of patients do; it is not read.
    pub repeating: Option<String>,
}

/// A usable row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// Line in the file, counting from 1; the header is line 1. 0 if the labels are no table.
    pub line: u64,
    /// Name of the image, without folder and file ending.
    pub image: String,
    /// Whose eye it is; the image's name if nothing tells.
    pub patient: String,
    /// Whether a column or the name tells the patient.
    pub told: bool,
    /// Which eye, if the name or a column tells it.
    pub eye: Eye,
    /// 0 to 4.
    pub grade: u8,
}

/// A row that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, counting from 1; 0 if the labels are no table.
    pub line: u64,
    /// The image's name as the row gives it; may be empty.
    pub image: String,
    /// What is wrong.
    pub reason: String,
    /// Whether the data set is known to hold such rows: then it is no mistake.
    pub expected: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{:?}: {}", self.image, self.reason)
    }
}

/// Most images, in percent, whose patient may be unknown unless a person allows it.
const MAX_UNTOLD_PERCENT: usize = 5;

fn parse(
    bytes: &[u8],
    path: &Path,
    options: &LabelOptions,
    pairs: &Pairs,
) -> Result<Labels, LabelsError> {
    let recipe = options.from.map(Importer::recipe);
    let of_table = |source| LabelsError::Table {
        path: path.to_owned(),
        source,
    };
    let header = match recipe {
        Some(recipe) if recipe.headless && is_headless(bytes) => Header::None {
            names: &["image", "grade"],
        },
        _ => Header::FirstLine,
    };
    let table = table::parse(bytes, header).map_err(of_table)?;
    let columns = columns::find(&table, &options.columns, options.from).map_err(|source| {
        LabelsError::Columns {
            path: path.to_owned(),
            source,
        }
    })?;
    let mut collector = Collector::new(options);
    for row in &table.rows {
        collector.add(&cells(row, &columns, &table));
    }
    let column = columns.patient.filter(|_| !columns.patient_is_sure);
    let column = column.map(|column| table.header[column].as_str());
    let mut labels = finish(collector, pairs, column, table.encoding, path, options)?;
    labels.repeating = columns.repeating;
    Ok(labels)
}

/// Labels that come without a table: images and their grades.
fn without_table<'a>(
    rows: impl Iterator<Item = (&'a str, String)>,
    path: &Path,
    options: &LabelOptions,
) -> Result<Labels, LabelsError> {
    let mut collector = Collector::new(options);
    for (image, grade) in rows {
        collector.add(&Cells {
            line: 0,
            image,
            grades: vec![&grade],
            patient: "",
            eye: "",
            problem: None,
        });
    }
    finish(collector, &Pairs::new(), None, None, path, options)
}

/// `column` is the patients' if nobody has said so.
fn finish(
    collector: Collector,
    pairs: &Pairs,
    column: Option<&str>,
    encoding: Option<EncodingRemark>,
    path: &Path,
    options: &LabelOptions,
) -> Result<Labels, LabelsError> {
    let (mut labels, findings) = collector.finish(pairs);
    if labels.total == 0 {
        return Err(LabelsError::Empty {
            path: path.to_owned(),
        });
    }
    check_patients(&findings, &labels, column, path, options)?;
    labels.remarks = remarks::of(&labels, &findings, column, encoding, options);
    Ok(labels)
}

/// Whether a file is a table of names and grades without a header, separated by a space.
fn is_headless(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let cells: Vec<&str> = line.split_whitespace().collect();
    matches!(cells.as_slice(), [_, grade] if grade.parse::<u8>().is_ok()) && !line.contains(',')
}

fn cells<'a>(row: &'a Row, columns: &Columns, table: &Table) -> Cells<'a> {
    let width = row.width();
    // A comma within a name shifts the cells behind it into wrong columns.
    let too_wide = (width > table.header.len()).then(|| {
        format!(
            "the row has {width} cells, and the header {}: is a quotation mark missing?",
            table.header.len()
        )
    });
    Cells {
        line: row.line,
        image: row.cell(columns.image),
        grades: columns
            .grades
            .iter()
            .map(|&column| row.cell(column))
            .collect(),
        patient: columns
            .patient
            .map(|column| row.cell(column))
            .unwrap_or_default(),
        eye: columns
            .eye
            .map(|column| row.cell(column))
            .unwrap_or_default(),
        problem: too_wide,
    }
}

fn check_patients(
    findings: &PatientFindings,
    labels: &Labels,
    column: Option<&str>,
    path: &Path,
    options: &LabelOptions,
) -> Result<(), LabelsError> {
    let path = path.to_owned();
    if let Some(column) = column {
        let column = column.to_owned();
        if options.patient_pattern.is_some() {
            return Err(LabelsError::ColumnAndPattern { path, column });
        }
        if let Some((patients, images)) = &findings.split_by_column {
            return Err(LabelsError::ColumnSplitsPatients {
                path,
                column,
                patients: *patients,
                images: images.clone(),
            });
        }
    }
    if let Some((patient, images)) = &findings.crowded {
        return Err(LabelsError::Crowded {
            path,
            patient: patient.clone(),
            images: *images,
        });
    }
    if let Some(patients) = findings.none_has_both {
        let named = labels.rows.iter().take(2);
        return Err(LabelsError::NoneHasBoth {
            path,
            patients,
            images: named.map(|row| row.image.clone()).collect(),
        });
    }
    Ok(())
}

/// Refuses labels of which too many images do not tell their patient; remarks on a few.
pub(crate) fn check_told(
    labels: &mut Labels,
    path: &Path,
    options: &LabelOptions,
) -> Result<(), LabelsError> {
    let untold = remarks::untold(labels);
    let too_many = untold * 100 > labels.rows.len() * MAX_UNTOLD_PERCENT;
    let patients = options.from.map(|importer| importer.recipe().patients);
    let allowed = options.each_image_a_patient || patients == Some(Patients::EachImage);
    if too_many && !allowed {
        return Err(LabelsError::Untold {
            path: path.to_owned(),
            untold,
            total: labels.rows.len(),
            examples: remarks::untold_examples(labels),
            repeating: labels.repeating.clone(),
            missing_pairs: match patients {
                Some(Patients::Pairs(name)) => Some(name.to_owned()),
                _ => None,
            },
        });
    }
    remarks::remark_untold(labels, options);
    Ok(())
}

#[cfg(test)]
mod tests;
