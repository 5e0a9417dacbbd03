//! Packs: raw records of one size, one after the other, read by position.
//!
//! A pack is verified as a whole by the SHA-256 in the manifest ([`verify_pack`]). With the digests of its records
//! ([`Blocks`]) every single read is verified, too.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Blocks, PackEntry};

/// An open pack. Reading takes `&self` and moves no cursor, so threads can share it.
#[derive(Debug)]
pub struct PackFile {
    path: PathBuf,
    file: File,
    record_bytes: u64,
    records: u32,
    blocks: Option<Blocks>,
}

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The file cannot be opened or read now. Says nothing about its content.
    #[error("pack {}: {source}", path.display())]
    Io {
        /// The pack.
        path: PathBuf,
        /// What the system reported.
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
    /// A record's content is not what it was when the whole pack was verified.
    #[error("pack {} is damaged: record {record} does not match its digest; fetch or prepare it again", path.display())]
    Record {
        /// The pack.
        path: PathBuf,
        /// The record.
        record: u32,
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

impl PackError {
    /// Whether a complete read, or the file's size, differs from the manifest. An I/O error is not that.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Self::Size { .. } | Self::Digest { .. } | Self::Record { .. } => true,
            Self::Io { .. } | Self::Request { .. } => false,
        }
    }
}

impl PackFile {
    /// Opens the pack at `path` and checks its size. Its content is not checked: [`verify_pack`] does that for the
    /// whole pack, and [`PackFile::with_blocks`] for every read.
    pub fn open(path: &Path, record_bytes: u64, entry: &PackEntry) -> Result<Self, PackError> {
        let file = open(path, entry)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            record_bytes,
            records: entry.records,
            blocks: None,
        })
    }

    /// Compares every record that is read with its digest in `blocks`.
    #[must_use]
    pub fn with_blocks(self, blocks: Blocks) -> Self {
        Self {
            blocks: Some(blocks),
            ..self
        }
    }

    /// The open file, for locks and times.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
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
            })?;
        match &self.blocks {
            Some(blocks) if !blocks.matches(record, buffer) => Err(PackError::Record {
                path: self.path.clone(),
                record,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Number of records.
    pub fn records(&self) -> u32 {
        self.records
    }
}

/// Reads the pack at `path` once through and compares its size and SHA-256 with the manifest's.
pub fn verify_pack(path: &Path, entry: &PackEntry) -> Result<(), PackError> {
    read_whole(path, entry, 256 << 10, &mut |_| {})
}

/// Does what [`verify_pack`] does, and passes the content to `visit` in pieces of `piece` bytes; the last may be
/// shorter.
pub(crate) fn read_whole(
    path: &Path,
    entry: &PackEntry,
    piece: usize,
    visit: &mut dyn FnMut(&[u8]),
) -> Result<(), PackError> {
    let mut file = open(path, entry)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; piece.max(1)];
    loop {
        let read = read_full(&mut file, &mut buffer).map_err(|source| PackError::Io {
            path: path.to_owned(),
            source,
        })?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        visit(&buffer[..read]);
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

/// Fills `buffer` as far as the file goes.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
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
    fn a_flipped_bit_is_found_by_the_read_of_its_record_only() {
        let (file, entry) = pack();
        let blocks = Blocks::of_pack(file.path(), 10, &entry).expect("whole");
        let mut bytes = std::fs::read(file.path()).expect("read");
        let pack = PackFile::open(file.path(), 10, &entry)
            .expect("open")
            .with_blocks(blocks);
        let mut record = [0; 10];
        for bit in 0..80 {
            bytes[10 + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(file.path(), &bytes).expect("write");
            let error = pack.read(1, &mut record).expect_err("changed");
            assert!(matches!(error, PackError::Record { record: 1, .. }));
            assert!(error.is_corrupt());
            pack.read(0, &mut record).expect("unchanged");
            pack.read(2, &mut record).expect("unchanged");
            bytes[10 + bit / 8] ^= 1 << (bit % 8);
        }
        std::fs::write(file.path(), &bytes[..25]).expect("write");
        let error = pack.read(2, &mut record).expect_err("truncated");
        assert!(matches!(error, PackError::Io { .. }), "{error}");
        assert!(Blocks::of_pack(file.path(), 10, &entry).is_err());
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
