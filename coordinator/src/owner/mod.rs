//! The one owner of the coordinator's state, and how others reach it.
//!
//! All runs, worker sessions, datasets and gatherings live in one task. Services send it a
//! [`Message`] through a [`Handle`] and wait for the reply; it takes one message at a time, decides
//! synchronously, writes the journal, and only then answers or tells others.
//!
//! - `state`: the task, its turn, and drain
//! - `runs`: submit, cancel, resume, applying a run's events, carrying out its effects
//! - `workers`: sessions, what workers say, assigning them
//! - `plausible`: whether what a worker says can be
//! - `joining`: scheduling, workers that return, prepare themselves and join
//! - `steps`: the ledger of committed steps, and what workers need not repeat
//! - `gathering`: checkpoints being gathered from slices
//! - `holdings`: datasets

mod gathering;
mod holdings;
mod joining;
mod plausible;
mod runs;
mod state;
mod steps;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::ids::{DatasetName, RunId, WorkerId};
use fovea_core::ledger::Entry;
use fovea_core::metrics::Score;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::Roster;
use fovea_core::run::{EpochResult, Heartbeat, Outcome, Run, StateId, StepReport};
use fovea_core::spec::RunSpec;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::checkpoints::AssemblyFile;
use crate::datasets::{HeldDataset, Verified};
use crate::error::ApiError;

pub(crate) use state::Owner;
pub use state::OwnerError;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// What can be asked of the owner.
#[derive(Debug)]
pub(crate) enum Message {
    /// A person's request about runs.
    Submit {
        spec: Box<RunSpec>,
        reply: Reply<RunView>,
    },
    GetRun {
        run: RunId,
        reply: Reply<RunView>,
    },
    /// Runs with a number below `before`, newest first, at most `limit`.
    ListRuns {
        before: u64,
        limit: usize,
        reply: Reply<Vec<RunView>>,
    },
    Watch {
        run: RunId,
        reply: Reply<Watched>,
    },
    Cancel {
        run: RunId,
        reply: Reply<RunView>,
    },
    Pause {
        run: RunId,
        reply: Reply<RunView>,
    },
    Resume {
        run: RunId,
        checkpoint: Option<u64>,
        reply: Reply<RunView>,
    },
    /// What an audit needs: the run, its plan and its ledger.
    ReadLedger {
        run: RunId,
        reply: Reply<Ledger>,
    },
    /// A stored checkpoint was found to be damaged.
    CheckpointDamaged {
        run: RunId,
        step: u64,
        generation: u64,
        reason: String,
    },
    /// Where a checkpoint's file is; without a step, the newest.
    FindCheckpoint {
        run: RunId,
        step: Option<u64>,
        reply: Reply<(CheckpointInfo, PathBuf)>,
    },
    ListDatasets {
        reply: Reply<Vec<Arc<HeldDataset>>>,
    },
    /// By digest or name.
    FindDataset {
        dataset: String,
        reply: Reply<Arc<HeldDataset>>,
    },
    /// Whether a dataset may be uploaded: the one that is there already, or None.
    OfferDataset {
        name: DatasetName,
        digest: String,
        reply: Reply<Option<Arc<HeldDataset>>>,
    },
    /// Takes a verified upload in.
    AddDataset {
        upload: Box<Verified>,
        reply: Reply<Arc<HeldDataset>>,
    },
    /// A worker opens its session.
    Hello {
        hello: Hello,
        outbox: mpsc::Sender<ToWorker>,
        /// Cancelled when the owner ends the session.
        over: CancellationToken,
        reply: Reply<SessionId>,
    },
    /// A worker says something.
    Said {
        session: SessionId,
        said: Said,
    },
    /// A session is over. Answered when all that follows from it has been done.
    SessionEnded {
        session: SessionId,
        reason: String,
        reply: Reply<()>,
    },
    /// A worker begins to upload a slice.
    BeginSlice {
        slice: SliceClaim,
        reply: Reply<SliceTicket>,
    },
    /// A slice is verified and on disk.
    SliceStored {
        key: GatheringKey,
        rank: usize,
        digest: String,
        reply: Reply<()>,
    },
    /// A gathered file was stored, or not.
    Gathered {
        key: GatheringKey,
        result: Result<CheckpointInfo, String>,
    },
    /// Checkpoint and requeue every run; answers when none is under way.
    Drain {
        reply: oneshot::Sender<()>,
    },
    /// How many runs are under way.
    CountActive {
        reply: oneshot::Sender<usize>,
    },
}

/// A run's ledger, with what it is compared with.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub run: Run,
    pub plan: ShardPlan,
    /// By step.
    pub entries: Vec<Entry>,
    /// Bytes that the samples take.
    pub bytes: u64,
}

/// A run as told to people.
#[derive(Debug, Clone)]
pub(crate) struct RunView {
    pub run: Run,
    /// Why a queued run does not start.
    pub waiting: Option<String>,
}

/// A run as it is, and what happens to it from now on: nothing lies between.
#[derive(Debug)]
pub(crate) struct Watched {
    pub now: RunView,
    pub events: broadcast::Receiver<RunEvent>,
}

/// What watchers are told.
#[derive(Debug, Clone)]
pub(crate) enum RunEvent {
    Run(Arc<RunView>),
    Step(StepReport),
    Epoch(Arc<EpochResult>),
    Checkpoint(Arc<CheckpointInfo>),
    Note(String),
}

/// Number of a session: the order of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub u64);

/// Who a worker is.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub id: WorkerId,
    pub address: String,
    pub host: String,
    pub device: String,
    pub version: String,
    /// The run and generation that it has not let go of.
    pub serving: Option<(RunId, u64)>,
    /// The run whose state it holds.
    pub held_run: Option<RunId>,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// About its assignment.
    About {
        run: RunId,
        generation: u64,
        what: AboutRun,
    },
    /// It will leave.
    Leaving,
    /// It is ready to join a run, or cannot.
    Prepared { run: RunId, problem: String },
}

/// What a worker says about its assignment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AboutRun {
    Ready {
        standing: StateId,
        fingerprint: Fingerprint,
    },
    /// A sign of life.
    Progress(Heartbeat),
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

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum ToWorker {
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
    /// What need not be said again.
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
}

/// What a worker needs to prepare itself for a run.
#[derive(Debug, Clone)]
pub(crate) struct Prepare {
    pub run: RunId,
    pub spec: RunSpec,
    pub dataset_digest: String,
    /// As it would be with the worker.
    pub roster: Roster,
}

/// Which slice a worker wants to upload.
#[derive(Debug, Clone)]
pub(crate) struct SliceClaim {
    pub run: RunId,
    pub generation: u64,
    pub worker: WorkerId,
    pub step: u64,
    /// First element.
    pub offset: u64,
    pub elements: u64,
    /// Of the slice.
    pub digest: String,
    /// Digest of the whole state.
    pub state_digest: String,
}

/// Names a gathering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GatheringKey {
    /// The run's number.
    pub run: u64,
    pub generation: u64,
    pub step: u64,
}

/// The right to write one slice, or the news that it is there.
#[derive(Debug)]
pub(crate) enum SliceTicket {
    /// The same bytes arrived before: the worker missed the answer.
    Here,
    /// Write it.
    Write {
        key: GatheringKey,
        rank: usize,
        file: Arc<AssemblyFile>,
        /// First byte of the state.
        byte: u64,
        bytes: u64,
        /// While it lives, nobody else may write this slice.
        claim: Arc<()>,
    },
}

/// The way to the owner.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Message>,
}

impl Handle {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        message: impl FnOnce(Reply<T>) -> Message,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.inbox
            .send(message(reply))
            .await
            .map_err(|_| ApiError::ShuttingDown)?;
        answer.await.map_err(|_| ApiError::ShuttingDown)?
    }

    /// Says something that has no answer. False when the owner is gone.
    pub(crate) async fn tell(&self, message: Message) -> bool {
        self.inbox.send(message).await.is_ok()
    }

    /// Checkpoints and requeues every run; ends when none is under way.
    pub(crate) async fn drain(&self) {
        let (reply, answer) = oneshot::channel();
        if self.tell(Message::Drain { reply }).await {
            let _ = answer.await;
        }
    }

    /// How many runs are under way.
    pub(crate) async fn active_runs(&self) -> usize {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::CountActive { reply }).await;
        answer.await.unwrap_or(0)
    }
}
