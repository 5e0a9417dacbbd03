//! The temporary folder beside a dataset's destination, and the sweep of those that killed processes
//! left ([`crate::leftovers`]), with the datasets that these were replacing.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::leftovers::{Names, TemporaryFolder, listed, lock_of_dead};

pub(super) use crate::leftovers::remove;

/// A locked temporary folder, removed when dropped.
pub(super) struct Temporary(TemporaryFolder);

/// Ends the name of the dataset that is being replaced, which is moved aside until its successor has
/// been renamed into place.
const REPLACED: &str = "-old";

impl Temporary {
    /// Makes the folder `.NAME.tmp-RANDOM` in `parent`.
    pub fn create(parent: &Path, name: &OsStr) -> io::Result<Self> {
        // As mkdir does it: others may read a dataset if the umask allows.
        TemporaryFolder::create(parent, &names(name), 0o777).map(Self)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where the dataset that this folder replaces is moved meanwhile.
    pub fn replaced(&self) -> PathBuf {
        let mut name = self.path().as_os_str().to_owned();
        name.push(REPLACED);
        name.into()
    }

    /// Leaves the folder where it is.
    pub fn keep(self) {
        self.0.keep();
    }
}

/// What was done with a leftover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Swept {
    /// Removed.
    Removed(PathBuf),
    /// Moved back: it is the dataset that was being replaced, and its successor never came.
    Restored(PathBuf),
}

/// Sweeps what killed processes left beside `out`.
///
/// Only folders of this destination are touched, and of these only such as no process has locked.
pub(super) fn sweep(parent: &Path, out: &Path, name: &OsStr) -> io::Result<Vec<Swept>> {
    let mut folders = listed(parent, &names(name))?;
    folders.retain(|path| path.is_dir());
    let (replaced, temporary): (Vec<_>, Vec<_>) = folders
        .into_iter()
        .partition(|path| path.as_os_str().as_bytes().ends_with(REPLACED.as_bytes()));
    let mut swept = Vec::new();
    for path in replaced {
        let bytes = path.as_os_str().as_bytes();
        let successor = Path::new(OsStr::from_bytes(&bytes[..bytes.len() - REPLACED.len()]));
        if successor.exists() && lock_of_dead(successor).is_none() {
            continue;
        }
        let taken = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
        if taken {
            // Its successor is in place: all that was left to do was to remove it.
            remove(&path)?;
            swept.push(Swept::Removed(path));
        } else {
            fs::rename(&path, out)?;
            swept.push(Swept::Restored(out.to_owned()));
        }
    }
    for path in temporary {
        if let Some(_lock) = lock_of_dead(&path) {
            remove(&path)?;
            swept.push(Swept::Removed(path));
        }
    }
    Ok(swept)
}

fn names(name: &OsStr) -> Names {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".tmp-");
    Names::new(prefix, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(parent: &Path, name: &str, content: &str) -> PathBuf {
        let path = parent.join(name);
        fs::create_dir(&path).expect("create");
        fs::write(path.join("file"), content).expect("write");
        path
    }

    fn swept(parent: &Path) -> Vec<Swept> {
        sweep(parent, &parent.join("set"), "set".as_ref()).expect("sweep")
    }

    #[test]
    fn only_folders_of_dead_processes_are_removed() {
        let dir = tempfile::tempdir().expect("folder");
        let parent = dir.path();
        let live = Temporary::create(parent, "set".as_ref()).expect("create");
        fs::write(live.path().join("file"), "x").expect("write");
        let dead = folder(parent, ".set.tmp-dead", "x");
        let other = folder(parent, ".set2.tmp-dead", "x");
        fs::write(parent.join(".set.tmp-file"), "x").expect("write");
        assert_eq!(swept(parent), [Swept::Removed(dead.clone())]);
        assert!(!dead.exists());
        assert!(other.exists() && live.path().join("file").exists());
        assert!(parent.join(".set.tmp-file").exists(), "it is no folder");
        assert_eq!(swept(parent), []);
    }

    #[test]
    fn a_replaced_dataset_is_restored_unless_its_successor_is_in_place() {
        let dir = tempfile::tempdir().expect("folder");
        let parent = dir.path();
        // Killed between the two renames: old aside, new not yet in place.
        folder(parent, ".set.tmp-a-old", "old");
        let new = folder(parent, ".set.tmp-a", "new");
        let out = parent.join("set");
        assert_eq!(
            swept(parent),
            [Swept::Restored(out.clone()), Swept::Removed(new)]
        );
        assert_eq!(fs::read_to_string(out.join("file")).expect("read"), "old");
        // Killed after both: only the removal was missing.
        let old = folder(parent, ".set.tmp-b-old", "older");
        assert_eq!(swept(parent), [Swept::Removed(old)]);
        assert_eq!(fs::read_to_string(out.join("file")).expect("read"), "old");
    }

    #[test]
    fn a_replacement_under_way_is_left_alone() {
        let dir = tempfile::tempdir().expect("folder");
        let live = Temporary::create(dir.path(), "set".as_ref()).expect("create");
        fs::create_dir(live.replaced()).expect("create");
        assert_eq!(swept(dir.path()), []);
        assert!(live.replaced().exists());
    }
}
