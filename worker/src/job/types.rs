//! What the device's thread is given, and what it returns.

use std::fs::File;
use std::time::Duration;

use fovea_core::checkpoint::Fingerprint;
use fovea_core::ids::RunId;
use fovea_core::metrics::Score;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::Roster;
use fovea_core::run::{Outcome, StepReport, Trouble};
use fovea_core::spec::RunSpec;
use tokio::sync::{mpsc, oneshot};

use crate::collective::{Mesh, MeshKey, Unreached};
use crate::data::LocalData;
use crate::progress::Progress;
use crate::training::{Control, Snapshot};

/// Fetches the checkpoint's bytes, and blocks until they are there.
pub type FetchCheckpoint = Box<dyn FnMut() -> Result<Vec<u8>, FetchError> + Send>;

/// Fetches the file of a run's first weights, verified and open, and blocks until it is there.
pub type FetchWeights = Box<dyn FnMut() -> Result<File, FetchError> + Send>;

/// Why a checkpoint or weights could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The coordinator's copy is corrupt, or it has none.
    #[error("{0}")]
    Blocked(String),
    /// It is not needed any more.
    #[error("it is not needed any more")]
    Cancelled,
    /// This worker cannot keep it, or not read it.
    #[error("{1}")]
    Own(Trouble, String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// All that one generation needs, fetched and checked.
pub struct Job {
    /// The run's id.
    pub run: RunId,
    /// States of another lineage are void.
    pub lineage: u64,
    /// Forget the state that is held.
    pub discard_state: bool,
    /// The run.
    pub spec: RunSpec,
    /// Its data order.
    pub plan: ShardPlan,
    /// The generation; starts from the checkpoint of `start_step` if no member holds a newer state.
    pub roster: Roster,
    /// This worker's rank in it.
    pub rank: usize,
    /// The secret that its peers show each other.
    pub key: MeshKey,
    /// Connections with peers.
    pub mesh: Mesh,
    /// The checkpoint; None starts from the spec's first weights.
    pub checkpoint: Option<FetchCheckpoint>,
    /// The first weights; None draws them by the seed.
    pub weights: Option<FetchWeights>,
    /// The first epoch without a result.
    pub next_epoch: u32,
    /// The packs.
    pub data: LocalData,
    /// Requests to stop, yield or abort.
    pub control: Control,
    /// Where work is counted.
    pub progress: Progress,
    /// How long peers may take to connect.
    pub connect_timeout: Duration,
    /// How long a peer may keep this worker waiting.
    pub peer_timeout: Duration,
    /// NCCL may send in plain text to other machines where connections with peers are encrypted.
    pub allow_plaintext_nccl: bool,
    /// Sent to when the first step, or the evaluation before it, begins.
    pub began: oneshot::Sender<()>,
    /// Where events are sent. Bounded: a slow receiver slows training, and memory stays flat.
    pub events: mpsc::Sender<JobEvent>,
    /// Where slices of checkpoints go.
    pub snapshots: mpsc::Sender<Snapshot>,
}

/// Where the time of a formation on the device's thread goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// Connecting to the peers.
    pub connect: Duration,
    /// Making NCCL's communicator; next to nothing where the reduction is over TCP.
    pub nccl: Duration,
    /// Agreeing on the state to start from: reading or receiving it, and its digest.
    pub state: Duration,
}

/// An event on the device's thread.
#[derive(Debug)]
pub enum JobEvent {
    /// The peers are connected and agree on a state.
    Ready {
        /// Committed steps.
        step: u64,
        /// Digest of the whole state.
        state_digest: String,
        /// What the bits depend on.
        fingerprint: Fingerprint,
        /// Where the time went.
        took: Took,
    },
    /// A step is committed.
    Step {
        /// What it did.
        report: StepReport,
        /// Ordinals of the samples that it used.
        samples: Vec<u32>,
    },
    /// The validation split was scored.
    Scores {
        /// 0-based epoch.
        epoch: u32,
        /// One for each sample.
        scores: Vec<Score>,
    },
    /// The state is to be compared.
    Digest {
        /// Committed steps.
        step: u64,
        /// Digest of the whole state.
        digest: String,
    },
}

/// How a generation ended on this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It is over for this worker.
    Released(Outcome),
    /// Peers disconnected, or something is missing now: another generation may continue.
    Interrupted {
        /// What happened.
        reason: String,
    },
    /// Peers that could not be reached.
    Unreachable {
        /// Who, and where.
        missing: Vec<Unreached>,
    },
}

impl Ended {
    /// It cannot continue, and others can.
    pub fn unfit(trouble: Trouble, reason: impl ToString) -> Self {
        Self::Released(Outcome::Unfit {
            trouble,
            reason: reason.to_string(),
        })
    }

    /// It cannot continue.
    pub fn failed(reason: impl ToString, fatal: bool) -> Self {
        Self::Released(Outcome::Failed {
            reason: reason.to_string(),
            fatal,
        })
    }
}
