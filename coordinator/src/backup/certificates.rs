//! The files of TLS in a backup: the coordinator's certificate and key, the CAs, and the CA's key if the coordinator has it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fovea_security::{FileError, write_private};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Config;

/// The largest that is read, bytes.
pub(super) const LARGEST: u64 = 4 << 20;

/// Where they are put by a restoration, in the data folder.
pub(super) const FOLDER: &str = "restored-tls";

/// Their names in the archive, by the configuration's key.
const NAMES: [(&str, &str); 4] = [
    ("tls_certificate", "tls/coordinator.pem"),
    ("tls_key", "tls/coordinator.key"),
    ("tls_ca", "tls/ca.pem"),
    ("tls_ca_key", "tls/ca.key"),
];

/// A file as the archive describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub name: String,
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// A file with its content.
#[derive(Clone)]
pub(crate) struct Content {
    pub entry: Entry,
    pub bytes: Vec<u8>,
}

/// Does not show keys.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entry.fmt(f)
    }
}

/// The paths that a configuration names, each with its name in the archive.
pub(crate) fn paths(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let paths = [
        &config.tls_certificate,
        &config.tls_key,
        &config.tls_ca,
        &config.tls_ca_key,
    ];
    let named = NAMES.iter().zip(paths);
    named
        .filter(|(_, path)| !path.as_os_str().is_empty())
        .map(|((_, name), path)| (*name, path.clone()))
        .collect()
}

/// Reads a file.
pub(super) fn read(name: &str, path: &Path) -> io::Result<Content> {
    if fs::metadata(path)?.len() > LARGEST {
        return Err(io::Error::other("it is too large for a certificate or key"));
    }
    let bytes = fs::read(path)?;
    Ok(Content {
        entry: Entry {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(&bytes)),
        },
        bytes,
    })
}

/// Whether an archive may have a file of that name.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.iter().any(|(_, known)| *known == name)
}

/// Writes them into a new folder below `root`, for their owner only: all of them, or nothing is left of them.
pub(super) fn write(root: &Path, contents: &[Content]) -> Result<PathBuf, FileError> {
    let folder = root.join(FOLDER);
    let made = fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|source| FileError::Write {
        path: folder.clone(),
        source,
    })?;
    let written = contents.iter().try_for_each(|Content { entry, bytes }| {
        let name = entry.name.trim_start_matches("tls/");
        write_private(&folder.join(name), &String::from_utf8_lossy(bytes))
    });
    if let Err(error) = written {
        // What counts is why they were not written.
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    Ok(folder)
}

/// The keys of the configuration that name these files, in lines for people.
pub(super) fn settings(folder: &Path, entries: &[Entry]) -> Vec<String> {
    let of = |(key, name): &(&str, &str)| {
        entries.iter().find(|entry| entry.name == *name)?;
        let path = folder.join(name.trim_start_matches("tls/"));
        Some(format!("  {key} = {:?}", path.display().to_string()))
    };
    NAMES.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_all_be_written_leave_nothing() {
        let root = tempfile::tempdir().unwrap();
        let content = |name: &str| Content {
            entry: Entry {
                name: name.to_owned(),
                bytes: 3,
                sha256: String::new(),
            },
            bytes: b"key".to_vec(),
        };
        let key = content("tls/ca.key");
        // Its folder is missing.
        let other = content("tls/missing/ca.pem");
        let error = write(root.path(), &[key.clone(), other]).unwrap_err();
        assert!(error.to_string().contains("missing/ca.pem"), "{error}");
        assert!(!root.path().join(FOLDER).exists(), "a private key is left");
        let folder = write(root.path(), &[key]).unwrap();
        assert_eq!(fs::read(folder.join("ca.key")).unwrap(), b"key");
    }
}
