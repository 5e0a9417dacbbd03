//! What the cells of a patient's column say, and what names that only seem to tell the patient have in common.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Eye;
use crate::names::key;
use crate::patient::patient_and_eye;

/// What tables write where the patient is not known.
const ABSENT: [&str; 15] = [
    "na",
    "n/a",
    "n.a.",
    "nan",
    "none",
    "null",
    "nil",
    "unknown",
    "unk",
    "missing",
    "not available",
    "anonymous",
    "-",
    "?",
    ".",
];

/// The patient in a cell; empty if it says that none is known.
pub(super) fn patient_of(cell: &str) -> &str {
    let patient = number(cell.trim());
    match ABSENT.contains(&patient.to_lowercase().as_str()) || patient.chars().all(is_dash) {
        true => "",
        false => patient,
    }
}

fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2013}' | '\u{2014}' | '_')
}

/// A whole number without the decimals that tables with empty cells give it: `12.0` is `12`.
pub(super) fn number(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, decimals))
            if !whole.is_empty()
                && whole.bytes().all(|b| b.is_ascii_digit())
                && decimals.bytes().all(|b| b == b'0') =>
        {
            whole
        }
        _ => text,
    }
}

/// What spellings of a patient have in common: also `007` and `7`, of which a spreadsheet makes one.
pub(super) fn patient_key(patient: &str) -> String {
    let is_number = !patient.is_empty() && patient.bytes().all(|b| b.is_ascii_digit());
    match patient.trim_start_matches('0') {
        "" if is_number => "0".to_owned(),
        short if is_number => short.to_owned(),
        _ => key(patient),
    }
}

/// A column whose values are eyes and not patients: `12_L` and `12_R`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Eyes {
    /// The patient of each value that is an eye of a patient with both.
    pub patients: HashMap<String, String>,
    /// Two values of one patient.
    pub example: Option<[String; 2]>,
}

impl Eyes {
    /// Looks for them among the values of a column.
    pub fn among<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut by_patient: BTreeMap<String, BTreeMap<&str, (Eye, &str)>> = BTreeMap::new();
        for value in values {
            if let Some((patient, eye)) = patient_and_eye(value) {
                let eyes = by_patient.entry(key(patient)).or_default();
                eyes.insert(value, (eye, patient));
            }
        }
        let mut found = Self::default();
        for values in by_patient.values() {
            let sides: BTreeSet<Eye> = values.values().map(|(eye, _)| *eye).collect();
            if sides.len() < 2 {
                continue;
            }
            if found.example.is_none() {
                let of = |side| values.iter().find(|(_, (eye, _))| *eye == side);
                let pair = of(Eye::Left).zip(of(Eye::Right));
                found.example = pair.map(|((a, _), (b, _))| [a, b].map(|v| (*v).to_owned()));
            }
            let known = values
                .iter()
                .map(|(value, (_, patient))| (*value, *patient));
            let owned = known.map(|(value, patient)| (value.to_owned(), patient.to_owned()));
            found.patients.extend(owned);
        }
        found
    }
}

/// With fewer patients, chance may have it that none has both eyes.
const FEW: usize = 10;

/// Of patients and eyes by name: how many patients there are if none of them has both eyes although both eyes are there. Then
/// what is taken for the patient probably numbers the photographs.
pub(super) fn none_has_both_eyes<'a>(named: impl Iterator<Item = (&'a str, Eye)>) -> Option<usize> {
    let mut eyes: HashMap<String, BTreeSet<Eye>> = HashMap::new();
    let mut sides = [0usize; 2];
    for (patient, eye) in named {
        match eye {
            Eye::Left => sides[0] += 1,
            Eye::Right => sides[1] += 1,
            Eye::Unknown => continue,
        }
        eyes.entry(patient_key(patient)).or_default().insert(eye);
    }
    let both = eyes.values().filter(|of| of.len() > 1).count();
    let each_is_there = sides.iter().all(|&n| n * 5 >= sides[0] + sides[1]);
    (both == 0 && eyes.len() >= FEW && each_is_there).then_some(eyes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_may_say_that_the_patient_is_not_known() {
        for cell in [
            "", " ", "NA", "n/a", "NaN", "Unknown", "--", "\u{2013}", "?", "null",
        ] {
            assert_eq!(patient_of(cell), "", "{cell}");
        }
        for (cell, patient) in [
            (" P3 ", "P3"),
            ("12.0", "12"),
            ("1.5", "1.5"),
            ("Nancy", "Nancy"),
        ] {
            assert_eq!(patient_of(cell), patient);
        }
    }

    #[test]
    fn numbers_are_one_patient_however_long_they_are_written() {
        assert_eq!(patient_key("007"), patient_key("7"));
        assert_eq!(patient_key("000"), patient_key("0"));
        assert_eq!(patient_key("P3"), patient_key("p3"));
        assert_ne!(patient_key("P03"), patient_key("P3"));
        assert_ne!(patient_key("70"), patient_key("7"));
    }

    #[test]
    fn values_that_are_eyes_are_found() {
        let eyes = Eyes::among(["12_L", "12_R", "13_L", "14", "15_OD", "15_os"].into_iter());
        let mut found: Vec<(&str, &str)> =
            eyes.patients.iter().map(|(a, b)| (&**a, &**b)).collect();
        found.sort_unstable();
        let expected = [
            ("12_L", "12"),
            ("12_R", "12"),
            ("15_OD", "15"),
            ("15_os", "15"),
        ];
        assert_eq!(found, expected);
        assert_eq!(eyes.example, Some(["12_L", "12_R"].map(String::from)));
        assert_eq!(
            Eyes::among(["A_L", "B_L", "C_R"].into_iter()),
            Eyes::default()
        );
    }

    #[test]
    fn numbers_of_photographs_give_no_patient_both_eyes() {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        let side = |n: usize| [Eye::Left, Eye::Right][n % 2];
        let of = |n: usize, step: usize| {
            let named = names.iter().take(n).enumerate();
            let named: Vec<(&str, Eye)> =
                named.map(|(i, _)| (&*names[i / step], side(i))).collect();
            none_has_both_eyes(named.into_iter())
        };
        assert_eq!(of(12, 1), Some(12));
        assert_eq!(of(9, 1), None, "few");
        assert_eq!(of(12, 2), None, "pairs");
        let lefts = names.iter().map(|name| (&**name, Eye::Left));
        assert_eq!(none_has_both_eyes(lefts), None, "one eye each");
    }
}
