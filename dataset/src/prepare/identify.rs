//! Patients and eyes from the tags of DICOM files, where neither the table nor the names tell them.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::Eye;
use crate::decode::identity;
use crate::folder::ImageFolder;
use crate::labels::LabelRow;

/// Fills in patients and eyes that only DICOM files tell; returns the number of photographs whose patient it filled in.
///
/// Patients get numbers in the order of the rows: an identifier, even a hash of one, tells who it is to whoever has the
/// list of patients.
pub(super) fn identify(rows: &mut [LabelRow], folder: &ImageFolder) -> usize {
    let untold = |row: &LabelRow| row.patient == row.image;
    let tags: Vec<_> = rows
        .par_iter()
        .map(|row| {
            let needed = untold(row) || row.eye == Eye::Unknown;
            needed.then(|| {
                folder
                    .find(&row.image)
                    .ok()
                    .and_then(|path| identity(&path))
            })?
        })
        .collect();
    let mut numbers = HashMap::new();
    let mut filled = 0;
    for (row, tags) in rows.iter_mut().zip(tags) {
        let Some(tags) = tags else {
            continue;
        };
        if row.eye == Eye::Unknown {
            row.eye = tags.eye;
        }
        if let (true, Some(patient)) = (untold(row), tags.patient) {
            let next = numbers.len() + 1;
            let number = *numbers.entry(patient).or_insert(next);
            row.patient = format!("dicom-{number:05}");
            filled += 1;
        }
    }
    filled
}
