//! The dataset store: the only code that opens, renames or removes files in `datasets/`.
//!
//! ```text
//! datasets/store.json                    identity, see `identity`
//! datasets/<digest>/manifest.json, index.csv, packs/*.pack
//! datasets/tmp-*                         uploads under way, datasets being removed; removed at start when left behind
//! ```
//!
//! A dataset is named by the digest of its manifest, which covers the index and every pack. So what lies in a dataset's
//! folder can be checked without the journal, and a second upload of it can repair it (see `upload`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fovea_core::fold::Pool;
use fovea_core::spec::Part;
use fovea_dataset::{
    INDEX_FILE, Index, MANIFEST_FILE, MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, Manifest, PackEntry,
    Sample, Split,
};
use tracing::warn;

use super::error::{OpenError, StoreError};
use super::identity::{Kind, Root};
use super::rooted::{Rooted, digests_in_folder};
use super::{StoreOptions, disk};

/// The folder of a dataset's packs.
pub(super) const PACKS: &str = "packs";

const KIND: Kind = Kind {
    key: "datasets",
    name: "dataset store",
    in_use: |dir| Ok(!digests_in(dir)?.is_empty()),
};

/// The dataset store. Clones share it. All calls wait for the disk.
#[derive(Debug, Clone)]
pub(crate) struct DatasetStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: Root,
    options: StoreOptions,
}

/// A dataset in the store.
#[derive(Debug, Clone)]
pub(crate) struct HeldDataset {
    /// Its manifest.
    pub manifest: Manifest,
    /// Patients and grades of the training and the validation split.
    pub pool: Pool,
}

/// The manifest and the index of a dataset, as bytes and parsed.
#[derive(Debug)]
pub(super) struct Description {
    manifest_bytes: Vec<u8>,
    index_bytes: Vec<u8>,
    manifest: Manifest,
    index: Index,
}

/// One of the two files that describe a dataset. A run that is under way has them in memory; whoever joins it, and the next
/// start, need the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DescribingFile {
    /// `manifest.json`.
    Manifest,
    /// `index.csv`.
    Index,
}

impl DescribingFile {
    /// Its name in the dataset's folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Manifest => MANIFEST_FILE,
            Self::Index => INDEX_FILE,
        }
    }
}

impl HeldDataset {
    pub(super) fn new(manifest: Manifest, index: &Index) -> Self {
        let of = |sample: &Sample| (sample.patient, sample.grade);
        Self {
            pool: Pool::new(
                index.train().iter().map(of),
                index.validation().iter().map(of),
            ),
            manifest,
        }
    }
}

impl HeldDataset {
    /// Number of samples in a part.
    pub(crate) fn samples(&self, part: Part) -> u32 {
        let of = |split| self.manifest.samples(split) as u32;
        match part {
            Part::Train => of(Split::Train),
            Part::Validation => of(Split::Validation),
            Part::Test => of(Split::Test),
            Part::All => Split::ALL.into_iter().map(of).sum(),
        }
    }
}

impl DatasetStore {
    /// Opens the store in `dir`, as `CheckpointStore::open` does. `expected_datasets`: how many datasets a journal without
    /// an identity lists.
    ///
    /// # Errors
    /// When the folder is not the store that the journal knows; then nothing was created in it.
    pub(crate) fn open(
        dir: &Path,
        known: Option<&str>,
        expected_datasets: usize,
        options: StoreOptions,
    ) -> Result<(Self, String), OpenError> {
        let root = Root::open(dir, KIND, known, expected_datasets, &options)?;
        let id = root.id().to_owned();
        let store = Self {
            inner: Arc::new(Inner { root, options }),
        };
        if let Err(error) = store.root().remove_temporaries() {
            warn!("store.leftover: temporary files could not be removed: {error}");
        }
        Ok((store, id))
    }

    /// Whether the store is still there and the same. Cheap: reads the identity file.
    ///
    /// # Errors
    /// `Unavailable` when it is not; `Unreadable` when the process lacks descriptors to tell.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.inner.root.check()
    }

    /// Opens a dataset: manifest and index are read and checked against the digest, packs are not touched.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    pub(crate) fn open_dataset(&self, digest: &str) -> Result<HeldDataset, StoreError> {
        let description = self.describe(digest)?;
        Ok(HeldDataset::new(description.manifest, &description.index))
    }

    /// The bytes of a dataset's manifest and index, checked against its digest.
    ///
    /// # Errors
    /// As [`Self::open_dataset`].
    pub(crate) fn read_files(&self, digest: &str) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let description = self.describe(digest)?;
        Ok((description.manifest_bytes, description.index_bytes))
    }

    /// Opens each pack and compares its size. Returns the problems; `Corrupt` only after a full read.
    pub(crate) fn probe(&self, dataset: &HeldDataset) -> Vec<(u32, StoreError)> {
        let packs = 0..dataset.manifest.packs.len() as u32;
        packs
            .filter_map(|pack| Some((pack, self.open_pack(dataset, pack).err()?)))
            .collect()
    }

    /// Opens a pack of the right size to read it. Its content is checked by whoever reads it, or by [`Self::verify`].
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`]; `Missing` when the dataset has no such pack.
    pub(crate) fn open_pack(&self, dataset: &HeldDataset, pack: u32) -> Result<File, StoreError> {
        let place = self.place(&dataset.manifest.digest);
        let Some(entry) = dataset.manifest.packs.get(pack as usize) else {
            let path = place.join(format!("pack {pack}"));
            return Err(StoreError::Missing { path });
        };
        let path = place.join(&entry.file);
        let (file, size) =
            disk::open(&path).map_err(|error| self.inner.root.read_error(&path, error))?;
        if size != entry.bytes {
            self.verify_file(&path, entry, &mut |_| ())?;
        }
        Ok(file)
    }

    /// Reads every pack from the disk and compares its size and SHA-256. Returns the problems. `progress` is called with the
    /// bytes read so far.
    pub(crate) fn verify(
        &self,
        dataset: &HeldDataset,
        mut progress: impl FnMut(u64),
    ) -> Vec<(u32, StoreError)> {
        let place = self.place(&dataset.manifest.digest);
        let mut problems = Vec::new();
        let mut before = 0;
        for (pack, entry) in dataset.manifest.packs.iter().enumerate() {
            let mut progress = |bytes| progress(before + bytes);
            if let Err(error) = self.verify_file(&place.join(&entry.file), entry, &mut progress) {
                problems.push((pack as u32, error));
            }
            before += entry.bytes;
        }
        problems
    }

    /// Checks that a dataset's files can be removed, as far as that shows before it is tried. Call it before the journal
    /// forgets the dataset.
    ///
    /// # Errors
    /// `Unavailable` or `Remove`; nothing was changed.
    pub(crate) fn check_removable(&self, digest: &str) -> Result<(), StoreError> {
        self.check()?;
        let place = self.place(digest);
        for folder in [self.dir(), &place, &place.join(PACKS)] {
            self.inner.root.check_removable(folder)?;
        }
        Ok(())
    }

    /// Reads and checks the manifest and the index of a dataset. Returns the problems.
    pub(crate) fn verify_description(
        &self,
        dataset: &HeldDataset,
    ) -> Vec<(DescribingFile, StoreError)> {
        let files = [DescribingFile::Manifest, DescribingFile::Index];
        files
            .into_iter()
            .filter_map(|file| {
                let read = self.read_description(&dataset.manifest, file);
                Some((file, read.err()?))
            })
            .collect()
    }

    /// Removes a dataset that the journal no longer lists. Returns the bytes that became free: 0 when it is gone already.
    ///
    /// # Errors
    /// As the disk reports. When the dataset was renamed already, the next start removes the rest.
    pub(crate) fn remove(&self, digest: &str) -> Result<u64, StoreError> {
        self.inner.root.remove_folder(&self.place(digest))
    }

    /// The datasets in the store that are not among `known`, as their folders: what a kill between the files and the
    /// journal leaves.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn unlisted(&self, known: &[String]) -> Result<Vec<PathBuf>, StoreError> {
        let dir = self.dir();
        let found = digests_in(dir).map_err(|error| self.inner.root.read_error(dir, error))?;
        let unlisted = found.into_iter().filter(|digest| !known.contains(digest));
        Ok(unlisted.map(|digest| self.place(&digest)).collect())
    }

    pub(super) fn min_free_bytes(&self) -> u64 {
        self.inner.options.min_free_bytes
    }

    pub(super) fn dir(&self) -> &Path {
        self.inner.root.dir()
    }

    /// The folder of a dataset.
    pub(super) fn place(&self, digest: &str) -> PathBuf {
        self.inner.root.place_of_digest(digest)
    }

    /// Reads and checks the manifest and the index in a dataset's folder.
    pub(super) fn describe(&self, digest: &str) -> Result<Description, StoreError> {
        let (manifest_bytes, manifest) = self.read_manifest(digest)?;
        let (index_bytes, index) = self.read_index(&manifest)?;
        Ok(Description {
            manifest_bytes,
            index_bytes,
            manifest,
            index,
        })
    }

    /// Reads and checks one of the files that describe the dataset of this manifest.
    pub(super) fn read_description(
        &self,
        manifest: &Manifest,
        file: DescribingFile,
    ) -> Result<(), StoreError> {
        match file {
            DescribingFile::Manifest => self.read_manifest(&manifest.digest).map(|_| ()),
            DescribingFile::Index => self.read_index(manifest).map(|_| ()),
        }
    }

    fn read_manifest(&self, digest: &str) -> Result<(Vec<u8>, Manifest), StoreError> {
        let path = self.place(digest).join(MANIFEST_FILE);
        let bytes = self.inner.root.read_whole(&path, MAX_MANIFEST_BYTES)?;
        let manifest =
            Manifest::parse(&bytes).map_err(|e| self.inner.root.corrupt(&path, e.to_string()))?;
        if manifest.digest != digest {
            let problem = format!("it is that of dataset {}", manifest.digest);
            return Err(self.inner.root.corrupt(&path, problem));
        }
        Ok((bytes, manifest))
    }

    fn read_index(&self, manifest: &Manifest) -> Result<(Vec<u8>, Index), StoreError> {
        let path = self.place(&manifest.digest).join(INDEX_FILE);
        let bytes = self.inner.root.read_whole(&path, MAX_INDEX_BYTES)?;
        match Index::parse(&bytes, manifest) {
            Ok(index) => Ok((bytes, index)),
            Err(error) => Err(self.inner.root.corrupt(&path, error.to_string())),
        }
    }

    /// Reads a pack's file to its end and compares.
    pub(super) fn verify_file(
        &self,
        path: &Path,
        entry: &PackEntry,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), StoreError> {
        self.inner
            .root
            .verify_file(path, entry.bytes, &entry.sha256, progress)
    }
}

impl Rooted for DatasetStore {
    fn root(&self) -> &Root {
        &self.inner.root
    }
}

/// The datasets in a folder, by digest.
fn digests_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for name in digests_in_folder(dir)? {
        if disk::exists(&dir.join(&name).join(MANIFEST_FILE))? {
            found.push(name);
        }
    }
    Ok(found)
}
