//! Compiled kernels, kept in the worker's data folder: compiling takes seconds, and a worker that comes back should not.
//!
//! A file's name is the digest of everything that it was made of. It begins with the SHA-256 of what follows, so that a damaged
//! one is found and made anew. Files are written under another name and renamed; several workers may share the folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fovea_dataset::make_private;
use sha2::{Digest, Sha256};

/// Files that are kept: a worker needs two at a time, and versions and GPUs change.
const MOST: usize = 16;
/// Their names' end.
const SUFFIX: &str = "cubin";
/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// The name for what was made of `parts`.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// A folder of kept files.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Files in `folder`, which is made when there is something to keep.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the file of this name is.
    pub fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.{SUFFIX}"))
    }

    /// What was kept under this name, if it is there and whole.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(key)).ok()?;
        let (digest, content) = bytes.split_at_checked(DIGEST)?;
        (Sha256::digest(content)[..] == *digest).then(|| content.to_vec())
    }

    /// Keeps `content`, and removes the oldest files beyond a number.
    ///
    /// # Errors
    /// If the folder or the file cannot be written; then nothing of it is there.
    pub fn put(&self, key: &str, content: &[u8]) -> io::Result<()> {
        // The data folder above it, for photographs of patients, may be made with it.
        make_private(&self.folder)?;
        let temporary = tempfile::NamedTempFile::new_in(&self.folder)?;
        let bytes = [&Sha256::digest(content)[..], content].concat();
        fs::write(temporary.path(), bytes)?;
        temporary.as_file().sync_all()?;
        temporary.persist(self.path(key)).map_err(|e| e.error)?;
        self.prune();
        Ok(())
    }

    /// Removes the oldest files. If that fails, the next time does it.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut files: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let written = fs::metadata(&path).ok()?.modified().ok()?;
                is_kept(&path).then_some((written, path))
            })
            .collect();
        files.sort();
        for (_, path) in files.iter().rev().skip(MOST) {
            let _ = fs::remove_file(path);
        }
    }
}

fn is_kept(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_and_a_damaged_file_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().join("kernels"));
        let (one, other) = (key(&["a", "b"]), key(&["ab"]));
        assert_ne!(one, other, "parts are told apart");
        assert_eq!(kept.get(&one), None);
        kept.put(&one, b"content").unwrap();
        kept.put(&other, b"").unwrap();
        assert_eq!(kept.get(&one).unwrap(), b"content");
        assert_eq!(kept.get(&other).unwrap(), b"");
        let whole = fs::read(kept.path(&one)).unwrap();
        for damage in [whole.len() - 1, 20, 0] {
            fs::write(kept.path(&one), &whole[..damage]).unwrap();
            assert_eq!(kept.get(&one), None, "cut to {damage}");
        }
        let mut flipped = whole.clone();
        flipped[DIGEST + 2] ^= 1;
        fs::write(kept.path(&one), &flipped).unwrap();
        assert_eq!(kept.get(&one), None);
        kept.put(&one, b"content").unwrap();
        assert_eq!(fs::read(kept.path(&one)).unwrap(), whole);
    }

    #[test]
    fn the_oldest_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().to_owned());
        fs::write(folder.path().join("another"), "").unwrap();
        for i in 0..MOST + 3 {
            let name = format!("{i:03}");
            kept.put(&name, name.as_bytes()).unwrap();
            let file = fs::File::open(kept.path(&name)).unwrap();
            let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(i as u64);
            file.set_modified(written).unwrap();
        }
        // The last one was new when the oldest went.
        let there = |i: usize| kept.get(&format!("{i:03}")).is_some();
        assert!(!there(0) && !there(2) && there(3) && there(MOST + 2));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MOST + 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let kept = Kept::new(file.join("kernels"));
        assert!(kept.put("name", b"content").is_err());
        assert_eq!(kept.get("name"), None);
    }
}
