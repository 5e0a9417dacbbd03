//! Why a person's request is refused.

use crate::ids::RunId;

/// Why a person's request cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Cancel of a run that has ended.
    #[error("run {run} is already {phase}; there is nothing to cancel")]
    Ended { run: RunId, phase: &'static str },
    /// Pause of a run that is at rest already.
    #[error("run {run} is {phase}; only a run that is queued or under way can be paused")]
    NotPausable { run: RunId, phase: &'static str },
    /// Resume of a run that is not at rest.
    #[error("run {run} is {phase}; only a paused, failed or cancelled run can be resumed")]
    NotResumable { run: RunId, phase: &'static str },
    /// Resume from a checkpoint that is not there.
    #[error("run {run} has no checkpoint at step {step}; it has {have}")]
    NoCheckpoint { run: RunId, step: u64, have: String },
    /// A priority for a run that has ended.
    #[error(
        "run {run} is {phase}; the priority of a run that has ended cannot be changed. One that failed or was cancelled can be \
         resumed first"
    )]
    NoPriority { run: RunId, phase: &'static str },
}
