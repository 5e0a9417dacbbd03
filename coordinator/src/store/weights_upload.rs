//! Uploading weights: into a temporary folder, verified and checked before anything of it is used.
//!
//! ```text
//!  begin ──piece──> verify ──> VerifiedWeights ──store──> added     no such file was there
//!                                                    ├──> repaired  file or manifest was missing or corrupt, and replaced
//!                                                    └──> unchanged
//! ```

use std::fs::File;

use fovea_core::ids::WeightsName;
use fovea_weights::{Checked, MOST_BYTES, Source, WeightsError, check};
use tracing::warn;

use super::disk;
use super::error::StoreError;
use super::rooted::Rooted;
use super::temporary::TemporaryFolder;
use super::upload::UploadError;
use super::weights::{FILE, HeldWeights, WeightsStore};

/// An upload under way. Dropping it removes what has arrived so far.
#[derive(Debug)]
pub(crate) struct WeightsUpload {
    folder: TemporaryFolder<WeightsStore>,
    sha256: String,
    bytes: u64,
    /// The file's name at the client, for messages.
    file_name: String,
    file: File,
    written: u64,
}

/// A whole upload that holds the weights of GoogLeNet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct VerifiedWeights {
    folder: TemporaryFolder<WeightsStore>,
    sha256: String,
    bytes: u64,
    checked: Checked,
}

/// What storing a verified upload did.
#[derive(Debug)]
pub(crate) struct StoredWeights {
    /// The weights in the store.
    pub held: HeldWeights,
    /// They were not there before.
    pub added: bool,
    /// The file or its manifest was missing or corrupt, and was replaced.
    pub repaired: bool,
}

impl WeightsUpload {
    /// Begins the upload of a file of so many bytes.
    ///
    /// # Errors
    /// `Invalid` when it is empty or too large, `Full` when less than `min_free_bytes` would stay free. Otherwise as the
    /// disk reports; then nothing is left behind.
    pub(crate) fn begin(
        store: &WeightsStore,
        sha256: String,
        bytes: u64,
        file_name: String,
    ) -> Result<Self, UploadError> {
        if bytes == 0 || bytes > MOST_BYTES {
            return invalid(
                "header.size_bytes",
                format!(
                    "{file_name} has {bytes} bytes; 1 to {MOST_BYTES} are taken, and BVLC's GoogLeNet has about 53000000"
                ),
            );
        }
        store.check()?;
        let root = store.root();
        root.remove_leftovers();
        root.check_room(
            &format!("weights {file_name}"),
            bytes,
            store.min_free_bytes(),
        )?;
        let folder = TemporaryFolder::make(store, "upload")?;
        let path = folder.path().join(FILE);
        let failed = |error| root.write_error(&path, bytes, error);
        let file = disk::create(&path).map_err(failed)?;
        disk::allocate(&file, bytes).map_err(failed)?;
        Ok(Self {
            folder,
            sha256,
            bytes,
            file_name,
            file,
            written: 0,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `Invalid` when there are more than were announced; otherwise as the disk reports. The upload has failed then.
    pub(crate) fn piece(&mut self, data: &[u8]) -> Result<(), UploadError> {
        if data.is_empty() || data.len() as u64 > self.bytes - self.written {
            return invalid(
                "data",
                format!(
                    "has {} bytes; the file has {} bytes, {} of them are here",
                    data.len(),
                    self.bytes,
                    self.written
                ),
            );
        }
        let path = self.folder.path().join(FILE);
        let root = self.folder.store().root();
        disk::write_all_at(&self.file, data, self.written)
            .map_err(|error| root.write_error(&path, self.bytes, error))?;
        self.written += data.len() as u64;
        Ok(())
    }

    /// Checks that everything has arrived, its digest against what is on disk, and that it holds GoogLeNet's weights.
    ///
    /// # Errors
    /// `Invalid` when it is another file, or not of GoogLeNet; the text names the layer. Otherwise as the disk reports.
    pub(crate) fn verify(self) -> Result<VerifiedWeights, UploadError> {
        self.verify_by(check)
    }

    /// The same with another check of the content.
    pub(super) fn verify_by(
        self,
        check: impl FnOnce(&mut Source) -> Result<Checked, WeightsError>,
    ) -> Result<VerifiedWeights, UploadError> {
        let Self {
            folder,
            sha256,
            bytes,
            file_name,
            file,
            written,
        } = self;
        if written < bytes {
            return invalid(
                "data",
                format!("the stream ended early: {written} of the {bytes} bytes came"),
            );
        }
        let store = folder.store().clone();
        let root = store.root();
        let path = folder.path().join(FILE);
        disk::sync(&file).map_err(|error| root.write_error(&path, bytes, error))?;
        match root.verify_file(&path, bytes, &sha256, &mut |_| ()) {
            Ok(()) => {}
            Err(StoreError::Corrupt { problem, .. }) => {
                return invalid("data", format!("{file_name} arrived damaged: {problem}"));
            }
            Err(error) => return Err(error.into()),
        }
        let checked = match check(&mut Source::new(file, file_name)) {
            Ok(checked) => checked,
            Err(WeightsError::Io { source, .. }) => {
                return Err(root.read_error(&path, source).into());
            }
            Err(error) => return invalid("data", error.to_string()),
        };
        Ok(VerifiedWeights {
            folder,
            sha256,
            bytes,
            checked,
        })
    }
}

impl VerifiedWeights {
    /// SHA-256 of the file.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Stores the file under its digest, called `name` unless it is there with another name. One that is there is
    /// verified, and replaced only if it is missing or corrupt.
    ///
    /// # Errors
    /// As the disk reports. The upload can be repeated.
    pub(crate) fn store(
        mut self,
        name: WeightsName,
        now_ms: u64,
    ) -> Result<StoredWeights, StoreError> {
        let store = self.folder.store().clone();
        store.check()?;
        let place = store.place(&self.sha256);
        let new = HeldWeights::new(
            name,
            self.sha256.clone(),
            self.bytes,
            now_ms,
            self.checked.clone(),
        );
        let there = disk::exists(&place).map_err(|e| store.root().read_error(&place, e))?;
        if !there {
            store.write_manifest(self.folder.path(), &new)?;
            self.folder.keep_as(&place)?;
            return Ok(StoredWeights {
                held: new,
                added: true,
                repaired: false,
            });
        }
        let mut repaired = false;
        let is_damage = |error: &StoreError| {
            matches!(
                error,
                StoreError::Missing { .. } | StoreError::Corrupt { .. }
            )
        };
        // The file first: a manifest describes one that is whole.
        match store.verify(&new, |_| ()) {
            Ok(()) => {}
            Err(problem) if is_damage(&problem) => {
                store.check()?;
                let path = place.join(FILE);
                let failed = |error| store.root().write_error(&path, 0, error);
                disk::rename(&self.folder.path().join(FILE), &path).map_err(failed)?;
                disk::sync_folder(&place).map_err(failed)?;
                warn!(weights = %new.name, "weights.file_repaired: replaced the file of weights {}: {problem}", new.name);
                repaired = true;
            }
            Err(error) => return Err(error),
        }
        let held = match store.describe(&self.sha256) {
            Ok(held) => held,
            Err(problem) if is_damage(&problem) => {
                store.check()?;
                store.write_manifest(&place, &new)?;
                warn!(weights = %new.name, "weights.manifest_repaired: replaced the manifest of weights {}: {problem}", new.name);
                repaired = true;
                new
            }
            Err(error) => return Err(error),
        };
        Ok(StoredWeights {
            held,
            added: false,
            repaired,
        })
    }
}

fn invalid<T>(field: &'static str, problem: String) -> Result<T, UploadError> {
    Err(UploadError::Invalid { field, problem })
}
