//! The folders of a checkpoint store: what lies in them, and which of it is being assembled.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use tracing::{info, warn};

use super::disk;
use super::error::StoreError;
use super::identity::Root;
use super::manifest::{self, Manifest};
use super::names::{self, Part, path_for};
use super::{StoreOptions, TEMPORARY};

/// What the store and the checkpoints being assembled share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) root: Root,
    pub(super) options: StoreOptions,
    /// Files of checkpoints that are assembled or fetched at the moment, which no sweep may touch.
    live: Mutex<BTreeSet<PathBuf>>,
}

/// One file of a checkpoint in a run's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) generation: u64,
    pub(super) step: u64,
    pub(super) part: Part,
}

impl Inner {
    pub(super) fn new(root: Root, options: StoreOptions) -> Self {
        Self {
            root,
            options,
            live: Mutex::default(),
        }
    }

    /// The folder of a run's checkpoints.
    pub(super) fn folder(&self, run: &RunId) -> PathBuf {
        self.root.dir().join(run.as_str())
    }

    pub(super) fn path(&self, run: &RunId, info: &CheckpointInfo) -> PathBuf {
        path_for(&self.folder(run), info.step, info.generation)
    }

    /// Keeps a file from sweeps.
    pub(super) fn remember(&self, path: &Path) {
        let mut live = self.live.lock().unwrap_or_else(|e| e.into_inner());
        live.insert(path.to_owned());
    }

    /// Ends [`Self::remember`].
    pub(super) fn forget(&self, path: &Path) {
        let mut live = self.live.lock().unwrap_or_else(|e| e.into_inner());
        live.remove(path);
    }

    fn is_live(&self, path: &Path) -> bool {
        let live = self.live.lock().unwrap_or_else(|e| e.into_inner());
        live.contains(path)
    }

    /// Makes a folder in the store where it is missing.
    pub(super) fn ensure_folder(&self, folder: &Path) -> Result<(), StoreError> {
        match disk::make_folder(folder) {
            Ok(()) => self.sync_folder(folder.parent().unwrap_or(folder)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.root.write_error(folder, 0, error)),
        }
    }

    pub(super) fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        disk::sync_folder(folder).map_err(|error| self.root.write_error(folder, 0, error))
    }

    /// Moves what lies at a checkpoint's place, if anything does, to the trash: it must not be overwritten.
    pub(super) fn make_way(
        &self,
        run: &RunId,
        step: u64,
        generation: u64,
    ) -> Result<(), StoreError> {
        let path = path_for(&self.folder(run), step, generation);
        let mut there = false;
        for path in [path.with_extension("json"), path] {
            there |= disk::exists(&path).map_err(|error| self.root.read_error(&path, error))?;
        }
        if there {
            let entry = self.discard(run, step, generation)?;
            warn!(
                run_id = %run,
                step,
                generation,
                "checkpoint.replaced: an unlisted checkpoint of step {step} was in the way; moved to {}",
                entry.display()
            );
        }
        Ok(())
    }

    /// Files of a run's checkpoints that are neither listed nor on their way, manifests first, oldest checkpoint
    /// first.
    pub(super) fn unlisted(
        &self,
        folder: &Path,
        listed: &[CheckpointInfo],
    ) -> Result<Vec<Found>, StoreError> {
        let is_listed = |file: &Found| {
            let key = (file.step, file.generation);
            listed
                .iter()
                .any(|info| (info.step, info.generation) == key)
        };
        let mut files = self.checkpoint_files(folder)?;
        files.retain(|file| !is_listed(file) && !self.is_live(&file.path(folder)));
        Ok(files)
    }

    /// All files of a run's checkpoints, in that order.
    pub(super) fn checkpoint_files(&self, folder: &Path) -> Result<Vec<Found>, StoreError> {
        let mut files: Vec<Found> = self
            .list(folder)?
            .iter()
            .filter_map(|name| names::parse(name))
            .map(|(generation, step, part)| Found {
                generation,
                step,
                part,
            })
            .collect();
        files.sort();
        Ok(files)
    }

    /// Names in a folder; none when the folder is not there though the store is.
    pub(super) fn list(&self, folder: &Path) -> Result<Vec<String>, StoreError> {
        match disk::list(folder) {
            Ok(names) => Ok(names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.root.check()?;
                Ok(Vec::new())
            }
            Err(error) => Err(self.root.read_error(folder, error)),
        }
    }

    /// Removes temporary files in a folder, except those of checkpoints being assembled.
    pub(super) fn remove_temporaries(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let mut removed = Vec::new();
        for name in self.list(folder)? {
            let path = folder.join(&name);
            if name.starts_with(TEMPORARY) && !self.is_live(&path) {
                disk::remove_tree(&path).map_err(|error| self.root.remove_error(&path, error))?;
                info!(
                    "store.temporary_removed: {} was left by an interrupted write",
                    path.display()
                );
                removed.push(path);
            }
        }
        Ok(removed)
    }

    pub(super) fn read_manifest(&self, path: &Path) -> Result<Manifest, StoreError> {
        let bytes = disk::read_whole(path, manifest::MOST_BYTES)
            .map_err(|error| self.root.read_error(path, error))?;
        Manifest::parse(&bytes, path)
    }
}

impl Found {
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        let path = path_for(folder, self.step, self.generation);
        match self.part {
            Part::Manifest => path.with_extension("json"),
            Part::Data => path,
        }
    }
}

/// Whether a folder holds at least one checkpoint of any run.
pub(super) fn holds_checkpoints(dir: &Path) -> io::Result<bool> {
    for run in disk::list(dir)? {
        if RunId::new(run.as_str()).is_err() {
            continue;
        }
        match disk::list(&dir.join(run)) {
            Ok(files) if files.iter().any(|file| names::parse(file).is_some()) => return Ok(true),
            Ok(_) => {}
            // Not a folder: no run's.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
