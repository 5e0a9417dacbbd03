//! Progress of an assignment, by which the coordinator distinguishes a working worker from a stuck one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::collective::Waiting;

/// Counters that the assignment's heartbeats carry. The worker decides nothing by them. All clones share them.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    ticks: Arc<AtomicU64>,
    scored: Arc<AtomicU64>,
    images: Arc<AtomicU64>,
    /// When the newest evaluation began, nanoseconds since the Unix epoch; 0 before the first.
    evaluation: Arc<AtomicU64>,
    waiting: Waiting,
}

impl Progress {
    /// Of a new assignment. The images that it computes gradients of are added to `images`.
    pub fn counting(images: Arc<AtomicU64>) -> Self {
        Self {
            images,
            ..Self::default()
        }
    }

    /// Counts images whose gradient was computed here.
    pub fn add_images(&self, images: usize) {
        self.images.fetch_add(images as u64, Ordering::Relaxed);
    }

    /// Counts a completed piece of work: a micro-batch, a chunk received or sent, a call of the collective.
    pub fn tick(&self) {
        // Nothing else is published with the number, so its order with other memory does not matter.
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Pieces of work so far.
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Counts samples of the validation split that are scored.
    pub fn add_scored(&self, samples: usize) {
        self.scored.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// An evaluation begins now.
    pub fn evaluation_begins(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_nanos() as u64);
        self.evaluation.store(now, Ordering::Relaxed);
        self.reset_scored();
    }

    /// When the newest evaluation began; None before the first.
    pub fn evaluation_began(&self) -> Option<SystemTime> {
        match self.evaluation.load(Ordering::Relaxed) {
            0 => None,
            at => Some(UNIX_EPOCH + Duration::from_nanos(at)),
        }
    }

    /// Nothing is scored any more.
    pub fn reset_scored(&self) {
        self.scored.store(0, Ordering::Relaxed);
    }

    /// Samples scored in the evaluation under way.
    pub fn scored(&self) -> u64 {
        self.scored.load(Ordering::Relaxed)
    }

    /// Where the collective records for which peer it waits.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }
}
