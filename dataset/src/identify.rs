//! Patients and eyes from the tags of DICOM files, where neither a table nor the names tell them.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::Eye;
use crate::decode::Identity;

/// What is known of the eye that a photograph shows.
pub(crate) struct Known<'a> {
    pub patient: &'a mut String,
    /// Whether something tells the patient.
    pub told: &'a mut bool,
    pub eye: &'a mut Eye,
}

/// Fills in patients and eyes that only DICOM files tell; `tags` reads those of a photograph.
///
/// Patients get numbers in the order given: an identifier, even a hash of one, tells who it is to whoever has the
/// list of patients. If another photograph of the same identifier has its patient from the table or its name, it is that
/// patient.
///
/// # Errors
/// That of `tags`: a patient who is not known because a disk failed is not an unknown patient.
pub(crate) fn identify<E: Send>(
    rows: Vec<Known<'_>>,
    tags: impl Fn(usize) -> Result<Option<Identity>, E> + Sync,
) -> Result<(), E> {
    let needed: Vec<bool> = rows
        .iter()
        .map(|row| !*row.told || *row.eye == Eye::Unknown)
        .collect();
    let read = |wanted: bool| -> Result<Vec<Option<Identity>>, E> {
        let all = needed.par_iter().enumerate();
        all.map(|(at, needed)| match *needed == wanted {
            true => tags(at),
            false => Ok(None),
        })
        .collect()
    };
    let mut found = read(true)?;
    let fills = |(row, found): (&Known, &Option<Identity>)| {
        !*row.told && found.as_ref().is_some_and(|tags| tags.patient.is_some())
    };
    if rows.iter().zip(&found).any(fills) {
        for (found, rest) in found.iter_mut().zip(read(false)?) {
            *found = found.take().or(rest);
        }
    }
    let mut names: HashMap<(String, String), String> = HashMap::new();
    for (row, tags) in rows.iter().zip(&found) {
        if let (true, Some(patient)) = (*row.told, tags.as_ref().and_then(|t| t.patient.clone())) {
            names.entry(patient).or_insert_with(|| row.patient.clone());
        }
    }
    let mut numbered = 0;
    for (row, tags) in rows.into_iter().zip(found) {
        let Some(tags) = tags else {
            continue;
        };
        if *row.eye == Eye::Unknown {
            *row.eye = tags.eye;
        }
        if let (false, Some(patient)) = (*row.told, tags.patient) {
            let name = names.entry(patient).or_insert_with(|| {
                numbered += 1;
                format!("dicom-{numbered:05}")
            });
            *row.patient = name.clone();
            *row.told = true;
        }
    }
    Ok(())
}
