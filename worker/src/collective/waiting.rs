//! Whom this worker waits for, for other threads to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The peer for which this worker's collective waits right now; clones show the same.
///
/// When a generation stands still, most of its workers wait for each other and one has brought them
/// to a stop. Who follows what everybody shows here finds that one.
#[derive(Debug, Clone, Default)]
pub struct Waiting(
    /// The peer's rank plus one; 0 while waiting for nobody.
    Arc<AtomicU32>,
);

impl Waiting {
    /// Rank of the peer that is being waited for: that it connects, sends, or takes what is sent to
    /// it. None while no call waits for a peer.
    pub fn on(&self) -> Option<u32> {
        // Nothing else is published with the number, so its order with other memory does not matter.
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Shows `rank` until the returned value is dropped, so also when an error or a panic ends the
    /// wait.
    pub(crate) fn begin(&self, rank: usize) -> Waits<'_> {
        let waits = Waits(self);
        waits.switch(rank);
        waits
    }
}

/// A wait that is going on.
#[must_use]
pub(crate) struct Waits<'a>(&'a Waiting);

impl Waits<'_> {
    /// Shows another peer.
    pub(crate) fn switch(&self, rank: usize) {
        self.0.0.store(rank as u32 + 1, Ordering::Relaxed);
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}
