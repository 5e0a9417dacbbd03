use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::plan::ShardPlan;
use crate::spec::RunSpec;

/// The samples of a pool.
#[derive(Debug, Clone)]
struct Drawn {
    patients: Vec<u32>,
    grades: Vec<u8>,
    train: usize,
}

impl Drawn {
    fn pool(&self) -> Pool {
        let samples: Vec<(u32, u8)> = self
            .patients
            .iter()
            .copied()
            .zip(self.grades.iter().copied())
            .collect();
        let (train, validation) = samples.split_at(self.train);
        Pool::new(train.iter().copied(), validation.iter().copied())
    }

    /// Highest grade and number of samples of every patient.
    fn by_patient(&self) -> BTreeMap<u32, (u8, usize)> {
        let mut all = BTreeMap::new();
        for (patient, grade) in self.patients.iter().zip(&self.grades) {
            let (highest, samples) = all.entry(*patient).or_insert((*grade, 0));
            *highest = (*highest).max(*grade);
            *samples += 1;
        }
        all
    }

    /// The patients of every fold.
    fn folds(&self, of: u32) -> Result<Vec<BTreeSet<u32>>, FoldError> {
        let mut folds = Vec::new();
        for index in 1..=of {
            let fold = FoldSpec { index, of };
            let [train, out] = sides(fold, &self.patients, &self.grades)?;
            let names = |samples: &[u32]| -> BTreeSet<u32> {
                samples.iter().map(|&s| self.patients[s as usize]).collect()
            };
            assert!(names(&train).is_disjoint(&names(&out)), "fold {index}");
            let mut all = [train, out.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, (0..self.patients.len() as u32).collect::<Vec<_>>());
            folds.push(names(&out));
        }
        Ok(folds)
    }
}

/// Patients with one to three photographs each, of which some are trained on and the others validated on.
fn pools() -> impl Strategy<Value = Drawn> {
    let patient = prop::collection::vec(0u8..5, 1..=3);
    (prop::collection::vec(patient, 1..60), 0usize..60).prop_map(|(all, side)| {
        let side = side % (all.len() + 1);
        let of = |(p, grades): (usize, &Vec<u8>)| vec![p as u32; grades.len()];
        Drawn {
            patients: all.iter().enumerate().flat_map(of).collect(),
            train: all[..side].iter().map(Vec::len).sum(),
            grades: all.concat(),
        }
    })
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

proptest! {
    #[test]
    fn each_patient_is_held_out_once_and_folds_are_alike(drawn in pools(), of in 2u32..12) {
        let patients = drawn.by_patient();
        let Ok(folds) = drawn.folds(of) else {
            prop_assert!(patients.len() < of as usize);
            return Ok(());
        };
        // A partition of the patients.
        let all: BTreeSet<u32> = folds.iter().flatten().copied().collect();
        prop_assert_eq!(all.len(), folds.iter().map(BTreeSet::len).sum::<usize>());
        prop_assert_eq!(all.len(), patients.len());
        // As many patients in each, and as many of each grade.
        let sizes: Vec<usize> = folds.iter().map(BTreeSet::len).collect();
        prop_assert!(spread(&sizes) <= 1, "{sizes:?}");
        for grade in 0..5u8 {
            let of_grade = |fold: &BTreeSet<u32>| -> Vec<usize> {
                let of = |p: &u32| patients[p];
                fold.iter().map(of).filter(|(g, _)| *g == grade).map(|(_, n)| n).collect()
            };
            let people: Vec<usize> = folds.iter().map(|f| of_grade(f).len()).collect();
            prop_assert!(spread(&people) <= 1, "grade {grade}: {people:?}");
            // Three photographs of a patient at most.
            let samples: Vec<usize> = folds.iter().map(|f| of_grade(f).iter().sum()).collect();
            prop_assert!(spread(&samples) <= 3, "grade {grade}: {samples:?}");
        }
    }

    #[test]
    fn a_view_is_the_pool_split_that_way(drawn in pools(), of in 2u32..6, index in 0u32..6) {
        let pool = drawn.pool();
        let plain = pool.view(None).unwrap();
        prop_assert_eq!(plain.training().patients, &drawn.patients[..drawn.train]);
        prop_assert_eq!(plain.grades(Part::Validation).unwrap(), &drawn.grades[drawn.train..]);
        let fold = FoldSpec { index: index % of + 1, of };
        let Ok([train, out]) = sides(fold, &drawn.patients, &drawn.grades) else {
            prop_assert!(pool.view(Some(fold)).is_err());
            return Ok(());
        };
        let view = pool.view(Some(fold)).unwrap();
        let of_pool = |samples: &[u32]| -> (Vec<u32>, Vec<u8>) {
            samples.iter().map(|&s| (drawn.patients[s as usize], drawn.grades[s as usize])).unzip()
        };
        let (patients, grades) = of_pool(&train);
        prop_assert_eq!(view.training().patients, patients);
        prop_assert_eq!(view.training().grades, grades);
        prop_assert_eq!(view.grades(Part::Validation).unwrap(), of_pool(&out).1);
    }

    #[test]
    fn epochs_of_all_folds_together_use_each_sample_once_less_than_there_are_folds(
        drawn in pools(), of in 2u32..6, seed: u64,
    ) {
        let pool = drawn.pool();
        let mut trained = 0;
        for index in 1..=of {
            let text = format!(
                "name = 'f'\ndataset = 'd'\nseed = {}\n[train]\nvirtual_ranks = 1\nbatch = 3\n\
                 [fold]\nindex = {index}\nof = {of}", seed >> 1
            );
            let spec: RunSpec = toml::from_str(&text).unwrap();
            let Ok(view) = pool.view(spec.fold) else { return Ok(()) };
            let out = view.grades(Part::Validation).unwrap().len() as u32;
            let plan = ShardPlan::of_run(&spec, view.training(), out).unwrap();
            trained += plan.train_samples();
            prop_assert_eq!(plan.train_samples() as usize + out as usize, drawn.patients.len());
        }
        prop_assert_eq!(trained, drawn.patients.len() as u64 * u64::from(of - 1));
    }
}

/// Pins who is in which fold: another answer would be other runs under the same specs.
#[test]
fn the_folds_are_pinned() {
    // Patients 0 to 6; 3 and 6 have two photographs, 5 and 6 are of the validation split.
    let drawn = Drawn {
        patients: vec![0, 1, 2, 3, 3, 4, 5, 6, 6],
        grades: vec![0, 2, 0, 0, 1, 2, 0, 4, 0],
        train: 6,
    };
    let folds = drawn.folds(3).unwrap();
    // By grade: 0, 2, 5 of grade 0; 3 of grade 1; 1, 4 of grade 2; 6 of grade 4.
    let expected = [[0, 3, 6].into(), [1, 2].into(), [4, 5].into()];
    assert_eq!(folds, expected);
}

#[test]
fn more_folds_than_patients_are_refused_with_both_numbers() {
    let pool = Pool::new([(0, 0), (0, 0), (1, 2)], [(7, 1)]);
    let fold = FoldSpec { index: 1, of: 4 };
    let error = pool.view(Some(fold)).unwrap_err();
    assert_eq!(error, FoldError::TooFewPatients { of: 4, patients: 3 });
    assert!(error.to_string().contains("only 3 patients"), "{error}");
    assert!(pool.view(Some(FoldSpec { index: 3, of: 3 })).is_ok());
}
