//! Whether names tell whose eyes photographs show, before both eyes' scores become one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fovea_core::count::count;
use fovea_dataset::{Eye, Found};

/// No name tells a patient.
#[derive(Debug, thiserror::Error)]
#[error(
    "--fuse-eyes: {} tells whose eye it is, such as {example}: --patient-pattern says where in a name or path the patient stands, for example \
     '([0-9]+)_' or '(p[0-9]+)/'", none(*photographs)
)]
pub struct NoPatients {
    photographs: usize,
    example: String,
}

fn none(photographs: usize) -> String {
    match photographs {
        1 => "the photograph's name does not say, or nothing".into(),
        _ => format!("none of {} names", photographs),
    }
}

/// For photographs whose eyes are to have one score: what people should know. Photographs of the same eye in several folders may be of
/// several people who have the same number.
///
/// # Errors
/// No photograph's patient is known.
pub fn check(found: &[Found]) -> Result<Option<String>, NoPatients> {
    let named = || found.iter().filter(|one| !one.patient.is_empty());
    if named().next().is_none()
        && let Some(first) = found.first()
    {
        return Err(NoPatients {
            photographs: found.len(),
            example: first.shown.clone(),
        });
    }
    let mut folders: BTreeMap<(&str, Eye), BTreeSet<&Path>> = BTreeMap::new();
    for one in named() {
        let folder = one.path.parent().unwrap_or(Path::new("."));
        let eye = (one.patient.as_str(), one.eye);
        folders.entry(eye).or_default().insert(folder);
    }
    let mut several = folders.iter().filter(|(_, folders)| folders.len() > 1);
    let others = several.clone().count().saturating_sub(1);
    let unknown = found.len() - named().count();
    let mut notes = Vec::new();
    if unknown > 0 {
        let names = count(unknown, "name tells", "names tell");
        notes.push(format!("{names} no patient: these have no patient_score"));
    }
    let mut photographs: BTreeMap<&str, usize> = BTreeMap::new();
    for one in named() {
        *photographs.entry(&one.patient).or_default() += 1;
    }
    // Of a patient with one photograph it makes no difference which eye it shows.
    let is_doubtful = |one: &&Found| one.eye == Eye::Unknown && photographs[&*one.patient] > 1;
    let doubtful = named().filter(is_doubtful).count();
    if doubtful > 0 {
        let names = count(doubtful, "name tells", "names tell");
        notes.push(format!(
            "{names} a patient, but not which eye: these count as one eye of the patient; a group (?P<eye>...) in --patient-pattern \
             tells it"
        ));
    }
    if let Some(((patient, eye), folders)) = several.next() {
        let more = match others {
            0 => String::new(),
            others => format!(", and {} more like this", count(others, "eye", "eyes")),
        };
        let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        notes.push(format!(
            "patient {patient} ({} eye) is in several folders, {}{more}: their scores become one; if these are different people, score one \
             folder at a time, or take the folder into --patient-pattern",
            eye.as_str(),
            folders.join(" and "),
        ));
    }
    Ok((!notes.is_empty()).then(|| notes.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, patient: &str, eye: Eye) -> Found {
        Found {
            path: path.into(),
            shown: path.into(),
            image: path.into(),
            patient: patient.into(),
            eye,
            problem: None,
        }
    }

    #[test]
    fn names_that_tell_nobody_are_refused_and_doubtful_ones_are_said() {
        let nobody = [
            found("p1/left.jpg", "", Eye::Left),
            found("p1/right.jpg", "", Eye::Right),
        ];
        let error = check(&nobody).unwrap_err().to_string();
        assert!(error.contains("none of 2 names"), "{error}");
        assert!(error.contains("p1/left.jpg"), "{error}");
        let both = [
            found("a/1_left.jpg", "1", Eye::Left),
            found("a/1_right.jpg", "1", Eye::Right),
        ];
        assert_eq!(check(&both).unwrap(), None);
        let doubtful = [
            found("a/1_a.jpg", "1", Eye::Unknown),
            found("a/1_b.jpg", "1", Eye::Unknown),
            found("a/2.jpg", "2", Eye::Unknown),
        ];
        let note = check(&doubtful).unwrap().unwrap();
        assert!(
            note.starts_with("2 names tell a patient, but not which eye"),
            "{note}"
        );
        let two = [
            found("a/1_left.jpg", "1", Eye::Left),
            found("b/1_left.jpg", "1", Eye::Left),
            found("b/x.jpg", "", Eye::Unknown),
        ];
        let note = check(&two).unwrap().unwrap();
        assert!(
            note.contains("patient 1 (left eye) is in several folders, a and b"),
            "{note}"
        );
        assert!(note.contains("1 name tells no patient"), "{note}");
    }
}
