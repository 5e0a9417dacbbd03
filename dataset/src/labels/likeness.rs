//! Whether a column is the patient, by its name and its values.

use std::collections::HashMap;

use crate::table::Row;

/// How much a column's name is that of the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It is: `patient_id`, `Subject`, `MRN`.
    Patient,
    /// It has the word in it, and is no property of a patient such as the age.
    Perhaps,
    /// A number of something: its values decide.
    Number,
    /// It is not.
    Other,
}

const PERSONS: [&str; 11] = [
    "patient",
    "patients",
    "pat",
    "subject",
    "subj",
    "case",
    "person",
    "participant",
    "individual",
    "proband",
    "mrn",
];
const NUMBERS: [&str; 13] = [
    "id", "ids", "no", "nr", "num", "number", "code", "key", "index", "idx", "uid", "ref", "hash",
];
/// What else is known of patients, photographs and where they were taken.
const PROPERTIES: [&str; 43] = [
    "age",
    "sex",
    "gender",
    "race",
    "ethnicity",
    "weight",
    "height",
    "bmi",
    "birth",
    "dob",
    "count",
    "comment",
    "comments",
    "note",
    "notes",
    "history",
    "diabetes",
    "level",
    "grade",
    "status",
    "date",
    "consent",
    "country",
    "camera",
    "device",
    "site",
    "clinic",
    "hospital",
    "center",
    "centre",
    "grader",
    "reader",
    "doctor",
    "physician",
    "batch",
    "fold",
    "image",
    "img",
    "photo",
    "file",
    "zip",
    "postal",
    "region",
];

/// How much a column's name, in lower case, is that of the patient.
pub(super) fn likeness(name: &str) -> Likeness {
    let words = words(name);
    let is = |word: &String, list: &[&str]| list.contains(&word.as_str());
    if words.iter().any(|word| is(word, &PROPERTIES)) {
        return Likeness::Other;
    }
    let joined = words.concat();
    let person = |text: &str| PERSONS.contains(&text);
    // `patientid`, `idpatient`, `anonpatientid`: words without anything between them.
    let without_number = NUMBERS
        .iter()
        .find_map(|number| joined.strip_suffix(number).or(joined.strip_prefix(number)))
        .unwrap_or(&joined);
    if joined == "pid" || person(&joined) || person(without_number) {
        return Likeness::Patient;
    }
    let whole = words.iter().any(|word| is(word, &PERSONS));
    let inside = ["patient", "subject", "person", "participant"]
        .iter()
        .any(|word| joined.contains(word));
    if whole || inside {
        Likeness::Perhaps
    } else if words.last().is_some_and(|word| is(word, &NUMBERS)) {
        Likeness::Number
    } else {
        Likeness::Other
    }
}

/// The words of a name: cut at everything that is neither letter nor digit.
fn words(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What tells that a column's values repeat as the numbers of patients do: a few photographs of each.
pub(super) fn repeats(rows: &[Row], column: usize) -> Option<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        *counts.entry(row.cell(column)).or_default() += 1;
    }
    counts.remove("");
    let filled: usize = counts.values().sum();
    let several = counts.values().filter(|&&count| count > 1).count();
    let (distinct, most) = (counts.len(), counts.values().max().copied().unwrap_or(0));
    let like_patients =
        distinct >= 4 && most <= 20 && several * 5 >= distinct && filled * 2 > rows.len();
    like_patients.then(|| format!("repeats its values ({distinct} in {filled} rows)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_the_patient_are_told_from_properties() {
        for name in [
            "patient",
            "patient_id",
            "patientid",
            "patient id",
            "patient-no",
            "subject",
            "subject_id",
            "subjectid",
            "case",
            "case_id",
            "person",
            "person number",
            "participant_id",
            "mrn",
            "pid",
            "id_patient",
            "idpatient",
            "pat_id",
            "individual",
        ] {
            assert_eq!(likeness(name), Likeness::Patient, "{name}");
        }
        for name in [
            "patient pseudonym",
            "anon_patient",
            "patienthash2",
            "study subject",
            "case ref 2",
        ] {
            assert_eq!(likeness(name), Likeness::Perhaps, "{name}");
        }
        for name in ["id", "exam_id", "record no", "visit_number"] {
            assert_eq!(likeness(name), Likeness::Number, "{name}");
        }
        for name in [
            "patient_age",
            "patient_sex",
            "patient_dr_level",
            "camera_id",
            "site no",
            "usage",
            "",
            "diabetes_time_y",
            "comorbidities",
            "unnamed: 0",
            "image_id",
            "showcase",
            "personality",
        ] {
            let found = likeness(name);
            let expected = if name == "personality" {
                Likeness::Perhaps
            } else {
                Likeness::Other
            };
            assert_eq!(found, expected, "{name}");
        }
    }
}
