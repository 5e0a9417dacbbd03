//! The cross-validation that parameters are chosen by.

use std::collections::BTreeSet;

use fovea_core::fold::{FoldError, sides};
use fovea_core::random::{shuffle, stream};
use fovea_core::spec::FoldSpec;

use super::Training;
use super::scale::Scale;

/// Number of folds.
pub(super) const FOLDS: u32 = 5;

/// One fold: what is learnt from, and what is predicted, with features in units of the spread on the training side.
pub(super) struct Fold {
    pub rows: Vec<Vec<f64>>,
    pub labels: Vec<usize>,
    /// Numbers of the held-out samples in the training samples.
    pub held_out: Vec<usize>,
    pub held_out_rows: Vec<Vec<f64>>,
}

/// Deals the patients to folds, by their highest class.
pub(super) fn cross(training: &Training) -> Result<Vec<Fold>, FoldError> {
    let classes: Vec<u8> = training.labels.iter().map(|&l| l as u8).collect();
    let fold = |index: u32| {
        let fold = FoldSpec { index, of: FOLDS };
        let [train, held_out] = sides(fold, &training.patients, &classes)?;
        let rows = |samples: &[u32]| -> Vec<&Vec<f64>> {
            samples
                .iter()
                .map(|&s| &training.rows[s as usize])
                .collect()
        };
        let (train_rows, held_out_rows) = (rows(&train), rows(&held_out));
        let scale = Scale::of(train_rows.iter().copied());
        let scaled = |rows: Vec<&Vec<f64>>| rows.into_iter().map(|row| scale.row(row)).collect();
        Ok(Fold {
            rows: scaled(train_rows),
            labels: train.iter().map(|&s| training.labels[s as usize]).collect(),
            held_out_rows: scaled(held_out_rows),
            held_out: held_out.into_iter().map(|s| s as usize).collect(),
        })
    };
    (1..=FOLDS).map(fold).collect()
}

/// All samples, or those of so many patients, drawn at random, that there are `most` of them or a patient's more.
pub(super) fn subset(training: &Training, most: usize, seed: u64) -> Training {
    if training.rows.len() <= most {
        return training.clone();
    }
    let all: BTreeSet<u32> = training.patients.iter().copied().collect();
    let mut order: Vec<u32> = all.into_iter().collect();
    shuffle(&mut stream("baseline-subset", &[seed]), &mut order);
    let samples_of = |patient: u32| training.patients.iter().filter(|p| **p == patient).count();
    let mut drawn = BTreeSet::new();
    let mut samples = 0;
    for patient in order {
        if samples >= most {
            break;
        }
        samples += samples_of(patient);
        drawn.insert(patient);
    }
    let kept = |at: &usize| drawn.contains(&training.patients[*at]);
    let kept: Vec<usize> = (0..training.rows.len()).filter(kept).collect();
    Training {
        rows: kept.iter().map(|&at| training.rows[at].clone()).collect(),
        labels: kept.iter().map(|&at| training.labels[at]).collect(),
        patients: kept.iter().map(|&at| training.patients[at]).collect(),
        scheme: training.scheme,
    }
}
