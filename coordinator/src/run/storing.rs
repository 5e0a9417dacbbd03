//! A whole checkpoint and its manifest on their way into the store.

use std::sync::Arc;

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::run::Run;

use crate::blocking::{Panicked, blocking};
use crate::clock::unix_ms;
use crate::journal::Journal;
use crate::store::{AssemblyFile, CheckpointRecord, RunRecord, StoreError, low_priority};

/// Steps of the ledger that are read at a time for a manifest.
const PAGE: usize = 2_000;

/// A whole checkpoint on its way into the store.
pub(super) struct Unfinished {
    /// XXH3-128 of the state.
    pub digest: String,
    pub fingerprint: Fingerprint,
    pub lineage: u64,
    pub step: u64,
}

impl Unfinished {
    pub async fn store(
        self,
        file: Arc<AssemblyFile>,
        journal: &Journal,
        run: &Run,
    ) -> Result<Result<CheckpointInfo, StoreError>, Panicked> {
        let before = run
            .checkpoints
            .iter()
            // Not one that a rewind made void: the steps up to it were taken again.
            .filter(|c| c.step < self.step && !run.is_void(c))
            .map(|c| c.step)
            .max();
        let mut ledger = Vec::new();
        let mut from = before.unwrap_or(0) + 1;
        while from <= self.step {
            let page = journal
                .steps(run.number, run.extent.train_samples, from, PAGE)
                .await;
            let Ok((entries, _)) = page else {
                // A manifest without it is worth less after the loss of a journal, but no reason not to store.
                break;
            };
            let Some(last) = entries.last() else { break };
            from = last.step + 1;
            ledger.extend(entries.into_iter().filter(|e| e.step <= self.step));
        }
        let record = CheckpointRecord {
            fingerprint: self.fingerprint,
            lineage: self.lineage,
            stored_at_ms: unix_ms(),
            run: RunRecord {
                number: run.number,
                id: run.id.clone(),
                name: run.spec.name.clone(),
                epochs: run
                    .epochs
                    .iter()
                    .filter(|e| e.step <= self.step)
                    .cloned()
                    .collect(),
                train_samples: run.extent.train_samples,
                ledger,
            },
        };
        let digest = self.digest;
        let finish = move || low_priority(|| file.finish(&digest, &record));
        blocking(finish).await
    }
}
