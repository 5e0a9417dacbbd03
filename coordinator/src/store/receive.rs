//! Files that come back from the object store: into a temporary file, verified, then under their name.
//!
//! The same rules hold as for what is assembled or uploaded here: what has its name is complete and on the disk.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fovea_core::ids::RunId;
use fovea_dataset::{INDEX_FILE, Index, MANIFEST_FILE, PackEntry};
use sha2::{Digest, Sha256};

use super::checkpoints::CheckpointStore;
use super::datasets::{DatasetStore, PACKS};
use super::disk;
use super::error::StoreError;
use super::folder::Inner;
use super::identity::Root;
use super::manifest::Manifest;
use super::names::path_for;
use super::rooted::Rooted;
use super::weights::{self, WeightsStore};

/// Whose file it is.
#[derive(Debug, Clone)]
enum Owner {
    Checkpoints(Arc<Inner>),
    Datasets(DatasetStore),
    Weights(WeightsStore),
}

/// A file that has come and has its name. As long as this lives, no sweep touches a checkpoint's: its manifest comes next, and
/// must not describe a file that is not there.
#[derive(Debug)]
pub(crate) struct Placed {
    owner: Owner,
    place: PathBuf,
}

/// A file that is coming. Dropping it removes what has come so far.
#[derive(Debug)]
pub(crate) struct Receiving {
    owner: Owner,
    file: File,
    temporary: PathBuf,
    place: PathBuf,
    bytes: u64,
    sha256: String,
    written: u64,
    hash: Sha256,
    placed: bool,
}

impl Owner {
    fn root(&self) -> &Root {
        match self {
            Self::Checkpoints(inner) => &inner.root,
            Self::Datasets(store) => store.root(),
            Self::Weights(store) => store.root(),
        }
    }

    fn remember(&self, path: &Path) {
        if let Self::Checkpoints(inner) = self {
            inner.remember(path);
        }
    }

    fn forget(&self, path: &Path) {
        if let Self::Checkpoints(inner) = self {
            inner.forget(path);
        }
    }
}

impl Placed {
    fn keep(owner: Owner, place: PathBuf) -> Self {
        owner.remember(&place);
        owner.remember(&place.with_extension("json"));
        Self { owner, place }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.owner.forget(&self.place);
        self.owner.forget(&self.place.with_extension("json"));
    }
}

impl Receiving {
    fn begin(
        owner: Owner,
        place: PathBuf,
        bytes: u64,
        sha256: &str,
        reserve: u64,
    ) -> Result<Self, StoreError> {
        let root = owner.root();
        root.check()?;
        root.check_room(&place.display().to_string(), bytes, reserve)?;
        // In the root, where a start removes what a kill leaves.
        let temporary = root.temporary(root.dir(), "fetched");
        owner.remember(&temporary);
        let made = disk::create(&temporary)
            .and_then(|file| disk::allocate(&file, bytes).map(|()| file))
            .map_err(|error| root.write_error(&temporary, bytes, error));
        match made {
            Ok(file) => Ok(Self {
                owner,
                file,
                temporary,
                place,
                bytes,
                sha256: sha256.to_owned(),
                written: 0,
                hash: Sha256::new(),
                placed: false,
            }),
            Err(error) => {
                root.discard_temporary(&temporary);
                owner.forget(&temporary);
                Err(error)
            }
        }
    }

    /// Bytes that the whole file has.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn piece(&mut self, data: &[u8]) -> Result<(), StoreError> {
        disk::write_all_at(&self.file, data, self.written).map_err(|error| {
            let root = self.owner.root();
            root.write_error(&self.temporary, self.bytes, error)
        })?;
        self.hash.update(data);
        self.written += data.len() as u64;
        Ok(())
    }

    /// Verifies the whole file and gives it its name.
    ///
    /// # Errors
    /// `Corrupt` when it is not what was stored; otherwise as the disk reports. It is removed then.
    pub(crate) fn finish(mut self) -> Result<Placed, StoreError> {
        let found = hex::encode(std::mem::take(&mut self.hash).finalize());
        if self.written != self.bytes || found != self.sha256 {
            return Err(StoreError::Corrupt {
                path: self.place.clone(),
                problem: format!(
                    "{} bytes with SHA-256 {found} came, but {} bytes with {} were stored",
                    self.written, self.bytes, self.sha256
                ),
            });
        }
        let root = self.owner.root();
        let failed = |error| root.write_error(&self.place, self.bytes, error);
        disk::sync(&self.file).map_err(failed)?;
        root.check()?;
        let placed = Placed::keep(self.owner.clone(), self.place.clone());
        disk::rename(&self.temporary, &self.place).map_err(failed)?;
        let folder = self.place.parent().unwrap_or(root.dir());
        disk::sync_folder(folder).map_err(failed)?;
        self.placed = true;
        Ok(placed)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.placed {
            self.owner.root().discard_temporary(&self.temporary);
        }
        self.owner.forget(&self.temporary);
    }
}

impl Root {
    /// Makes a folder where it is missing.
    fn ensure_folder(&self, folder: &Path) -> Result<(), StoreError> {
        match disk::make_folder(folder) {
            Ok(()) => disk::sync_folder(folder.parent().unwrap_or(folder))
                .map_err(|error| self.write_error(folder, 0, error)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.write_error(folder, 0, error)),
        }
    }

    /// Writes a small file under its name.
    fn place(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.check()?;
        let temporary = self.temporary(self.dir(), "fetched-small");
        let placed =
            disk::write_new(&temporary, bytes).and_then(|()| disk::rename(&temporary, path));
        if placed.is_err() {
            self.discard_temporary(&temporary);
        }
        let failed = |error| self.write_error(path, bytes.len() as u64, error);
        placed.map_err(failed)?;
        disk::sync_folder(path.parent().unwrap_or(path)).map_err(failed)
    }
}

impl CheckpointStore {
    /// Begins to take a checkpoint's file back. Its manifest says how long it is and what its SHA-256 is.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn receive(
        &self,
        run: &RunId,
        (step, generation): (u64, u64),
        bytes: u64,
        sha256: &str,
    ) -> Result<Receiving, StoreError> {
        self.check()?;
        let folder = self.inner().folder(run);
        self.inner().ensure_folder(&folder)?;
        let place = path_for(&folder, step, generation);
        let owner = Owner::Checkpoints(self.shared());
        Receiving::begin(owner, place, bytes, sha256, 0)
    }

    /// Puts a checkpoint's manifest beside its file, which was `placed`.
    ///
    /// # Errors
    /// As the disk reports; `Corrupt` when it is not that checkpoint's.
    pub(crate) fn receive_manifest(
        &self,
        run: &RunId,
        (step, generation): (u64, u64),
        placed: Placed,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let path = path_for(&self.inner().folder(run), step, generation).with_extension("json");
        let manifest = Manifest::parse(bytes, &path)?;
        if (manifest.info.step, manifest.info.generation) != (step, generation) {
            let problem = format!("it is that of step {}", manifest.info.step);
            return Err(StoreError::Corrupt { path, problem });
        }
        let done = self.inner().root.place(&path, bytes);
        drop(placed);
        done
    }

    /// Size and SHA-256 that a checkpoint's manifest gives for its file.
    ///
    /// # Errors
    /// `Corrupt` or `TooNew`.
    pub(crate) fn described(bytes: &[u8], name: &str) -> Result<(u64, String), StoreError> {
        let manifest = Manifest::parse(bytes, Path::new(name))?;
        Ok((manifest.info.bytes, manifest.info.sha256))
    }

    /// Whether the file of a checkpoint lies here, in whatever state.
    pub(crate) fn is_here(&self, run: &RunId, step: u64, generation: u64) -> bool {
        let path = path_for(&self.inner().folder(run), step, generation);
        disk::exists(&path).unwrap_or(false)
    }

    /// Puts the ledger of a removed checkpoint back.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn receive_segment(
        &self,
        run: &RunId,
        (step, generation): (u64, u64),
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.check()?;
        let path = self.make_segment_place(run, step, generation)?;
        self.inner().root.place(&path, bytes)
    }
}

impl DatasetStore {
    /// Begins to take a pack back.
    ///
    /// # Errors
    /// `Full` when less than `min_free_bytes` would stay free; otherwise as the disk reports.
    pub(crate) fn receive_pack(
        &self,
        digest: &str,
        entry: &PackEntry,
    ) -> Result<Receiving, StoreError> {
        self.check()?;
        let place = self.place(digest);
        self.root().ensure_folder(&place)?;
        self.root().ensure_folder(&place.join(PACKS))?;
        let owner = Owner::Datasets(self.clone());
        let (bytes, sha256) = (entry.bytes, &entry.sha256);
        Receiving::begin(
            owner,
            place.join(&entry.file),
            bytes,
            sha256,
            self.min_free_bytes(),
        )
    }

    /// Puts a dataset's manifest and index back, each where it is missing or corrupt: the index first, as a manifest is what
    /// makes a folder a dataset.
    ///
    /// # Errors
    /// As the disk reports; `Corrupt` when they are not those of the dataset.
    pub(crate) fn receive_description(
        &self,
        digest: &str,
        manifest_bytes: &[u8],
        index_bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.check()?;
        let place = self.place(digest);
        let corrupt = |file: &str, problem: String| StoreError::Corrupt {
            path: place.join(file),
            problem,
        };
        let manifest = fovea_dataset::Manifest::parse(manifest_bytes)
            .map_err(|error| corrupt(MANIFEST_FILE, error.to_string()))?;
        if manifest.digest != digest {
            let problem = format!("it is that of dataset {}", manifest.digest);
            return Err(corrupt(MANIFEST_FILE, problem));
        }
        Index::parse(index_bytes, &manifest)
            .map_err(|error| corrupt(INDEX_FILE, error.to_string()))?;
        self.root().ensure_folder(&place)?;
        self.root().ensure_folder(&place.join(PACKS))?;
        self.root().place(&place.join(INDEX_FILE), index_bytes)?;
        self.root()
            .place(&place.join(MANIFEST_FILE), manifest_bytes)
    }
}

impl WeightsStore {
    /// Begins to take the file of weights back.
    ///
    /// # Errors
    /// `Full` when less than `min_free_bytes` would stay free; otherwise as the disk reports.
    pub(crate) fn receive(&self, sha256: &str, bytes: u64) -> Result<Receiving, StoreError> {
        self.check()?;
        let place = self.place(sha256);
        self.root().ensure_folder(&place)?;
        let owner = Owner::Weights(self.clone());
        Receiving::begin(
            owner,
            place.join(weights::FILE),
            bytes,
            sha256,
            self.min_free_bytes(),
        )
    }

    /// Puts the manifest of weights beside their file, which is there.
    ///
    /// # Errors
    /// As the disk reports; `Corrupt` when it is not theirs.
    pub(crate) fn receive_manifest(&self, sha256: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.parse_manifest(sha256, bytes)?;
        let path = self.place(sha256).join(weights::MANIFEST);
        self.root().place(&path, bytes)
    }
}
