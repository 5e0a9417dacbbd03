//! A model's outputs on labelled photographs.

use std::collections::BTreeMap;

use fovea_core::metrics::Ranking;
use fovea_core::spec::Scheme;

use crate::calibration::bin_of;
use crate::error::SamplesError;

/// Grades of the ICDR scale, 0 to 4.
pub(crate) const GRADES: usize = 5;

/// Which eye of a patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eye {
    Left,
    Right,
}

/// One photograph.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Whose it is; equal names are one patient.
    pub patient: String,
    /// Which eye, if that is known.
    pub eye: Option<Eye>,
    /// The grade that people gave, 0 to 4.
    pub grade: u8,
    /// Class index of the grade.
    pub label: usize,
    /// The model's probability of each class.
    pub probabilities: Vec<f32>,
}

impl Sample {
    /// P(positive), 0 to 1: the sum over the classes from `positive_class` on.
    pub fn p_positive(&self, positive_class: usize) -> f64 {
        let positive = self.probabilities.iter().skip(positive_class);
        let sum: f64 = positive.map(|&p| f64::from(p)).sum();
        sum.clamp(0.0, 1.0)
    }
}

/// Samples that can be evaluated.
#[derive(Debug, Clone)]
pub struct Samples {
    pub(crate) classes: usize,
    pub(crate) positive_class: usize,
    pub(crate) patients: usize,
    pub(crate) all: Vec<Scored>,
    /// By the probability of being positive.
    pub(crate) ranking: Ranking,
    /// For each class, by its probability, the class against all others. None with two classes, where it is `ranking`.
    pub(crate) of_classes: Vec<Ranking>,
}

/// What is computed once of a sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scored {
    /// From 0, in the order of the patients' names.
    pub patient: usize,
    pub eye: Option<Eye>,
    pub grade: u8,
    pub label: usize,
    pub positive: bool,
    /// The class that the model names.
    pub predicted: usize,
    /// P(positive), 0 to 1.
    pub p: f64,
    /// Of the reliability diagram.
    pub bin: usize,
}

/// How far probabilities may be from adding up to 1: they are rounded to float32, at worst to bfloat16's steps before.
const ROUNDING: f64 = 1e-3;

impl Samples {
    /// Takes the outputs of a model, which `scheme` says how to read.
    ///
    /// # Errors
    /// Names the first sample that cannot be used.
    pub fn new(samples: &[Sample], scheme: Scheme) -> Result<Self, SamplesError> {
        let Scheme {
            classes,
            positive_class,
            head,
        } = scheme;
        if classes < 2 {
            return Err(SamplesError::Classes { classes });
        }
        if positive_class == 0 || positive_class >= classes {
            return Err(SamplesError::Positive {
                positive_class,
                classes,
            });
        }
        if samples.is_empty() {
            return Err(SamplesError::Empty);
        }
        let mut patients: BTreeMap<&str, usize> =
            samples.iter().map(|s| (s.patient.as_str(), 0)).collect();
        for (number, patient) in patients.values_mut().enumerate() {
            *patient = number;
        }
        let scored = samples.iter().enumerate().map(|(number, sample)| {
            check(number, sample, classes)?;
            let p = sample.p_positive(positive_class);
            Ok(Scored {
                patient: patients[sample.patient.as_str()],
                eye: sample.eye,
                grade: sample.grade,
                label: sample.label,
                positive: sample.label >= positive_class,
                predicted: head.predicted(&sample.probabilities),
                p,
                bin: bin_of(p),
            })
        });
        let all = scored.collect::<Result<Vec<_>, _>>()?;
        let against_others = |class: usize| {
            let pairs = samples
                .iter()
                .map(move |s| (f64::from(s.probabilities[class]), s.label == class));
            Ranking::new(pairs)
        };
        let mut samples = Self::of(all, classes, positive_class, patients.len());
        if classes > 2 {
            samples.of_classes = (0..classes).map(against_others).collect();
        }
        Ok(samples)
    }

    pub(crate) fn of(
        all: Vec<Scored>,
        classes: usize,
        positive_class: usize,
        patients: usize,
    ) -> Self {
        Self {
            classes,
            positive_class,
            patients,
            ranking: Ranking::new(all.iter().map(|s| (s.p, s.positive))),
            of_classes: Vec::new(),
            all,
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Never: samples without any are refused.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

fn check(number: usize, sample: &Sample, classes: usize) -> Result<(), SamplesError> {
    if sample.label >= classes {
        return Err(SamplesError::Label {
            sample: number,
            label: sample.label,
            classes,
        });
    }
    if usize::from(sample.grade) >= GRADES {
        return Err(SamplesError::Grade {
            sample: number,
            grade: sample.grade,
        });
    }
    if sample.probabilities.len() != classes {
        return Err(SamplesError::Count {
            sample: number,
            found: sample.probabilities.len(),
            classes,
        });
    }
    let sum: f64 = sample.probabilities.iter().map(|&p| f64::from(p)).sum();
    let each = sample.probabilities.iter().all(|p| (0.0..=1.0).contains(p));
    if !each || (sum - 1.0).abs() > ROUNDING {
        return Err(SamplesError::Probabilities {
            sample: number,
            probabilities: sample.probabilities.clone(),
        });
    }
    Ok(())
}
