//! The coordinator's folder: who owns it, what lies where, and writing so that it lasts.
//!
//! ```text
//! DIR/lock                                          held by the one coordinator that uses DIR
//! DIR/journal.db                                    runs and datasets (SQLite)
//! DIR/datasets/<digest>/                            prepared datasets; tmp-* are uploads under way
//! DIR/checkpoints/<run>/step-0000000010.safetensors and .json; tmp-* are being gathered
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What names of unfinished things start with. They are removed at start.
pub(crate) const TEMPORARY: &str = "tmp-";

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
    /// Something in it cannot be made or read.
    #[error("data_dir: cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the folder where it is missing, locks it, and removes what an earlier coordinator
    /// left unfinished.
    pub(crate) fn open(root: &Path) -> Result<Self, DataDirError> {
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io {
                action,
                path,
                source,
            }
        };
        fs::create_dir_all(root).map_err(fail("make", root))?;
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
        let dir = Self {
            root: root.to_owned(),
            _lock: lock,
        };
        for folder in [dir.datasets(), dir.checkpoints()] {
            fs::create_dir_all(&folder).map_err(fail("make", &folder))?;
        }
        remove_temporaries(&dir.datasets()).map_err(fail("clean", &dir.datasets()))?;
        for run in fs::read_dir(dir.checkpoints()).map_err(fail("list", &dir.checkpoints()))? {
            let run = run.map_err(fail("list", &dir.checkpoints()))?.path();
            if run.is_dir() {
                remove_temporaries(&run).map_err(fail("clean", &run))?;
            }
        }
        Ok(dir)
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal.db")
    }

    pub(crate) fn datasets(&self) -> PathBuf {
        self.root.join("datasets")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
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

/// Makes renames and new files in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn remove_temporaries(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        tracing::info!(path = %entry.path().display(), "removing what was left unfinished");
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_coordinator_at_a_time_and_nothing_unfinished_stays() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path()).unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Locked { .. }), "{error}");
        let upload = first.datasets().join("tmp-1");
        fs::create_dir(&upload).unwrap();
        let run = first.checkpoints().join("r-1");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("tmp-x"), "half").unwrap();
        fs::write(run.join("step-0000000001.safetensors"), "whole").unwrap();
        drop(first);
        DataDir::open(root.path()).unwrap();
        assert!(!upload.exists() && !run.join("tmp-x").exists());
        assert!(run.join("step-0000000001.safetensors").exists());
    }

    #[test]
    fn an_unusable_folder_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::open(file.path()).unwrap_err().to_string();
        assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
    }
}
