//! Checkpoint assembly: what has come of which checkpoint.
//!
//! ```text
//!   first slice ──> opening ──> slices come ──> whole ──> storing ──> stored
//!                      │ store refuses             ^          │ store cannot be written now
//!                      v                           └──────────┘ (retried)
//!                   dropped
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use fovea_core::checkpoint::Fingerprint;
use tracing::debug;

use crate::error::ApiError;
use crate::messages::{Reply, SliceClaim};
use crate::store::AssemblyFile;

/// Names an assembly: generation, then step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AssemblyKey {
    pub generation: u64,
    pub step: u64,
}

/// The right to write one slice, or the news that it is there.
#[derive(Debug)]
pub(crate) enum SliceTicket {
    /// The same bytes arrived before: the worker missed the answer.
    Here,
    /// Write it.
    Write {
        key: AssemblyKey,
        rank: usize,
        file: Arc<AssemblyFile>,
        /// First byte of the state.
        byte: u64,
        bytes: u64,
        /// While it lives, nobody else may write this slice.
        claim: Arc<()>,
    },
}

/// The checkpoints being assembled for a run.
#[derive(Debug, Default)]
pub(super) struct Assemblies(pub BTreeMap<AssemblyKey, Assembly>);

/// One of them.
#[derive(Debug)]
pub(super) struct Assembly {
    /// None while it is being opened.
    pub file: Option<Arc<AssemblyFile>>,
    /// Who waits for that.
    pub waiting: Vec<(SliceClaim, usize, Reply<SliceTicket>)>,
    pub fingerprint: Fingerprint,
    pub lineage: u64,
    /// Of the state that all slices are parts of.
    pub state_digest: String,
    /// By rank.
    pub slices: Vec<Slice>,
    /// All slices are here: it will be stored in its turn.
    pub whole: bool,
    /// The file is being verified and stored.
    pub storing: bool,
    /// When to try again to store it, on the coordinator's clock.
    pub retry_at: Option<u64>,
    pub attempts: u32,
}

/// One rank's slice.
#[derive(Debug)]
pub(super) enum Slice {
    /// Not here; the claim lives while somebody is writing it.
    Missing { claim: Weak<()> },
    /// Verified and on disk.
    Here { digest: String },
}

impl Assemblies {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn any_whole(&self) -> bool {
        self.0.values().any(|a| a.whole)
    }

    pub fn retry_at(&self) -> Option<u64> {
        self.0.values().filter_map(|a| a.retry_at).min()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Why the checkpoint will never be whole; None while it can still come.
    pub fn hopeless(&self, key: AssemblyKey) -> Option<String> {
        match self.0.get(&key) {
            Some(assembly) if assembly.whole => None,
            Some(assembly) => {
                let missing: Vec<String> = (0..assembly.slices.len())
                    .filter(|&rank| matches!(assembly.slices[rank], Slice::Missing { .. }))
                    .map(|rank| rank.to_string())
                    .collect();
                Some(format!(
                    "its workers released the run without uploading the slices of ranks {}",
                    missing.join(", ")
                ))
            }
            None => Some("its workers released the run without uploading their slices".into()),
        }
    }
}

impl Assembly {
    /// Gives a worker the right to write its slice, unless the slice is here or being written.
    pub fn claim(
        &mut self,
        key: AssemblyKey,
        rank: usize,
        wanted: &SliceClaim,
    ) -> Result<SliceTicket, ApiError> {
        let Some(file) = &self.file else {
            return Err(ApiError::Internal(
                "the checkpoint's file is not open".into(),
            ));
        };
        match &mut self.slices[rank] {
            Slice::Here { digest } if *digest == wanted.digest => {
                debug!(rank, step = key.step, "slice is here already");
                Ok(SliceTicket::Here)
            }
            Slice::Here { .. } => Err(ApiError::Precondition(format!(
                "header.digest: rank {rank} has uploaded other bytes for step {} before",
                key.step
            ))),
            Slice::Missing { claim } if claim.strong_count() > 0 => {
                Err(ApiError::Conflict(format!(
                    "header.step: rank {rank}'s slice of step {} is being uploaded already",
                    key.step
                )))
            }
            Slice::Missing { claim } => {
                let mine = Arc::new(());
                *claim = Arc::downgrade(&mine);
                Ok(SliceTicket::Write {
                    key,
                    rank,
                    file: Arc::clone(file),
                    byte: wanted.offset * 4,
                    bytes: wanted.elements * 4,
                    claim: mine,
                })
            }
        }
    }
}

/// Which of a run's checkpoints is stored next, given in their order: whether each is whole, and whether it is being
/// stored or waits to be tried again. One that is not whole may never be, and holds up none.
pub(super) fn next_to_store<K>(of_run: impl IntoIterator<Item = (K, bool, bool)>) -> Option<K> {
    let mut next = None;
    for (key, whole, busy) in of_run {
        if busy {
            return None;
        }
        if whole && next.is_none() {
            next = Some(key);
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::next_to_store;

    #[test]
    fn whole_checkpoints_are_stored_one_after_the_other_in_their_order() {
        let (missing, whole, storing) = ((false, false), (true, false), (true, true));
        for (checkpoints, next) in [
            (vec![], None),
            (vec![missing, missing], None),
            (vec![whole, whole], Some(0)),
            (vec![missing, whole, whole], Some(1)),
            (vec![storing, whole], None),
            (vec![whole, storing], None),
        ] {
            let numbered = checkpoints
                .iter()
                .enumerate()
                .map(|(i, (w, s))| (i, *w, *s));
            assert_eq!(next_to_store(numbered), next, "{checkpoints:?}");
        }
    }
}
