//! For which peer this worker waits, published for the heartbeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Longest time between two polls of a waiting thread.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The peer for which this worker's collective waits now; clones share it.
///
/// When a generation makes no progress, most of its workers wait for each other, and one is the cause. The coordinator
/// follows these ranks to that one. A thread that hangs while it waits publishes a peer, too, but does not poll.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Shown>);

#[derive(Debug, Default)]
struct Shown {
    /// The peer's rank plus one; 0 while waiting for no peer.
    peer: AtomicU32,
    polls: AtomicU64,
    /// The device's thread computes meanwhile, so this worker does not wait for a peer yet.
    busy: AtomicBool,
}

// Nothing else is published with these numbers, so their order with other memory does not matter.
impl Waiting {
    /// Rank of the peer that must connect, send or receive before this worker can continue. None while no call waits
    /// for a peer.
    pub fn on(&self) -> Option<u32> {
        if self.0.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.0.peer.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Number of polls of the waiting thread so far.
    pub fn polls(&self) -> u64 {
        self.0.polls.load(Ordering::Relaxed)
    }

    /// Counts a poll. Called at least every [`POLL_INTERVAL`] while a peer is published, by the waiting thread only.
    pub(crate) fn poll(&self) {
        if self.0.busy.load(Ordering::Relaxed) {
            return;
        }
        self.0.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// Until the returned value is dropped no wait is published: the device computes meanwhile, and if it hangs, that
    /// must be detected.
    pub(crate) fn busy(&self) -> Busy<'_> {
        self.0.busy.store(true, Ordering::Relaxed);
        Busy(self)
    }

    /// Publishes `rank` until the returned value is dropped, also when an error or a panic ends the wait.
    pub(crate) fn begin(&self, rank: usize) -> Waits<'_> {
        let waits = Waits(self);
        waits.switch(rank);
        waits
    }
}

/// The device computes.
#[must_use]
pub(crate) struct Busy<'a>(&'a Waiting);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.0.busy.store(false, Ordering::Relaxed);
    }
}

/// A wait in progress.
#[must_use]
pub(crate) struct Waits<'a>(&'a Waiting);

impl Waits<'_> {
    /// Publishes another peer.
    pub(crate) fn switch(&self, rank: usize) {
        self.0.0.peer.store(rank as u32 + 1, Ordering::Relaxed);
        self.poll();
    }

    /// [`Waiting::poll`].
    pub(crate) fn poll(&self) {
        self.0.poll();
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.peer.store(0, Ordering::Relaxed);
    }
}
