//! What the stores of files that are named by their digest share: datasets and weights.

use std::io;
use std::path::{Path, PathBuf};

use tracing::info;

use super::error::StoreError;
use super::identity::Root;
use super::{TEMPORARY, disk};

/// A store with a folder of its own. Clones share it.
pub(super) trait Rooted: Clone {
    /// Its folder.
    fn root(&self) -> &Root;
}

impl Root {
    /// The folder of what has this digest. Digests come from checked manifests and requests; should another text come
    /// here, it must not lead out of the folder.
    pub(super) fn place_of_digest(&self, digest: &str) -> PathBuf {
        let name = if is_digest(digest) {
            digest
        } else {
            "not-a-digest"
        };
        self.dir().join(name)
    }

    /// Checks that `bytes` fit, and `reserve` bytes stay free.
    ///
    /// # Errors
    /// `Full`, or as the disk reports.
    pub(super) fn check_room(
        &self,
        what: &str,
        bytes: u64,
        reserve: u64,
    ) -> Result<(), StoreError> {
        let free = self.free_bytes()?;
        let needed = bytes.saturating_add(reserve);
        if free >= needed {
            return Ok(());
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Err(StoreError::Full {
            what: format!(
                "{what} is not taken: it has {:.1} MiB, and {:.1} MiB must stay free (min_free_mib)",
                mib(bytes),
                mib(reserve),
            ),
            needed,
            free,
        })
    }

    /// Reads a small file.
    pub(super) fn read_whole(&self, path: &Path, most: u64) -> Result<Vec<u8>, StoreError> {
        disk::read_whole(path, most).map_err(|error| self.read_error(path, error))
    }

    /// What a complete read that is not what it should be means: the volume may have been replaced meanwhile.
    pub(super) fn corrupt(&self, path: &Path, problem: String) -> StoreError {
        match self.check() {
            Ok(()) => StoreError::Corrupt {
                path: path.to_owned(),
                problem,
            },
            Err(error) => error,
        }
    }

    /// Reads a file to its end and compares it with what its manifest says.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    pub(super) fn verify_file(
        &self,
        path: &Path,
        wanted: u64,
        wanted_sha256: &str,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), StoreError> {
        let failed = |error| self.read_error(path, error);
        let (mut file, _) = disk::open(path).map_err(failed)?;
        disk::forget_cached(&file);
        let (bytes, sha256) = disk::hash(&mut file, progress).map_err(failed)?;
        if bytes == wanted && sha256 == wanted_sha256 {
            return Ok(());
        }
        // The volume may have been replaced while it was read.
        self.check()?;
        let problem = if bytes == wanted {
            format!("its SHA-256 is {sha256}, but the manifest says {wanted_sha256}")
        } else {
            format!("it has {bytes} bytes, but the manifest says {wanted}")
        };
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            problem,
        })
    }

    /// Removes the folder `place`. Returns the bytes that became free: 0 when it is gone already.
    ///
    /// # Errors
    /// As the disk reports. When it was renamed already, the next start removes the rest.
    pub(super) fn remove_folder(&self, place: &Path) -> Result<u64, StoreError> {
        self.check()?;
        let failed = |error| self.remove_error(place, error);
        // Under its name it is complete, until the last moment.
        let aside = self.temporary(self.dir(), "removed");
        match disk::rename(place, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            result => result.map_err(failed)?,
        }
        disk::sync_folder(self.dir()).map_err(failed)?;
        disk::remove_tree(&aside).map_err(|error| self.remove_error(&aside, error))
    }

    /// Removes what interrupted uploads and removals have left. To be called when the store is opened.
    ///
    /// # Errors
    /// As the disk reports.
    pub(super) fn remove_temporaries(&self) -> Result<(), StoreError> {
        let dir = self.dir();
        let names = disk::list(dir).map_err(|error| self.read_error(dir, error))?;
        for name in names.iter().filter(|name| name.starts_with(TEMPORARY)) {
            let path = dir.join(name);
            disk::remove_tree(&path).map_err(|error| self.remove_error(&path, error))?;
            info!(
                "store.temporary_removed: {} was left by an interrupted write",
                path.display()
            );
        }
        Ok(())
    }
}

/// What in a folder is named by a digest.
pub(super) fn digests_in_folder(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = disk::list(dir)?;
    names.retain(|name| is_digest(name));
    Ok(names)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
