//! Retention: which checkpoints of a run are kept and which are removed, a pure function.

use crate::checkpoint::CheckpointInfo;
use crate::run::EpochResult;
use crate::spec::{BestBy, CheckpointSpec};

/// The steps of those checkpoints in `stored` (ordered by step) that are to be removed.
///
/// Kept are: the newest `keep_last` (all, if 0), the best by `keep_best` among those taken at the end of an
/// evaluated epoch (the earlier of equals), and `wanted`, the one that a person chose to resume from.
pub fn expired(
    stored: &[CheckpointInfo],
    epochs: &[EpochResult],
    keep: &CheckpointSpec,
    wanted: Option<u64>,
) -> Vec<u64> {
    if keep.keep_last == 0 {
        return Vec::new();
    }
    let best = best(stored, epochs, keep.keep_best);
    let old = stored.len().saturating_sub(keep.keep_last as usize);
    stored[..old]
        .iter()
        .map(|c| c.step)
        .filter(|step| Some(*step) != best && Some(*step) != wanted)
        .collect()
}

/// The step of the best stored checkpoint, if any has a metric; `epochs` are in order.
pub fn best(stored: &[CheckpointInfo], epochs: &[EpochResult], by: BestBy) -> Option<u64> {
    let mut best: Option<(u64, f64)> = None;
    for checkpoint in stored {
        // Epochs are sorted, and so are the steps at which they end.
        let Ok(at) = epochs.binary_search_by_key(&checkpoint.step, |e| e.step) else {
            continue;
        };
        let epoch = &epochs[at];
        if let Some(merit) = by.merit(&epoch.validation)
            && best.is_none_or(|(_, most)| merit > most)
        {
            best = Some((checkpoint.step, merit));
        }
    }
    best.map(|(step, _)| step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Fingerprint;
    use crate::metrics::Evaluation;

    fn stored(steps: &[u64]) -> Vec<CheckpointInfo> {
        let info = |&step: &u64| CheckpointInfo {
            step,
            generation: 1,
            bytes: 1,
            sha256: String::new(),
            lineage: 0,
            stored_at_ms: 0,
            fingerprint: Fingerprint {
                device: String::new(),
                cpu: String::new(),
                libtorch: String::new(),
                threads: 1,
                precision: String::new(),
                fovea: String::new(),
                kernels: String::new(),
                path: String::new(),
            },
        };
        steps.iter().map(info).collect()
    }

    /// (step, auc, loss)
    fn epochs(rows: &[(u64, Option<f64>, f64)]) -> Vec<EpochResult> {
        rows.iter()
            .zip(0..)
            .map(|(&(step, auc, loss), epoch)| EpochResult {
                epoch,
                step,
                train_loss: None,
                validation: Evaluation {
                    auc,
                    loss,
                    ..crate::metrics::evaluate(&[], crate::spec::Scheme::softmax(2, 1))
                },
            })
            .collect()
    }

    #[test]
    fn table() {
        let epochs = epochs(&[
            (10, Some(0.7), 0.6),
            (20, Some(0.9), 0.5),
            (30, Some(0.9), 0.4),
        ]);
        let steps = [5, 10, 15, 20, 25, 30, 35];
        type Case = (u32, BestBy, Option<u64>, &'static [u64]);
        let table: [Case; 7] = [
            (0, BestBy::Auc, None, &[]),
            (9, BestBy::None, None, &[]),
            (2, BestBy::None, None, &[5, 10, 15, 20, 25]),
            // Of two equally good ones the earlier is kept.
            (2, BestBy::Auc, None, &[5, 10, 15, 25]),
            (1, BestBy::Loss, None, &[5, 10, 15, 20, 25]),
            (1, BestBy::Auc, Some(15), &[5, 10, 25, 30]),
            // The metric is defined nowhere, so none is the best.
            (1, BestBy::Kappa, None, &[5, 10, 15, 20, 25, 30]),
        ];
        for (keep_last, keep_best, wanted, gone) in table {
            let keep = CheckpointSpec {
                keep_last,
                keep_best,
                ..CheckpointSpec::default()
            };
            let found = expired(&stored(&steps), &epochs, &keep, wanted);
            assert_eq!(found, gone, "{keep_last} {keep_best:?} {wanted:?}");
        }
    }

    #[test]
    fn a_best_one_that_was_never_stored_saves_no_other() {
        let epochs = epochs(&[(10, Some(0.9), 0.1), (20, Some(0.5), 0.2)]);
        assert_eq!(best(&stored(&[20]), &epochs, BestBy::Auc), Some(20));
        assert_eq!(best(&stored(&[7]), &epochs, BestBy::Auc), None);
    }
}
