//! The coordinator's folder: its lock, and what lies where.
//!
//! ```text
//! DIR/lock             held by the one coordinator that uses DIR
//! DIR/journal.db       runs, datasets, ledger (`journal`)
//! DIR/remote.json      what is under way at the object store (`remote`)
//! DIR/datasets/        prepared datasets, by digest (`store`)
//! DIR/weights/         weights that runs start from, by digest (`store`)
//! DIR/checkpoints/     checkpoints, by run (`store`)
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The journal.
const JOURNAL: &str = "journal.db";
/// What tells the folder of a store from others (`store`).
const IDENTITY: &str = "store.json";

/// The file that is there while a backup is restored.
const RESTORING: &str = "restoring";

/// What the name of a file that is being written begins with.
const TEMPORARY: &str = "tmp-";

/// The coordinator's folder, locked for as long as this value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    /// Dropping it frees the lock, and so does the end of the process, however it ends.
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another coordinator has it.
    #[error(
        "data_dir {} is used by another coordinator; stop that one, or name another folder with \
         --data-dir",
        root.display()
    )]
    Locked {
        /// The folder.
        root: PathBuf,
    },
    /// It is the folder of a store, of a coordinator or not, and no coordinator's own.
    #[error(
        "data_dir {} holds {IDENTITY} and no {JOURNAL}, so it is a store of checkpoints, datasets or weights; name a folder of its own \
         with --data-dir, such as the one that {} is in",
        root.display(), root.display()
    )]
    Store {
        /// The folder.
        root: PathBuf,
    },
    /// A restoration was interrupted.
    #[error(
        "data_dir {} holds a backup that was restored in part: `fovea-coordinator restore` was interrupted. Restore it again",
        root.display()
    )]
    HalfRestored {
        /// The folder.
        root: PathBuf,
    },
    /// This user has no right to it.
    #[error(
        "data_dir: cannot {action} {}: {source}; {owners}. Run the coordinator as the user whose files they are, or give them to \
         its user with chown",
        path.display()
    )]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
        /// Whose file and folder it is, and who this process is.
        owners: String,
    },
    /// Something in it cannot be made or read.
    #[error("data_dir: cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl DataDir {
    /// The file that is there while a backup is restored.
    pub(crate) fn restoring(&self) -> PathBuf {
        self.root.join(RESTORING)
    }

    /// Whether a backup was restored in part.
    pub(crate) fn is_half_restored(&self) -> bool {
        self.restoring().exists() && !self.journal().exists()
    }

    /// Refuses a folder in which a backup was restored in part: it would become an empty cluster.
    pub(crate) fn check_restored(&self) -> Result<(), DataDirError> {
        match self.is_half_restored() {
            true => Err(DataDirError::HalfRestored {
                root: self.root.clone(),
            }),
            false => Ok(()),
        }
    }

    /// Creates the folder where it is missing, and locks it.
    pub(crate) fn open(root: &Path) -> Result<Self, DataDirError> {
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| match source.kind() {
                io::ErrorKind::PermissionDenied => DataDirError::Denied {
                    action,
                    owners: owners(&path),
                    path,
                    source,
                },
                _ => DataDirError::Io {
                    action,
                    path,
                    source,
                },
            }
        };
        if root.join(IDENTITY).exists() && !root.join(JOURNAL).exists() {
            return Err(DataDirError::Store {
                root: root.to_owned(),
            });
        }
        // Photographs of patients: for the owner alone. A folder that is there keeps its mode.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(fail("make", root))?;
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(fail("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::Locked {
                    root: root.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(fail("lock", &path)(source)),
        }
        sweep(root);
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join(JOURNAL)
    }

    /// Removes a journal that was made a moment ago and holds nothing, with its log.
    pub(crate) fn remove_journal(&self) {
        for name in ["journal.db", "journal.db-wal"] {
            let path = self.root.join(name);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "journal.left: {} cannot be removed: {error}", path.display());
            }
        }
    }

    /// The folder of the store that the journal calls `kind`.
    pub(crate) fn store(&self, kind: &str) -> Option<PathBuf> {
        match kind {
            "checkpoints" => Some(self.checkpoints()),
            "datasets" => Some(self.datasets()),
            "weights" => Some(self.weights()),
            _ => None,
        }
    }

    pub(crate) fn datasets(&self) -> PathBuf {
        self.root.join("datasets")
    }

    /// The weights store's folder.
    pub(crate) fn weights(&self) -> PathBuf {
        self.root.join("weights")
    }

    /// What is under way at the object store.
    pub(crate) fn remote(&self) -> PathBuf {
        self.root.join("remote.json")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
}

/// Whose `path` and its folder are, and who this process is, as far as that can be seen. For people who mend permissions.
pub(crate) fn owners(path: &Path) -> String {
    let mut text = String::new();
    for path in [Some(path), path.parent()].into_iter().flatten() {
        if let Ok(found) = path.metadata() {
            let (uid, mode) = (found.uid(), found.mode() & 0o7777);
            text += &format!(
                "{} belongs to uid {uid} (mode {mode:04o}), ",
                path.display()
            );
        }
    }
    // SAFETY: the call has no conditions and touches no memory.
    let uid = unsafe { libc::geteuid() };
    format!("{text}the coordinator runs as uid {uid}")
}

/// Writes a file so that a reader sees the old one or the whole new one, and so that it lasts.
///
/// # Errors
/// What the system says.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// Removes what a killed coordinator was writing. Housekeeping: what cannot be removed is left.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let temporary = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY.as_bytes());
        if temporary && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Flushes a folder, so that new files and renames in it survive a power failure.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_coordinator_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path()).unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Locked { .. }), "{error}");
        drop(first);
        DataDir::open(root.path()).unwrap();
    }

    #[test]
    fn a_store_is_no_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("checkpoints");
        fs::create_dir(&root).unwrap();
        fs::write(root.join(IDENTITY), "{}").unwrap();
        let error = DataDir::open(&root).unwrap_err();
        assert!(matches!(error, DataDirError::Store { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&*root.to_string_lossy()), "{text}");
        assert!(text.contains("--data-dir"), "{text}");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "it was written to");
        // A coordinator that has its journal there goes on.
        fs::write(root.join(JOURNAL), "").unwrap();
        DataDir::open(&root).unwrap();
    }

    #[test]
    fn what_a_killed_coordinator_was_writing_is_removed() {
        let root = tempfile::tempdir().unwrap();
        for name in ["tmp-backup-1", "tmp-2", "mine", JOURNAL] {
            fs::write(root.path().join(name), "").unwrap();
        }
        fs::create_dir(root.path().join("tmp-folder")).unwrap();
        let _dir = DataDir::open(root.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [JOURNAL, "lock", "mine", "tmp-folder"]);
    }

    #[test]
    fn an_unusable_folder_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::open(file.path()).unwrap_err().to_string();
        assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
    }
}
