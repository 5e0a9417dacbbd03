//! Uploading a dataset: into a temporary folder, verified before anything of it is used.
//!
//! ```text
//!  check ──> begin ──piece──> verify ──> Verified ──store──> added     no such dataset was there
//!                                                       ├──> repaired  files that were missing or corrupt were replaced
//!                                                       └──> unchanged
//! ```

use std::fs::File;
use std::io;
use std::path::Path;

use fovea_core::ids::DatasetName;
use fovea_dataset::{INDEX_FILE, Index, MANIFEST_FILE, Manifest};
use tracing::warn;

use super::datasets::{DatasetStore, DescribingFile, HeldDataset, PACKS};
use super::disk;
use super::error::StoreError;
use super::rooted::Rooted;
use super::temporary::TemporaryFolder;

/// The largest manifest that is taken, in bytes, as the protocol says.
const MANIFEST_BYTES: usize = 16 << 20;
/// The largest index that is taken, in bytes, as the protocol says.
const INDEX_BYTES: usize = 256 << 20;

/// Why an upload is not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// What was sent is not a dataset.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field of the request.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An upload under way. Dropping it removes what has arrived so far.
#[derive(Debug)]
pub(crate) struct Upload {
    folder: TemporaryFolder<DatasetStore>,
    manifest: Manifest,
    index: Index,
    /// The pack that is being written, and the bytes of it that have arrived.
    pack: usize,
    file: Option<File>,
    written: u64,
}

/// A whole upload: every digest was recomputed from what is on disk. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Verified {
    folder: TemporaryFolder<DatasetStore>,
    manifest: Manifest,
    index: Index,
}

/// What storing a verified upload did.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The dataset in the store.
    pub held: HeldDataset,
    /// There was no such dataset before.
    pub added: bool,
    /// Packs that were missing or corrupt and were replaced, by index.
    pub repaired: Vec<u32>,
    /// Manifest and index, as far as they were missing or corrupt and were replaced.
    pub repaired_files: Vec<DescribingFile>,
    /// Packs of the dataset in the store that could not be read. They were left alone: an I/O error is not damage.
    pub unreadable: Vec<(u32, StoreError)>,
}

/// What comparing a dataset in the store with an upload of it led to.
#[derive(Debug, Default)]
struct Repair {
    replaced: Vec<u32>,
    files: Vec<DescribingFile>,
    unreadable: Vec<(u32, StoreError)>,
}

impl Upload {
    /// Checks the header's manifest and index, both untrusted, without writing anything.
    ///
    /// # Errors
    /// `Invalid` with the field.
    pub(crate) fn check(manifest: &[u8], index: &[u8]) -> Result<Manifest, UploadError> {
        for (field, size, most) in [
            ("header.manifest", manifest.len(), MANIFEST_BYTES),
            ("header.index", index.len(), INDEX_BYTES),
        ] {
            if size == 0 || size > most {
                return invalid(field, format!("has {size} bytes; 1 to {most} are taken"));
            }
        }
        parse(manifest, index).map(|(manifest, _)| manifest)
    }

    /// Begins an upload whose header [`Upload::check`] accepted.
    ///
    /// # Errors
    /// `Full` when less than `min_free_bytes` would stay free. Otherwise as the disk reports; then nothing is left behind.
    pub(crate) fn begin(
        store: &DatasetStore,
        manifest: Manifest,
        manifest_bytes: &[u8],
        index_bytes: &[u8],
    ) -> Result<Self, UploadError> {
        let (_, index) = parse(manifest_bytes, index_bytes)?;
        store.check()?;
        let packs: u64 = manifest.packs.iter().map(|pack| pack.bytes).sum();
        let bytes = packs + (manifest_bytes.len() + index_bytes.len()) as u64;
        store.root().remove_leftovers();
        let what = format!("dataset {}", manifest.name);
        store
            .root()
            .check_room(&what, bytes, store.min_free_bytes())?;
        let folder = TemporaryFolder::make(store, "upload")?;
        let failed = |path: &Path, bytes: usize| {
            let path = path.to_owned();
            move |error| store.root().write_error(&path, bytes as u64, error)
        };
        let packs = folder.path().join(PACKS);
        disk::make_folder(&packs).map_err(failed(&packs, 0))?;
        for (file, bytes) in [(MANIFEST_FILE, manifest_bytes), (INDEX_FILE, index_bytes)] {
            let path = folder.path().join(file);
            disk::write_new(&path, bytes).map_err(failed(&path, bytes.len()))?;
        }
        Ok(Self {
            folder,
            manifest,
            index,
            pack: 0,
            file: None,
            written: 0,
        })
    }

    /// Takes the next bytes of pack `pack`. Packs come in order and whole.
    ///
    /// # Errors
    /// `Invalid` when these are not the next bytes; otherwise as the disk reports. The upload has failed then.
    pub(crate) fn piece(&mut self, pack: u32, data: &[u8]) -> Result<(), UploadError> {
        let packs = self.manifest.packs.len();
        if pack as usize != self.pack {
            let expected = match self.manifest.packs.get(self.pack) {
                Some(entry) => format!(
                    "pack {} comes next; {} of its {} bytes are here",
                    self.pack, self.written, entry.bytes
                ),
                None => format!("all {packs} packs are here already"),
            };
            return invalid("piece.pack", format!("{pack} is not expected: {expected}"));
        }
        let Some(entry) = self.manifest.packs.get(self.pack) else {
            return invalid(
                "piece.pack",
                format!("{pack} is not one of the {packs} packs"),
            );
        };
        if data.is_empty() || data.len() as u64 > entry.bytes - self.written {
            return invalid(
                "piece.data",
                format!(
                    "has {} bytes; pack {pack} has {} bytes, {} of them are here",
                    data.len(),
                    entry.bytes,
                    self.written
                ),
            );
        }
        let path = self.folder.path().join(&entry.file);
        let root = self.folder.store().root();
        let failed = |error| root.write_error(&path, entry.bytes, error);
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = disk::create(&path).map_err(failed)?;
                disk::allocate(&file, entry.bytes).map_err(failed)?;
                none.insert(file)
            }
        };
        disk::write_all_at(file, data, self.written).map_err(failed)?;
        self.written += data.len() as u64;
        if self.written == entry.bytes {
            disk::sync(file).map_err(failed)?;
            self.file = None;
            self.written = 0;
            self.pack += 1;
        }
        Ok(())
    }

    /// Checks that everything has arrived, and every digest against what is on disk.
    ///
    /// # Errors
    /// `Invalid` when a pack is not what the manifest says; otherwise as the disk reports.
    pub(crate) fn verify(self) -> Result<Verified, UploadError> {
        if let Some(entry) = self.manifest.packs.get(self.pack) {
            return invalid(
                "piece",
                format!(
                    "the stream ended early: {} of the {} bytes of pack {} came, and {} packs in all are needed",
                    self.written,
                    entry.bytes,
                    self.pack,
                    self.manifest.packs.len()
                ),
            );
        }
        let Self {
            folder,
            manifest,
            index,
            ..
        } = self;
        let store = folder.store().clone();
        for (pack, entry) in manifest.packs.iter().enumerate() {
            let path = folder.path().join(&entry.file);
            match store.verify_file(&path, entry, &mut |_| ()) {
                Ok(()) => {}
                Err(StoreError::Corrupt { problem, .. }) => {
                    return invalid(
                        "piece.data",
                        format!("pack {pack} ({}) is damaged: {problem}", entry.file),
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
        for path in [folder.path().join(PACKS), folder.path().to_owned()] {
            disk::sync_folder(&path).map_err(|error| store.root().write_error(&path, 0, error))?;
        }
        Ok(Verified {
            folder,
            manifest,
            index,
        })
    }
}

impl Verified {
    /// The dataset's name and digest.
    pub(crate) fn name_and_digest(&self) -> (DatasetName, String) {
        (self.manifest.name.clone(), self.manifest.digest.clone())
    }

    /// Stores the dataset under its digest. One that is there is verified, and only what is missing or corrupt of it is
    /// replaced.
    ///
    /// # Errors
    /// As the disk reports. What was replaced until then stays replaced; the upload can be repeated.
    pub(crate) fn store(mut self) -> Result<Stored, StoreError> {
        let store = self.folder.store().clone();
        store.check()?;
        let place = store.place(&self.manifest.digest);
        let there = disk::exists(&place).map_err(|e| store.root().read_error(&place, e))?;
        let mut repair = Repair::default();
        if there {
            repair = self.repair(&store, &place)?;
        } else {
            self.folder.keep_as(&place)?;
        }
        Ok(Stored {
            held: HeldDataset::new(self.manifest.clone(), &self.index),
            added: !there,
            repaired: repair.replaced,
            repaired_files: repair.files,
            unreadable: repair.unreadable,
        })
    }

    /// Compares the dataset in the store with its manifest, and replaces what is missing or corrupt.
    fn repair(&self, store: &DatasetStore, place: &Path) -> Result<Repair, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| store.root().write_error(&path, 0, error)
        };
        let packs = place.join(PACKS);
        match disk::make_folder(&packs) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(failed(&packs))?,
        }
        let mut repair = Repair::default();
        for (number, entry) in self.manifest.packs.iter().enumerate() {
            let path = place.join(&entry.file);
            let problem = match store.verify_file(&path, entry, &mut |_| ()) {
                Ok(()) => continue,
                Err(problem @ (StoreError::Missing { .. } | StoreError::Corrupt { .. })) => problem,
                Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                Err(error) => {
                    repair.unreadable.push((number as u32, error));
                    continue;
                }
            };
            store.check()?;
            disk::rename(&self.folder.path().join(&entry.file), &path).map_err(failed(&path))?;
            warn!(
                dataset = %self.manifest.name,
                pack = number,
                "dataset.pack_repaired: replaced pack {number}: {problem}"
            );
            repair.replaced.push(number as u32);
        }
        // The index first: a manifest is what makes a folder a dataset.
        for file in [DescribingFile::Index, DescribingFile::Manifest] {
            let problem = match store.read_description(&self.manifest, file) {
                Ok(()) => continue,
                Err(problem @ (StoreError::Missing { .. } | StoreError::Corrupt { .. })) => problem,
                Err(error) => return Err(error),
            };
            store.check()?;
            let path = place.join(file.name());
            disk::rename(&self.folder.path().join(file.name()), &path).map_err(failed(&path))?;
            warn!(
                dataset = %self.manifest.name,
                file = file.name(),
                "dataset.manifest_repaired: replaced {} of dataset {}: {problem}",
                file.name(),
                self.manifest.name
            );
            repair.files.push(file);
        }
        for path in [&packs, place] {
            disk::sync_folder(path).map_err(failed(path))?;
        }
        Ok(repair)
    }
}

fn parse(manifest: &[u8], index: &[u8]) -> Result<(Manifest, Index), UploadError> {
    let manifest = match Manifest::parse(manifest) {
        Ok(manifest) => manifest,
        Err(error) => return invalid("header.manifest", error.to_string()),
    };
    match Index::parse(index, &manifest) {
        Ok(index) => Ok((manifest, index)),
        Err(error) => invalid("header.index", error.to_string()),
    }
}

fn invalid<T>(field: &'static str, problem: String) -> Result<T, UploadError> {
    Err(UploadError::Invalid { field, problem })
}
