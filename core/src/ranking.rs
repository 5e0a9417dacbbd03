//! The variants of a sweep in order: those that came furthest first, and of these the best by the metric. Pure.

use crate::run::{EpochResult, Phase, Run};
use crate::spec::BestBy;
use crate::spread::Spread;

/// A run as far as a ranking needs it.
#[derive(Debug, Clone, Copy)]
pub struct RankedRun<'a> {
    /// Its variant, from 0.
    pub variant: usize,
    /// It has failed or was cancelled: it does not hide how far the others of its variant came.
    pub is_out: bool,
    /// The results of the epochs that it has done.
    pub epochs: &'a [EpochResult],
}

impl<'a> RankedRun<'a> {
    /// Of a run of this variant.
    pub fn of(variant: usize, run: &'a Run) -> Self {
        Self {
            variant,
            is_out: matches!(run.phase, Phase::Failed { .. } | Phase::Cancelled),
            epochs: &run.epochs[..run.next_epoch() as usize],
        }
    }
}

/// A variant and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The variant, from 0.
    pub variant: usize,
    /// Epochs that each of its runs has done.
    pub epochs: usize,
    /// The metric after the last of these, over its runs. None if it is not defined.
    pub spread: Option<Spread>,
}

/// All `variants`, the best first. Of equals the earlier comes first.
pub fn rank(variants: usize, runs: &[RankedRun], by: BestBy) -> Vec<Ranked> {
    let mut ranked: Vec<Ranked> = (0..variants).map(|at| of_variant(at, runs, by)).collect();
    let merit = |one: &Ranked| match (one.spread, by) {
        (None, _) => f64::NEG_INFINITY,
        (Some(spread), BestBy::Loss) => -spread.mean,
        (Some(spread), _) => spread.mean,
    };
    ranked.sort_by(|a, b| {
        let by_epochs = b.epochs.cmp(&a.epochs);
        by_epochs.then(merit(b).total_cmp(&merit(a)))
    });
    ranked
}

fn of_variant(variant: usize, runs: &[RankedRun], by: BestBy) -> Ranked {
    let of = || runs.iter().filter(|run| run.variant == variant);
    let all_out = of().all(|run| run.is_out);
    let counted = || of().filter(|run| all_out || !run.is_out);
    let epochs = counted().map(|run| run.epochs.len()).min().unwrap_or(0);
    let last = epochs.checked_sub(1);
    let metric = |run: &RankedRun| {
        let merit = by.merit(&run.epochs.get(last?)?.validation)?;
        Some(by.shown(merit))
    };
    Ranked {
        variant,
        epochs,
        spread: Spread::of(counted().filter_map(metric)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Evaluation;

    fn epochs(aucs: &[Option<f64>]) -> Vec<EpochResult> {
        let result = |(epoch, auc): (u32, &Option<f64>)| EpochResult {
            epoch,
            step: u64::from(epoch + 1) * 5,
            train_loss: None,
            validation: Evaluation {
                samples: 4,
                positives: 2,
                loss: auc.unwrap_or(2.0),
                accuracy: 0.5,
                auc: *auc,
                sensitivity: None,
                specificity: None,
                quadratic_kappa: None,
                confusion: Vec::new(),
            },
        };
        (0..).zip(aucs).map(result).collect()
    }

    #[test]
    fn who_came_furthest_is_first_and_then_the_mean_counts() {
        let far = epochs(&[Some(0.5), Some(0.5)]);
        let near = epochs(&[Some(0.99)]);
        let better = epochs(&[Some(0.5), Some(0.75)]);
        let unknown = epochs(&[Some(0.9), None]);
        let run = |variant, is_out, epochs| RankedRun {
            variant,
            is_out,
            epochs,
        };
        let runs = [
            run(0, false, &near[..]),
            run(1, false, &far),
            run(1, false, &better),
            run(2, false, &better),
            // What failed early does not count while another goes on.
            run(2, true, &near[..0]),
            run(3, true, &near),
            run(4, false, &unknown),
        ];
        let ranked = rank(6, &runs, BestBy::Auc);
        let order: Vec<(usize, usize)> = ranked.iter().map(|r| (r.variant, r.epochs)).collect();
        assert_eq!(order, [(2, 2), (1, 2), (4, 2), (0, 1), (3, 1), (5, 0)]);
        let spread = ranked[1].spread.unwrap();
        assert_eq!((spread.runs, spread.mean), (2, 0.625));
        assert_eq!(ranked[2].spread, None);
        assert_eq!(ranked[4].spread.unwrap().mean, 0.99);
        // Of the loss the lowest is the best, and is shown as it is.
        let by_loss = rank(3, &runs[..4], BestBy::Loss);
        let order: Vec<usize> = by_loss.iter().map(|r| r.variant).collect();
        assert_eq!(order, [1, 2, 0]);
        assert_eq!(by_loss[1].spread.unwrap().mean, 0.75);
    }
}
