//! Ledger segments: what stays of a checkpoint that was removed.
//!
//! A checkpoint's manifest carries the ledger since the checkpoint before it. Retention removes checkpoints with their
//! manifests, so without anything else a journal restored from a backup could adopt a newer checkpoint only when
//! none was removed in between. The ledger of each removed checkpoint therefore stays, without the epochs, as
//! `.ledger/RUN/step-<10 digits>.g<generation>.json`: together about as much as the run's ledger in the journal. It goes
//! when the run is removed.

use std::io;
use std::path::PathBuf;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_core::ledger::Entry;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::checkpoints::CheckpointStore;
use super::disk;
use super::error::StoreError;
use super::folder::Inner;
use super::manifest::{self, LedgerOnDisk};
use super::names::{self, Part, path_for};

/// Name of the folder. It is not the id of a run: these begin with a letter or a digit.
const LEDGER: &str = ".ledger";

/// The format that is written.
const FORMAT: &str = "fovea-ledger-1";

/// The steps between a removed checkpoint and the one before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    /// Lineage of the removed checkpoint.
    pub lineage: u64,
    /// Its generation.
    pub generation: u64,
    /// Contiguous, in order; the last is the checkpoint's own step. Not empty.
    pub ledger: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OnDisk {
    format: String,
    run: RunId,
    lineage: u64,
    generation: u64,
    ledger: LedgerOnDisk,
}

impl CheckpointStore {
    /// Keeps the ledger of a checkpoint that is about to be removed or put aside. Without a manifest, or with one of
    /// version 1, there is nothing to keep.
    ///
    /// # Errors
    /// As the disk reports; then nothing is left behind.
    pub(crate) fn keep_ledger(&self, run: &RunId, info: &CheckpointInfo) -> Result<(), StoreError> {
        let inner = self.inner();
        inner.root.check()?;
        let place = inner.path(run, info).with_extension("json");
        let record = match inner.read_manifest(&place) {
            Ok(manifest) => manifest.record,
            Err(StoreError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(record) = record.filter(|record| !record.ledger.is_empty()) else {
            return Ok(());
        };
        let path = segment_path(inner, run, info.step, info.generation);
        let bytes = serde_json::to_vec(&OnDisk {
            format: FORMAT.to_owned(),
            run: run.clone(),
            lineage: info.lineage,
            generation: info.generation,
            ledger: LedgerOnDisk::new(&record.ledger, record.train_samples),
        })
        .map_err(|error| StoreError::Write {
            path: path.clone(),
            source: error.into(),
        })?;
        inner.ensure_folder(&inner.root.dir().join(LEDGER))?;
        let folder = segments_folder(inner, run);
        inner.ensure_folder(&folder)?;
        // In the root, where a start removes what a kill leaves.
        let temporary = inner.root.temporary(inner.root.dir(), "ledger");
        inner.remember(&temporary);
        let written = disk::write_new(&temporary, &bytes)
            .and_then(|()| disk::rename(&temporary, &path))
            .map_err(|error| inner.root.write_error(&path, bytes.len() as u64, error));
        if written.is_err() {
            inner.root.discard_temporary(&temporary);
        }
        inner.forget(&temporary);
        written?;
        inner.sync_folder(&folder)
    }

    /// The ledgers of the run's removed checkpoints. One that is not valid is left out: it only shortens what can be
    /// adopted.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn segments(&self, run: &RunId) -> Result<Vec<Segment>, StoreError> {
        let inner = self.inner();
        let folder = segments_folder(inner, run);
        let mut segments = Vec::new();
        for name in inner.list(&folder)? {
            let Some((generation, step, Part::Manifest)) = names::parse(&name) else {
                continue;
            };
            let path = segment_path(inner, run, step, generation);
            let bytes = disk::read_whole(&path, manifest::MOST_BYTES)
                .map_err(|error| inner.root.read_error(&path, error))?;
            match parse(&bytes, run, step) {
                Some(segment) => segments.push(segment),
                None => warn!(
                    run_id = %run,
                    "ledger.ignored: {} is not a valid ledger segment of step {step}",
                    path.display()
                ),
            }
        }
        Ok(segments)
    }
}

impl Inner {
    /// Removes the ledger segments of a run. Returns the bytes that became free.
    pub(super) fn remove_segments(&self, run: &RunId) -> Result<u64, StoreError> {
        let folder = segments_folder(self, run);
        match disk::remove_tree(&folder) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(self.root.write_error(&folder, 0, error)),
        }
    }
}

fn segments_folder(inner: &Inner, run: &RunId) -> PathBuf {
    inner.root.dir().join(LEDGER).join(run.as_str())
}

fn segment_path(inner: &Inner, run: &RunId, step: u64, generation: u64) -> PathBuf {
    path_for(&segments_folder(inner, run), step, generation).with_extension("json")
}

fn parse(bytes: &[u8], of: &RunId, at: u64) -> Option<Segment> {
    let OnDisk {
        format,
        run,
        lineage,
        generation,
        ledger,
    } = serde_json::from_slice(bytes).ok()?;
    let (ledger, _) = ledger.unpack().ok()?;
    let contiguous = ledger.windows(2).all(|w| w[1].step == w[0].step + 1);
    let whole = contiguous && ledger.last().is_some_and(|e| e.step == at);
    (format == FORMAT && run == *of && whole).then_some(Segment {
        lineage,
        generation,
        ledger,
    })
}
