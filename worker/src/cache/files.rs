//! Files of the cache: written under a temporary name, synced, then renamed, so that a file with its final name is
//! complete, also after a power cut. They hold photographs, names and grades of patients, so only their owner reads them.
//!
//! A writer holds an exclusive lock on its temporary file. A temporary file without a lock was left by a process that
//! was killed, and [`super::room::sweep`] removes it, whichever worker of the machine it belonged to.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::CacheError;

/// Part of every temporary file's name.
pub(super) const TEMPORARY: &str = ".tmp-";
/// Suffix of a file that was put aside because it was corrupt or unreadable.
pub(super) const ASIDE: &str = ".corrupt";

/// A file that is removed unless [`Temporary::rename`] gave it its final name.
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Temporary {
    /// Creates one beside `path`, locked.
    pub(super) fn create(path: &Path) -> Result<Self, CacheError> {
        let path = temporary(path);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(CacheError::io(&path))?;
        // Without locks (some network file systems) a file is never taken for a leftover before it is old.
        let _ = file.try_lock();
        Ok(Self {
            path,
            file,
            renamed: false,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A second handle to write through.
    pub(super) fn writer(&self) -> Result<File, CacheError> {
        self.file.try_clone().map_err(CacheError::io(&self.path))
    }

    /// Syncs it, and gives it the name `to`.
    pub(super) fn rename(mut self, to: &Path) -> Result<(), CacheError> {
        self.file.sync_all().map_err(CacheError::io(&self.path))?;
        std::fs::rename(&self.path, to).map_err(CacheError::io(to))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // If this fails, the next start sweeps it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes a whole file.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    let temporary = Temporary::create(path)?;
    (&temporary.file)
        .write_all(bytes)
        .map_err(CacheError::io(temporary.path()))?;
    temporary.rename(path)?;
    sync_folder_of(path)
}

/// Makes renames in the folder of `path` durable.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), CacheError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(CacheError::io(folder))
}

/// Gives a file that cannot be used another name, under which it can be examined until its room is needed.
pub(super) fn put_aside(path: &Path) -> Result<(), CacheError> {
    let mut aside = path.file_name().unwrap_or_default().to_owned();
    aside.push(ASIDE);
    match std::fs::rename(path, path.with_file_name(aside)) {
        Ok(()) => sync_folder_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CacheError::io(path)(error)),
    }
}

/// Whether an error comes from a limit of this process or machine, and says nothing about the file.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    )
}

/// A name beside `path` that no other process or task uses. The process id alone is not enough: workers in two
/// containers may share a folder.
fn temporary(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let random = crate::link::random_u32();
    name.push(format!(
        "{TEMPORARY}{}-{random:08x}-{number}",
        std::process::id()
    ));
    path.with_file_name(name)
}
