//! A prepared dataset on disk, opened and checked.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::{
    Index, IndexError, MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, ManifestError, PackError,
    PackFile, verify_pack,
};

/// A prepared dataset whose manifest, index and pack sizes were checked.
#[derive(Debug)]
pub struct Dataset {
    dir: PathBuf,
    manifest: Manifest,
    index: Index,
}

/// Why a folder is not a usable dataset.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The folder holds no manifest.
    #[error("{} is not a prepared dataset: it has no manifest.json; make one with 'fovea prepare'", dir.display())]
    NotADataset {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The manifest is not accepted.
    #[error("dataset {}: {source}", dir.display())]
    Manifest {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// The index is not accepted.
    #[error("dataset {}: {source}", dir.display())]
    Index {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: IndexError,
    },
    /// A pack is missing, has another size or is corrupt.
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl Dataset {
    /// Opens `dir`: parses manifest and index, checks digests, counts, that no patient is on both
    /// sides, and that every pack is there with its size. [`Dataset::verify`] reads the packs too.
    pub fn open(dir: &Path) -> Result<Self, DatasetError> {
        let manifest = Self::read_manifest(dir)?;
        let index_path = dir.join(&manifest.index.file);
        // One byte more than expected is enough to tell that it is too long.
        let bytes = read_at_most(&index_path, manifest.index.bytes + 1).map_err(|source| {
            DatasetError::Io {
                path: index_path,
                source,
            }
        })?;
        let index = Index::parse(&bytes, &manifest).map_err(|source| DatasetError::Index {
            dir: dir.to_owned(),
            source,
        })?;
        let dataset = Self {
            dir: dir.to_owned(),
            manifest,
            index,
        };
        for pack in 0..dataset.manifest.packs.len() {
            dataset.open_pack(pack)?;
        }
        Ok(dataset)
    }

    /// Reads and checks only the manifest of `dir`.
    pub fn read_manifest(dir: &Path) -> Result<Manifest, DatasetError> {
        let path = dir.join(MANIFEST_FILE);
        let bytes = read_at_most(&path, MAX_MANIFEST_BYTES + 1).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                DatasetError::NotADataset {
                    dir: dir.to_owned(),
                }
            } else {
                DatasetError::Io { path, source }
            }
        })?;
        Manifest::parse(&bytes).map_err(|source| DatasetError::Manifest {
            dir: dir.to_owned(),
            source,
        })
    }

    /// Recomputes the digest of every pack, in parallel.
    pub fn verify(&self) -> Result<(), DatasetError> {
        (0..self.manifest.packs.len())
            .into_par_iter()
            .try_for_each(|pack| verify_pack(&self.pack_path(pack), &self.manifest.packs[pack]))?;
        Ok(())
    }

    /// Opens the pack with this index into [`Manifest::packs`].
    ///
    /// # Panics
    /// If there is no such pack.
    pub fn open_pack(&self, pack: usize) -> Result<PackFile, PackError> {
        let entry = &self.manifest.packs[pack];
        PackFile::open(&self.pack_path(pack), self.manifest.record_bytes, entry)
    }

    /// Path of the pack with this index into [`Manifest::packs`].
    ///
    /// # Panics
    /// If there is no such pack.
    pub fn pack_path(&self, pack: usize) -> PathBuf {
        self.dir.join(&self.manifest.packs[pack].file)
    }

    /// The dataset's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The samples.
    pub fn index(&self) -> &Index {
        &self.index
    }
}

fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
