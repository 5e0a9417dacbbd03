//! What workers and the coordinator send each other in a session, as domain values.
//!
//! `services/workers` converts them from and to the wire; the cluster routes them; run actors handle and send
//! them.

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::ids::{RunId, WorkerId};
use fovea_core::machine::Machine;
use fovea_core::memory::Memory;
use fovea_core::metrics::Score;
use fovea_core::roster::Roster;
use fovea_core::run::{Heartbeat, Outcome, StepReport, Trouble};
use fovea_core::spec::RunSpec;
use fovea_core::state::StateId;
use tokio::sync::oneshot;

use crate::error::ApiError;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// Who a worker is.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub id: WorkerId,
    pub address: String,
    pub host: String,
    pub device: String,
    /// Its GPU; None for a CPU, or if it is not known.
    pub gpu: Option<Gpu>,
    pub memory: Memory,
    /// Device and libraries; None if they are not known.
    pub machine: Option<Machine>,
    pub version: String,
    /// The run and generation that it has not left yet.
    pub serving: Option<(RunId, u64)>,
    /// The run whose state it holds.
    pub held_run: Option<RunId>,
}

/// A GPU, recognised in whatever container a worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gpu {
    /// Boot id of its machine.
    pub boot_id: String,
    /// Its UUID.
    pub uuid: String,
}

/// Load of a worker, by a heartbeat; None where the heartbeat does not report it. For people: nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Load {
    /// Mean wall-clock time of its last steps, milliseconds.
    pub step_ms: Option<f64>,
    /// The part of a step, 0 to 1, in which it only waits for the reduction.
    pub wait_ratio: Option<f64>,
    /// Memory of its GPU in use, bytes.
    pub gpu_used: Option<u64>,
    /// Resident memory of its process, bytes.
    pub resident: Option<u64>,
}

/// From a worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WorkerMessage {
    /// About its assignment.
    About {
        run: RunId,
        generation: u64,
        message: RunMessage,
    },
    /// It will shut down after its assignment.
    Leaving,
    /// What memory it can use has changed.
    Memory(Memory),
    /// It is ready to join a run, or cannot.
    Prepared {
        run: RunId,
        problem: Option<NotPrepared>,
    },
}

/// Why a worker cannot join a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotPrepared {
    /// The worker's own trouble; None if it may lie elsewhere.
    pub trouble: Option<Trouble>,
    pub reason: String,
}

/// From a worker, about its assignment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RunMessage {
    Ready {
        state: StateId,
        fingerprint: Fingerprint,
    },
    Heartbeat(Heartbeat),
    Step {
        report: StepReport,
        samples: Vec<u32>,
    },
    Digest {
        step: u64,
        digest: u128,
    },
    Interrupted {
        reason: String,
    },
    Unreachable {
        peers: Vec<WorkerId>,
    },
    Scores {
        epoch: u32,
        scores: Vec<Score>,
    },
    Released(Outcome),
}

/// To a worker.
#[derive(Debug)]
pub(crate) enum CoordinatorMessage {
    Assignment(Box<Assignment>),
    Stop {
        run: RunId,
        generation: u64,
    },
    Abort {
        run: RunId,
        generation: u64,
        reason: String,
    },
    Yield {
        run: RunId,
        generation: u64,
    },
    Prepare(Box<Prepare>),
    /// What is in the journal and need not be sent again.
    Ack {
        run: RunId,
        step: u64,
        next_epoch: u32,
    },
    /// The session is over; nothing follows.
    End(ApiError),
}

/// A worker's part in a generation.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub run: RunId,
    pub spec: RunSpec,
    pub dataset_digest: String,
    pub roster: Roster,
    pub checkpoint: Option<CheckpointInfo>,
    pub mesh_key: [u8; 16],
    pub lineage: u64,
    pub at_boundary: bool,
    pub discard_state: bool,
    pub next_epoch: u32,
    /// Context of the formation's span; empty without traces.
    pub traceparent: String,
}

/// What a worker needs to prepare for a run.
#[derive(Debug, Clone)]
pub(crate) struct Prepare {
    pub run: RunId,
    pub spec: RunSpec,
    pub dataset_digest: String,
    /// As it would be with the worker.
    pub roster: Roster,
}

/// Which slice of a checkpoint a worker wants to upload.
#[derive(Debug, Clone)]
pub(crate) struct SliceClaim {
    pub run: RunId,
    pub generation: u64,
    pub worker: WorkerId,
    pub step: u64,
    /// First element.
    pub offset: u64,
    pub elements: u64,
    /// XXH3-128 of the slice.
    pub digest: String,
    /// XXH3-128 of the whole state.
    pub state_digest: String,
}
