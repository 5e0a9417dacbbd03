//! The checkpoint store: the only code that opens, renames or removes files in `checkpoints/`.
//!
//! ```text
//! checkpoints/store.json                                   identity, see `identity`
//! checkpoints/<run>/step-0000000010.g1.safetensors, .json  a checkpoint and its manifest
//! checkpoints/<run>/step-0000000010.g1.unjournalled        the journal may not have its run, see `unjournalled`
//! checkpoints/<run>/tmp-*                                  under way; removed at start when left behind
//! checkpoints/.trash/<ms>-<n>-<run>/                       put aside: not listed, or corrupt
//! ```
//!
//! A checkpoint exists when the journal lists it. Its file was verified, flushed and renamed before, and its
//! manifest was written after the file.
//!
//! | who | may remove what |
//! |---|---|
//! | retention (`remove`), `runs rm` (`remove_run`) | what the journal no longer lists, at once |
//! | `sweep` | temporary files; unlisted checkpoints go to the trash |
//! | `remove_marked`, `discard_marked` | what is marked as that of a run that was not accepted: at once, or to the trash |
//! | `quarantine` | nothing: a corrupt checkpoint goes to the trash |
//! | `empty_trash` | what is older than `trash_keep`; the oldest earlier when the disk is nearly full |

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use tracing::{info, warn};

use super::StoreOptions;
use super::assembly::AssemblyFile;
use super::disk;
use super::error::{OpenError, StoreError};
use super::folder::{Inner, holds_checkpoints};
use super::identity::{Kind, Root};
use super::manifest::Manifest;
use super::names::{Part, path_for};
use super::trash::Purged;
use super::trash_age::{Moment, TrashAges};

const KIND: Kind = Kind {
    key: "checkpoints",
    name: "checkpoint store",
    in_use: holds_checkpoints,
};

/// The checkpoint store. Clones share it. All calls wait for the disk.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointStore {
    inner: Arc<Inner>,
}

impl CheckpointStore {
    /// Opens the store in `dir` and removes temporary files of an earlier coordinator. The caller holds the lock of
    /// the data folder, so there is no other coordinator. Returns the store's identity too, for the journal.
    ///
    /// `known` is the identity that the journal holds: None when the journal is new or was migrated from a version
    /// without identities, and then `expected_files` is the number of checkpoints that it lists.
    ///
    /// # Errors
    /// When the folder is not the store that the journal knows; then nothing was created in it.
    pub(crate) fn open(
        dir: &Path,
        known: Option<&str>,
        expected_files: usize,
        options: StoreOptions,
    ) -> Result<(Self, String), OpenError> {
        let root = Root::open(dir, KIND, known, expected_files, &options)?;
        let id = root.id().to_owned();
        let store = Self {
            inner: Arc::new(Inner::new(root, options)),
        };
        store.remove_temporaries();
        Ok((store, id))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(super) fn shared(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    /// Whether the store is still there and the same. Cheap: reads the identity file.
    ///
    /// # Errors
    /// `Unavailable` when it is not; `Unreadable` when the process lacks descriptors to tell.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.inner.root.check()
    }

    /// Begins a checkpoint: a temporary file with `header` and room for `elements` 32-bit floats, whose blocks are
    /// reserved. When the disk is full, the trash is emptied for it.
    ///
    /// # Errors
    /// As the disk reports; then nothing is left behind.
    pub(crate) fn begin(
        &self,
        run: &RunId,
        step: u64,
        generation: u64,
        header: &[u8],
        elements: u64,
    ) -> Result<AssemblyFile, StoreError> {
        self.check()?;
        self.inner.root.remove_leftovers();
        let folder = self.inner.folder(run);
        self.inner.ensure_folder(&folder)?;
        let header_bytes = header.len() as u64;
        let bytes = header_bytes + elements * 4;
        let path = self
            .inner
            .root
            .temporary(&folder, &format!("{generation}-{step:010}"));
        self.inner.remember(&path);
        let mut made = make(&path, header, bytes);
        if let Err(error) = &made
            && disk::is_full(error)
            // When the trash cannot be emptied, the full disk is still what people must know.
            && self.inner.purge(|_, _| true).freed > 0
        {
            made = make(&path, header, bytes);
        }
        let file = made.map_err(|error| {
            self.inner.forget(&path);
            self.inner.root.write_error(&path, bytes, error)
        })?;
        Ok(AssemblyFile::new(
            Arc::clone(&self.inner),
            run,
            (step, generation),
            (header_bytes, elements),
            file,
            path,
        ))
    }

    /// Opens a stored checkpoint and compares its size. A wrong size leads to a full read before it is called corrupt.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    #[cfg(test)]
    pub(crate) fn probe(&self, run: &RunId, info: &CheckpointInfo) -> Result<(), StoreError> {
        self.open_file(run, info).map(|_| ())
    }

    /// Reads a stored checkpoint from the disk and compares its size and SHA-256. `progress` is called with the bytes read
    /// so far.
    ///
    /// # Errors
    /// `Corrupt` only after a complete read.
    pub(crate) fn verify(
        &self,
        run: &RunId,
        info: &CheckpointInfo,
        mut progress: impl FnMut(u64),
    ) -> Result<(), StoreError> {
        let path = self.inner.path(run, info);
        let failed = |error| self.inner.root.read_error(&path, error);
        let (mut file, _) = disk::open(&path).map_err(failed)?;
        disk::forget_cached(&file);
        let (bytes, sha256) = disk::hash(&mut file, &mut progress).map_err(failed)?;
        if bytes == info.bytes && sha256 == info.sha256 {
            return Ok(());
        }
        // The volume may have been replaced while it was read.
        self.check()?;
        let problem = if bytes == info.bytes {
            format!("its SHA-256 is {sha256}, but {} was stored", info.sha256)
        } else {
            format!("it has {bytes} bytes, but {} were stored", info.bytes)
        };
        Err(StoreError::Corrupt { path, problem })
    }

    /// Opens a stored checkpoint's file of the right size to read it. Whoever reads it to the end compares its SHA-256
    /// with the info's.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    pub(crate) fn open_file(&self, run: &RunId, info: &CheckpointInfo) -> Result<File, StoreError> {
        let path = self.inner.path(run, info);
        let (file, size) =
            disk::open(&path).map_err(|error| self.inner.root.read_error(&path, error))?;
        if size != info.bytes {
            self.verify(run, info, |_| ())?;
        }
        Ok(file)
    }

    /// Reads a stored checkpoint's manifest.
    ///
    /// # Errors
    /// As the disk reports; `Corrupt` when it cannot be parsed, `TooNew` when a newer version wrote it.
    #[cfg(test)]
    pub(crate) fn manifest(
        &self,
        run: &RunId,
        info: &CheckpointInfo,
    ) -> Result<Manifest, StoreError> {
        let path = self.inner.path(run, info).with_extension("json");
        self.inner.read_manifest(&path)
    }

    /// Checks that the files of a run's checkpoints can be removed, as far as that shows before it is tried: their store is
    /// there, and this process has the rights. Call it before the journal forgets them.
    ///
    /// # Errors
    /// `Unavailable` or `Remove`; nothing was changed.
    pub(crate) fn check_removable(&self, run: &RunId) -> Result<(), StoreError> {
        self.check()?;
        self.inner.root.check_removable(&self.inner.folder(run))
    }

    /// Whether a checkpoint of so many bytes could probably be stored now: the store is there, this process may write,
    /// and there is room.
    pub(crate) fn could_store(&self, run: &RunId, bytes: u64) -> bool {
        self.check_removable(run).is_ok() && self.free_bytes().is_ok_and(|free| free >= bytes)
    }

    /// Removes a checkpoint that the journal no longer lists, manifest first; its ledger stays as a segment. Returns the
    /// bytes that became free: 0 when it is gone already.
    ///
    /// # Errors
    /// As the disk reports; call it again then.
    pub(crate) fn remove(&self, run: &RunId, info: &CheckpointInfo) -> Result<u64, StoreError> {
        self.check()?;
        self.inner.keep_ledger(run, info.step, info.generation);
        let path = self.inner.path(run, info);
        let mut bytes = 0;
        for path in [path.with_extension("json"), path] {
            bytes += disk::remove_if_there(&path)
                .map_err(|error| self.inner.root.remove_error(&path, error))?;
        }
        let folder = self.inner.folder(run);
        if bytes > 0 {
            self.inner.sync_folder(&folder)?;
        }
        Ok(bytes)
    }

    /// Moves a corrupt checkpoint to the trash, for people to look at. Returns where it lies now; earlier ones stay.
    ///
    /// # Errors
    /// As the disk reports; `Missing` when there is no such checkpoint.
    pub(crate) fn quarantine(
        &self,
        run: &RunId,
        info: &CheckpointInfo,
    ) -> Result<PathBuf, StoreError> {
        self.check()?;
        let entry = self.inner.discard(run, info.step, info.generation)?;
        let path = path_for(&entry, info.step, info.generation);
        warn!(
            run_id = %run,
            step = info.step,
            generation = info.generation,
            "checkpoint.quarantined: the checkpoint of step {} was moved to {}",
            info.step,
            path.display()
        );
        Ok(path)
    }

    /// Cleans a run's folder: checkpoints that the journal does not list go to the trash, temporary files are removed.
    /// Returns where these lay. Files that the store does not write are left alone, and so is what is being assembled.
    ///
    /// Call [`Self::found`] before, and adopt what it finds. No checkpoint may be on its way between
    /// [`AssemblyFile::finish`] and the journal meanwhile.
    ///
    /// # Errors
    /// As the disk reports, and whenever [`Self::check`] fails. What was moved until then stays moved.
    pub(crate) fn sweep(
        &self,
        run: &RunId,
        listed: &[CheckpointInfo],
    ) -> Result<Vec<PathBuf>, StoreError> {
        self.check()?;
        let folder = self.inner.folder(run);
        let mut swept = self.inner.remove_temporaries(&folder)?;
        let mut unlisted = BTreeSet::new();
        for file in self.inner.unlisted(&folder, listed)? {
            unlisted.insert((file.generation, file.step));
            swept.push(file.path(&folder));
        }
        for (generation, step) in unlisted {
            // Between two of them the volume may go away.
            self.check()?;
            let entry = self.inner.discard(run, step, generation)?;
            info!(
                run_id = %run,
                step,
                generation,
                "checkpoint.swept: the journal does not list the checkpoint of step {step}; moved to {}",
                entry.display()
            );
        }
        Ok(swept)
    }

    /// Checkpoints that the journal does not list, with their manifests, oldest first. Only those whose file has the
    /// manifest's size. A journal that was restored from an older backup can adopt those whose manifest has a record.
    ///
    /// # Errors
    /// As the disk reports: a sweep must not follow then. `TooNew` when a newer version wrote a manifest.
    pub(crate) fn found(
        &self,
        run: &RunId,
        listed: &[CheckpointInfo],
    ) -> Result<Vec<(CheckpointInfo, Manifest)>, StoreError> {
        self.check()?;
        let folder = self.inner.folder(run);
        let mut found = Vec::new();
        for file in self.inner.unlisted(&folder, listed)? {
            if file.part != Part::Manifest {
                continue;
            }
            let path = file.path(&folder);
            let manifest = match self.inner.read_manifest(&path) {
                Ok(manifest) => manifest,
                Err(error @ StoreError::Corrupt { .. }) => {
                    warn!(run_id = %run, "checkpoint.ignored: {error}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let info = manifest.info.clone();
            let same_run = manifest
                .record
                .as_ref()
                .is_none_or(|record| record.id == *run);
            if (info.step, info.generation) != (file.step, file.generation) || !same_run {
                warn!(
                    run_id = %run,
                    "checkpoint.ignored: {} describes another checkpoint than its name says",
                    path.display()
                );
                continue;
            }
            let data = path.with_extension("safetensors");
            match disk::stat(&data) {
                Ok((bytes, _)) if bytes == info.bytes => found.push((info, manifest)),
                Ok((bytes, _)) => warn!(
                    run_id = %run,
                    "checkpoint.ignored: {} has {bytes} bytes, but its manifest says {}",
                    data.display(),
                    info.bytes
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.check()?,
                Err(error) => return Err(self.inner.root.read_error(&data, error)),
            }
        }
        Ok(found)
    }

    /// Removes all checkpoints of a run, as its removal was asked for. Returns the bytes that became free. Files that the
    /// store does not write stay, with the folder.
    ///
    /// # Errors
    /// As the disk reports; call it again then.
    pub(crate) fn remove_run(&self, run: &RunId) -> Result<u64, StoreError> {
        self.check()?;
        let folder = self.inner.folder(run);
        self.inner.remove_temporaries(&folder)?;
        let mut files = self.inner.checkpoint_files(&folder)?;
        // All manifests before the first file.
        files.sort_by_key(|file| file.part);
        let mut bytes = self.inner.remove_segments(run)?;
        for file in &files {
            let path = file.path(&folder);
            bytes += disk::remove_if_there(&path)
                .map_err(|error| self.inner.root.remove_error(&path, error))?;
        }
        if !files.is_empty() {
            self.inner.sync_folder(&folder)?;
        }
        match disk::remove_folder(&folder) {
            Ok(()) => self.inner.sync_folder(self.inner.root.dir())?,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) => {}
            Err(error) => return Err(self.inner.root.remove_error(&folder, error)),
        }
        Ok(bytes)
    }

    /// Removes from the trash what has been there for longer than `trash_keep`, as far as `ages` can tell at `now`, and the
    /// oldest until `min_free_bytes` are free.
    pub(crate) fn empty_trash(&self, ages: &mut TrashAges, now: Moment) -> Purged {
        let free = self.check().and_then(|()| self.free_bytes());
        let free = match free {
            Ok(free) => free,
            Err(error) => {
                return Purged {
                    freed: 0,
                    problem: Some(error),
                };
            }
        };
        self.inner.root.remove_leftovers();
        let options = &self.inner.options;
        let mut looked = ages.look(now, options.trash_keep);
        self.inner.purge(|entry, freed| {
            let is_old = looked.is_old(entry);
            is_old || free.saturating_add(freed) < options.min_free_bytes
        })
    }

    /// Bytes that are free on the store's disk.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn free_bytes(&self) -> Result<u64, StoreError> {
        self.inner.root.free_bytes()
    }

    /// The same, and the size of that disk.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn space(&self) -> Result<(u64, u64), StoreError> {
        self.inner.root.space()
    }

    /// Removes temporary files of an earlier coordinator. One that cannot be removed does not keep the store from being
    /// used.
    fn remove_temporaries(&self) {
        let root = self.inner.root.dir();
        let result = disk::list(root)
            .map_err(|error| self.inner.root.read_error(root, error))
            .and_then(|names| {
                self.inner.remove_temporaries(root)?;
                for name in names
                    .iter()
                    .filter(|name| RunId::new(name.as_str()).is_ok())
                {
                    let folder = root.join(name);
                    if folder.is_dir() {
                        self.inner.remove_temporaries(&folder)?;
                    }
                }
                Ok(())
            });
        if let Err(error) = result {
            warn!("store.leftover: temporary files could not be removed: {error}");
        }
    }
}

/// Makes the temporary file of a checkpoint. When that fails, it is removed.
fn make(path: &Path, header: &[u8], bytes: u64) -> io::Result<File> {
    let file = disk::create(path)?;
    let made = disk::allocate(&file, bytes).and_then(|()| disk::write_all_at(&file, header, 0));
    match made {
        Ok(()) => Ok(file),
        Err(error) => {
            // The first error is the one to report.
            let _ = disk::remove(path);
            Err(error)
        }
    }
}
