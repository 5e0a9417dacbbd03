//! A file that is being fetched: temporary beside its target, verified, and only then renamed.

use std::io::Write;
use std::path::{Path, PathBuf};

use fovea_core::count::{count, plural};
use fovea_dataset::leftovers::{self, Names, Readers, TemporaryFile};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// A file under way. Dropping it leaves nothing behind.
pub(crate) struct Receiving {
    /// What it is, for people.
    what: String,
    target: PathBuf,
    overwrite: bool,
    file: TemporaryFile,
    hash: Sha256,
    received: u64,
    expected: u64,
}

/// A target that is there already is replaced only if `overwrite`. To be asked before anything is fetched.
pub(crate) fn check_target(target: &Path, overwrite: bool) -> Result<(), Error> {
    if target.is_dir() {
        return Err(Error::Usage(format!(
            "{} is a folder: name a file in it",
            target.display()
        )));
    }
    if !overwrite && target.symlink_metadata().is_ok() {
        return Err(exists(target));
    }
    let folder = folder_of(target);
    if !folder.is_dir() {
        return Err(Error::Usage(format!(
            "{}: there is no folder {}; make it first",
            target.display(),
            folder.display()
        )));
    }
    // It is removed at once.
    let names = Names::new(".fovea-", ".part");
    TemporaryFile::create(folder, &names, Readers::Owner).map_err(|e| Error::io(folder, e))?;
    Ok(())
}

fn exists(target: &Path) -> Error {
    Error::Exists {
        path: target.to_owned(),
    }
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes a whole file, for those to read whom the umask allows: it appears under its name complete, or not at all.
pub(crate) fn write_whole(target: &Path, overwrite: bool, bytes: &[u8]) -> Result<(), Error> {
    let (what, expected) = ("the file".into(), bytes.len() as u64);
    let mut file = Receiving::begin(what, target, overwrite, expected, Readers::ByUmask)?;
    file.take(bytes)?;
    file.persist()
}

impl Receiving {
    /// Begins a file of `expected` bytes, which `readers` may read. What killed fetches left in the folder is swept.
    pub(crate) fn begin(
        what: String,
        target: &Path,
        overwrite: bool,
        expected: u64,
        readers: Readers,
    ) -> Result<Self, Error> {
        let folder = folder_of(target);
        let parts = Names::new(".fovea-", ".part");
        // Housekeeping: a folder that cannot be listed does not prevent the fetch.
        let _ = leftovers::sweep(folder, &parts);
        let file = TemporaryFile::create(folder, &parts, readers);
        Ok(Self {
            what,
            target: target.to_owned(),
            overwrite,
            file: file.map_err(|e| Error::io(folder, e))?,
            hash: Sha256::new(),
            received: 0,
            expected,
        })
    }

    /// Takes the next bytes. Returns how many there are now.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        self.received += bytes.len() as u64;
        if self.received > self.expected {
            return Err(self.damaged(format!(
                "more than the {} that were announced arrived",
                count(self.expected, "byte", "bytes")
            )));
        }
        self.hash.update(bytes);
        let written = self.file.file().write_all(bytes);
        written.map_err(|e| Error::io(&self.target, e))?;
        Ok(self.received)
    }

    /// Compares size and SHA-256, and puts the file at its target.
    pub(crate) fn finish(mut self, sha256: &str) -> Result<(), Error> {
        if self.received != self.expected {
            return Err(self.damaged(format!(
                "received {}, {} {} announced",
                count(self.received, "byte", "bytes"),
                self.expected,
                plural(self.expected, "was", "were")
            )));
        }
        let digest = hex::encode(self.hash.finalize_reset());
        if !digest.eq_ignore_ascii_case(sha256) {
            return Err(self.damaged(format!("its SHA-256 is {digest}, {sha256} was announced")));
        }
        self.persist()
    }

    fn persist(mut self) -> Result<(), Error> {
        let target = self.target;
        let io = |e| Error::io(&target, e);
        self.file.file().sync_all().map_err(io)?;
        self.file
            .persist(&target, self.overwrite)
            .map_err(|e| match e.kind() {
                // It was made while this was fetching.
                std::io::ErrorKind::AlreadyExists if !self.overwrite => exists(&target),
                _ => io(e),
            })?;
        let folder = folder_of(&target);
        std::fs::File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| Error::io(folder, e))
    }

    fn damaged(&self, problem: String) -> Error {
        Error::Damaged {
            what: self.what.clone(),
            problem,
        }
    }
}
