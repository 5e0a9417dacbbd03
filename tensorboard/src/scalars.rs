//! Figures of a run as scalars.

use std::collections::BTreeSet;

use fovea_core::run::EpochResult;
use fovea_core::spec::RunSpec;

use crate::event::{Event, SessionStatus, What, scalar};

const LOSS: &str = "train/loss";
const RATE: &str = "train/learning_rate";
const VALIDATION_LOSS: &str = "validation/loss";

/// All tags.
pub const TAGS: [&str; 9] = [
    LOSS,
    RATE,
    VALIDATION_LOSS,
    "validation/auc",
    "validation/kappa",
    "validation/sensitivity",
    "validation/specificity",
    "system/images_per_s",
    "system/workers",
];

/// Mean training loss and learning rate of a committed step (from 1) of a run of `total_steps` steps.
pub fn training(spec: &RunSpec, total_steps: u64, step: u64, loss: f64, wall_time: f64) -> Event {
    let rate = spec.schedule(total_steps).rate(step.saturating_sub(1));
    scalar(step, wall_time, &[(LOSS, loss), (RATE, rate)])
}

/// Metrics on the validation split, those that are defined.
pub fn epoch(result: &EpochResult, wall_time: f64) -> Event {
    let validation = &result.validation;
    let values = [
        (VALIDATION_LOSS, Some(validation.loss)),
        ("validation/auc", validation.auc),
        ("validation/kappa", validation.quadratic_kappa),
        ("validation/sensitivity", validation.sensitivity),
        ("validation/specificity", validation.specificity),
    ];
    let defined = values.into_iter();
    let defined: Vec<(&str, f64)> = defined.filter_map(|(tag, v)| Some((tag, v?))).collect();
    scalar(result.step, wall_time, &defined)
}

/// Speed over all workers, and their number.
pub fn speed(step: u64, images_per_s: f64, workers: usize, wall_time: f64) -> Event {
    let values = [
        ("system/images_per_s", images_per_s),
        ("system/workers", workers as f64),
    ];
    scalar(step, wall_time, &values)
}

/// What the files of a run hold, as TensorBoard reads them in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The last step with a training loss; those before it have one, too.
    pub step: u64,
    /// Steps with validation metrics.
    pub validated: BTreeSet<u64>,
}

impl Known {
    /// Reads the next event.
    pub fn read(&mut self, event: &Event) {
        let step = u64::try_from(event.step).unwrap_or(0);
        match &event.what {
            Some(What::SessionLog(log)) if log.status == SessionStatus::Start as i32 => {
                self.cut(step.saturating_sub(1));
            }
            Some(What::Summary(summary)) => {
                let has = |tag: &str| summary.value.iter().any(|value| value.tag == tag);
                if has(LOSS) {
                    self.step = self.step.max(step);
                }
                if has(VALIDATION_LOSS) {
                    self.validated.insert(step);
                }
            }
            Some(What::SessionLog(_) | What::FileVersion(_)) | None => {}
        }
    }

    /// Steps after `step` are void.
    pub fn cut(&mut self, step: u64) {
        self.step = self.step.min(step);
        self.validated.retain(|validated| *validated <= step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{session_start, version};

    #[test]
    fn a_start_makes_later_steps_void() {
        let loss = |step| scalar(step, 0.0, &[(LOSS, 1.0)]);
        let validation = |step| scalar(step, 0.0, &[(VALIDATION_LOSS, 1.0)]);
        let mut known = Known::default();
        let events = [
            version(0.0),
            session_start(1, 0.0),
            loss(1),
            loss(2),
            validation(2),
            loss(3),
            loss(4),
            validation(4),
        ];
        events.iter().for_each(|event| known.read(event));
        assert_eq!((known.step, known.validated.len()), (4, 2));
        known.read(&session_start(3, 0.0));
        assert_eq!(known.step, 2);
        assert_eq!(known.validated, BTreeSet::from([2]));
        known.read(&loss(3));
        assert_eq!(known.step, 3);
    }
}
