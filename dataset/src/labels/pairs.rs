//! A table that says which two images are of one patient, as Messidor-2 has it.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::names::{image_name, key};
use crate::table::{self, Header};

use crate::Eye;

use super::LabelsError;

/// For each image, by its key, its patient and which eye it is.
pub(super) type Pairs = HashMap<String, (String, Eye)>;

/// Reads the table called `name` beside the label file; the patient is called like the left image. Empty
/// if there is no such table.
pub(super) fn read(labels: &Path, name: &str) -> Result<Pairs, LabelsError> {
    let path = labels.with_file_name(name);
    let fail = |problem: String| LabelsError::Pairs {
        path: path.clone(),
        problem,
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(fail(error.to_string())),
    };
    let table = table::parse(&bytes, Header::FirstLine).map_err(|e| fail(e.to_string()))?;
    let column = |wanted: &str| {
        let found = table
            .header
            .iter()
            .position(|name| name.eq_ignore_ascii_case(wanted));
        found.ok_or_else(|| {
            fail(format!(
                "it has no column {wanted:?}; the header is left;right"
            ))
        })
    };
    let (left, right) = (column("left")?, column("right")?);
    let mut pairs = Pairs::new();
    for row in &table.rows {
        let sides = [(left, Eye::Left), (right, Eye::Right)];
        let sides = sides.map(|(column, eye)| (image_name(row.cell(column)), eye));
        let images: Vec<&(String, Eye)> = sides.iter().filter(|(i, _)| !i.is_empty()).collect();
        for (image, eye) in &images {
            let patient = images[0].0.clone();
            if pairs.insert(key(image), (patient, *eye)).is_some() {
                return Err(fail(format!(
                    "line {}: {image:?} is paired twice",
                    row.line
                )));
            }
        }
    }
    Ok(pairs)
}
