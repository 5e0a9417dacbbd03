//! Signs of work, for the coordinator to tell a worker that works from one that is stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::collective::Waiting;

/// What an assignment's heartbeats say of its work. It is shown, never decided upon here; all clones show
/// the same.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    ticks: Arc<AtomicU64>,
    waiting: Waiting,
}

impl Vitals {
    /// A piece of work is done: a micro-batch, a chunk fetched or sent, a call of the collective.
    pub fn tick(&self) {
        // Nothing else is published with the number, so its order with other memory does not matter.
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Pieces of work so far.
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Where the collective shows whom it waits for.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }
}
