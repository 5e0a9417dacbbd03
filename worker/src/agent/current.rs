//! The assignment in progress, and what the coordinator is told about it.

use std::time::Instant;

use fovea_core::run::Heartbeat;
use fovea_proto::pb::worker_message::Message;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use crate::job::{Ended, JobEvent};
use crate::progress::Progress;
use crate::training::Control;

/// The assignment in progress.
pub(super) struct Current {
    pub(super) run_id: String,
    pub(super) generation: u64,
    pub(super) rank: Option<u32>,
    pub(super) control: Control,
    pub(super) progress: Progress,
    /// Set once the members have agreed on a state.
    pub(super) ready: Option<Message>,
    /// The first epoch whose result is not acknowledged, for the uploads.
    pub(super) acknowledged: watch::Sender<u32>,
    pub(super) stage: Stage,
    pub(super) span: Span,
    /// When the assignment came.
    pub(super) begun: Instant,
    /// Its formation, until it is ready or over.
    pub(super) formation: fovea_traces::Span,
    /// Whether the coordinator's traces have the spans that this one's are parts of.
    pub(super) traced: bool,
    pub(super) lineage: u64,
}

/// How far the assignment is.
pub(super) enum Stage {
    /// A task executes it.
    Working {
        events: mpsc::Receiver<JobEvent>,
        task: AbortOnDropHandle<Ended>,
    },
    /// Peers disconnected, which this message reports. The state stays on the device for the next generation.
    Waiting(Box<Message>),
}

impl Current {
    /// The messages that must be sent again in a new session.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = &Message> {
        let waiting = match &self.stage {
            Stage::Working { .. } => None,
            Stage::Waiting(message) => Some(&**message),
        };
        self.ready.iter().chain(waiting)
    }

    /// The heartbeat with this sequence number. A worker that waits for the next generation waits for no peer: it
    /// names itself and counts polls, so that it is not taken for stuck.
    pub(super) fn heartbeat(&self, sequence: u64) -> Heartbeat {
        let waiting = self.progress.waiting();
        let (waiting_for, polls) = match &self.stage {
            Stage::Working { .. } => (waiting.on(), waiting.polls()),
            Stage::Waiting(_) => (self.rank, sequence),
        };
        Heartbeat {
            ticks: self.progress.ticks(),
            waiting_for,
            polls,
            scored: self.progress.scored(),
        }
    }

    pub(super) fn is_working(&self) -> bool {
        matches!(self.stage, Stage::Working { .. })
    }

    pub(super) fn is(&self, run_id: &str, generation: u64) -> bool {
        self.run_id == run_id && self.generation == generation
    }
}
