//! Record digests of a cached pack, kept in a sidecar file beside it (`0.pack.blocks`).
//!
//! A pack's SHA-256 can only be checked by reading the whole pack, which is too slow for every start and says
//! nothing about a later read. So whoever has verified a whole pack once writes an XXH3-64 of each record to a
//! sidecar, and every read of a record is then compared with its digest (about 10 µs for 150 kB).
//!
//! Layout, little-endian:
//!
//! ```text
//! magic "FOVEABLK" | version u32 | pack u32 | dataset digest, 64 ASCII bytes | record size u64 | records u32
//! XXH3-64 of each record, u64 each | XXH3-128 of all bytes before it, u128
//! ```
//!
//! The content follows from the pack alone, so several processes may write the same sidecar.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::pack::{PackError, read_whole};
use crate::{Manifest, PackEntry};

const MAGIC: &[u8; 8] = b"FOVEABLK";
const VERSION: u32 = 1;
/// Bytes of a dataset's digest in hexadecimal.
const DIGEST: usize = 64;
const HEADER: usize = 8 + 4 + 4 + DIGEST + 8 + 4;
const TRAILER: usize = 16;

/// Digests of all records of one pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks(Vec<u64>);

/// The pack that a sidecar belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlocksId {
    /// Digest of the dataset, 64 hexadecimal digits.
    pub dataset: String,
    /// Index of the pack in the manifest.
    pub pack: u32,
    /// Bytes of a record.
    pub record_bytes: u64,
    /// Records in the pack.
    pub records: u32,
}

impl BlocksId {
    /// That of the pack with index `pack` in `manifest`.
    ///
    /// # Panics
    /// If the manifest has no such pack.
    pub fn new(manifest: &Manifest, pack: u32) -> Self {
        Self {
            dataset: manifest.digest.clone(),
            pack,
            record_bytes: manifest.record_bytes,
            records: manifest.packs[pack as usize].records,
        }
    }
}

/// Why a sidecar cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The file cannot be opened or read now, or does not exist.
    #[error("record digests {}: {source}", path.display())]
    Io {
        /// The sidecar.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// A complete read is not what was written.
    #[error("record digests {} are corrupt: {problem}", path.display())]
    Corrupt {
        /// The sidecar.
        path: PathBuf,
        /// What differs.
        problem: BlocksProblem,
    },
}

/// What of a sidecar is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlocksProblem {
    /// Its size, which follows from the number of records.
    #[error("{found} bytes or more, expected {expected}")]
    Length {
        /// Bytes that were read; one more than expected at most.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// The digest at its end.
    #[error("its own digest does not match")]
    Digest,
    /// Its header.
    #[error(
        "it belongs to another pack than pack {pack} of dataset {dataset}, or to another version of \
         the format"
    )]
    Foreign {
        /// Number of the expected pack.
        pack: u32,
        /// Digest of the expected pack's dataset.
        dataset: String,
    },
}

impl BlocksError {
    /// Whether there is no sidecar at all.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Blocks {
    /// Reads the whole pack at `path`, compares its size and SHA-256 with the manifest's, and digests its records.
    pub fn of_pack(path: &Path, record_bytes: u64, entry: &PackEntry) -> Result<Self, PackError> {
        let mut digests = Vec::with_capacity(entry.records as usize);
        read_whole(path, entry, record_bytes as usize, &mut |record| {
            digests.push(xxh3_64(record));
        })?;
        Ok(Self(digests))
    }

    /// The sidecar's path for the pack at `pack`.
    pub fn path(pack: &Path) -> PathBuf {
        let mut name = pack.file_name().unwrap_or_default().to_owned();
        name.push(".blocks");
        pack.with_file_name(name)
    }

    /// Reads the sidecar of the pack at `pack`, which must belong to `id`.
    pub fn load(pack: &Path, id: &BlocksId) -> Result<Self, BlocksError> {
        let path = Self::path(pack);
        let length = HEADER + id.records as usize * 8 + TRAILER;
        let mut bytes = Vec::with_capacity(length + 1);
        // One byte more than expected is enough to tell that it is too long.
        let read =
            File::open(&path).and_then(|file| file.take(length as u64 + 1).read_to_end(&mut bytes));
        match read {
            Err(source) => Err(BlocksError::Io { path, source }),
            Ok(_) => {
                Self::decode(&bytes, id).map_err(|problem| BlocksError::Corrupt { path, problem })
            }
        }
    }

    /// The sidecar's bytes for a pack of `id`.
    pub fn encode(&self, id: &BlocksId) -> Vec<u8> {
        let mut bytes = header(id);
        for digest in &self.0 {
            bytes.extend_from_slice(&digest.to_le_bytes());
        }
        bytes.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], id: &BlocksId) -> Result<Self, BlocksProblem> {
        let length = HEADER + id.records as usize * 8 + TRAILER;
        if bytes.len() != length {
            return Err(BlocksProblem::Length {
                found: bytes.len(),
                expected: length,
            });
        }
        let (content, trailer) = bytes.split_at(length - TRAILER);
        if xxh3_128(content).to_le_bytes() != *trailer {
            return Err(BlocksProblem::Digest);
        }
        let (found, digests) = content.split_at(HEADER);
        if found != header(id) {
            return Err(BlocksProblem::Foreign {
                pack: id.pack,
                dataset: id.dataset.clone(),
            });
        }
        let digests = digests.as_chunks::<8>().0;
        Ok(Self(
            digests.iter().map(|&d| u64::from_le_bytes(d)).collect(),
        ))
    }

    /// Whether `bytes` are what record number `record` was when the pack was verified.
    pub fn matches(&self, record: u32, bytes: &[u8]) -> bool {
        self.0.get(record as usize) == Some(&xxh3_64(bytes))
    }

    /// Number of records.
    pub fn records(&self) -> u32 {
        self.0.len() as u32
    }
}

fn header(id: &BlocksId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&id.pack.to_le_bytes());
    let mut dataset = [0; DIGEST];
    let digits = &id.dataset.as_bytes()[..id.dataset.len().min(DIGEST)];
    dataset[..digits.len()].copy_from_slice(digits);
    bytes.extend_from_slice(&dataset);
    bytes.extend_from_slice(&id.record_bytes.to_le_bytes());
    bytes.extend_from_slice(&id.records.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> BlocksId {
        BlocksId {
            dataset: "ab".repeat(32),
            pack: 3,
            record_bytes: 10,
            records: 3,
        }
    }

    fn blocks() -> Blocks {
        let bytes: Vec<u8> = (0..30).collect();
        Blocks(bytes.chunks(10).map(xxh3_64).collect())
    }

    #[test]
    fn a_sidecar_comes_back_and_compares_records() {
        let read = Blocks::decode(&blocks().encode(&id()), &id()).expect("decode");
        assert_eq!(read, blocks());
        let record: Vec<u8> = (10..20).collect();
        assert!(read.matches(1, &record));
        assert!(!read.matches(0, &record) && !read.matches(3, &record));
        assert_eq!(read.records(), 3);
    }

    #[test]
    fn any_flipped_bit_any_cut_and_any_other_pack_is_refused() {
        let whole = blocks().encode(&id());
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Blocks::decode(&bytes, &id()).expect_err("a flipped bit");
        }
        for length in 0..whole.len() {
            Blocks::decode(&whole[..length], &id()).expect_err("cut off");
        }
        let longer = [&whole[..], &[0]].concat();
        Blocks::decode(&longer, &id()).expect_err("longer");
        for other in [
            BlocksId { pack: 4, ..id() },
            BlocksId {
                dataset: "cd".repeat(32),
                ..id()
            },
            BlocksId {
                record_bytes: 11,
                ..id()
            },
        ] {
            Blocks::decode(&whole, &other).expect_err("of another pack");
        }
    }

    #[test]
    fn a_missing_sidecar_is_told_from_a_corrupt_one() {
        let dir = tempfile::tempdir().expect("folder");
        let pack = dir.path().join("0.pack");
        assert!(
            Blocks::load(&pack, &id())
                .expect_err("missing")
                .is_missing()
        );
        let path = Blocks::path(&pack);
        assert!(path.ends_with("0.pack.blocks"));
        std::fs::write(&path, blocks().encode(&id())).expect("write");
        assert_eq!(Blocks::load(&pack, &id()).expect("load"), blocks());
        std::fs::write(&path, b"short").expect("write");
        let error = Blocks::load(&pack, &id()).expect_err("corrupt");
        assert!(matches!(error, BlocksError::Corrupt { .. }), "{error}");
    }

    /// Prints what one comparison costs; run by hand with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn cost_of_one_comparison() {
        let record = vec![7u8; 224 * 224 * 3];
        let blocks = Blocks(vec![xxh3_64(&record)]);
        let rounds = 20_000;
        let begun = std::time::Instant::now();
        for _ in 0..rounds {
            assert!(blocks.matches(0, std::hint::black_box(&record)));
        }
        let each = begun.elapsed() / rounds;
        println!("{} bytes: {each:?} each", record.len());
    }
}
