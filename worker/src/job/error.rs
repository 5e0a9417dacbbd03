//! Why a generation fails, and what that means for the run.

use fovea_core::googlenet::LayoutError;
use fovea_core::run::{Outcome, Trouble};
use fovea_weights::WeightsError;

use super::first_state::FirstStateError;
use super::types::{Ended, FetchError};
use crate::checkpoint::CheckpointError;
use crate::collective::CollectiveError;
use crate::data::DataError;
use crate::device::DeviceError;
use crate::gpu::GpuError;
use crate::threads::SuperviseError;
use crate::training::{Control, TrainingError};
use crate::trouble;

/// Why a job could not be completed.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    FirstState(#[from] FirstStateError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the state to start from cannot be fetched: {0}")]
    Fetch(#[from] FetchError),
    #[error("the members agreed on no state")]
    NoState,
    #[error("{reader} could not read the checkpoint that it was to hand on; its log says why")]
    NotRead { reader: String },
    #[error("reading the first weights: {0}")]
    Supervise(#[from] SuperviseError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    #[error("cannot set up connections or threads: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Training(TrainingError),
}

impl From<TrainingError> for JobError {
    fn from(error: TrainingError) -> Self {
        match error {
            TrainingError::Collective(error) => Self::Collective(error),
            TrainingError::Device(error) => Self::Device(error),
            error @ (TrainingError::Data(_)
            | TrainingError::NotFinite { .. }
            | TrainingError::Garbled { .. }) => Self::Training(error),
        }
    }
}

impl JobError {
    /// The trouble of this worker alone that it shows; None if it may lie elsewhere, or is the run's.
    fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Device(error) => Some(error.trouble()),
            Self::Fetch(FetchError::Own(trouble, _)) => Some(*trouble),
            Self::Training(TrainingError::Data(error)) => error.trouble(),
            Self::FirstState(FirstStateError::Weights(
                WeightsError::Io { .. } | WeightsError::NotRegular { .. },
            )) => Some(Trouble::Data),
            Self::Io(error) => trouble::of_system(error),
            Self::Supervise(SuperviseError::Spawn(_)) => Some(Trouble::System),
            Self::Collective(CollectiveError::Expired { .. }) => Some(Trouble::System),
            // NCCL reports a peer that died in many ways, and the driver and libtorch never do.
            Self::Collective(CollectiveError::Gpu(
                error @ (GpuError::Driver(_) | GpuError::Torch(_) | GpuError::NoContext),
            )) => Some(trouble::of_device(&error.to_string())),
            // Every worker would meet the same: the spec, the checkpoint's content, a loss that is not finite.
            Self::Layout(_)
            | Self::FirstState(_)
            | Self::Checkpoint(_)
            | Self::Training(_)
            | Self::Fetch(_)
            | Self::NoState
            // The reader itself reports its own trouble.
            | Self::NotRead { .. }
            | Self::Supervise(_)
            | Self::Collective(_) => None,
        }
    }

    /// How the generation ends. After an abort an error is only its consequence.
    pub(super) fn ended(self, control: &Control) -> Ended {
        if control.aborted() {
            return Ended::Released(Outcome::Aborted);
        }
        let reason = self.to_string();
        if let Some(trouble) = self.trouble() {
            return Ended::unfit(trouble, reason);
        }
        match self {
            // Requested, or given up before it began.
            Self::Collective(CollectiveError::Aborted) => Ended::Released(Outcome::Aborted),
            Self::Collective(CollectiveError::Incomplete { missing, .. }) => {
                Ended::Unreachable { missing }
            }
            Self::Fetch(FetchError::Cancelled) | Self::Supervise(SuperviseError::GivenUp) => {
                Ended::Released(Outcome::Aborted)
            }
            Self::Training(TrainingError::Data(DataError::Cancelled)) => {
                Ended::Released(Outcome::Aborted)
            }
            // Only a repair at the coordinator helps.
            Self::Fetch(FetchError::Blocked(_))
            | Self::Training(TrainingError::Data(DataError::Blocked { .. })) => {
                Ended::Released(Outcome::Blocked { reason })
            }
            Self::Collective(
                CollectiveError::Peer { .. }
                | CollectiveError::OutOfStep { .. }
                | CollectiveError::Expired { .. }
                | CollectiveError::Gpu(_),
            )
            | Self::Fetch(FetchError::Failed(_) | FetchError::Own(..))
            | Self::NoState
            | Self::NotRead { .. } => Ended::Interrupted { reason },
            // The same file or spec would meet the same error.
            Self::Layout(_) | Self::FirstState(_) | Self::Checkpoint(_) => {
                Ended::failed(reason, true)
            }
            // Every worker sees the same numbers, and would again.
            Self::Training(TrainingError::NotFinite { .. }) => Ended::failed(reason, true),
            Self::Training(_)
            | Self::Device(_)
            | Self::Io(_)
            | Self::Collective(CollectiveError::Poll(_))
            | Self::Supervise(SuperviseError::Spawn(_) | SuperviseError::Panicked(_)) => {
                Ended::failed(reason, false)
            }
        }
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
