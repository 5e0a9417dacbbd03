//! Figures with intervals.

use std::collections::HashSet;

use fovea_core::metrics::CurvePoint;
use serde::{Deserialize, Serialize};

use crate::bootstrap::Draws;
use crate::calibration::{BINS, Bin};
use crate::figures::{Counts, Figures};
use crate::interval::{Estimate, estimate};
use crate::points::Point;
use crate::samples::{GRADES, Samples, Scored};

/// How good a model is on a set of samples. A figure is None where it is not defined, such as an AUC where all are negative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Number of photographs.
    pub samples: u64,
    /// Number of patients, over whom the intervals are drawn.
    pub patients: u64,
    /// Number of photographs whose label is positive.
    pub positives: u64,
    /// The draws of the intervals.
    pub draws: Draws,
    /// Area under the ROC curve of P(positive), ties counted half.
    pub auc: Option<Estimate>,
    /// Mean over the classes of the AUC of each class's probability, the class against all others. None with two classes, and
    /// where a class has no sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macro_auc: Option<Estimate>,
    /// Cohen's kappa of label and named class with quadratic weights.
    pub kappa: Option<Estimate>,
    /// Share of samples whose label the model names. Where most samples are of one class, it says little.
    pub accuracy: Option<Estimate>,
    /// Mean square of P(positive) minus 1 or 0 (Brier, 1950): 0 is best.
    pub brier: Option<Estimate>,
    /// Expected calibration error in ten bins of equal width: 0 is best. It is biased upwards in small sets, so that its
    /// interval may lie above it.
    pub calibration_error: Option<Estimate>,
    /// Share of each class's samples that are predicted as that class.
    pub recall: Vec<Option<Estimate>>,
    /// What each operating point gives.
    pub points: Vec<PointResult>,
    /// Numbers of samples: `confusion[label][prediction]`.
    pub confusion: Vec<Vec<u64>>,
    /// The ROC curve: false positives, true positives and the threshold, from nothing called positive to everything.
    pub roc: Vec<(u64, u64, f64)>,
    /// The reliability diagram.
    pub reliability: Vec<Bin>,
}

/// What an operating point gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointResult {
    pub point: Point,
    pub true_positives: u64,
    pub false_negatives: u64,
    pub false_positives: u64,
    pub true_negatives: u64,
    /// Share of the positive samples that are called positive.
    pub sensitivity: Option<Estimate>,
    /// Share of the negative samples that are called negative.
    pub specificity: Option<Estimate>,
    /// Positive predictive value: share of those called positive that are. It depends on how many are positive in this set.
    pub ppv: Option<Estimate>,
    /// Negative predictive value.
    pub npv: Option<Estimate>,
    /// What is called positive of each grade that occurs, the lowest first.
    pub grades: Vec<GradeCalls>,
}

/// What an operating point calls positive of one grade: of a positive grade its recall, of a negative one its false alarms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GradeCalls {
    /// The grade that people gave, 0 to 4.
    pub grade: u8,
    /// Number of its samples.
    pub samples: u64,
    /// How many of them are called positive.
    pub called: u64,
    /// The same as a share.
    pub share: Option<Estimate>,
}

/// Computes all figures of `samples`, with `points` that were chosen elsewhere.
pub fn evaluate(samples: &Samples, points: &[Point], draws: Draws) -> Evaluated {
    let figures = Figures::of(samples, points, |_| 1);
    let drawn = draws.each(samples.patients, |times| {
        Figures::of(samples, points, |patient| u64::from(times[patient]))
    });
    let with = Intervals {
        samples,
        figures: &figures,
        drawn: &drawn,
    };
    let points = points.iter().enumerate();
    Evaluated {
        samples: samples.all.len() as u64,
        patients: samples.patients as u64,
        positives: with.count(|s| s.positive),
        draws,
        auc: with.auc(),
        macro_auc: with.of(|f| f.macro_auc, None),
        kappa: with.of(|f| f.kappa, None),
        accuracy: with.share(|f| f.accuracy, |_| true),
        brier: with.of(|f| f.brier, None),
        calibration_error: with.of(|f| f.calibration_error, None),
        recall: (0..samples.classes)
            .map(|class| with.share(|f| f.recall[class], |s| s.label == class))
            .collect(),
        points: points.map(|(at, point)| with.point(at, *point)).collect(),
        roc: curve(&samples.ranking.curve()),
        reliability: (0..BINS).map(|bin| with.bin(bin)).collect(),
        confusion: figures.confusion,
    }
}

fn curve(points: &[CurvePoint]) -> Vec<(u64, u64, f64)> {
    let point = |p: &CurvePoint| (p.false_positives, p.true_positives, p.threshold);
    points.iter().map(point).collect()
}

struct Intervals<'a> {
    samples: &'a Samples,
    figures: &'a Figures,
    drawn: &'a [Figures],
}

impl Intervals<'_> {
    /// `n`: patients for Wilson's interval.
    fn of(&self, figure: impl Fn(&Figures) -> Option<f64>, n: Option<u64>) -> Option<Estimate> {
        let value = figure(self.figures)?;
        Some(estimate(value, self.drawn.iter().map(figure), n))
    }

    /// A share of the samples for which `counts` holds.
    fn share(
        &self,
        figure: impl Fn(&Figures) -> Option<f64>,
        counts: impl Fn(&Scored) -> bool,
    ) -> Option<Estimate> {
        self.of(figure, Some(self.patients(counts)))
    }

    /// An AUC of 1 is like a share of 1 of whichever are fewer, the patients with positive or with negative samples.
    fn auc(&self) -> Option<Estimate> {
        let positive = self.patients(|s| s.positive);
        let negative = self.patients(|s| !s.positive);
        self.of(|f| f.auc, Some(positive.min(negative)))
    }

    fn point(&self, at: usize, point: Point) -> PointResult {
        let Counts {
            true_positives,
            false_negatives,
            false_positives,
            true_negatives,
            called: _,
        } = self.figures.points[at];
        let called = |s: &Scored| s.p >= point.threshold;
        PointResult {
            point,
            true_positives,
            false_negatives,
            false_positives,
            true_negatives,
            sensitivity: self.share(|f| f.points[at].sensitivity(), |s| s.positive),
            specificity: self.share(|f| f.points[at].specificity(), |s| !s.positive),
            ppv: self.share(|f| f.points[at].ppv(), called),
            npv: self.share(|f| f.points[at].npv(), |s| !called(s)),
            grades: self.grades(at),
        }
    }

    fn grades(&self, at: usize) -> Vec<GradeCalls> {
        let grade = |grade: usize| GradeCalls {
            grade: grade as u8,
            samples: self.figures.grades[grade],
            called: self.figures.points[at].called[grade],
            share: self.share(|f| f.called(at, grade), |s| usize::from(s.grade) == grade),
        };
        let all = (0..GRADES).map(grade);
        all.filter(|calls| calls.samples > 0).collect()
    }

    /// A part of the reliability diagram. A draw in which it is empty tells nothing of it.
    fn bin(&self, number: usize) -> Bin {
        let sums = &self.figures.bins[number];
        Bin {
            from: number as f64 / BINS as f64,
            samples: sums.weight,
            mean: sums.mean(),
            positive: self.share(|f| f.bins[number].positive(), |s| s.bin == number),
        }
    }

    fn count(&self, counts: impl Fn(&Scored) -> bool) -> u64 {
        self.samples.all.iter().filter(|s| counts(s)).count() as u64
    }

    /// Patients with at least one sample for which `counts` holds.
    fn patients(&self, counts: impl Fn(&Scored) -> bool) -> u64 {
        let all = self.samples.all.iter().filter(|s| counts(s));
        all.map(|s| s.patient).collect::<HashSet<_>>().len() as u64
    }
}
