//! Folds: which patients a run of a k-fold cross-validation holds out.
//!
//! The *pool* of a cross-validation is a dataset's training and validation split together, in this order; its test part is
//! never in it. Patients are dealt to the folds like cards: those of one highest grade after the other, within a grade those
//! with the most samples first and otherwise in the pool's order, which is random. So of each grade, and of all patients
//! together, any two folds hold the same number or one more.
//!
//! Which fold a patient is in depends on the dataset and the number of folds, and not on a run's seed: runs of several
//! seeds hold out the same patients, and what differs between them is the seed's doing.
//!
//! A run sees the pool through a [`View`], in which both sides are numbered from 0 without gaps: its plan, its ledger and
//! its scores are those of a dataset that was split that way.

use std::borrow::Cow;

use crate::plan::TrainingSplit;
use crate::spec::{FoldSpec, Part};

/// Why a pool cannot be dealt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Some fold would be empty.
    #[error(
        "fold.of is {of}, but the training and validation split together have only {patients} patients: use at most that many \
         folds"
    )]
    TooFewPatients { of: u32, patients: usize },
}

/// A dataset's training and validation split, as far as runs depend on them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    patients: Vec<u32>,
    grades: Vec<u8>,
    /// Samples of the training split.
    train: usize,
}

impl Pool {
    /// Patient and grade of every sample of both splits, in plan order. No patient is in both, and the samples of a patient
    /// are neighbours.
    pub fn new(
        train: impl IntoIterator<Item = (u32, u8)>,
        validation: impl IntoIterator<Item = (u32, u8)>,
    ) -> Self {
        let (mut patients, mut grades): (Vec<u32>, Vec<u8>) = train.into_iter().unzip();
        let train = patients.len();
        for (patient, grade) in validation {
            patients.push(patient);
            grades.push(grade);
        }
        Self {
            patients,
            grades,
            train,
        }
    }

    /// The two sides, as a run that holds out `fold` sees them; without one, the splits as they are.
    ///
    /// # Errors
    /// There are fewer patients than folds.
    pub fn view(&self, fold: Option<FoldSpec>) -> Result<View<'_>, FoldError> {
        let Some(fold) = fold else {
            let (train, held_out) = self.grades.split_at(self.train);
            return Ok(View {
                patients: (&self.patients[..self.train]).into(),
                grades: train.into(),
                held_out: held_out.into(),
            });
        };
        let [train, held_out] = sides(fold, &self.patients, &self.grades)?;
        let grades = |samples: &[u32]| -> Vec<u8> {
            samples.iter().map(|&s| self.grades[s as usize]).collect()
        };
        let patients = train.iter().map(|&s| self.patients[s as usize]);
        Ok(View {
            patients: Cow::Owned(patients.collect()),
            grades: grades(&train).into(),
            held_out: grades(&held_out).into(),
        })
    }
}

/// The two sides as a run sees them.
#[derive(Debug, Clone)]
pub struct View<'a> {
    patients: Cow<'a, [u32]>,
    grades: Cow<'a, [u8]>,
    held_out: Cow<'a, [u8]>,
}

impl View<'_> {
    /// What the run trains on.
    pub fn training(&self) -> TrainingSplit<'_> {
        TrainingSplit {
            patients: &self.patients,
            grades: &self.grades,
        }
    }

    /// The grades of what it is trained on, or of what it validates on. None: another part, which has no folds.
    pub fn grades(&self, part: Part) -> Option<&[u8]> {
        match part {
            Part::Train => Some(&self.grades),
            Part::Validation => Some(&self.held_out),
            Part::Test | Part::All => None,
        }
    }
}

/// The samples of a pool on the two sides of `fold`, trained on and held out: numbers in the pool, in its order. `patients`
/// and `grades` are those of every sample of the pool; equal neighbours are one patient.
///
/// # Errors
/// There are fewer patients than folds.
pub fn sides(fold: FoldSpec, patients: &[u32], grades: &[u8]) -> Result<[Vec<u32>; 2], FoldError> {
    let folds = deal(fold.of, patients, grades)?;
    let held_out = |sample: &u32| folds[*sample as usize] == fold.index;
    let (out, train) = (0..patients.len() as u32).partition(held_out);
    Ok([train, out])
}

/// The fold, from 1, of every sample of a pool.
fn deal(of: u32, patients: &[u32], grades: &[u8]) -> Result<Vec<u32>, FoldError> {
    struct Patient {
        highest_grade: u8,
        samples: std::ops::Range<usize>,
    }
    let mut all: Vec<Patient> = Vec::new();
    for (sample, &grade) in grades.iter().enumerate() {
        match all.last_mut() {
            Some(last) if patients[last.samples.start] == patients[sample] => {
                last.highest_grade = last.highest_grade.max(grade);
                last.samples.end = sample + 1;
            }
            Some(_) | None => all.push(Patient {
                highest_grade: grade,
                samples: sample..sample + 1,
            }),
        }
    }
    if of == 0 || all.len() < of as usize {
        return Err(FoldError::TooFewPatients {
            of,
            patients: all.len(),
        });
    }
    // A stable sort: equal ones stay in the pool's order.
    all.sort_by_key(|p| (p.highest_grade, std::cmp::Reverse(p.samples.len())));
    let mut folds = vec![0; patients.len()];
    for (number, patient) in all.into_iter().enumerate() {
        let fold = number as u32 % of + 1;
        folds[patient.samples].fill(fold);
    }
    Ok(folds)
}

#[cfg(test)]
mod tests;
