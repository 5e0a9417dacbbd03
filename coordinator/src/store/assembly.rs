//! One checkpoint being assembled: slices are written at their place into a temporary file.
//!
//! ```text
//!  begin ──> tmp-... (all blocks reserved) ──write_at, sync──> finish
//!                                                                │ verify against the workers' state digest
//!                                                                │ sync; write and sync the manifest's temporary
//!                                                                │ rename the file, sync the folder
//!                                                                └ rename the manifest, sync the folder: stored
//! ```
//!
//! A step that fails leaves the state before it, so [`AssemblyFile::finish`] can be called again. Dropping the value
//! removes whatever was not stored.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::ids::RunId;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use super::disk;
use super::error::StoreError;
use super::folder::Inner;
use super::manifest::{Manifest, RunRecord};
use super::names::path_for;

/// Bytes that go through both digests at a time: few enough to stay in the processor's cache.
const PIECE: usize = 256 << 10;

/// The temporary file of one checkpoint.
///
/// Its calls may be made from several threads at once; slices of different ranks arrive at the same time.
#[derive(Debug)]
pub(crate) struct AssemblyFile {
    store: Arc<Inner>,
    run: RunId,
    step: u64,
    generation: u64,
    header_bytes: u64,
    elements: u64,
    file: File,
    place: Mutex<Place>,
    /// A sync failed. The kernel then takes the pages for clean although they may never have reached the disk, so
    /// a second sync proves nothing: everything must be written again before.
    doubtful: AtomicBool,
}

/// How far the file is on its way to being a checkpoint.
#[derive(Debug)]
struct Place {
    /// Where the file lies: the temporary path, then the checkpoint's.
    data: PathBuf,
    /// Where its manifest lies, if anywhere: a temporary path, then the checkpoint's.
    manifest: Option<PathBuf>,
    /// What was stored, once everything is done.
    stored: Option<CheckpointInfo>,
}

/// What is recorded with a checkpoint beside its bytes.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointRecord {
    /// The machine and libraries that its bits depend on.
    pub fingerprint: Fingerprint,
    /// The run's lineage when the generation took it.
    pub lineage: u64,
    /// Milliseconds since the Unix epoch.
    pub stored_at_ms: u64,
    /// The run up to the checkpoint.
    pub run: RunRecord,
}

impl AssemblyFile {
    /// Wraps the file at `temporary`, which has its header and its size.
    pub(super) fn new(
        store: Arc<Inner>,
        run: &RunId,
        (step, generation): (u64, u64),
        (header_bytes, elements): (u64, u64),
        file: File,
        temporary: PathBuf,
    ) -> Self {
        Self {
            store,
            run: run.clone(),
            step,
            generation,
            header_bytes,
            elements,
            file,
            place: Mutex::new(Place {
                data: temporary,
                manifest: None,
                stored: None,
            }),
            doubtful: AtomicBool::new(false),
        }
    }

    /// Bytes of the whole file.
    pub(crate) fn bytes(&self) -> u64 {
        self.header_bytes + self.elements * 4
    }

    /// Writes bytes of the state, `byte` bytes into it.
    ///
    /// # Errors
    /// As the disk reports, or when the bytes reach beyond the state.
    pub(crate) fn write_at(&self, bytes: &[u8], byte: u64) -> Result<(), StoreError> {
        let fits = byte
            .checked_add(bytes.len() as u64)
            .is_some_and(|end| end <= self.elements * 4);
        if !fits {
            let error = io::Error::other(format!(
                "{} bytes from byte {byte} on reach beyond the state of {} bytes",
                bytes.len(),
                self.elements * 4
            ));
            return Err(self.write_error(bytes.len() as u64, error));
        }
        disk::write_all_at(&self.file, bytes, self.header_bytes + byte)
            .map_err(|error| self.write_error(bytes.len() as u64, error))
    }

    /// Flushes the bytes written so far to the disk.
    ///
    /// # Errors
    /// As the disk reports. [`Self::finish`] then writes all bytes once more.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        disk::sync(&self.file).map_err(|error| {
            self.doubtful.store(true, Ordering::SeqCst);
            self.write_error(0, error)
        })
    }

    /// Verifies the whole file and stores it under its name: file first, manifest last. `state_digest` is the
    /// XXH3-128 (hex) of the state that the workers hold.
    ///
    /// May be called again after an error that [`StoreError::is_transient`]; after success it gives the same again.
    ///
    /// # Errors
    /// `Corrupt` when the file is not the workers' state: the checkpoint must be assembled again. Otherwise as the
    /// disk reports.
    pub(crate) fn finish(
        &self,
        state_digest: &str,
        record: &CheckpointRecord,
    ) -> Result<CheckpointInfo, StoreError> {
        let mut place = self.place.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(info) = &place.stored {
            return Ok(info.clone());
        }
        self.store.root.check()?;
        let sha256 = self.verify(&place.data, state_digest)?;
        disk::sync(&self.file).map_err(|error| {
            self.doubtful.store(true, Ordering::SeqCst);
            self.store.root.write_error(&place.data, 0, error)
        })?;
        self.doubtful.store(false, Ordering::SeqCst);

        let CheckpointRecord {
            fingerprint,
            lineage,
            stored_at_ms,
            run,
        } = record;
        let info = CheckpointInfo {
            step: self.step,
            generation: self.generation,
            bytes: self.bytes(),
            sha256,
            lineage: *lineage,
            stored_at_ms: *stored_at_ms,
            fingerprint: fingerprint.clone(),
        };
        let folder = self.store.folder(&self.run);
        let path = path_for(&folder, self.step, self.generation);
        let manifest = path.with_extension("json");
        let failed = |at: &Path| {
            let at = at.to_owned();
            move |error| self.store.root.write_error(&at, 0, error)
        };

        let written = self.write_manifest(&folder, &info, state_digest, run)?;
        // Of an earlier call, which did not come to its end.
        if let Some(old) = place.manifest.replace(written.clone())
            && old != manifest
        {
            disk::remove_if_there(&old).map_err(failed(&old))?;
        }

        if place.data != path {
            // What is renamed must be what was verified and flushed.
            self.check_place(&place.data)?;
            self.store.make_way(&self.run, self.step, self.generation)?;
            disk::rename(&place.data, &path).map_err(failed(&place.data))?;
            self.store.forget(&place.data);
            self.store.remember(&path);
            place.data = path;
        }
        disk::sync_folder(&folder).map_err(failed(&folder))?;
        disk::rename(&written, &manifest).map_err(failed(&written))?;
        self.store.forget(&written);
        self.store.remember(&manifest);
        place.manifest = Some(manifest);
        disk::sync_folder(&folder).map_err(failed(&folder))?;
        place.stored = Some(info.clone());
        Ok(info)
    }

    fn write_error(&self, needed: u64, error: io::Error) -> StoreError {
        let place = self.place.lock().unwrap_or_else(|e| e.into_inner());
        self.store.root.write_error(&place.data, needed, error)
    }

    /// Writes and flushes the manifest under a temporary name, which it gives.
    fn write_manifest(
        &self,
        folder: &Path,
        info: &CheckpointInfo,
        state_digest: &str,
        run: &RunRecord,
    ) -> Result<PathBuf, StoreError> {
        let path = self.store.root.temporary(
            folder,
            &format!("{}-{:010}-json", self.generation, self.step),
        );
        let bytes =
            Manifest::to_bytes(info, state_digest, run).map_err(|error| StoreError::Write {
                path: path.clone(),
                source: error.into(),
            })?;
        self.store.remember(&path);
        match disk::write_new(&path, &bytes) {
            Ok(()) => Ok(path),
            Err(error) => {
                self.store.forget(&path);
                Err(self
                    .store
                    .root
                    .write_error(&path, bytes.len() as u64, error))
            }
        }
    }

    /// Whether the path still leads to the open file. It does not when the volume was replaced meanwhile.
    fn check_place(&self, path: &Path) -> Result<(), StoreError> {
        let (_, at_path) =
            disk::stat(path).map_err(|error| self.store.root.write_error(path, 0, error))?;
        let ours = disk::key_of(&self.file)
            .map_err(|error| self.store.root.write_error(path, 0, error))?;
        if at_path == ours {
            return Ok(());
        }
        let problem = "another file took its place; the checkpoint must be assembled again";
        Err(StoreError::Write {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, problem),
        })
    }

    /// Reads the file back as its readers will: the library must accept it, and the state must be the workers'.
    /// Gives the file's SHA-256. After a failed sync, all bytes are written again as well.
    fn verify(&self, path: &Path, state_digest: &str) -> Result<String, StoreError> {
        let corrupt = |problem: String| StoreError::Corrupt {
            path: path.to_owned(),
            problem,
        };
        // A state is some 50 MB; one buffer of that size for a moment is no burden.
        let mut bytes = vec![0; self.bytes() as usize];
        disk::read_exact_at(&self.file, &mut bytes, 0)
            .map_err(|error| self.store.root.read_error(path, error))?;
        SafeTensors::deserialize(&bytes)
            .map_err(|error| corrupt(format!("it is not a safetensors file: {error}")))?;
        let (header, state) = bytes.split_at(self.header_bytes as usize);
        let (mut file, mut digest) = (Sha256::new_with_prefix(header), Xxh3::new());
        for piece in state.chunks(PIECE) {
            file.update(piece);
            digest.update(piece);
        }
        let found = format!("{:032x}", digest.digest128());
        if found != state_digest {
            return Err(corrupt(format!(
                "its state has digest {found}, but the workers hold {state_digest}"
            )));
        }
        if self.doubtful.load(Ordering::SeqCst) {
            disk::write_all_at(&self.file, &bytes, 0)
                .map_err(|error| self.store.root.write_error(path, bytes.len() as u64, error))?;
        }
        Ok(hex::encode(file.finalize()))
    }
}

impl Drop for AssemblyFile {
    fn drop(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(|e| e.into_inner());
        // A manifest of an earlier call may have its place already. Manifests go first: at no moment does one
        // describe a file that is not there.
        let placed = place.data.with_extension("json");
        for path in place.manifest.iter().chain([&placed, &place.data]) {
            if place.stored.is_none() {
                self.store.root.discard_temporary(path);
            }
            self.store.forget(path);
        }
    }
}
