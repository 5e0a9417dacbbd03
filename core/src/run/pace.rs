//! How long the rest of a run takes.

use std::time::Duration;

use super::{Extent, StepReport};
use crate::spec::{Imbalance, RunSpec};

/// How long the steps that are left take at the smoothed rate of the newest step, without validations. None: the rate is not
/// known.
///
/// Images are counted, not steps: the last step of an epoch has fewer than the others.
pub fn time_left(spec: &RunSpec, extent: &Extent, newest: &StepReport) -> Option<Duration> {
    let steps = extent.total_steps.saturating_sub(newest.step) as f64;
    let images_a_step = match spec.train.imbalance {
        // More than there are: all steps but the last of an epoch are full.
        Imbalance::Oversample => f64::from(spec.train.batch) * f64::from(spec.train.virtual_ranks),
        Imbalance::None | Imbalance::ClassWeights => {
            extent.train_samples as f64 / extent.steps_per_epoch.max(1) as f64
        }
    };
    let rate = Some(newest.images_per_s).filter(|rate| *rate > 0.0)?;
    Duration::try_from_secs_f64(steps * images_a_step / rate).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::StepPhases;

    #[test]
    fn time_left_follows_from_images_and_not_from_how_many_the_newest_step_had() {
        let spec: RunSpec = toml::from_str("name='t'\ndataset='d'").unwrap();
        // 26 images in steps of 8: the last of four has 2.
        let extent = Extent {
            steps_per_epoch: 4,
            total_steps: 40,
            train_samples: 26,
            validation_samples: 4,
        };
        let left = |step, images, images_per_s| {
            let newest = StepReport {
                step,
                loss: 1.0,
                images,
                images_per_s,
                learning_rate: 0.1,
                phases: StepPhases::default(),
            };
            time_left(&spec, &extent, &newest).map(|left| left.as_secs_f64())
        };
        assert_eq!(left(0, 8, 2.0), Some(130.0), "10 epochs of 26 images");
        // A step of 2 images does not make the others shorter.
        assert_eq!(left(3, 8, 2.0), Some(120.25));
        assert_eq!(left(4, 2, 2.0), Some(117.0));
        assert_eq!(left(40, 2, 2.0), Some(0.0));
        assert_eq!(left(4, 8, 0.0), None);
        assert_eq!(left(4, 8, f64::NAN), None);
    }
}
