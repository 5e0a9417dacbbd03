//! The cluster's state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fovea_core::ids::{GroupId, RunId, WorkerId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::SessionId;
use super::needs::Needs;
use super::reasons::Cause;
use super::session::Session;
use crate::catalogue::Catalogue;
use crate::catalogue::weights::WeightsCatalogue;
use crate::config::Config;
use crate::housekeeping::Room;
use crate::run::{DataProblems, RunActorError, RunContext, RunHandle, RunStatus};

/// Why the coordinator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// A run's actor.
    #[error(transparent)]
    Run(#[from] RunActorError),
    /// A task panicked.
    #[error("an actor ended unexpectedly: {0}")]
    Panicked(String),
}

/// A live run, as the cluster sees it.
#[derive(Debug)]
pub(super) struct Live {
    pub handle: RunHandle,
    pub status: RunStatus,
    /// Since when it could start, on the coordinator's clock.
    pub startable_since: Option<u64>,
    /// Why it waits, as last sent to it.
    pub waiting: Option<String>,
    /// The cause of that, as last logged.
    pub logged: Option<Cause>,
    /// The memory that it needs.
    pub needs: Needs,
    /// Runs of a group start in their order.
    pub group: Option<GroupId>,
    /// Who submitted it; None without TLS.
    pub owner: Option<String>,
    /// Since when it wants workers to start with, on the coordinator's clock.
    pub queued_since: Option<u64>,
    /// It gave workers to a run of higher priority, and has not got any back yet.
    pub gave: bool,
    /// It keeps its workers until then, on the coordinator's clock.
    pub safe_until: u64,
    /// It is queued for the first time, and has not reported yet.
    pub fresh: bool,
    /// How many workers could serve it, as last sent to it.
    pub usable: Option<usize>,
    /// What is wrong with its dataset or its weights, as last sent to it.
    pub data_problems: DataProblems,
}

impl Live {
    /// It is given workers. If it had given some away it keeps these for `hold` milliseconds.
    pub fn got_back(&mut self, now: u64, hold: u64) {
        if std::mem::take(&mut self.gave) {
            self.safe_until = now + hold;
        }
    }
}

/// All state, with one owner.
pub(super) struct Actor {
    pub config: Arc<Config>,
    pub context: RunContext,
    pub actors: JoinSet<(u64, Result<(), RunActorError>)>,
    pub runs: BTreeMap<u64, Live>,
    pub numbers: HashMap<RunId, u64>,
    /// Live runs whose roster holds a worker.
    pub members: HashMap<WorkerId, BTreeSet<u64>>,
    pub next_run: u64,
    pub sessions: BTreeMap<SessionId, Session>,
    pub by_worker: HashMap<WorkerId, SessionId>,
    pub next_session: u64,
    pub next_ticket: u64,
    /// Sessions that do not take their messages: to be ended in this turn.
    pub failing: Vec<(SessionId, String)>,
    /// Something changed that scheduling depends on.
    pub changed: bool,
    /// So many messages in a row were taken before scheduling.
    pub taken: usize,
    /// When to schedule again at the latest, on the coordinator's clock.
    pub wake: Option<u64>,
    pub catalogue: watch::Receiver<Arc<Catalogue>>,
    pub weights: watch::Receiver<Arc<WeightsCatalogue>>,
    pub room: watch::Receiver<Room>,
    pub draining: Option<Vec<oneshot::Sender<()>>>,
    /// Runs that have not handled the request to drain yet.
    pub undrained: BTreeSet<u64>,
    /// The runs are left to their workers. Who waits for it is answered when all actors have ended.
    pub handing_over: Option<Vec<oneshot::Sender<()>>>,
}
