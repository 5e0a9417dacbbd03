//! Patients and eyes from the tags of DICOM files, where neither the table nor the names tell them.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::Eye;
use crate::decode::{Identity, identity};
use crate::folder::ImageFolder;
use crate::labels::LabelRow;

/// Fills in patients and eyes that only DICOM files tell.
///
/// Patients get numbers in the order of the rows: an identifier, even a hash of one, tells who it is to whoever has the
/// list of patients. If another photograph of the same identifier has its patient from the table or its name, it is that
/// patient.
pub(super) fn identify(rows: &mut [LabelRow], folder: &ImageFolder) {
    let tags = |row: &LabelRow| identity(&folder.find(&row.image).ok()?);
    let needed = |row: &LabelRow| !row.told || row.eye == Eye::Unknown;
    let mut found: Vec<Option<Identity>> = rows
        .par_iter()
        .map(|row| needed(row).then(|| tags(row))?)
        .collect();
    let fills = |(row, found): (&LabelRow, &Option<Identity>)| {
        !row.told && found.as_ref().is_some_and(|tags| tags.patient.is_some())
    };
    if rows.iter().zip(&found).any(fills) {
        let rest = found.par_iter_mut().zip(rows.par_iter());
        rest.filter(|(_, row)| !needed(row))
            .for_each(|(found, row)| *found = tags(row));
    }
    let mut names: HashMap<(String, String), String> = HashMap::new();
    for (row, tags) in rows.iter().zip(&found) {
        if let (true, Some(patient)) = (row.told, tags.as_ref().and_then(|t| t.patient.clone())) {
            names.entry(patient).or_insert_with(|| row.patient.clone());
        }
    }
    let mut numbered = 0;
    for (row, tags) in rows.iter_mut().zip(found) {
        let Some(tags) = tags else {
            continue;
        };
        if row.eye == Eye::Unknown {
            row.eye = tags.eye;
        }
        if let (false, Some(patient)) = (row.told, tags.patient) {
            let name = names.entry(patient).or_insert_with(|| {
                numbered += 1;
                format!("dicom-{numbered:05}")
            });
            row.patient = name.clone();
            row.told = true;
        }
    }
}
