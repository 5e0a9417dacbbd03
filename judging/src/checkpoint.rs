//! Which checkpoint of a run is judged.

use fovea_core::retention;
use fovea_core::run::EpochResult;
use fovea_core::spec::BestBy;

use crate::error::Error;
use crate::run::{Phase, RunInfo};

/// Which checkpoint of a run is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The best by the metric that the run keeps checkpoints by, AUC unless it says another. The newest, if no epoch was
    /// evaluated.
    Best,
    /// The newest.
    Newest,
    /// That of this step.
    At(u64),
}

/// A checkpoint, and why that one.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Its step.
    pub step: u64,
    /// Why, for people: `the best AUC of 10 epochs`.
    pub why: String,
}

/// Chooses a checkpoint of `run`.
///
/// # Errors
/// It has none, or not that one.
pub fn choose(run: &RunInfo, which: Which) -> Result<Chosen, Error> {
    let Some(newest) = run.checkpoints.last() else {
        let id = &run.id;
        return Err(Error::Usage(match run.phase {
            Phase::Failed => format!("run {id} has no checkpoint: it failed before one was stored"),
            Phase::Cancelled => {
                format!("run {id} has no checkpoint: it was cancelled before one was stored")
            }
            Phase::Completed => format!("run {id} has no checkpoint any more"),
            Phase::Queued | Phase::Forming | Phase::Running | Phase::Finishing | Phase::Paused => {
                format!("run {id} has no checkpoint yet: `fovea run {id}` shows how far it is")
            }
        }));
    };
    let newest = |why: &str| Chosen {
        step: newest.step,
        why: why.into(),
    };
    match which {
        Which::Newest => Ok(newest("the newest")),
        Which::At(step) if run.checkpoints.iter().any(|c| c.step == step) => Ok(Chosen {
            step,
            why: "as asked for".into(),
        }),
        Which::At(step) => Err(Error::Usage(format!(
            "run {} has no checkpoint at step {step}; it has {}",
            run.id,
            run.checkpoints
                .iter()
                .map(|c| c.step.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ))),
        Which::Best => {
            let (by, name) = match run.spec.checkpoint.keep_best {
                BestBy::None | BestBy::Auc => {
                    (BestBy::Auc, "the best validation AUC of those stored")
                }
                BestBy::Loss => (BestBy::Loss, "the lowest validation loss of those stored"),
                BestBy::Kappa => (BestBy::Kappa, "the best validation kappa of those stored"),
            };
            let best = retention::best(&run.checkpoints, &run.epochs, by);
            Ok(best.map_or_else(
                || newest("the newest; none was evaluated"),
                |step| Chosen {
                    step,
                    why: name.into(),
                },
            ))
        }
    }
}

/// The epoch of `run` that ended at `step`.
pub fn epoch_at(run: &RunInfo, step: u64) -> Option<&EpochResult> {
    run.epochs.iter().find(|e| e.step == step)
}
