//! A split imposed by a file: `image,split`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::Split;
use crate::labels::LabelRow;
use crate::lines::Lines;

use super::{Patients, PrepareError};

/// Reads a split file.
pub(super) fn read(path: &Path) -> Result<SplitFile, PrepareError> {
    let fail = |problem: String| PrepareError::SplitFile {
        path: path.to_owned(),
        problem,
    };
    let bytes = std::fs::read(path).map_err(|source| fail(source.to_string()))?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text);
    let header = reader.headers().map_err(|e| fail(e.to_string()))?.clone();
    let column = |wanted: &str| {
        let found = header.iter().position(|h| h.eq_ignore_ascii_case(wanted));
        found.ok_or_else(|| {
            fail(format!(
                "no column {wanted:?}; the header must be 'image,split'"
            ))
        })
    };
    let (image_column, split_column) = (column("image")?, column("split")?);
    let mut sides = HashMap::new();
    let mut lines = Lines::new(text);
    for record in reader.records() {
        let record = record.map_err(|e| fail(e.to_string()))?;
        let line = lines.of(&record);
        let cell = |i: usize| record.get(i).unwrap_or_default();
        let (image, word) = (cell(image_column), cell(split_column));
        let split = Split::parse(word).ok_or_else(|| {
            let word: String = word.chars().take(40).collect();
            fail(format!(
                "line {line}: {word:?} is neither train nor validation"
            ))
        })?;
        if sides.insert(image.to_owned(), split).is_some() {
            return Err(fail(format!("line {line}: {image:?} is listed twice")));
        }
    }
    Ok(SplitFile {
        path: path.to_owned(),
        sha256: crate::sha256_hex(&bytes),
        sides,
    })
}

/// The side of every image that the file names.
pub(super) struct SplitFile {
    path: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    sides: HashMap<String, Split>,
}

impl SplitFile {
    /// Whether each patient is held out.
    ///
    /// Images that the file lacks, or names beyond those of the label file, are refused: either is
    /// more likely a wrong file than meant. A patient on both sides is refused by name.
    pub fn assign(
        &self,
        rows: &[LabelRow],
        good: &[usize],
        patients: &Patients,
    ) -> Result<Vec<bool>, PrepareError> {
        let missing = good.iter().map(|&row| rows[row].image.as_str());
        self.none(
            missing.filter(|image| !self.sides.contains_key(*image)),
            "does not name these images",
        )?;
        let labelled: HashSet<&str> = rows.iter().map(|row| row.image.as_str()).collect();
        let mut unknown: Vec<&str> = self.sides.keys().map(String::as_str).collect();
        unknown.retain(|image| !labelled.contains(image));
        unknown.sort_unstable();
        self.none(
            unknown.into_iter(),
            "names images that have no usable row in the label file",
        )?;
        let of_patient = |members: &Vec<usize>| {
            let on = |split: Split| {
                let image = |row: &usize| rows[*row].image.clone();
                members
                    .iter()
                    .map(image)
                    .find(|image| self.sides[image] == split)
            };
            match (on(Split::Train), on(Split::Validation)) {
                (Some(train), Some(validation)) => Err(PrepareError::PatientInBothSplits {
                    path: self.path.clone(),
                    patient: rows[members[0]].patient.clone(),
                    train,
                    validation,
                }),
                (_, held_out) => Ok(held_out.is_some()),
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
