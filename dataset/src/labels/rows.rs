//! From cells to usable rows: grades, images that come twice, and who the patient is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Eye;
use crate::eye::name_problem;
use crate::names::{image_name, key};
use crate::patient::{self, patient_and_eye};

use super::grade::{self, GradeError};
use super::importer::Ungradable;
use super::pairs::Pairs;
use super::patients::{Eyes, none_has_both_eyes, number, patient_key, patient_of};
use super::{LabelOptions, LabelRow, Labels, Problem, Scale};

/// The cells of a row that are read.
pub(super) struct Cells<'a> {
    pub line: u64,
    pub image: &'a str,
    /// One of these is filled.
    pub grades: Vec<&'a str>,
    pub patient: &'a str,
    pub eye: &'a str,
    /// What is wrong with the row as a whole.
    pub problem: Option<String>,
}

/// Gathers rows, watching for images that come twice.
pub(super) struct Collector<'a> {
    options: &'a LabelOptions,
    scale: Scale,
    ungradable: Ungradable,
    rows: Vec<Candidate>,
    /// Where an image's first row stands in `rows`.
    first: HashMap<String, usize>,
    problems: Vec<Problem>,
    total: usize,
}

/// A row whose patient is not decided yet.
struct Candidate {
    row: LabelRow,
    /// The image's cell as it stands.
    cell: String,
    /// The patient by a column.
    by_column: Option<String>,
    /// The patient by the name.
    by_name: Option<String>,
    /// The image has another grade elsewhere: nobody knows which is right.
    conflicting: bool,
}

/// What was found out about the patients.
#[derive(Debug, Default)]
pub(super) struct PatientFindings {
    /// Patients by name whose photographs the column gives to several patients: an image of each side.
    pub split_by_column: Option<(usize, [String; 2])>,
    /// Rows without a patient in the column whose name tells it.
    pub filled: usize,
    /// A patient by name with more photographs than anybody has.
    pub crowded: Option<(String, usize)>,
    /// Two values of the column that are eyes of one patient.
    pub eyes_in_column: Option<[String; 2]>,
    /// Patients by name, if none of them has both eyes.
    pub none_has_both: Option<usize>,
}

/// Most photographs that names alone give one patient. Above it, the names are misunderstood.
const CROWD: usize = 40;

impl<'a> Collector<'a> {
    pub fn new(options: &'a LabelOptions) -> Self {
        let recipe = options.from.map(|importer| importer.recipe());
        Self {
            options,
            scale: recipe.map_or(Scale::Icdr, |recipe| recipe.scale),
            ungradable: recipe.map_or(Ungradable::None, |recipe| recipe.ungradable),
            rows: Vec::new(),
            first: HashMap::new(),
            problems: Vec::new(),
            total: 0,
        }
    }

    pub fn add(&mut self, cells: &Cells) {
        self.total += 1;
        let image = image_name(cells.image);
        match self.check(cells, &image) {
            Ok(candidate) => {
                self.first.insert(image, self.rows.len());
                self.rows.push(candidate);
            }
            Err(error) => self.problems.push(Problem {
                line: cells.line,
                // What a broken file holds may be huge; a message stays short.
                image: image.chars().take(80).collect(),
                reason: error.to_string(),
                expected: error == RowError::Ungradable,
            }),
        }
    }

    fn check(&mut self, cells: &Cells, image: &str) -> Result<Candidate, RowError> {
        if let Some(problem) = &cells.problem {
            return Err(RowError::Whole(problem.clone()));
        }
        if let Some(problem) = name_problem(image) {
            return Err(RowError::Image(problem));
        }
        let grade = self.grade(&cells.grades)?;
        if let Some(&at) = self.first.get(image) {
            return Err(self.again(at, cells, grade));
        }
        let by_name = match &self.options.patient_pattern {
            Some(pattern) => pattern.apply(image),
            None => patient_and_eye(image),
        };
        let by_column = patient_of(cells.patient);
        if let Some(problem) = name_problem(by_column).filter(|_| !by_column.is_empty()) {
            return Err(RowError::Patient(problem));
        }
        let eye_of_name = by_name.map_or(Eye::Unknown, |(_, eye)| eye);
        Ok(Candidate {
            row: LabelRow {
                line: cells.line,
                image: image.to_owned(),
                patient: String::new(),
                told: false,
                eye: match (eye_of_name, cells.eye) {
                    (Eye::Unknown, "1") if self.options.from.is_some() => Eye::Right,
                    (Eye::Unknown, "2") if self.options.from.is_some() => Eye::Left,
                    (Eye::Unknown, word) => patient::eye(word),
                    (eye, _) => eye,
                },
                grade,
            },
            cell: cells.image.trim().to_owned(),
            by_column: (!by_column.is_empty()).then(|| crate::names::composed(by_column)),
            by_name: by_name.map(|(patient, _)| patient.to_owned()),
            conflicting: false,
        })
    }

    /// The grade, of which the columns hold one, or the same several times.
    fn grade(&self, cells: &[&str]) -> Result<u8, RowError> {
        let mut filled = cells.iter().filter(|cell| !cell.is_empty());
        let Some(&first) = filled.next() else {
            return Err(match self.ungradable {
                Ungradable::Empty => RowError::Ungradable,
                _ => GradeError::Empty.into(),
            });
        };
        if matches!(self.ungradable, Ungradable::Grade(text) if number(first) == text) {
            return Err(RowError::Ungradable);
        }
        let grade = grade::parse(first, self.scale)?;
        for other in filled {
            let other = grade::parse(other, self.scale)?;
            if other != grade {
                return Err(RowError::TwoGrades([grade, other]));
            }
        }
        Ok(grade)
    }

    /// Why an image's second row is not used.
    fn again(&mut self, at: usize, cells: &Cells, grade: u8) -> RowError {
        let first = &mut self.rows[at];
        let line = first.row.line;
        let same_file = first.cell == cells.image.trim();
        if !same_file && first.cell.contains(['/', '\\']) && cells.image.contains(['/', '\\']) {
            return RowError::SameName {
                other: first.cell.chars().take(80).collect(),
                line,
            };
        }
        if first.row.grade == grade {
            return RowError::Duplicate { line };
        }
        let there = first.row.grade;
        if !first.conflicting {
            first.conflicting = true;
            self.problems.push(Problem {
                line,
                image: first.row.image.clone(),
                reason: RowError::Conflict {
                    here: there,
                    there: grade,
                    line: cells.line,
                }
                .to_string(),
                expected: false,
            });
        }
        RowError::Conflict {
            here: grade,
            there,
            line,
        }
    }

    /// Decides the patients. `pairs` gives the patient of images that another table pairs.
    pub fn finish(mut self, pairs: &Pairs) -> (Labels, PatientFindings) {
        self.rows.retain(|candidate| !candidate.conflicting);
        self.problems.sort_by_key(|problem| problem.line);
        let mut findings = PatientFindings::default();
        let eyes = Eyes::among(self.rows.iter().filter_map(|row| row.by_column.as_deref()));
        for candidate in &mut self.rows {
            if let Some(value) = &mut candidate.by_column
                && let Some(patient) = eyes.patients.get(value)
            {
                value.clone_from(patient);
            }
        }
        findings.eyes_in_column = eyes.example;
        let mut columns_of_name: HashMap<String, BTreeMap<String, usize>> = HashMap::new();
        for (at, candidate) in self.rows.iter().enumerate() {
            if let (Some(name), Some(column)) = (&candidate.by_name, &candidate.by_column) {
                let columns = columns_of_name.entry(key(name)).or_default();
                columns.entry(patient_key(column)).or_insert(at);
            }
        }
        let mut parted: Vec<&BTreeMap<String, usize>> = columns_of_name
            .values()
            .filter(|columns| (2..=CROWD).contains(&columns.len()))
            .collect();
        parted.sort_by_key(|columns| columns.values().copied().min());
        if let Some(example) = parted.first() {
            let mut rows = example.values().map(|&at| self.rows[at].row.image.clone());
            if let (Some(one), Some(other)) = (rows.next(), rows.next()) {
                findings.split_by_column = Some((parted.len(), [one, other]));
            }
        }
        for candidate in &mut self.rows {
            let row = &mut candidate.row;
            let patient = if let Some(column) = &candidate.by_column {
                Some(column.clone())
            } else if let Some((patient, eye)) = pairs.get(&key(&row.image)) {
                row.eye = *eye;
                Some(patient.clone())
            } else if let Some(name) = &candidate.by_name {
                // An eye whose cell is empty belongs to the patient of the fellow eye.
                let fellow = columns_of_name.get(&key(name));
                findings.filled += usize::from(fellow.is_some());
                let column = fellow.and_then(|columns| columns.keys().next());
                Some(column.unwrap_or(name).clone())
            } else {
                None
            };
            row.told = patient.is_some();
            row.patient = patient.unwrap_or_else(|| row.image.clone());
        }
        findings.crowded = self.crowded();
        findings.none_has_both = self.none_has_both();
        self.spell();
        let labels = Labels {
            rows: self
                .rows
                .into_iter()
                .map(|candidate| candidate.row)
                .collect(),
            problems: self.problems,
            total: self.total,
            remarks: Vec::new(),
            repeating: None,
        };
        (labels, findings)
    }

    /// The patient to whom names alone give more photographs than anybody has.
    fn crowded(&self) -> Option<(String, usize)> {
        if self.options.patient_pattern.is_some() {
            return None;
        }
        let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
        let by_name = |candidate: &&Candidate| {
            candidate.by_column.is_none()
                && candidate.by_name.as_ref() == Some(&candidate.row.patient)
        };
        for candidate in self.rows.iter().filter(by_name) {
            *sizes.entry(candidate.row.patient.clone()).or_default() += 1;
        }
        let most = sizes.into_iter().max_by_key(|(_, size)| *size);
        most.filter(|(_, size)| *size > CROWD)
    }

    /// Patients that names alone tell, if none of them has both eyes.
    fn none_has_both(&self) -> Option<usize> {
        let LabelOptions {
            from,
            patient_pattern,
            each_image_a_patient,
            columns: _,
        } = self.options;
        if from.is_some() || patient_pattern.is_some() || *each_image_a_patient {
            return None;
        }
        let by_name = self.rows.iter().filter(|row| row.by_column.is_none());
        none_has_both_eyes(by_name.filter_map(|row| Some((row.by_name.as_deref()?, row.row.eye))))
    }

    /// Gives a patient one spelling, the first by the alphabet: `P3` and `p3` are one patient, as are `007` and `7`.
    fn spell(&mut self) {
        let mut spellings: HashMap<String, BTreeSet<String>> = HashMap::new();
        for candidate in &self.rows {
            let patient = &candidate.row.patient;
            let all = spellings.entry(patient_key(patient)).or_default();
            all.insert(patient.clone());
        }
        for candidate in &mut self.rows {
            let row = &mut candidate.row;
            if let Some(first) = spellings[&patient_key(&row.patient)].first() {
                row.patient.clone_from(first);
            }
        }
    }
}

fn on_line(line: u64) -> String {
    match line {
        0 => String::new(),
        line => format!(" on line {line}"),
    }
}

/// Why a row cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum RowError {
    /// The row as a whole.
    #[error("{0}")]
    Whole(String),
    /// The image's name.
    #[error("{0}")]
    Image(&'static str),
    /// The patient's name.
    #[error("patient: {0}")]
    Patient(&'static str),
    /// The image has a row already, with the same grade.
    #[error("duplicate row: the image is on line {line} already, with the same grade")]
    Duplicate {
        /// That row's line.
        line: u64,
    },
    /// Photographs in different folders have the same name.
    #[error(
        "{other:?}{} has the same file name: photographs are known by the name of their file, without \
         its folder", on_line(*line)
    )]
    SameName {
        /// The other's cell.
        other: String,
        /// The other's line.
        line: u64,
    },
    /// The image has another row, with another grade.
    #[error(
        "conflicting labels: grade {here} here, grade {there} on line {line}; the image is left out"
    )]
    Conflict {
        /// The grade of this row.
        here: u8,
        /// The grade of the other.
        there: u8,
        /// The other's line.
        line: u64,
    },
    /// Two columns hold different grades.
    #[error("two grades: {} and {}", .0[0], .0[1])]
    TwoGrades([u8; 2]),
    /// The data set itself says that nobody could grade it.
    #[error("ungradable, as the data set says")]
    Ungradable,
    /// No grade.
    #[error(transparent)]
    Grade(#[from] GradeError),
}
