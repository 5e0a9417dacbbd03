//! A split imposed by a file: `image,split`.
//!
//! Its names are compared as those of the label file are: path, ending, case and Unicode form do not
//! matter. All that can be checked without a photograph is checked before one is decoded.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::Split;
use crate::folder::ImageFolder;
use crate::labels::{LabelRow, Labels};
use crate::names::{image_name, key};
use crate::table::{self, Header};

use super::{Patients, PrepareError};

/// Names of the column with the images, the usual first.
const IMAGES: [&str; 6] = [
    "image",
    "image_id",
    "id_code",
    "image name",
    "filename",
    "file",
];
/// Names of the column with the side, the usual first.
const SPLITS: [&str; 5] = ["split", "set", "subset", "partition", "usage"];

/// Reads a split file.
pub(super) fn read(path: &Path) -> Result<SplitFile, PrepareError> {
    let fail = |problem: String| PrepareError::SplitFile {
        path: path.to_owned(),
        problem,
    };
    let bytes = std::fs::read(path).map_err(|source| fail(source.to_string()))?;
    let table = table::parse(&bytes, Header::FirstLine).map_err(|e| fail(e.to_string()))?;
    let column = |names: &[&str]| {
        let known = |wanted: &&str| {
            table
                .header
                .iter()
                .position(|h| h.eq_ignore_ascii_case(wanted))
        };
        names.iter().find_map(known).ok_or_else(|| {
            let wanted = names[0];
            fail(format!(
                "no column {wanted:?}; the header must be 'image,split'"
            ))
        })
    };
    let (image_column, split_column) = (column(&IMAGES)?, column(&SPLITS)?);
    let mut sides = Sides::default();
    for row in &table.rows {
        let line = row.line;
        let (cell, word) = (row.cell(image_column), row.cell(split_column));
        if cell.is_empty() && word.is_empty() {
            continue;
        }
        let image = image_name(cell);
        let split = side(word).map_err(|problem| fail(format!("line {line}: {problem}")))?;
        match sides.exact.insert(image.clone(), split) {
            Some(_) => return Err(fail(format!("line {line}: {image:?} is listed twice"))),
            None => sides.by_key.entry(key(&image)).or_default().push(split),
        }
    }
    Ok(SplitFile {
        path: path.to_owned(),
        sha256: crate::sha256_hex(&bytes),
        sides,
    })
}

/// The side that a word names.
fn side(word: &str) -> Result<Split, String> {
    let shown: String = word.chars().take(40).collect();
    match word.to_lowercase().as_str() {
        "train" | "training" => Ok(Split::Train),
        "validation" | "valid" | "val" => Ok(Split::Validation),
        "test" | "testing" => Ok(Split::Test),
        _ => Err(format!("{shown:?} is none of train, validation and test")),
    }
}

/// The side of each image.
#[derive(Default)]
struct Sides {
    /// By its name as it stands.
    exact: HashMap<String, Split>,
    /// By its key; several if names differ in case only.
    by_key: HashMap<String, Vec<Split>>,
}

impl Sides {
    fn of(&self, image: &str) -> Option<Split> {
        let exact = self.exact.get(image).copied();
        exact.or_else(|| match self.by_key.get(&key(image))?.as_slice() {
            [split] => Some(*split),
            _ => None,
        })
    }
}

/// The side of every image that the file names.
pub(super) struct SplitFile {
    path: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    sides: Sides,
}

impl SplitFile {
    /// The split that an archive's parts impose.
    pub fn of_archive<'a>(
        path: &Path,
        bytes: &[u8],
        images: impl Iterator<Item = (&'a str, Split)>,
    ) -> Self {
        let exact = images.map(|(image, split)| (image.to_owned(), split));
        Self {
            path: path.to_owned(),
            sha256: crate::sha256_hex(bytes),
            sides: Sides {
                exact: exact.collect(),
                by_key: HashMap::new(),
            },
        }
    }

    /// Checks the file against the labels, before any photograph is read.
    ///
    /// Images that the file lacks, or names beyond those of the label file, are refused: either is
    /// more likely a wrong file than meant. Rows of the label file that cannot be used, and images
    /// without a photograph, may be named or not. A patient on two sides is refused by name.
    pub fn check(&self, labels: &Labels, folder: &ImageFolder) -> Result<(), PrepareError> {
        let rows = &labels.rows;
        let missing = rows.iter().map(|row| row.image.as_str());
        let missing = missing.filter(|image| self.sides.of(image).is_none());
        self.none(
            missing.filter(|image| folder.find(image).is_ok()),
            "does not name these images",
        )?;
        let usable = rows.iter().map(|row| row.image.as_str());
        let problems = labels.problems.iter().map(|problem| problem.image.as_str());
        let labelled: HashSet<String> = usable.chain(problems).map(key).collect();
        let mut unknown: Vec<&str> = self.sides.exact.keys().map(String::as_str).collect();
        unknown.retain(|image| !labelled.contains(&key(image)));
        unknown.sort_unstable();
        self.none(
            unknown.into_iter(),
            "names images that have no row in the label file",
        )?;
        let named: Vec<usize> = (0..rows.len())
            .filter(|&row| self.sides.of(&rows[row].image).is_some())
            .collect();
        self.assign(rows, &Patients::of(rows, &named)).map(|_| ())
    }

    /// Each patient's side.
    pub fn assign(
        &self,
        rows: &[LabelRow],
        patients: &Patients,
    ) -> Result<Vec<Split>, PrepareError> {
        let of_patient = |members: &Vec<usize>| {
            let on = |split: Split| {
                let mut images = members.iter().map(|&row| rows[row].image.clone());
                let image = images.find(|image| self.sides.of(image) == Some(split))?;
                Some((split, image))
            };
            let mut sides = Split::ALL.into_iter().filter_map(on);
            match (sides.next(), sides.next()) {
                (Some(one), Some(other)) => Err(PrepareError::PatientInTwoSplits {
                    path: self.path.clone(),
                    patient: rows[members[0]].patient.clone(),
                    images: [one, other],
                }),
                (one, _) => Ok(one.map_or(Split::Train, |(split, _)| split)),
            }
        };
        patients.rows.iter().map(of_patient).collect()
    }

    fn none<'a>(
        &self,
        images: impl Iterator<Item = &'a str>,
        problem: &str,
    ) -> Result<(), PrepareError> {
        let images: Vec<&str> = images.collect();
        if images.is_empty() {
            return Ok(());
        }
        let shown = images[..images.len().min(20)].join(", ");
        Err(PrepareError::SplitFile {
            path: self.path.clone(),
            problem: format!("it {problem} ({}): {shown}", images.len()),
        })
    }
}
