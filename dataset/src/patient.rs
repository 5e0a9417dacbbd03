//! Whose eye a photograph shows, by its name.
//!
//! A wrong answer costs differently in the two directions. Two patients taken for one make the split a
//! little coarser; one patient taken for two may stand on both sides of it. So photographs of an eye, of
//! a visit and augmented copies are put together, and a name that can be understood in two ways tells
//! nothing.

use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;

use crate::Eye;

/// The patient and the eye that an image's name tells; `None` if it tells no patient.
///
/// Known are names with the eye as a part of its own (`left`, `L`, `OS`, in any case) behind the patient
/// (`10_left`, `P003-OD`), in front (`left_10`), or joined to a number (`P003OD`, `12L`); also with a
/// number of the photograph or a word for it behind (`12_l1`, `10_left_2`, `P003-OD-macula`), and with
/// the visit or its day between or in front (`P003_V2_OD`, `P003_2019-04-12_OD`).
pub fn patient_and_eye(name: &str) -> Option<(&str, Eye)> {
    FORMS.iter().find_map(|form| {
        let found = form.captures(name)?;
        let part = |group: &str| found.name(group).map_or("", |part| part.as_str());
        let patient = without_visits(part("patient").trim_end_matches(is_separator))?;
        // `image_left_001` has two readings: the number may be the patient's or the photograph's.
        let numbered = !part("number").is_empty() || !part("views").is_empty();
        let has_number = patient.contains(|c: char| c.is_ascii_digit());
        if patient.is_empty() || numbered && !has_number {
            return None;
        }
        Some((patient, eye(part("side"))))
    })
}

/// The eye that an image's name tells, also where it tells no patient, or one in two readings: `left`, `12_2_L`, `image_left_001`.
pub(crate) fn eye_of(name: &str) -> Eye {
    let found = FORMS
        .iter()
        .chain([&*EYE_ONLY])
        .find_map(|form| form.captures(name));
    let side = found.as_ref().and_then(|found| found.name("side"));
    side.map_or(Eye::Unknown, |side| eye(side.as_str()))
}

/// A patient without the visits behind and the day in front. None: a number is the patient's or the visit's.
fn without_visits(mut patient: &str) -> Option<&str> {
    while let Some(before) = VISIT.captures(patient).and_then(|visit| visit.get(1)) {
        patient = before.as_str();
    }
    if let Some(day) = DAY_FIRST.captures(patient) {
        let behind = day.get(1).map_or("", |behind| behind.as_str());
        // On each day they may be numbered anew.
        let is_name = behind.contains(char::is_alphabetic);
        return is_name.then_some(behind);
    }
    (!TWO_NUMBERS.is_match(patient)).then_some(patient)
}

fn is_separator(c: char) -> bool {
    matches!(c, '_' | '-' | '.' | ' ')
}

/// The eye that a word stands for.
pub(crate) fn eye(word: &str) -> Eye {
    match word.trim().to_lowercase().as_str() {
        "left" | "l" | "os" | "oi" | "og" | "le" => Eye::Left,
        "right" | "r" | "od" | "re" => Eye::Right,
        _ => Eye::Unknown,
    }
}

/// What may stand behind the eye: numbers and words for photographs of it and for copies of them.
const VIEWS: &str = r"(?P<views>(?:[_\-. (]+(?:\d{1,8}|(?:macula|disc|disk|optic|fovea|cent(?:re|er|ral)|nasal|temporal|superior|inferior|peripheral|posterior|field|view|img|image|photo|fundus|colou?r|crop(?:ped)?|aug(?:mented)?|flip(?:ped)?|rot(?:ated)?|enhanced|clahe|resized|copy|eye|v|f)\d*)\)?)*)";

static FORMS: LazyLock<[Regex; 4]> = LazyLock::new(|| {
    [
        // 10_left, P003-OD-1, 12_l2
        format!(
            r"^(?i)(?P<patient>.+)[_\-. ](?P<side>left|right|os|od|oi|og|le|re|l|r)(?P<number>\d{{0,3}}){VIEWS}$"
        ),
        // P003OD, 12L, 0012left_2
        format!(r"^(?P<patient>.*\d)(?P<side>(?i:left|right|os|od)|L|R)(?i){VIEWS}$"),
        // left_10: one part only, as of two the second may number the photograph
        r"^(?i)(?P<side>left|right|os|od|oi|og|l|r)[_\-. ]+(?P<patient>[^_\-. ]*\d[^_\-. ]*)$"
            .to_owned(),
        // left10
        r"^(?i)(?P<side>left|right|os|od)(?P<patient>\d+)$".to_owned(),
    ]
    .map(|text| form(&text))
});

/// left, OD_2, L1: whoever it is stands elsewhere, as in the name of the folder.
static EYE_ONLY: LazyLock<Regex> = LazyLock::new(|| {
    form(&format!(
        r"^(?i)(?P<side>left|right|os|od|oi|og|l|r)\d{{0,3}}{VIEWS}$"
    ))
});

/// The day of a visit.
const DAY: &str = r"(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])";

/// A patient with a visit behind: its day with or without the time, its year, a word or a number for it.
static VISIT: LazyLock<Regex> = LazyLock::new(|| {
    let word = r"(?:visit|timepoint|tp|time|session|ses|exam|encounter|followup|follow-up|fu|baseline|month|year|week)[_\-. ]?\d{0,4}";
    form(&format!(
        r"^(?i)(.*\d.*?)[_\-. ]+(?:{DAY}(?:[_\-. T]+\d{{4,6}})?|(?:19|20)\d\d|{word}|[vtmyw]\d{{1,4}})$"
    ))
});

/// The day in front of the patient.
static DAY_FIRST: LazyLock<Regex> = LazyLock::new(|| form(&format!(r"^{DAY}[_\-. ]+(.*\d.*)$")));

/// A part with a number, and another number of one or two digits: patient and visit, or clinic and patient.
static TWO_NUMBERS: LazyLock<Regex> = LazyLock::new(|| form(r"^.*\d.*[_\-. ]\d{1,2}$"));

fn form(text: &str) -> Regex {
    Regex::new(text).expect("the forms are valid")
}

/// A regular expression by which images' names tell the patient.
///
/// The group `patient`, else the first group, is the patient; a group `eye` is the eye (`left`, `L`, `OS`
/// ...). Names that do not match tell nothing.
#[derive(Debug, Clone)]
pub struct PatientPattern(Regex);

impl PatientPattern {
    /// What a name tells; the eye is that of the usual forms if the pattern does not tell it.
    pub fn apply<'a>(&self, name: &'a str) -> Option<(&'a str, Eye)> {
        let found = self.0.captures(name)?;
        let patient = found.name("patient").or_else(|| found.get(1))?.as_str();
        let eye = match found.name("eye") {
            Some(part) => eye(part.as_str()),
            None => patient_and_eye(name).map_or(Eye::Unknown, |(_, eye)| eye),
        };
        (!patient.trim().is_empty()).then(|| (patient.trim(), eye))
    }
}

/// A text that is no [`PatientPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatientPatternError {
    /// It is no regular expression.
    #[error("{0}")]
    Syntax(String),
    /// It has no group.
    #[error(
        "it has no group: put parentheses around the part of the name that is the patient, as in \
         '^([0-9]+)_'"
    )]
    NoGroup,
}

impl FromStr for PatientPattern {
    type Err = PatientPatternError;

    fn from_str(text: &str) -> Result<Self, PatientPatternError> {
        let regex = Regex::new(text).map_err(|e| PatientPatternError::Syntax(e.to_string()))?;
        let named: Vec<&str> = regex.capture_names().flatten().collect();
        let groups = regex.captures_len() - 1;
        // A group `eye` alone does not tell the patient.
        if groups == 0 || groups == 1 && named == ["eye"] {
            return Err(PatientPatternError::NoGroup);
        }
        Ok(Self(regex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_patient_in_many_forms() {
        for (name, patient, eye) in [
            ("10_left", "10", Eye::Left),
            ("10_right", "10", Eye::Right),
            ("Patient003_L", "Patient003", Eye::Left),
            ("Patient003_R", "Patient003", Eye::Right),
            ("a_b_OD", "a_b", Eye::Right),
            ("a-os", "a", Eye::Left),
            ("M\u{fc}ller_left", "M\u{fc}ller", Eye::Left),
            ("12_l1", "12", Eye::Left),
            ("12_r2", "12", Eye::Right),
            ("10_left_2", "10", Eye::Left),
            ("P003-OD-1", "P003", Eye::Right),
            ("P003 OS (2)", "P003", Eye::Left),
            ("P003_OD_macula", "P003", Eye::Right),
            ("10_left_aug_3", "10", Eye::Left),
            ("10_right-cropped", "10", Eye::Right),
            ("site2_0045_OI", "site2_0045", Eye::Left),
            ("P003OD", "P003", Eye::Right),
            ("12L", "12", Eye::Left),
            ("0012left_2", "0012", Eye::Left),
            ("left_12", "12", Eye::Left),
            ("OD-P003", "P003", Eye::Right),
            ("right12", "12", Eye::Right),
            ("P003_20190412_OD", "P003", Eye::Right),
            ("P003_2019-04-12_OS_1", "P003", Eye::Left),
            ("2019-04-12_P003_OS", "P003", Eye::Left),
            ("P003_20190412_093011_OD", "P003", Eye::Right),
            ("P12_V1_L", "P12", Eye::Left),
            ("P12_visit2_OD", "P12", Eye::Right),
            ("P12-2019-OD", "P12", Eye::Right),
            ("P12_t0_R", "P12", Eye::Right),
            ("12_baseline_L", "12", Eye::Left),
            ("12_V2_2019-04-12_left", "12", Eye::Left),
        ] {
            assert_eq!(patient_and_eye(name), Some((patient, eye)), "{name}");
        }
    }

    #[test]
    fn names_of_two_readings_tell_nothing() {
        for name in [
            "000c1434d8d7",
            "IDRiD_001",
            "20051020_43808_0100_PP",
            "007-0004-000",
            "img00001",
            "1.1",
            "_left",
            "left",
            "",
            // Numbered on each day, or once.
            "20190412_0001_OS",
            // The second visit of patient 12, or patient 2 of clinic 12.
            "12_2_L",
            "P003-1-OD",
            // The number may be the patient's or the photograph's.
            "image_left_001",
            "left_12_1",
            "M\u{fc}ller_left_2",
            "P003_OD_x7",
            "alfred",
            "tumor",
            "12l",
        ] {
            assert_eq!(patient_and_eye(name), None, "{name}");
        }
    }

    #[test]
    fn names_tell_the_eye_also_where_the_patient_is_in_doubt() {
        for (name, eye) in [
            ("10_left", Eye::Left),
            ("12_2_L", Eye::Left),
            ("P003-1-OD", Eye::Right),
            ("20190412_0001_OS", Eye::Left),
            ("image_left_001", Eye::Left),
            ("left_12_1", Eye::Left),
            ("left", Eye::Left),
            ("Right_2", Eye::Right),
            ("OD-macula", Eye::Right),
            ("L1", Eye::Left),
            ("r", Eye::Right),
            ("1_left", Eye::Left),
            ("IDRiD_001", Eye::Unknown),
            ("tumor", Eye::Unknown),
            ("alfred", Eye::Unknown),
            ("leftover", Eye::Unknown),
            ("12l", Eye::Unknown),
            ("", Eye::Unknown),
        ] {
            assert_eq!(eye_of(name), eye, "{name}");
        }
    }

    #[test]
    fn a_pattern_tells_the_patient_by_its_group() {
        let pattern = |text: &str| text.parse::<PatientPattern>().expect(text);
        let first = pattern("^[a-z]+([0-9]+)");
        assert_eq!(first.apply("img12_3"), Some(("12", Eye::Unknown)));
        assert_eq!(first.apply("img12_left"), Some(("12", Eye::Left)));
        assert_eq!(first.apply("12"), None);
        let named = pattern(r"(\d+)-(?P<patient>\w+)-(?P<eye>O[DS])");
        assert_eq!(named.apply("7-P1-OS-3"), Some(("P1", Eye::Left)));
        assert_eq!(pattern("x( *)").apply("x  "), None);
        for (bad, expected) in [
            ("[0-9]+_", "parentheses"),
            ("(?P<eye>left|right)", "parentheses"),
            ("(", "unclosed group"),
        ] {
            let message = bad.parse::<PatientPattern>().expect_err(bad).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
