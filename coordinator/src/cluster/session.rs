//! A worker's session, as the cluster sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fovea_core::ids::RunId;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::clock::Clock;
use crate::error::ApiError;
use crate::messages::{CoordinatorMessage, Hello, Load};

/// When a worker was last heard, and how it fared. Its listener notes it, and the cluster shows it.
#[derive(Debug, Clone)]
pub(crate) struct LastHeard {
    clock: Clock,
    at: Arc<AtomicU64>,
    load: Arc<Mutex<Load>>,
}

impl LastHeard {
    /// Now, by `clock`.
    pub(crate) fn new(clock: Clock) -> Self {
        let at = Arc::new(AtomicU64::new(clock.now()));
        Self {
            clock,
            at,
            load: Arc::default(),
        }
    }

    /// It is heard now.
    pub(crate) fn now(&self) {
        self.at.store(self.clock.now(), Ordering::Relaxed);
    }

    /// It fares like that now.
    pub(crate) fn fares(&self, load: Load) {
        *self.lock() = load;
    }

    /// Its load, by its last heartbeat.
    pub(super) fn load(&self) -> Load {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Load> {
        // A value that is copied in one piece is whole.
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When that was, on the clock.
    pub(super) fn at(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }
}

/// A connected worker.
#[derive(Debug)]
pub(super) struct Session {
    pub hello: Hello,
    pub outbox: mpsc::Sender<CoordinatorMessage>,
    pub heard: LastHeard,
    /// Since when it is connected, on the coordinator's clock.
    pub since: u64,
    /// What it has not released; None if it is idle.
    pub assignment: Option<Served>,
    /// The run whose state it holds.
    pub held_run: Option<RunId>,
    /// The run (by number) that it was offered to or has released, with a ticket, until that run has handled it.
    pub offered: Option<(u64, u64)>,
    /// The run that it prepares for.
    pub preparing: Option<Preparing>,
    /// The run (by number) that takes it from another, or that may need it: nobody else gets it.
    pub promised: Option<u64>,
    /// It is not asked to prepare before that time, on the coordinator's clock.
    pub joins_from: u64,
    /// It will shut down: it gets no more work.
    pub leaving: bool,
    /// Tells the session's listener, when dropped, that the session is over.
    pub _over: DropGuard,
}

/// An assignment that a worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub run: RunId,
    pub generation: u64,
}

/// A worker that prepares to join a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preparing {
    /// The run's number.
    pub run: u64,
    /// When it was asked, on the coordinator's clock.
    pub since: u64,
    /// It may be let in.
    pub done: bool,
}

impl Session {
    /// It can be given work.
    pub fn is_idle(&self) -> bool {
        self.assignment.is_none() && self.offered.is_none() && !self.leaving
    }

    /// Tells the worker why its session ends, if it still listens.
    pub fn end(&self, error: ApiError) {
        let _ = self.outbox.try_send(CoordinatorMessage::End(error));
    }
}
