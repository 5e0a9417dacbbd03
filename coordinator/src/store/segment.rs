//! Ledger segments: what stays of a checkpoint that was removed.
//!
//! A checkpoint's manifest carries the ledger since the checkpoint before it. Retention removes checkpoints with their
//! manifests, so without anything else a journal restored from a backup could adopt a newer checkpoint only when
//! none was removed in between. The ledger of each removed checkpoint therefore stays, without the epochs, as
//! `.ledger/RUN/step-<10 digits>.g<generation>.json`: together about as much as the run's ledger in the journal. It goes
//! when the run is removed.

use std::io;
use std::path::PathBuf;

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

    /// The runs that have ledgers of removed checkpoints, with step and generation of each.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn segment_names(&self) -> Result<Vec<(RunId, u64, u64)>, StoreError> {
        let inner = self.inner();
        let root = inner.root.dir().join(LEDGER);
        let runs = inner.list(&root)?;
        let mut found = Vec::new();
        for run in runs.into_iter().filter_map(|name| RunId::new(name).ok()) {
            for file in inner.list(&segments_folder(inner, &run))? {
                if let Some((generation, step, Part::Manifest)) = names::parse(&file) {
                    found.push((run.clone(), step, generation));
                }
            }
        }
        Ok(found)
    }

    /// The ledger of a removed checkpoint, as it lies in the store; None: there is none.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn segment_bytes(
        &self,
        run: &RunId,
        step: u64,
        generation: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let path = segment_path(self.inner(), run, step, generation);
        match disk::read_whole(&path, manifest::MOST_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => match self.inner().root.read_error(&path, error) {
                StoreError::Missing { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Where the ledger of a removed checkpoint lies; its folder is made.
    pub(super) fn make_segment_place(
        &self,
        run: &RunId,
        step: u64,
        generation: u64,
    ) -> Result<PathBuf, StoreError> {
        let inner = self.inner();
        inner.ensure_folder(&inner.root.dir().join(LEDGER))?;
        inner.ensure_folder(&segments_folder(inner, run))?;
        Ok(segment_path(inner, run, step, generation))
    }
}

impl Inner {
    /// Keeps the ledger of a checkpoint that is about to be removed or put aside. When that fails, it is logged: a
    /// restored journal may then not be able to adopt later checkpoints, which is no reason to keep this one.
    pub(super) fn keep_ledger(&self, run: &RunId, step: u64, generation: u64) {
        if let Err(error) = self.write_segment(run, step, generation) {
            warn!(run_id = %run, step, generation, %error, "ledger.not_kept: {run} step {step}: {error}");
        }
    }

    /// Without a manifest, or with one of version 1, there is nothing to write.
    fn write_segment(&self, run: &RunId, step: u64, generation: u64) -> Result<(), StoreError> {
        let place = path_for(&self.folder(run), step, generation).with_extension("json");
        let manifest = match self.read_manifest(&place) {
            Ok(manifest) => manifest,
            Err(StoreError::Missing { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(record) = manifest.record.filter(|r| !r.ledger.is_empty()) else {
            return Ok(());
        };
        let path = segment_path(self, run, step, generation);
        let bytes = serde_json::to_vec(&OnDisk {
            format: FORMAT.to_owned(),
            run: run.clone(),
            lineage: manifest.info.lineage,
            generation,
            ledger: LedgerOnDisk::new(&record.ledger, record.train_samples),
        })
        .map_err(|error| StoreError::Write {
            path: path.clone(),
            source: error.into(),
        })?;
        self.ensure_folder(&self.root.dir().join(LEDGER))?;
        let folder = segments_folder(self, run);
        self.ensure_folder(&folder)?;
        // In the root, where a start removes what a kill leaves.
        let temporary = self.root.temporary(self.root.dir(), "ledger");
        self.remember(&temporary);
        let written = disk::write_new(&temporary, &bytes)
            .and_then(|()| disk::rename(&temporary, &path))
            .map_err(|error| self.root.write_error(&path, bytes.len() as u64, error));
        if written.is_err() {
            self.root.discard_temporary(&temporary);
        }
        self.forget(&temporary);
        written?;
        self.sync_folder(&folder)
    }

    /// Removes the ledger segments of a run. Returns the bytes that became free.
    pub(super) fn remove_segments(&self, run: &RunId) -> Result<u64, StoreError> {
        let folder = segments_folder(self, run);
        match disk::remove_tree(&folder) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(self.root.remove_error(&folder, error)),
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

#[cfg(test)]
mod tests {
    use super::super::test_support::{Shelf, folder, record, run_id};

    fn steps(shelf: &Shelf) -> Vec<u64> {
        let segments = shelf.store.segments(&run_id()).unwrap();
        let mut steps: Vec<u64> = segments
            .iter()
            .flat_map(|segment| &segment.ledger)
            .map(|entry| entry.step)
            .collect();
        steps.sort();
        steps
    }

    #[test]
    fn whoever_takes_a_checkpoint_away_leaves_its_ledger() {
        let shelf = Shelf::new();
        assert!(steps(&shelf).is_empty());
        shelf.store.remove(&run_id(), &shelf.infos[0]).unwrap();
        assert_eq!(steps(&shelf), Vec::from_iter(1..=10));
        let segment = &shelf.store.segments(&run_id()).unwrap()[0];
        assert_eq!((segment.lineage, segment.generation), (3, 1));
        assert_eq!(segment.ledger, record(10).run.ledger);
        // Once more: there is nothing left to keep, and nothing is lost.
        shelf.store.remove(&run_id(), &shelf.infos[0]).unwrap();
        assert_eq!(steps(&shelf), Vec::from_iter(1..=10));
        // A sweep, too: a kill may have come between the journal and the removal.
        shelf.store.sweep(&run_id(), &[]).unwrap();
        assert_eq!(steps(&shelf), Vec::from_iter(1..=20));

        let shelf = Shelf::new();
        shelf.store.quarantine(&run_id(), &shelf.infos[1]).unwrap();
        assert_eq!(steps(&shelf), Vec::from_iter(11..=20));
        shelf.store.remove_run(&run_id()).unwrap();
        assert!(steps(&shelf).is_empty());
        assert!(!folder(&shelf).exists());
    }
}
