//! What copying the other eye's grade would score.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::bootstrap::Draws;
use crate::evaluate::evaluate;
use crate::interval::Estimate;
use crate::points::{Choice, Point};
use crate::samples::{Eye, Samples, Scored};

/// Both eyes of a patient mostly have the same grade. A model that scores no better than this has not been shown to see
/// anything; one that was trained on one eye and tested on the other can score this by remembering patients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FellowEye {
    /// Photographs whose patient has one of the other eye, too; the figures are of these.
    pub samples: u64,
    /// Their patients.
    pub patients: u64,
    /// Of the other eye's grade as a score.
    pub auc: Option<Estimate>,
    /// Of the other eye's class as a prediction.
    pub kappa: Option<Estimate>,
    /// Positive where the other eye is.
    pub sensitivity: Option<Estimate>,
    pub specificity: Option<Estimate>,
}

/// Scores the other eye's label as if it were a model's output. Where a patient has several photographs of an eye, the first
/// of the other eye counts. None if no patient has both eyes.
pub fn fellow_eye(samples: &Samples, draws: Draws) -> Option<FellowEye> {
    let mut first: HashMap<(usize, bool), &Scored> = HashMap::new();
    for sample in &samples.all {
        if let Some(eye) = sample.eye {
            first
                .entry((sample.patient, eye == Eye::Left))
                .or_insert(sample);
        }
    }
    let mut number = HashMap::new();
    let mut copied = Vec::new();
    for sample in &samples.all {
        let Some(eye) = sample.eye else { continue };
        let Some(fellow) = first.get(&(sample.patient, eye != Eye::Left)) else {
            continue;
        };
        let next = number.len();
        copied.push(Scored {
            patient: *number.entry(sample.patient).or_insert(next),
            predicted: fellow.label,
            p: f64::from(fellow.grade) / 4.0,
            ..*sample
        });
    }
    if copied.is_empty() {
        return None;
    }
    // The lowest grade of the positive classes, as seen in these samples.
    let positive_from = samples
        .all
        .iter()
        .filter(|s| s.positive)
        .map(|s| s.grade)
        .min();
    let point = Point {
        choice: Choice::Half,
        threshold: positive_from.map_or(2.0, |grade| f64::from(grade) / 4.0),
    };
    let copied = Samples::of(
        copied,
        samples.classes,
        samples.positive_class,
        number.len(),
    );
    let evaluated = evaluate(&copied, &[point], draws);
    let [at_point] = &evaluated.points[..] else {
        return None;
    };
    Some(FellowEye {
        samples: evaluated.samples,
        patients: evaluated.patients,
        auc: evaluated.auc,
        kappa: evaluated.kappa,
        sensitivity: at_point.sensitivity,
        specificity: at_point.specificity,
    })
}
