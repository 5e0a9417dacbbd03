//! All figures of a set of samples at once, each sample counted with a weight.

use fovea_core::metrics::{Ranking, quadratic_kappa};

use crate::calibration::{BINS, BinSums, expected_error};
use crate::points::Point;
use crate::samples::{GRADES, Samples, Scored};

/// The figures; None where one is not defined.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub auc: Option<f64>,
    pub macro_auc: Option<f64>,
    pub kappa: Option<f64>,
    pub accuracy: Option<f64>,
    pub brier: Option<f64>,
    pub calibration_error: Option<f64>,
    /// By class.
    pub recall: Vec<Option<f64>>,
    /// By operating point.
    pub points: Vec<Counts>,
    /// `confusion[label][prediction]`.
    pub confusion: Vec<Vec<u64>>,
    pub bins: Vec<BinSums>,
    /// Samples of each grade.
    pub grades: [u64; GRADES],
}

/// What an operating point says of the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub true_positives: u64,
    pub false_negatives: u64,
    pub false_positives: u64,
    pub true_negatives: u64,
    /// Samples of each grade that are called positive.
    pub called: [u64; GRADES],
}

impl Counts {
    fn add(&mut self, sample: &Scored, called: bool, weight: u64) {
        self.called[usize::from(sample.grade)] += if called { weight } else { 0 };
        *match (sample.positive, called) {
            (true, true) => &mut self.true_positives,
            (true, false) => &mut self.false_negatives,
            (false, true) => &mut self.false_positives,
            (false, false) => &mut self.true_negatives,
        } += weight;
    }

    pub fn sensitivity(self) -> Option<f64> {
        share(self.true_positives, self.false_negatives)
    }

    pub fn specificity(self) -> Option<f64> {
        share(self.true_negatives, self.false_positives)
    }

    /// Positive predictive value.
    pub fn ppv(self) -> Option<f64> {
        share(self.true_positives, self.false_positives)
    }

    /// Negative predictive value.
    pub fn npv(self) -> Option<f64> {
        share(self.true_negatives, self.false_negatives)
    }
}

fn share(part: u64, rest: u64) -> Option<f64> {
    (part + rest > 0).then(|| part as f64 / (part + rest) as f64)
}

impl Figures {
    /// Share of a grade's samples that the point of this number calls positive.
    pub fn called(&self, point: usize, grade: usize) -> Option<f64> {
        let called = self.points[point].called[grade];
        share(called, self.grades[grade] - called)
    }

    /// `weight` is how often a patient counts.
    pub fn of(samples: &Samples, points: &[Point], weight: impl Fn(usize) -> u64) -> Self {
        let mut confusion = vec![vec![0u64; samples.classes]; samples.classes];
        let mut bins = [BinSums::default(); BINS];
        let mut counts = vec![Counts::default(); points.len()];
        let mut grades = [0; GRADES];
        let (mut total, mut squares) = (0u64, 0.0);
        for sample in &samples.all {
            let weight = weight(sample.patient);
            if weight == 0 {
                continue;
            }
            total += weight;
            grades[usize::from(sample.grade)] += weight;
            confusion[sample.label][sample.predicted] += weight;
            let truth = f64::from(u8::from(sample.positive));
            squares += weight as f64 * (sample.p - truth).powi(2);
            let bin = &mut bins[sample.bin];
            bin.weight += weight;
            bin.p += weight as f64 * sample.p;
            bin.positives += weight * u64::from(sample.positive);
            for (counts, point) in counts.iter_mut().zip(points) {
                counts.add(sample, sample.p >= point.threshold, weight);
            }
        }
        let correct: u64 = (0..samples.classes).map(|c| confusion[c][c]).sum();
        let recall = |class: usize| {
            let of_class: u64 = confusion[class].iter().sum();
            share(confusion[class][class], of_class - confusion[class][class])
        };
        let auc = |ranking: &Ranking| ranking.auc(|sample| weight(samples.all[sample].patient));
        let classes: Option<Vec<f64>> = samples.of_classes.iter().map(auc).collect();
        Self {
            auc: auc(&samples.ranking),
            macro_auc: classes
                .filter(|classes| !classes.is_empty())
                .map(|classes| classes.iter().sum::<f64>() / classes.len() as f64),
            kappa: quadratic_kappa(&confusion),
            accuracy: share(correct, total - correct),
            brier: (total > 0).then(|| squares / total as f64),
            calibration_error: expected_error(&bins),
            recall: (0..samples.classes).map(recall).collect(),
            points: counts,
            confusion,
            bins: bins.to_vec(),
            grades,
        }
    }
}
