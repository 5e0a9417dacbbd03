//! Whether a column is the patient, by its name and its values.

use std::collections::{HashMap, HashSet};

use crate::table::Row;

/// How much a column's name is that of the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It is: `patient_id`, `Subject`, `MRN`.
    Patient,
    /// It is, if its values allow it: `case`, `Case ID`.
    Case,
    /// It has the word in it, and is no property of a patient such as the age.
    Perhaps,
    /// A number of something: its values decide.
    Number,
    /// It is not.
    Other,
}

const PERSONS: [&str; 24] = [
    "patient",
    "patients",
    "patientin",
    "patienten",
    "pat",
    "pt",
    "subject",
    "subj",
    "case",
    "person",
    "participant",
    "individual",
    "proband",
    "mrn",
    "paciente",
    "pacientes",
    "paziente",
    "pasien",
    "sujet",
    "sujeto",
    "患者",
    "病人",
    "환자",
    "пациент",
];
/// The beginnings of the word in other languages, and in longer words.
const WITHIN: [&str; 12] = [
    "patient",
    "subject",
    "person",
    "participant",
    "pacien",
    "pazient",
    "pasient",
    "pasien",
    "患者",
    "病人",
    "환자",
    "пациент",
];
/// What a column may be that is the patient's if its values repeat, and tells nothing else.
const PEOPLE: [&str; 7] = [
    "sub",
    "volunteer",
    "donor",
    "client",
    "pseudonym",
    "fall",
    "fallnummer",
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
    if is_property(name) {
        return Likeness::Other;
    }
    let words = words(name);
    let is = |word: &String, list: &[&str]| list.contains(&word.as_str());
    let joined = words.concat();
    let person = |text: &str| PERSONS.contains(&text);
    // `patientid`, `idpatient`, `anonpatientid`: words without anything between them.
    let without_number = NUMBERS.iter().flat_map(|number| {
        let ends = [joined.strip_suffix(number), joined.strip_prefix(number)];
        ends.into_iter().flatten()
    });
    let mut all = without_number.chain([joined.as_str()]);
    match all.find(|text| person(text)) {
        Some("case") => return Likeness::Case,
        Some(_) => return Likeness::Patient,
        None if joined == "pid" => return Likeness::Patient,
        None => {}
    }
    let whole = words.iter().any(|word| is(word, &PERSONS));
    let inside = WITHIN.iter().any(|word| joined.contains(word));
    let people = words.iter().any(|word| is(word, &PEOPLE));
    if whole || inside {
        Likeness::Perhaps
    } else if people || words.last().is_some_and(|word| is(word, &NUMBERS)) {
        Likeness::Number
    } else {
        Likeness::Other
    }
}

/// Whether a column's name, in lower case, is of something else that is known of patients, photographs and places.
pub(super) fn is_property(name: &str) -> bool {
    let words = words(name);
    words.iter().any(|word| PROPERTIES.contains(&word.as_str()))
}

/// The words of a name: cut at everything that is neither letter nor digit.
fn words(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether a column has another value in each of enough rows.
pub(super) fn all_differ(rows: &[Row], column: usize) -> bool {
    let values: HashSet<&str> = rows.iter().map(|row| row.cell(column)).collect();
    rows.len() >= super::columns::ENOUGH && values.len() == rows.len()
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
            "person",
            "person number",
            "participant_id",
            "mrn",
            "pid",
            "id_patient",
            "idpatient",
            "pat_id",
            "individual",
            "pt_id",
            "ptid",
            "patientuid",
            "id_paciente",
            "患者",
        ] {
            assert_eq!(likeness(name), Likeness::Patient, "{name}");
        }
        for name in ["case", "case_id", "case no."] {
            assert_eq!(likeness(name), Likeness::Case, "{name}");
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
        for name in ["id", "exam_id", "record no", "visit_number", "sub", "donor"] {
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
