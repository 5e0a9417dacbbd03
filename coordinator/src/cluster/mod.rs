//! The cluster actor: which workers are connected, which are free, and which run gets them.
//!
//! ```text
//!  sessions, services ──Request (bounded)──> Cluster ──RunInput──> run actors
//!                                               ^                      │
//!                                               └──────── Report ──────┘
//! ```
//!
//! It owns the sessions and the table of live runs. It does not know what a run does: each run actor reports a
//! `RunStatus` when it changes, and the cluster schedules only when a status, a session or a store changed: once for all
//! messages that have come meanwhile. It never waits for a run, a file or the journal.
//!
//! `Report` and `RunInput` are unbounded channels, but bounded by construction: a message of a worker holds one
//! of its session's permits (`services/workers`) until the run has handled it, and everything else follows from
//! such a message, a person's request, or a timer.
//!
//! - `state`: what it owns; `session`: a worker's session
//! - `actor`: the task and its turn
//! - `sessions`: workers that join, come back, leave, and their messages
//! - `scheduling`: giving idle workers to runs; `scheduler` and `gpus` are the pure decisions
//! - `queue`: who comes first, and quotas
//! - `taking`: taking workers from runs of lower priority; `displacement` is the pure decision
//! - `fitting`: which workers could serve a run: their memory, their trouble; `needs`: the memory that it needs
//! - `reasons`: why queued runs wait
//! - `snapshot`: what people are shown of the workers

mod actor;
mod displacement;
mod fitting;
mod gpus;
mod needs;
mod queue;
mod reasons;
mod scheduler;
mod scheduling;
mod session;
mod sessions;
mod snapshot;
mod state;
mod taking;

use fovea_core::ids::RunId;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::journal::LiveRun;
use crate::messages::{CoordinatorMessage, Hello, Reply, WorkerMessage};
use crate::run::RunHandle;

pub(crate) use actor::{Start, start};
pub(crate) use queue::QueuedRun;
pub(crate) use session::LastHeard;
pub(crate) use snapshot::{WorkerState, WorkerView};
pub use state::ActorError;

/// Requests that may wait for the cluster; senders wait when there are more.
const INBOX: usize = 1024;

/// Number of a session: the order of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub u64);

/// What sessions and services ask of the cluster.
#[derive(Debug)]
pub(crate) enum Request {
    /// A worker opens its session.
    Hello {
        hello: Box<Hello>,
        outbox: mpsc::Sender<CoordinatorMessage>,
        /// Cancelled when the cluster ends the session.
        over: CancellationToken,
        /// Where its listener notes when it was heard.
        heard: LastHeard,
        reply: Reply<SessionId>,
    },
    /// A worker's message.
    Worker {
        session: SessionId,
        message: WorkerMessage,
        /// Dropped when the message has been handled.
        permit: OwnedSemaphorePermit,
    },
    /// A session is over.
    SessionEnded {
        session: SessionId,
        reason: String,
        reply: Reply<()>,
    },
    /// The actor of a live run, if the run is live.
    Find {
        run: RunId,
        reply: oneshot::Sender<Option<RunHandle>>,
    },
    /// The actors of all live runs, by number.
    Live {
        reply: oneshot::Sender<Vec<RunHandle>>,
    },
    /// The number of the next run. Refused while the coordinator shuts down.
    NextNumber { reply: Reply<u64> },
    /// Starts the actor of a run, unless it has one: a new run, or an ended one that is asked for.
    Open {
        run: Box<LiveRun>,
        reply: oneshot::Sender<RunHandle>,
    },
    /// Checkpoint and requeue every run; answered when none is under way.
    Drain { reply: oneshot::Sender<()> },
    /// Write every run out and leave it to its workers; answered when that is done. Nothing is begun any more, and
    /// sessions that end are not lost workers.
    HandOver { reply: oneshot::Sender<()> },
    /// What the connected workers do.
    Workers {
        reply: oneshot::Sender<Vec<WorkerView>>,
    },
    /// The queued runs, in the order of the queue.
    Queue {
        reply: oneshot::Sender<Vec<QueuedRun>>,
    },
    /// Why the memory of no connected worker is enough for a run, if that is so.
    MemoryShortage {
        run: u64,
        reply: oneshot::Sender<Option<String>>,
    },
    /// How many runs are under way, or not handed over yet.
    CountActive { reply: oneshot::Sender<usize> },
}

/// The way to the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    requests: mpsc::Sender<Request>,
}

impl Cluster {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| ApiError::ShuttingDown)?;
        answer.await.map_err(|_| ApiError::ShuttingDown)?
    }

    async fn query<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| ApiError::ShuttingDown)?;
        answer.await.map_err(|_| ApiError::ShuttingDown)
    }

    /// Sends something that has no answer. False when the cluster is gone.
    pub(crate) async fn send(&self, request: Request) -> bool {
        self.requests.send(request).await.is_ok()
    }

    /// The actor of a live run, if the run is live.
    pub(crate) async fn find(&self, run: &RunId) -> Result<Option<RunHandle>, ApiError> {
        let run = run.clone();
        self.query(|reply| Request::Find { run, reply }).await
    }

    /// The actors of all live runs, by number.
    pub(crate) async fn live(&self) -> Result<Vec<RunHandle>, ApiError> {
        self.query(|reply| Request::Live { reply }).await
    }

    /// What the connected workers do, in the order in which they joined.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerView>, ApiError> {
        self.query(|reply| Request::Workers { reply }).await
    }

    /// The queued runs, in the order of the queue.
    pub(crate) async fn queue(&self) -> Result<Vec<QueuedRun>, ApiError> {
        self.query(|reply| Request::Queue { reply }).await
    }

    /// Why the memory of no connected worker is enough for the run of that number, if that is so.
    pub(crate) async fn nobody_fits(&self, run: u64) -> Result<Option<String>, ApiError> {
        self.query(|reply| Request::MemoryShortage { run, reply })
            .await
    }

    /// Starts the actor of a run, unless it has one.
    pub(crate) async fn open(&self, run: LiveRun) -> Result<RunHandle, ApiError> {
        let run = Box::new(run);
        self.query(|reply| Request::Open { run, reply }).await
    }

    /// Checkpoints and requeues every run; ends when none is under way.
    pub(crate) async fn drain(&self) {
        // An error says that the cluster is gone, and its runs with it.
        let _ = self.query(|reply| Request::Drain { reply }).await;
    }

    /// A handle that does not keep the cluster going.
    pub(crate) fn downgrade(&self) -> WeakCluster {
        WeakCluster(self.requests.downgrade())
    }

    /// Writes every run out and leaves it to its workers; ends when that is done.
    pub(crate) async fn hand_over(&self) {
        // As for `drain`.
        let _ = self.query(|reply| Request::HandOver { reply }).await;
    }

    /// How many runs are under way, or not handed over yet.
    pub(crate) async fn active_runs(&self) -> usize {
        self.query(|reply| Request::CountActive { reply })
            .await
            .unwrap_or(0)
    }
}

/// A handle that does not keep the cluster going.
#[derive(Debug, Clone)]
pub(crate) struct WeakCluster(mpsc::WeakSender<Request>);

impl WeakCluster {
    /// The cluster, unless it has ended.
    pub(crate) fn upgrade(&self) -> Option<Cluster> {
        self.0.upgrade().map(|requests| Cluster { requests })
    }

    /// Whether the cluster handles a request. It waits for as long as that takes.
    pub(crate) async fn answers(&self) -> bool {
        let Some(cluster) = self.upgrade() else {
            return false;
        };
        let count = |reply| Request::CountActive { reply };
        cluster.query(count).await.is_ok()
    }
}
