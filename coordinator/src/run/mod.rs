//! A run's actor: the one owner of a live run.
//!
//! ```text
//!   cluster ──RunInput──> actor ── pure Run::apply(event) -> effects ──> journal, then workers and watchers
//!   services ───┘           │
//!                           ├── ledger: committed steps on their way into the journal
//!                           ├── assemblies: checkpoints being put together from slices
//!                           └── storage: what the checkpoint store says
//! ```
//!
//! `fovea_core::run` decides, the actor carries out. Whatever an effect sends is in the journal before. Ended
//! runs have no actor: they live in the journal until somebody asks for one of them again.
//!
//! - `actor`: the task and its turn
//! - `effects`: carrying out what was decided
//! - `members`: what workers say, and their coming and going
//! - `notes`: what was decided lately
//! - `status`: what the cluster and people see
//! - `requests`: what people ask of a run
//! - `state`: what the actor owns; `report`: what it reports to the cluster
//! - `recovery`: how long another generation takes to form
//! - `ledger`, `recording`: steps on their way into the journal, their acknowledgement
//! - `assembly`, `assembling`: checkpoints from slices
//! - `storing`: a whole checkpoint and its manifest into the store
//! - `storage`: probing, quarantine, removal
//! - `adoption`: checkpoints that the journal does not know
//! - `validate`: whether a worker's message can be true

mod actor;
mod adoption;
mod assembling;
mod assembly;
mod effects;
mod ledger;
mod members;
mod notes;
mod recording;
mod recovery;
mod report;
mod requests;
mod spans;
mod state;
mod status;
mod storage;
mod storing;
mod validate;

use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::{RunId, WorkerId};
use fovea_core::run::{EpochResult, EvaluationRecord, Run, StepReport, Trouble};
use fovea_core::spec::RunSpec;
use fovea_service::ops::{Counts, Histogram};
use fovea_traces::Traces;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::blocking::Panicked;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::ApiError;
use crate::journal::Journal;
use crate::messages::{Reply, RunMessage, SliceClaim};
use crate::remote::Remote;
use crate::selecting::AtRest;
use crate::store::CheckpointStore;

pub(crate) use actor::start;
pub(crate) use assembly::{AssemblyKey, SliceTicket};
pub(crate) use notes::Notes;
pub(crate) use report::{DataProblems, Demand, Report, RunStatus};
pub(crate) use requests::{DeletedRun, PersonRequest};
pub use state::RunActorError;
pub(crate) use storage::{FileReport, opened};

/// What every run actor works with.
#[derive(Debug, Clone)]
pub(crate) struct RunContext {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub journal: Journal,
    pub store: CheckpointStore,
    /// The object store.
    pub remote: Remote,
    /// To the cluster.
    pub reports: mpsc::UnboundedSender<Report>,
    /// Work on files that answers with a message.
    pub tasks: TaskTracker,
    /// How long it took to go on with another generation, seconds.
    pub recovery_seconds: Arc<Histogram>,
    /// Gets the groups of which a run has come to rest.
    pub at_rest: AtRest,
    /// Notes about the run that watchers were sent, for people who look later.
    pub notes: Notes,
    /// Where spans go.
    pub traces: Traces,
}

/// What a run's actor takes.
#[derive(Debug)]
pub(crate) enum RunInput {
    /// Workers for a queued run.
    Assigned {
        workers: Vec<(WorkerId, String)>,
        ticket: u64,
    },
    /// Prepared workers for a run under way.
    Joined {
        workers: Vec<(WorkerId, String)>,
        ticket: u64,
    },
    /// A member's message.
    Worker {
        worker: WorkerId,
        generation: u64,
        message: RunMessage,
        permit: OwnedSemaphorePermit,
        /// To be reported as handled: the worker has released the run.
        ticket: Option<u64>,
    },
    WorkerLost {
        worker: WorkerId,
        reason: String,
        /// Answered when what follows from it has been done.
        done: Option<Reply<()>>,
    },
    WorkerLeaving {
        worker: WorkerId,
    },
    /// A run of higher priority gets these workers.
    Give {
        workers: Vec<WorkerId>,
        taker: RunId,
    },
    /// A worker opened a session; `serving` is the generation of this run that it has not released.
    /// `replaced`: its session before was not missed.
    WorkerBack {
        worker: WorkerId,
        serving: Option<u64>,
        replaced: bool,
    },
    /// A worker that is not in the roster could not prepare, because of trouble of its own.
    Unfit {
        worker: WorkerId,
        trouble: Trouble,
        reason: String,
    },
    /// How many connected workers could serve the run, busy or not.
    Usable(usize),
    /// Why the run waits for workers; None if it does not.
    Waits(Option<String>),
    /// What is wrong with the dataset or the weights at the coordinator.
    DataState(DataProblems),
    /// A person's request.
    Request {
        request: PersonRequest,
        reply: Reply<Shown>,
    },
    /// A checkpoint of the run is going to be evaluated.
    RecordEvaluation {
        record: EvaluationRecord,
        reply: Reply<()>,
    },
    /// Write the ledger out: it is about to be read.
    Flush {
        reply: oneshot::Sender<()>,
    },
    /// A member begins to upload a slice.
    BeginSlice {
        claim: SliceClaim,
        reply: Reply<SliceTicket>,
    },
    /// The file of a checkpoint was opened, or could not be.
    Opened {
        key: AssemblyKey,
        result: Result<Box<crate::store::AssemblyFile>, crate::store::StoreError>,
    },
    /// A slice is verified and on disk.
    SliceStored {
        key: AssemblyKey,
        rank: usize,
        digest: String,
        /// That of its [`SliceTicket`].
        claim: Arc<()>,
        reply: Reply<()>,
    },
    /// A checkpoint was stored, or not.
    Assembled {
        key: AssemblyKey,
        result: Result<CheckpointInfo, crate::store::StoreError>,
    },
    /// Whether a checkpoint could probably be stored now.
    CouldStore(bool),
    /// What reading a stored checkpoint showed.
    File(FileReport),
    /// Work on the run's files panicked: its answer will not come.
    Panicked(Panicked),
    /// Remove a checkpoint.
    DeleteCheckpoint {
        step: u64,
        reply: Reply<u64>,
    },
    /// Remove the run, which has ended.
    Delete {
        with_checkpoints: bool,
        reply: Reply<DeletedRun>,
    },
    /// The coordinator shuts down.
    Drain,
    /// Nothing follows: write out and end.
    Close,
}

/// The way to a run's actor, and what is known of its run.
#[derive(Debug, Clone)]
pub(crate) struct RunHandle {
    pub id: RunId,
    pub number: u64,
    pub spec: Arc<RunSpec>,
    pub dataset_digest: Arc<str>,
    inbox: mpsc::UnboundedSender<RunInput>,
    shown: watch::Receiver<Shown>,
    /// Weak: the events end with the actor.
    events: broadcast::WeakSender<RunEvent>,
    /// Times of the steps that were reported since its actor began.
    step_seconds: Arc<Histogram>,
}

/// A run as people see it: what is in the journal, the newest step, and why it waits.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub run: Arc<Run>,
    pub progress: Option<StepReport>,
    pub waiting: Option<String>,
}

/// A run as it is, and what happens to it from now on: nothing is missing in between.
#[derive(Debug)]
pub(crate) struct Watched {
    pub now: Shown,
    pub events: broadcast::Receiver<RunEvent>,
}

/// What watchers are sent.
#[derive(Debug, Clone)]
pub(crate) enum RunEvent {
    Run(Arc<Shown>),
    Step(StepReport),
    Epoch(Arc<EpochResult>),
    Checkpoint(Arc<CheckpointInfo>),
    Note(String),
}

impl RunHandle {
    /// Sends the actor something. One that has closed meanwhile does not miss it: its run has ended.
    /// What must not be lost is followed by a [`query`](Self::query), whose answer shows it.
    pub(crate) fn send(&self, input: RunInput) {
        let _ = self.inbox.send(input);
    }

    /// Asks, and waits for the answer. None: the actor has closed, as its run has ended.
    pub(crate) async fn ask<T>(
        &self,
        input: impl FnOnce(Reply<T>) -> RunInput,
    ) -> Option<Result<T, ApiError>> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(input(reply)).ok()?;
        answer.await.ok()
    }

    /// As [`ask`](Self::ask), for what cannot fail.
    pub(crate) async fn query<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> RunInput,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(input(reply)).ok()?;
        answer.await.ok()
    }

    /// The run as it is, and what happens to it from now on; None if the actor has closed. It does not ask the actor, which
    /// may be waiting for the journal. An event may come that is in `now` already.
    pub(crate) fn watch(&self) -> Option<Watched> {
        let events = self.events.upgrade()?.subscribe();
        Some(Watched {
            now: self.shown(),
            events,
        })
    }

    /// Times of the steps that were reported since its actor began, seconds.
    pub(crate) fn step_seconds(&self) -> Counts {
        self.step_seconds.counts()
    }

    /// The run as people may see it now.
    pub(crate) fn shown(&self) -> Shown {
        self.shown.borrow().clone()
    }
}
