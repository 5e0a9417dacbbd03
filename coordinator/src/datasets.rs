//! The dataset store: uploads into a temporary folder, verified before anything of them shows.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fovea_core::ids::DatasetName;
use fovea_dataset::{Dataset, DatasetError, INDEX_FILE, Index, MANIFEST_FILE, Manifest};
use tempfile::TempDir;

use crate::data_dir::{TEMPORARY, sync_folder};
use crate::error::ApiError;

/// The largest manifest that is taken, as the protocol says.
const MANIFEST_BYTES: usize = 16 << 20;
/// The largest index that is taken, as the protocol says.
const INDEX_BYTES: usize = 256 << 20;

/// A dataset that the coordinator holds.
#[derive(Debug)]
pub(crate) struct HeldDataset {
    pub dir: PathBuf,
    pub manifest: Manifest,
    /// The patient of every training sample, in plan order.
    pub patients: Vec<u32>,
    /// Validation samples.
    pub validation: u32,
}

impl HeldDataset {
    /// Opens a dataset in its place: manifest, index and the packs' sizes are checked.
    pub(crate) fn open(dir: &Path) -> Result<Self, DatasetError> {
        let dataset = Dataset::open(dir)?;
        Ok(Self::of(&dataset, dir))
    }

    fn of(dataset: &Dataset, dir: &Path) -> Self {
        let index = dataset.index();
        Self {
            dir: dir.to_owned(),
            manifest: dataset.manifest().clone(),
            patients: index.train().iter().map(|s| s.patient).collect(),
            validation: index.validation().len() as u32,
        }
    }

    /// Path of a pack, if there is such a pack.
    pub(crate) fn pack(&self, pack: u32) -> Option<PathBuf> {
        let entry = self.manifest.packs.get(pack as usize)?;
        Some(self.dir.join(&entry.file))
    }
}

/// An upload under way. Dropping it removes what has come so far.
#[derive(Debug)]
pub(crate) struct Upload {
    folder: TempDir,
    manifest: Manifest,
    /// The pack that is being written, and what of it has come.
    pack: usize,
    file: Option<File>,
    written: u64,
}

/// A whole upload whose every digest was recomputed from what is on disk.
#[derive(Debug)]
pub(crate) struct Verified {
    folder: TempDir,
    dataset: Dataset,
}

impl Upload {
    /// Checks the header's manifest and index, both untrusted, without writing anything.
    pub(crate) fn check(manifest: &[u8], index: &[u8]) -> Result<Manifest, ApiError> {
        for (field, size, most) in [
            ("header.manifest", manifest.len(), MANIFEST_BYTES),
            ("header.index", index.len(), INDEX_BYTES),
        ] {
            if size == 0 || size > most {
                return Err(ApiError::invalid(
                    field,
                    format!("has {size} bytes; 1 to {most} are taken"),
                ));
            }
        }
        let parsed =
            Manifest::parse(manifest).map_err(|e| ApiError::invalid("header.manifest", e))?;
        Index::parse(index, &parsed).map_err(|e| ApiError::invalid("header.index", e))?;
        Ok(parsed)
    }

    /// Begins an upload whose header was checked, in the folder of all datasets.
    pub(crate) fn begin(
        datasets: &Path,
        manifest: Manifest,
        manifest_bytes: &[u8],
        index: &[u8],
    ) -> Result<Self, ApiError> {
        let begin = || -> std::io::Result<TempDir> {
            let folder = tempfile::Builder::new()
                .prefix(TEMPORARY)
                .permissions(fs::Permissions::from_mode(0o755))
                .tempdir_in(datasets)?;
            fs::create_dir(folder.path().join("packs"))?;
            write(&folder.path().join(MANIFEST_FILE), manifest_bytes)?;
            write(&folder.path().join(INDEX_FILE), index)?;
            Ok(folder)
        };
        Ok(Self {
            folder: begin().map_err(|e| ApiError::disk("cannot begin the upload", &e))?,
            manifest,
            pack: 0,
            file: None,
            written: 0,
        })
    }

    /// Takes the next bytes of pack `pack`. Packs come in order and whole.
    pub(crate) fn piece(&mut self, pack: u32, data: &[u8]) -> Result<(), ApiError> {
        let packs = self.manifest.packs.len();
        if pack as usize != self.pack {
            let expected = match self.manifest.packs.get(self.pack) {
                Some(entry) => format!(
                    "pack {} comes next; {} of its {} bytes are here",
                    self.pack, self.written, entry.bytes
                ),
                None => format!("all {packs} packs are here already"),
            };
            return Err(ApiError::invalid(
                "piece.pack",
                format!("{pack} is not expected: {expected}"),
            ));
        }
        let Some(entry) = self.manifest.packs.get(self.pack) else {
            return Err(ApiError::invalid(
                "piece.pack",
                format!("{pack} is not one of the {packs} packs"),
            ));
        };
        if data.is_empty() || self.written + data.len() as u64 > entry.bytes {
            return Err(ApiError::invalid(
                "piece.data",
                format!(
                    "has {} bytes; pack {pack} has {} bytes, {} of them are here",
                    data.len(),
                    entry.bytes,
                    self.written
                ),
            ));
        }
        let path = self.folder.path().join(&entry.file);
        let disk = |e: std::io::Error| ApiError::disk(format!("cannot store pack {pack}"), &e);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::create_new(&path).map_err(disk)?),
        };
        file.write_all(data).map_err(disk)?;
        self.written += data.len() as u64;
        if self.written == entry.bytes {
            file.sync_all().map_err(disk)?;
            self.file = None;
            self.written = 0;
            self.pack += 1;
        }
        Ok(())
    }

    /// Checks that all has come, and every digest against what is on disk.
    pub(crate) fn verify(self) -> Result<Verified, ApiError> {
        if let Some(entry) = self.manifest.packs.get(self.pack) {
            return Err(ApiError::invalid(
                "piece",
                format!(
                    "the stream ended early: {} of the {} bytes of pack {} came, and {} packs in \
                     all are needed",
                    self.written,
                    entry.bytes,
                    self.pack,
                    self.manifest.packs.len()
                ),
            ));
        }
        let dataset = Dataset::open(self.folder.path()).map_err(|e| bad_upload(&e))?;
        dataset.verify().map_err(|e| bad_upload(&e))?;
        let sync = || -> std::io::Result<()> {
            sync_folder(&self.folder.path().join("packs"))?;
            sync_folder(self.folder.path())
        };
        sync().map_err(|e| ApiError::disk("cannot store the dataset", &e))?;
        Ok(Verified {
            folder: self.folder,
            dataset,
        })
    }
}

impl Verified {
    pub(crate) fn name_and_digest(&self) -> (DatasetName, String) {
        let manifest = self.dataset.manifest();
        (manifest.name.clone(), manifest.digest.clone())
    }

    /// Moves the dataset to its place, `<digest>` in the folder of all datasets.
    pub(crate) fn store(self, datasets: &Path) -> Result<HeldDataset, ApiError> {
        let place = datasets.join(&self.dataset.manifest().digest);
        let disk = |e: std::io::Error| ApiError::disk("cannot store the dataset", &e);
        if place.exists() {
            // Left by a coordinator that died before its journal entry, or damaged since: this
            // one is known to be whole.
            fs::remove_dir_all(&place).map_err(disk)?;
        }
        let held = HeldDataset::of(&self.dataset, &place);
        fs::rename(self.folder.path(), &place).map_err(disk)?;
        // Its folder has moved: there is nothing to remove.
        let _ = self.folder.keep();
        sync_folder(datasets).map_err(disk)?;
        Ok(held)
    }
}

fn bad_upload(error: &DatasetError) -> ApiError {
    match error {
        DatasetError::Io { source, .. } => ApiError::disk("cannot read the upload back", source),
        other => ApiError::invalid("piece.data", other),
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
