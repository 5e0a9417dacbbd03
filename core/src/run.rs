//! The life of a run, decided purely: `apply(event) -> effects`.
//!
//! ```text
//!             Assigned            every member Ready
//!   Queued ------------> Forming ------------------> Running
//!     ^  \                  |                           |
//!     |   \ Cancel          | member lost, failed,      | member released, lost, failed, Cancel
//!     |    \                v                           v
//!     |     \           Finishing <---------------------+
//!     |      \              |  all members released, checkpoint settled
//!     +-- Requeue ----------+----> Completed | Failed(reason) | Cancelled
//!                                      (Resume leads from Failed or Cancelled to Queued)
//! ```
//!
//! A generation ends in one way only: through `Finishing`, which waits until each of its members
//! has let go of the run, so that nobody can write into a later generation.

mod apply;
mod vocabulary;

pub use vocabulary::{
    Effect, EpochResult, Event, Extent, Next, Outcome, Phase, RunError, StepPhases, StepReport,
};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointInfo, Fingerprint};
use crate::ids::RunId;
use crate::metrics::Score;
use crate::roster::Roster;
use crate::spec::RunSpec;

/// After so many generations in a row that got no further, a run fails instead of trying again.
const FUTILE_GENERATIONS: u32 = 5;

/// A run and all that the coordinator knows of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Order of submission.
    pub number: u64,
    /// What it is.
    pub spec: RunSpec,
    /// Digest of the dataset that its name meant when the run was accepted.
    pub dataset_digest: String,
    /// Sizes.
    pub extent: Extent,
    /// Milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// The newest generation, 0 before the first.
    pub generation: u64,
    /// Results by epoch.
    pub epochs: Vec<EpochResult>,
    /// Checkpoints by step.
    pub checkpoints: Vec<CheckpointInfo>,
    /// The checkpoint that a person chose to resume from, until a newer one is stored.
    pub resume_from: Option<u64>,
    /// Fingerprint of the workers that run it.
    pub fingerprint: Option<Fingerprint>,
    /// Generations in a row that did not get further than any before them.
    futile: u32,
    /// The most steps that were ever committed.
    #[serde(default)]
    furthest: u64,
    /// The newest step. Not journalled at every step: checkpoints say what is safe.
    pub progress: Option<StepReport>,
    /// Scores of epochs that are not complete yet.
    #[serde(skip)]
    scores: BTreeMap<u32, BTreeMap<u32, Score>>,
    /// Training loss of the epoch under way: (epoch, sum over samples, samples).
    #[serde(skip)]
    epoch_loss: (u32, f64, u64),
}

impl Run {
    /// An accepted run, queued.
    pub fn new(
        id: RunId,
        number: u64,
        spec: RunSpec,
        dataset_digest: String,
        extent: Extent,
        now_ms: u64,
    ) -> Self {
        Self {
            id,
            number,
            spec,
            dataset_digest,
            extent,
            submitted_at_ms: now_ms,
            phase: Phase::Queued { reason: None },
            generation: 0,
            epochs: Vec::new(),
            checkpoints: Vec::new(),
            resume_from: None,
            fingerprint: None,
            futile: 0,
            furthest: 0,
            progress: None,
            scores: BTreeMap::new(),
            epoch_loss: (0, 0.0, 0),
        }
    }

    /// The run as a coordinator finds it in its journal at start: whatever was under way waits for
    /// workers again.
    pub fn recovered(mut self) -> Self {
        match self.phase {
            Phase::Forming { .. } | Phase::Running { .. } | Phase::Finishing { .. } => {
                self.phase = match self.phase {
                    Phase::Running {
                        cancelling: true, ..
                    }
                    | Phase::Finishing {
                        next: Next::Cancel { .. },
                        ..
                    } => Phase::Cancelled,
                    Phase::Finishing {
                        next: Next::Fail { reason },
                        ..
                    } => Phase::Failed { reason },
                    _ => Phase::Queued {
                        reason: Some("the coordinator was restarted".into()),
                    },
                };
            }
            Phase::Queued { .. } | Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => {}
        }
        self
    }

    /// The phase in a word.
    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Queued { .. } => "queued",
            Phase::Forming { .. } => "forming",
            Phase::Running { .. } => "running",
            Phase::Finishing { .. } => "finishing",
            Phase::Completed => "completed",
            Phase::Failed { .. } => "failed",
            Phase::Cancelled => "cancelled",
        }
    }

    /// Whether it will not move without a person.
    pub fn is_terminal(&self) -> bool {
        match self.phase {
            Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => true,
            Phase::Queued { .. }
            | Phase::Forming { .. }
            | Phase::Running { .. }
            | Phase::Finishing { .. } => false,
        }
    }

    /// The roster of the generation under way.
    pub fn roster(&self) -> Option<&Roster> {
        match &self.phase {
            Phase::Forming { roster, .. }
            | Phase::Running { roster, .. }
            | Phase::Finishing { roster, .. } => Some(roster),
            Phase::Queued { .. } | Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => {
                None
            }
        }
    }

    /// The checkpoint that the next generation starts from.
    pub fn start_checkpoint(&self) -> Option<&CheckpointInfo> {
        match self.resume_from {
            Some(step) => self.checkpoints.iter().find(|c| c.step == step),
            None => self.checkpoints.last(),
        }
    }

    /// Checks a person's event before it is applied.
    pub fn admit(&self, event: &Event) -> Result<(), RunError> {
        match event {
            Event::Cancel if self.is_terminal() => Err(RunError::Ended {
                run: self.id.clone(),
                phase: self.phase_name(),
            }),
            Event::Resume { checkpoint } => {
                if !matches!(self.phase, Phase::Failed { .. } | Phase::Cancelled) {
                    return Err(RunError::NotResumable {
                        run: self.id.clone(),
                        phase: self.phase_name(),
                    });
                }
                match checkpoint {
                    Some(step) if !self.checkpoints.iter().any(|c| c.step == *step) => {
                        let have: Vec<String> = self
                            .checkpoints
                            .iter()
                            .map(|c| c.step.to_string())
                            .collect();
                        Err(RunError::NoCheckpoint {
                            run: self.id.clone(),
                            step: *step,
                            have: if have.is_empty() {
                                "none".into()
                            } else {
                                have.join(", ")
                            },
                        })
                    }
                    Some(_) | None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
