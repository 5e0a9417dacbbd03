//! What the caches of this worker were good for since it started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of each cache. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct CacheHits {
    /// Images whose frozen layers' activations were asked for.
    pub activations: Hits,
    /// Packs of a dataset that an assignment needed.
    pub packs: Hits,
}

/// How often something was in a cache, and how often not. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct Hits(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Hits {
    /// So many were there, and so many were not.
    pub fn add(&self, hits: u64, misses: u64) {
        // Nothing else is published with them, so their order with other memory does not matter.
        self.0.hits.fetch_add(hits, Ordering::Relaxed);
        self.0.misses.fetch_add(misses, Ordering::Relaxed);
    }

    /// Those that were there.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::Relaxed)
    }

    /// Those that were not.
    pub fn misses(&self) -> u64 {
        self.0.misses.load(Ordering::Relaxed)
    }
}
