//! The variants of a sweep in order: those that came furthest first, and of these the best by the metric. Pure.

use std::fmt;

use crate::run::{EpochResult, Phase, Run};
use crate::spec::BestBy;
use crate::spread::Spread;

/// A run as far as a ranking needs it.
#[derive(Debug, Clone, Copy)]
pub struct RankedRun<'a> {
    /// Its variant, from 0.
    pub variant: usize,
    /// It has failed, was cancelled or removed: it does not hide how far the others of its variant came.
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

    /// Of a run of this variant that was removed, with its results.
    pub fn removed(variant: usize) -> Self {
        Self {
            variant,
            is_out: true,
            epochs: &[],
        }
    }
}

/// A variant and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The variant, from 0.
    pub variant: usize,
    /// Epochs that each of the runs has done that are counted.
    pub epochs: usize,
    /// The metric after the last of these, over these runs. None if it is not defined.
    pub spread: Option<Spread>,
}

/// How many runs of a variant its figures are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// So many.
    pub runs: usize,
    /// Of so many.
    pub of: usize,
    /// Runs that failed, were cancelled or removed.
    pub out: usize,
}

impl Counted {
    /// Whether no run is missing.
    pub fn is_whole(self) -> bool {
        self.runs == self.of && self.out == 0
    }
}

/// `3`, or `2 of 3`.
impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, of, out: _ } = *self;
        match runs == of {
            true => write!(f, "{of}"),
            false => write!(f, "{runs} of {of}"),
        }
    }
}

/// All `variants`, the best first. Of equals the earlier comes first.
pub fn rank(variants: usize, runs: &[RankedRun], by: BestBy) -> Vec<Ranked> {
    let ranked = rank_counted(variants, runs, by).into_iter();
    ranked.map(|(ranked, _)| ranked).collect()
}

/// All `variants`, the best first, and how many of their runs the figures are of. First are those of which all runs came furthest,
/// and of these those that miss no run: a variant with a cancelled run is not above one whose runs all went further.
pub fn rank_counted(variants: usize, runs: &[RankedRun], by: BestBy) -> Vec<(Ranked, Counted)> {
    let all = (0..variants).map(|at| of_variant(at, runs, by));
    let mut all: Vec<(Ranked, Counted)> = all.collect();
    let by_all = |one: &(Ranked, Counted)| {
        let of = runs.iter().filter(|run| run.variant == one.0.variant);
        of.map(|run| run.epochs.len()).min().unwrap_or(0)
    };
    let merit = |one: &(Ranked, Counted)| match (one.0.spread, by) {
        (None, _) => f64::NEG_INFINITY,
        (Some(spread), BestBy::Loss) => -spread.mean,
        (Some(spread), _) => spread.mean,
    };
    all.sort_by(|a, b| {
        let by_epochs = by_all(b).cmp(&by_all(a));
        let by_any = (b.0.epochs > 0).cmp(&(a.0.epochs > 0));
        let by_missing = (a.1.out > 0).cmp(&(b.1.out > 0));
        let by_merit = merit(b).total_cmp(&merit(a));
        by_epochs.then(by_any).then(by_missing).then(by_merit)
    });
    all
}

fn of_variant(variant: usize, runs: &[RankedRun], by: BestBy) -> (Ranked, Counted) {
    let of = || runs.iter().filter(|run| run.variant == variant);
    // Of what was evaluated; what is out only where nothing else is.
    let evaluated = |run: &&RankedRun| !run.epochs.is_empty();
    let all_out = !of().filter(evaluated).any(|run| !run.is_out);
    let counted = || of().filter(evaluated).filter(|run| all_out || !run.is_out);
    let epochs = counted().map(|run| run.epochs.len()).min().unwrap_or(0);
    let last = epochs.checked_sub(1);
    let metric = |run: &RankedRun| {
        let merit = by.merit(&run.epochs.get(last?)?.validation)?;
        Some(by.shown(merit))
    };
    let ranked = Ranked {
        variant,
        epochs,
        spread: Spread::of(counted().filter_map(metric)),
    };
    let counted = Counted {
        runs: counted().count(),
        of: of().count(),
        out: of().filter(|run| run.is_out).count(),
    };
    (ranked, counted)
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
            // What failed early does not count while another goes on, but its variant is not above whole ones.
            run(2, true, &near[..0]),
            run(3, true, &near),
            run(4, false, &unknown),
        ];
        let ranked = rank(6, &runs, BestBy::Auc);
        let order: Vec<(usize, usize)> = ranked.iter().map(|r| (r.variant, r.epochs)).collect();
        assert_eq!(order, [(1, 2), (4, 2), (0, 1), (3, 1), (2, 2), (5, 0)]);
        let spread = ranked[0].spread.unwrap();
        assert_eq!((spread.runs, spread.mean), (2, 0.625));
        assert_eq!(ranked[1].spread, None);
        assert_eq!(ranked[3].spread.unwrap().mean, 0.99);
        // Of the loss the lowest is the best, and is shown as it is.
        let by_loss = rank(3, &runs[..4], BestBy::Loss);
        let order: Vec<usize> = by_loss.iter().map(|r| r.variant).collect();
        assert_eq!(order, [1, 2, 0]);
        assert_eq!(by_loss[1].spread.unwrap().mean, 0.75);
    }
    #[test]
    fn a_variant_without_some_of_its_runs_is_not_above_whole_ones() {
        let run = |variant, is_out, epochs| RankedRun {
            variant,
            is_out,
            epochs,
        };
        let done = epochs(&[Some(0.5), Some(0.6), Some(0.7)]);
        let best = epochs(&[Some(0.5), Some(0.6), Some(0.99)]);
        let rung = epochs(&[Some(0.4)]);
        // Dropped after epoch 1; one of its runs was trained on, the other cancelled, or removed.
        let runs = [
            run(0, false, &best[..]),
            run(0, true, &rung),
            run(1, false, &done),
            run(1, false, &done),
            run(2, false, &rung),
            run(2, false, &rung),
            run(3, false, &best),
            RankedRun::removed(3),
        ];
        let ranked = rank_counted(4, &runs, BestBy::Auc);
        let told = |(r, c): &(Ranked, Counted)| (r.variant, r.epochs, c.to_string(), c.is_whole());
        let told: Vec<_> = ranked.iter().map(told).collect();
        assert_eq!(
            told,
            [
                (1, 3, "2".to_owned(), true),
                (2, 1, "2".to_owned(), true),
                (0, 3, "1 of 2".to_owned(), false),
                (3, 3, "1 of 2".to_owned(), false),
            ]
        );
        // Cancelled half-way, or not begun everywhere: the figures are of what was evaluated.
        for is_out in [false, true] {
            let runs = [
                run(0, is_out, &rung[..]),
                run(0, is_out, &done),
                run(0, is_out, &rung[..0]),
            ];
            let (ranked, counted) = rank_counted(1, &runs, BestBy::Auc)[0];
            assert_eq!((ranked.epochs, ranked.spread.unwrap().mean), (1, 0.45));
            assert_eq!(
                (counted.to_string(), counted.is_whole()),
                ("2 of 3".to_owned(), false)
            );
        }
    }
}
