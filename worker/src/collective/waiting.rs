//! Whom this worker waits for, for other threads to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// While a thread waits, it polls at least this often.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The peer for which this worker's collective waits right now; clones show the same.
///
/// When a generation stands still, most of its workers wait for each other and one has brought them
/// to a stop. Who follows what everybody shows here finds that one. A thread that hangs within a wait
/// shows a peer, too, but does not poll any more.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Shown>);

#[derive(Debug, Default)]
struct Shown {
    /// The peer's rank plus one; 0 while waiting for nobody.
    peer: AtomicU32,
    polls: AtomicU64,
    /// The device's thread is at work meanwhile, so nobody is being waited for yet.
    busy: AtomicBool,
}

// Nothing else is published with these numbers, so their order with other memory does not matter.
impl Waiting {
    /// Rank of the peer that is being waited for: that it connects, sends, or takes what is sent to
    /// it. None while no call waits for a peer.
    pub fn on(&self) -> Option<u32> {
        if self.0.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.0.peer.load(Ordering::Relaxed).checked_sub(1)
    }

    /// How often the waiting thread has polled so far.
    pub fn polls(&self) -> u64 {
        self.0.polls.load(Ordering::Relaxed)
    }

    /// The waiting thread polls. It is called at least every [`POLL_INTERVAL`] by whoever shows a peer, and by the
    /// thread that waits only.
    pub(crate) fn poll(&self) {
        if self.0.busy.load(Ordering::Relaxed) {
            return;
        }
        self.0.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// Until the returned value is dropped nothing that waits counts: the device computes meanwhile, and if it hangs,
    /// that must be seen.
    pub(crate) fn busy(&self) -> Busy<'_> {
        self.0.busy.store(true, Ordering::Relaxed);
        Busy(self)
    }

    /// Shows `rank` until the returned value is dropped, so also when an error or a panic ends the
    /// wait.
    pub(crate) fn begin(&self, rank: usize) -> Waits<'_> {
        let waits = Waits(self);
        waits.switch(rank);
        waits
    }
}

/// The device is at work.
#[must_use]
pub(crate) struct Busy<'a>(&'a Waiting);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.0.busy.store(false, Ordering::Relaxed);
    }
}

/// A wait that is going on.
#[must_use]
pub(crate) struct Waits<'a>(&'a Waiting);

impl Waits<'_> {
    /// Shows another peer.
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
