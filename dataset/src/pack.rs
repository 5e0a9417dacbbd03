//! Packs: raw records of one size, one after the other, read by position.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::PackEntry;

/// An open pack. Reading takes `&self` and moves no cursor, so threads can share it.
#[derive(Debug)]
pub struct PackFile {
    path: PathBuf,
    file: File,
    record_bytes: u64,
    records: u32,
}

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The file cannot be opened or read.
    #[error("pack {}: {source}", path.display())]
    Io {
        /// The pack.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has another size than the manifest says.
    #[error("pack {} has {found} bytes instead of {expected}: fetch or prepare it again", path.display())]
    Size {
        /// The pack.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The size that the manifest says.
        expected: u64,
    },
    /// The file's content is not what the manifest says.
    #[error("pack {} is damaged (SHA-256 {found} instead of {expected}): fetch or prepare it again", path.display())]
    Digest {
        /// The pack.
        path: PathBuf,
        /// Its SHA-256.
        found: String,
        /// The SHA-256 that the manifest says.
        expected: String,
    },
    /// A record beyond the last, or a buffer of another size than a record.
    #[error("pack {} has {records} records of {record_bytes} bytes; record {record} was asked for into {buffer} bytes", path.display())]
    Request {
        /// The pack.
        path: PathBuf,
        /// How many records it has.
        records: u32,
        /// Bytes of a record.
        record_bytes: u64,
        /// The record asked for.
        record: u32,
        /// Size of the buffer.
        buffer: usize,
    },
}

impl PackFile {
    /// Opens the pack at `path` and checks its size. Its content is [`verify_pack`]'s business.
    pub fn open(path: &Path, record_bytes: u64, entry: &PackEntry) -> Result<Self, PackError> {
        let file = open(path, entry)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            record_bytes,
            records: entry.records,
        })
    }

    /// Reads one record: `image_size` × `image_size` pixels, HWC, B, G, R. `buffer` must have the
    /// size of a record.
    pub fn read(&self, record: u32, buffer: &mut [u8]) -> Result<(), PackError> {
        if record >= self.records || buffer.len() as u64 != self.record_bytes {
            return Err(PackError::Request {
                path: self.path.clone(),
                records: self.records,
                record_bytes: self.record_bytes,
                record,
                buffer: buffer.len(),
            });
        }
        self.file
            .read_exact_at(buffer, u64::from(record) * self.record_bytes)
            .map_err(|source| PackError::Io {
                path: self.path.clone(),
                source,
            })
    }

    /// Number of records.
    pub fn records(&self) -> u32 {
        self.records
    }
}

/// Reads the pack at `path` once through and compares its size and SHA-256 with the manifest's.
pub fn verify_pack(path: &Path, entry: &PackEntry) -> Result<(), PackError> {
    let mut file = open(path, entry)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(PackError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
    let found = hex::encode(hash.finalize());
    if found != entry.sha256 {
        return Err(PackError::Digest {
            path: path.to_owned(),
            found,
            expected: entry.sha256.clone(),
        });
    }
    Ok(())
}

fn open(path: &Path, entry: &PackEntry) -> Result<File, PackError> {
    let at = |source| PackError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(at)?;
    let found = file.metadata().map_err(at)?.len();
    if found != entry.bytes {
        return Err(PackError::Size {
            path: path.to_owned(),
            found,
            expected: entry.bytes,
        });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;

    fn pack() -> (tempfile::NamedTempFile, PackEntry) {
        let bytes: Vec<u8> = (0..30).collect();
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), &bytes).expect("write");
        let entry = PackEntry {
            file: "packs/a.pack".to_owned(),
            split: Split::Train,
            records: 3,
            bytes: 30,
            sha256: crate::sha256_hex(&bytes),
        };
        (file, entry)
    }

    #[test]
    fn records_are_read_by_position() {
        let (file, entry) = pack();
        let pack = PackFile::open(file.path(), 10, &entry).expect("open");
        let mut record = [0; 10];
        for (number, first) in [(2, 20), (0, 0), (1, 10)] {
            pack.read(number, &mut record).expect("read");
            assert_eq!((record[0], record[9]), (first, first + 9));
        }
        assert!(matches!(
            pack.read(3, &mut record),
            Err(PackError::Request { .. })
        ));
        assert!(matches!(
            pack.read(0, &mut [0; 9]),
            Err(PackError::Request { .. })
        ));
    }

    #[test]
    fn a_short_or_changed_pack_is_refused() {
        let (file, entry) = pack();
        verify_pack(file.path(), &entry).expect("whole");
        let mut bytes = std::fs::read(file.path()).expect("read");
        bytes[17] ^= 1;
        std::fs::write(file.path(), &bytes).expect("write");
        assert!(matches!(
            verify_pack(file.path(), &entry),
            Err(PackError::Digest { .. })
        ));
        std::fs::write(file.path(), &bytes[..29]).expect("write");
        assert!(matches!(
            verify_pack(file.path(), &entry),
            Err(PackError::Size { found: 29, .. })
        ));
        assert!(matches!(
            PackFile::open(file.path(), 10, &entry),
            Err(PackError::Size { .. })
        ));
        let gone = PackFile::open(Path::new("gone.pack"), 10, &entry).expect_err("gone");
        assert!(gone.to_string().contains("gone.pack"));
    }
}
