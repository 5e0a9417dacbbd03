//! The newest full step of each run that was seen on a page: it says where a step's time goes, which the last step of an epoch, of
//! fewer images, does not.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use fovea_core::run::{Run, StepReport};
use fovea_dashboard::model::is_full_step;

use crate::run::Shown;

/// Runs whose step is kept, those that were submitted last.
const MOST: usize = 256;

/// By the numbers of runs.
#[derive(Debug, Default)]
pub(super) struct FullSteps(Mutex<BTreeMap<u64, StepReport>>);

impl FullSteps {
    /// The newest full step of a run as far as one was seen, by now `shown` among them.
    pub(super) fn of(&self, shown: &Shown) -> Option<StepReport> {
        self.newest(&shown.run, shown.progress)
    }

    fn newest(&self, run: &Run, progress: Option<StepReport>) -> Option<StepReport> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a step that the ledger alone knows there are no times.
        let timed = progress.filter(|newest| newest.phases.total_ms() > 0.0);
        if let Some(newest) = timed.filter(|newest| is_full_step(run, newest)) {
            kept.insert(run.number, newest);
            while kept.len() > MOST {
                kept.pop_first();
            }
        }
        kept.get(&run.number).copied()
    }
}

#[cfg(test)]
mod tests {
    use fovea_core::ids::RunId;
    use fovea_core::run::{Extent, StepPhases};
    use fovea_core::spec::RunSpec;

    use super::*;

    #[test]
    fn the_last_step_of_an_epoch_does_not_displace_a_full_one() {
        let spec: RunSpec =
            toml::from_str("name='t'\ndataset='d'\n[train]\nbatch=4\nvirtual_ranks=2").unwrap();
        let extent = Extent {
            steps_per_epoch: 4,
            total_steps: 40,
            train_samples: 26,
            validation_samples: 4,
        };
        let id = RunId::new("t-1").unwrap();
        let run = Run::new(id, 1, spec, "d".repeat(64), extent, 0);
        let step = |step, images| StepReport {
            step,
            loss: 1.0,
            images,
            images_per_s: 40.0,
            learning_rate: 0.1,
            phases: StepPhases {
                forward_ms: 100.0,
                ..StepPhases::default()
            },
        };
        let replayed = StepReport {
            phases: StepPhases::default(),
            ..step(12, 8)
        };
        let steps = FullSteps::default();
        assert_eq!(steps.newest(&run, None), None);
        assert_eq!(steps.newest(&run, Some(step(4, 2))), None);
        assert_eq!(steps.newest(&run, Some(step(7, 8))), Some(step(7, 8)));
        assert_eq!(steps.newest(&run, Some(step(8, 2))), Some(step(7, 8)));
        assert_eq!(steps.newest(&run, Some(replayed)), Some(step(7, 8)));
    }
}
