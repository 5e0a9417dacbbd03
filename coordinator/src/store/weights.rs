//! The weights store: the only code that opens, renames or removes files in `weights/`.
//!
//! ```text
//! weights/store.json               identity, see `identity`
//! weights/<sha256>/file            as it was uploaded
//! weights/<sha256>/manifest.json   name, size, time, and what the check found in the file
//! weights/tmp-*                    uploads under way, weights being removed; removed at start when left behind
//! ```
//!
//! The journal does not list weights: what has its name here is complete, and its manifest says what it is called. So a
//! journal that is restored from a backup finds all weights that were added since.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fovea_core::ids::WeightsName;
use fovea_weights::Checked;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::error::{OpenError, StoreError};
use super::identity::{Kind, Root};
use super::rooted::{Rooted, digests_in_folder};
use super::{StoreOptions, disk};

/// The file as it was uploaded.
pub(super) const FILE: &str = "file";
/// What describes it.
pub(super) const MANIFEST: &str = "manifest.json";
/// Largest manifest that is read, in bytes.
pub(super) const MANIFEST_BYTES: u64 = 4 << 20;
/// The newest format of a manifest.
const FORMAT: u32 = 1;

const KIND: Kind = Kind {
    key: "weights",
    name: "weights store",
    in_use: |dir| Ok(!digests_in_folder(dir)?.is_empty()),
};

/// The weights store. Clones share it. All calls wait for the disk.
#[derive(Debug, Clone)]
pub(crate) struct WeightsStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: Root,
    options: StoreOptions,
}

/// Weights in the store: the content of their manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldWeights {
    manifest: u32,
    /// Their name.
    pub name: WeightsName,
    /// SHA-256 of the file in hex.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// When it was added, in milliseconds since the Unix epoch.
    pub added_at_ms: u64,
    /// What is in the file.
    pub checked: Checked,
}

impl HeldWeights {
    pub(super) fn new(
        name: WeightsName,
        sha256: String,
        bytes: u64,
        added_at_ms: u64,
        checked: Checked,
    ) -> Self {
        Self {
            manifest: FORMAT,
            name,
            sha256,
            bytes,
            added_at_ms,
            checked,
        }
    }
}

impl WeightsStore {
    /// Opens the store in `dir`, as `CheckpointStore::open` does.
    ///
    /// # Errors
    /// When the folder is not the store that the journal knows; then nothing was created in it.
    pub(crate) fn open(
        dir: &Path,
        known: Option<&str>,
        options: StoreOptions,
    ) -> Result<(Self, String), OpenError> {
        let root = Root::open(dir, KIND, known, 0, &options)?;
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

    /// Digests of all weights, readable or not.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn digests(&self) -> Result<Vec<String>, StoreError> {
        let dir = self.inner.root.dir();
        digests_in_folder(dir).map_err(|error| self.inner.root.read_error(dir, error))
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    pub(crate) fn describe(&self, sha256: &str) -> Result<HeldWeights, StoreError> {
        let path = self.place(sha256).join(MANIFEST);
        let bytes = self.inner.root.read_whole(&path, MANIFEST_BYTES)?;
        self.parse_manifest(sha256, &bytes)
    }

    /// Reads the bytes of the manifest of these weights.
    pub(crate) fn parse_manifest(
        &self,
        sha256: &str,
        bytes: &[u8],
    ) -> Result<HeldWeights, StoreError> {
        let root = &self.inner.root;
        let path = self.place(sha256).join(MANIFEST);
        /// The one field that every format has.
        #[derive(Deserialize)]
        struct Format {
            manifest: u32,
        }
        let corrupt = |problem: String| root.corrupt(&path, problem);
        let Format { manifest } =
            serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if manifest > FORMAT {
            return Err(StoreError::TooNew {
                path,
                format: manifest.to_string(),
            });
        }
        let held: HeldWeights =
            serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if held.sha256 != sha256 {
            return Err(corrupt(format!("it is that of weights {}", held.sha256)));
        }
        Ok(held)
    }

    /// Opens a file of the right size to read it. Its content is checked by whoever reads it, or by [`Self::verify`].
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    pub(crate) fn open_file(&self, held: &HeldWeights) -> Result<File, StoreError> {
        let path = self.place(&held.sha256).join(FILE);
        let (file, size) =
            disk::open(&path).map_err(|error| self.inner.root.read_error(&path, error))?;
        if size != held.bytes {
            self.verify(held, |_| ())?;
        }
        Ok(file)
    }

    /// Reads a file from the disk and compares its size and SHA-256. `progress` is called with the bytes read so far.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    pub(crate) fn verify(
        &self,
        held: &HeldWeights,
        mut progress: impl FnMut(u64),
    ) -> Result<(), StoreError> {
        let path = self.place(&held.sha256).join(FILE);
        self.inner
            .root
            .verify_file(&path, held.bytes, &held.sha256, &mut progress)
    }

    /// Removes weights. Returns the bytes that became free: 0 when they are gone already.
    ///
    /// # Errors
    /// As the disk reports. When they were renamed already, the next start removes the rest.
    pub(crate) fn remove(&self, sha256: &str) -> Result<u64, StoreError> {
        let root = &self.inner.root;
        root.check()?;
        let place = self.place(sha256);
        for folder in [root.dir(), &place] {
            root.check_removable(folder)?;
        }
        root.remove_folder(&place)
    }

    pub(super) fn min_free_bytes(&self) -> u64 {
        self.inner.options.min_free_bytes
    }

    /// The folder of weights.
    pub(super) fn place(&self, sha256: &str) -> PathBuf {
        self.inner.root.place_of_digest(sha256)
    }

    /// Writes a manifest in `folder`, which has none or one that is to be replaced.
    pub(super) fn write_manifest(
        &self,
        folder: &Path,
        held: &HeldWeights,
    ) -> Result<(), StoreError> {
        let root = &self.inner.root;
        let path = folder.join(MANIFEST);
        let failed = |error| root.write_error(&path, 0, error);
        let mut bytes = serde_json::to_vec_pretty(held)
            .map_err(io::Error::from)
            .map_err(failed)?;
        bytes.push(b'\n');
        let temporary = root.temporary(root.dir(), "manifest");
        let placed =
            disk::write_new(&temporary, &bytes).and_then(|()| disk::rename(&temporary, &path));
        if placed.is_err() {
            root.discard_temporary(&temporary);
        }
        placed.map_err(failed)?;
        disk::sync_folder(folder).map_err(failed)
    }
}

impl Rooted for WeightsStore {
    fn root(&self) -> &Root {
        &self.inner.root
    }
}
