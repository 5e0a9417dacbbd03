//! Temporary files and folders beside a destination, and the sweep of those that killed processes left.
//!
//! Each is locked (`flock`) while its process lives; the kernel releases the lock with the process. So
//! one that can be locked is a leftover. Where a file system has no such locks, nothing is swept.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

/// What the names of temporary files or folders of one kind begin and end with. What is between is
/// random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// How they begin.
    pub prefix: OsString,
    /// How they end; may be empty.
    pub suffix: OsString,
}

impl Names {
    /// Names that begin with `prefix` and end with `suffix`.
    pub fn new(prefix: impl Into<OsString>, suffix: impl Into<OsString>) -> Self {
        Self {
            prefix: prefix.into(),
            suffix: suffix.into(),
        }
    }

    fn include(&self, name: &OsStr) -> bool {
        let (name, prefix) = (name.as_bytes(), self.prefix.as_bytes());
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.ends_with(self.suffix.as_bytes()))
    }

    fn builder(&self) -> tempfile::Builder<'_, '_> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(&self.prefix).suffix(&self.suffix);
        builder
    }
}

/// A locked temporary folder, removed when dropped.
pub struct TemporaryFolder {
    dir: TempDir,
    /// Holds the lock, where the file system has locks.
    _lock: Option<File>,
}

impl TemporaryFolder {
    /// Makes a folder in `parent`, with these permissions less the umask's.
    pub fn create(parent: &Path, names: &Names, mode: u32) -> io::Result<Self> {
        let mut builder = names.builder();
        builder.permissions(Permissions::from_mode(mode));
        loop {
            let dir = builder.tempdir_in(parent).map_err(without_path)?;
            match locked(File::open(dir.path())?, dir.path()) {
                Locked::Yes(lock) => {
                    return Ok(Self {
                        dir,
                        _lock: Some(lock),
                    });
                }
                Locked::Swept => {}
                Locked::Unknown => return Ok(Self { dir, _lock: None }),
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves the folder where it is.
    pub fn keep(self) {
        let _ = self.dir.keep();
    }
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner.
    Owner,
    /// Whom the umask allows, as for any file that a program makes.
    ByUmask,
}

/// A locked temporary file, removed when dropped.
pub struct TemporaryFile(NamedTempFile);

impl TemporaryFile {
    /// Makes a file in `parent`. It keeps its mode when it gets its name.
    pub fn create(parent: &Path, names: &Names, readers: Readers) -> io::Result<Self> {
        // The system takes the umask's bits from it.
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::ByUmask => 0o666,
        };
        let mut builder = names.builder();
        builder.permissions(Permissions::from_mode(mode));
        loop {
            let file = builder.tempfile_in(parent).map_err(without_path)?;
            // The lock belongs to the open file, which this shares with its clone.
            match locked(file.as_file().try_clone()?, file.path()) {
                Locked::Yes(_) | Locked::Unknown => return Ok(Self(file)),
                Locked::Swept => {}
            }
        }
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        self.0.as_file_mut()
    }

    /// Renames it to `target`. An existing file there is replaced if `overwrite`; else that is an error
    /// of the kind [`io::ErrorKind::AlreadyExists`].
    pub fn persist(self, target: &Path, overwrite: bool) -> io::Result<()> {
        let persisted = if overwrite {
            self.0.persist(target)
        } else {
            self.0.persist_noclobber(target)
        };
        persisted
            .map(|_| ())
            .map_err(|failed| without_path(failed.error))
    }
}

enum Locked {
    Yes(File),
    /// A sweep of another process took it for a leftover before it was locked.
    Swept,
    /// The file system has no locks.
    Unknown,
}

fn locked(lock: File, path: &Path) -> Locked {
    match lock.try_lock() {
        Ok(()) if is_at(&lock, path) => Locked::Yes(lock),
        Ok(()) | Err(TryLockError::WouldBlock) => Locked::Swept,
        Err(TryLockError::Error(_)) => Locked::Unknown,
    }
}

/// Removes the files and folders of these names in `parent` that no living process has locked; returns
/// their paths.
pub fn sweep(parent: &Path, names: &Names) -> io::Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    for path in listed(parent, names)? {
        if let Some(_lock) = lock_of_dead(&path) {
            remove(&path)?;
            swept.push(path);
        }
    }
    Ok(swept)
}

/// The files and folders of these names in `parent`, sorted.
pub(crate) fn listed(parent: &Path, names: &Names) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if names.include(&entry.file_name()) && (kind.is_dir() || kind.is_file()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The lock of a file or folder whose process is dead; None if the process lives or that cannot be
/// known.
pub(crate) fn lock_of_dead(path: &Path) -> Option<File> {
    let lock = File::open(path).ok()?;
    lock.try_lock().ok()?;
    is_at(&lock, path).then_some(lock)
}

/// Whether the open file or folder is (still) the one at `path`.
fn is_at(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Removes a file or a folder; one that another sweep has removed is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The system's error alone: tempfile adds the temporary name, which tells people nothing.
fn without_path(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.split_once(" at path ") {
        Some((text, _)) if error.raw_os_error().is_none() => {
            io::Error::new(error.kind(), text.to_owned())
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(".fovea-", ".part")
    }

    #[test]
    fn only_what_no_living_process_has_locked_is_swept() {
        let dir = tempfile::tempdir().expect("folder");
        let parent = dir.path();
        let mut file = TemporaryFile::create(parent, &names(), Readers::Owner).expect("create");
        let folder = TemporaryFolder::create(parent, &names(), 0o700).expect("create");
        let dead = parent.join(".fovea-dead.part");
        fs::write(&dead, "x").expect("write");
        let dead_folder = parent.join(".fovea-gone.part");
        fs::create_dir(&dead_folder).expect("create");
        for other in [".fovea-dead", "fovea-dead.part", ".fovea.part"] {
            fs::write(parent.join(other), "x").expect("write");
        }
        assert_eq!(sweep(parent, &names()).expect("sweep"), [dead, dead_folder]);
        assert_eq!(listed(parent, &names()).expect("list").len(), 2);
        assert!(file.file().metadata().is_ok() && folder.path().is_dir());
        drop((file, folder));
        assert_eq!(fs::read_dir(parent).expect("list").count(), 3);
    }

    #[test]
    fn a_file_is_replaced_only_on_request() {
        let dir = tempfile::tempdir().expect("folder");
        let target = dir.path().join("target");
        let new = || TemporaryFile::create(dir.path(), &names(), Readers::ByUmask).expect("create");
        new().persist(&target, false).expect("persist");
        let refused = new().persist(&target, false).expect_err("it exists");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        new().persist(&target, true).expect("persist");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn a_file_has_its_readers_and_keeps_them() {
        let dir = tempfile::tempdir().expect("folder");
        let target = dir.path().join("target");
        let made = |readers| {
            let file = TemporaryFile::create(dir.path(), &names(), readers).expect("create");
            file.persist(&target, true).expect("persist");
            mode(&target)
        };
        assert_eq!(made(Readers::Owner), 0o600);
        // As any other file, whatever the umask of the tests is.
        let other = dir.path().join("other");
        fs::write(&other, "x").expect("write");
        assert_eq!(made(Readers::ByUmask), mode(&other));
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn an_error_does_not_show_the_temporary_name() {
        let dir = tempfile::tempdir().expect("folder");
        let nowhere = dir.path().join("nowhere");
        for error in [
            TemporaryFile::create(&nowhere, &names(), Readers::Owner).err(),
            TemporaryFolder::create(&nowhere, &names(), 0o700).err(),
        ] {
            let error = error.expect("there is no folder");
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert_eq!(error.to_string(), "No such file or directory (os error 2)");
        }
    }
}
