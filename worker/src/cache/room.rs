//! The cache's size: packs and weights are evicted by their last use, and leftovers of killed processes are removed.
//!
//! Several workers may share one folder. A file that any of them has open carries a shared lock, and is never
//! evicted. A file's modification time is its last use.

use std::fs::{DirEntry, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fovea_dataset::Blocks;
use tracing::{info, warn};

use super::files::{ASIDE, TEMPORARY};

/// The folder of weights below the cache's.
pub(super) const WEIGHTS: &str = "weights";
/// A temporary file may be without its lock for a moment after its creation.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);

/// A file that may be evicted.
struct Candidate {
    path: PathBuf,
    bytes: u64,
    /// Put aside, so of no use.
    aside: bool,
    used: SystemTime,
}

/// Keeps an open file from being evicted, and notes that it is used now.
pub(super) fn hold(file: &File) {
    // Where the file system has no locks, nothing is evicted.
    let _ = file.lock_shared();
    // Of another user's file the time cannot be set; it then counts as used when it was fetched.
    let _ = file.set_modified(SystemTime::now());
}

/// Evicts packs and weights below `dir` until `needed` more bytes fit below `limit` bytes (0: no limit), but none below `keep`.
/// Returns whether they fit.
pub(super) fn make_room(
    dir: &Path,
    limit: u64,
    needed: u64,
    keep: Option<&Path>,
) -> io::Result<bool> {
    if limit == 0 {
        return Ok(true);
    }
    let (mut total, mut candidates) = (needed, Vec::new());
    let weights = dir.join(WEIGHTS);
    for entry in files(dir)? {
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed by another worker meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        total += metadata.len();
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let aside = name.ends_with(ASIDE);
        let kept = keep.is_some_and(|keep| path.starts_with(keep));
        let is_weights = name.len() == 64 && path.parent() == Some(&weights);
        if aside || (name.ends_with(".pack") || is_weights) && !kept {
            candidates.push(Candidate {
                path,
                bytes: metadata.len(),
                aside,
                used: metadata.modified()?,
            });
        }
    }
    candidates.sort_by_key(|candidate| (!candidate.aside, candidate.used));
    for candidate in candidates {
        if total <= limit {
            break;
        }
        if evict(&candidate)? {
            total -= candidate.bytes;
        }
    }
    Ok(total <= limit)
}

/// Removes a file that is not in use. Returns whether it did.
fn evict(candidate: &Candidate) -> io::Result<bool> {
    let Candidate {
        path, bytes, aside, ..
    } = candidate;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        // Whether it is in use is not known.
        Err(_) if !aside => return Ok(false),
        Err(_) => {
            std::fs::remove_file(path)?;
            return Ok(true);
        }
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return Ok(false),
    }
    std::fs::remove_file(path)?;
    if !aside {
        // Its digests are of no use without it, and are written again with it.
        let _ = std::fs::remove_file(Blocks::path(path));
    }
    info!(
        bytes,
        "cache.evicted: removed {} to stay within cache_disk_mib; it is fetched again when it is needed",
        path.display()
    );
    Ok(true)
}

/// Removes temporary files below `dir` that processes which were killed have left. Returns how many.
pub fn sweep(dir: &Path) -> usize {
    let leftovers = match files(dir) {
        Ok(files) => files,
        Err(error) => {
            warn!(
                "cache.unreadable: cannot look for leftovers in {}: {error}",
                dir.display()
            );
            return 0;
        }
    };
    let mut swept = 0;
    for entry in leftovers {
        let is_temporary = entry.file_name().to_string_lossy().contains(TEMPORARY);
        if is_temporary && is_leftover(&entry) {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => swept += 1,
                Err(error) => warn!(
                    "cache.unreadable: cannot remove the leftover {}: {error}",
                    entry.path().display()
                ),
            }
        }
    }
    if swept > 0 {
        info!(
            "cache.swept: removed {swept} unfinished downloads of killed workers from {}",
            dir.display()
        );
    }
    swept
}

fn is_leftover(entry: &DirEntry) -> bool {
    let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|age| age > LEFTOVER_AGE)
    });
    old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
}

/// All files of datasets and weights below `dir`.
fn files(dir: &Path) -> io::Result<Vec<DirEntry>> {
    let mut files = entries(&dir.join(WEIGHTS))?;
    files.retain(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    for dataset in entries(&dir.join("datasets"))? {
        let dataset = dataset.path();
        if !dataset.is_dir() {
            continue;
        }
        let packs = entries(&dataset.join("packs"))?;
        for entry in entries(&dataset)?.into_iter().chain(packs) {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                files.push(entry);
            }
        }
    }
    Ok(files)
}

/// The entries of a folder; none if there is no such folder.
fn entries(dir: &Path) -> io::Result<Vec<DirEntry>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(folder.path("")).unwrap();
            folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join("datasets/d/packs").join(name)
        }

        /// A file of `bytes` bytes, last used so many seconds ago.
        fn file(&self, name: &str, bytes: usize, seconds: u64) -> File {
            std::fs::write(self.path(name), vec![0; bytes]).unwrap();
            let file = File::options().write(true).open(self.path(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds))
                .unwrap();
            file
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = std::fs::read_dir(self.path(""))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn packs_go_by_their_last_use_and_never_those_in_use() {
        let folder = Folder::new();
        folder.file("0.pack", 100, 40);
        folder.file("0.pack.blocks", 1, 40);
        let used = folder.file("1.pack", 100, 30);
        used.lock_shared().unwrap();
        folder.file("2.pack", 100, 20);
        folder.file("3.pack", 100, 10);
        folder.file("4.pack.corrupt", 100, 0);
        let room = |limit, needed| make_room(folder.0.path(), limit, needed, None).unwrap();
        assert!(room(0, 1 << 40), "no limit");
        assert!(room(501, 0));
        assert_eq!(folder.names().len(), 6);
        assert!(room(501, 100));
        let names = ["0.pack", "0.pack.blocks", "1.pack", "2.pack", "3.pack"];
        assert_eq!(folder.names(), names, "what was put aside goes first");
        let keep = folder.path("");
        assert!(!make_room(folder.0.path(), 401, 50, Some(&keep)).unwrap());
        assert_eq!(folder.names(), names, "packs of this dataset are kept");
        assert!(room(401, 50));
        assert_eq!(folder.names(), ["1.pack", "2.pack", "3.pack"]);
        assert!(room(250, 0));
        assert_eq!(folder.names(), ["1.pack", "3.pack"]);
        assert!(!room(50, 0), "what is in use stays");
        assert_eq!(folder.names(), ["1.pack"]);
        drop(used);
        assert!(room(50, 0));
        assert_eq!(folder.names(), [""; 0]);
    }

    #[test]
    fn only_what_a_killed_process_left_is_swept() {
        let folder = Folder::new();
        assert_eq!(sweep(&folder.0.path().join("none")), 0);
        folder.file("0.pack", 10, 100);
        folder.file("0.pack.tmp-1-ab-0", 10, 100);
        folder.file("1.pack.tmp-1-ab-1", 10, 0);
        let live = folder.file("2.pack.tmp-1-ab-2", 10, 100);
        live.lock().unwrap();
        assert_eq!(sweep(folder.0.path()), 1);
        let rest = ["0.pack", "1.pack.tmp-1-ab-1", "2.pack.tmp-1-ab-2"];
        assert_eq!(folder.names(), rest);
    }
}
