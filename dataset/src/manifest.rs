//! `manifest.json`: what a prepared dataset is made of, and the digest that names it.

mod canonical;
mod error;
mod made;

use std::collections::HashSet;

use fovea_core::ids::DatasetName;
use fovea_core::pipeline::Pipeline;
use serde::{Deserialize, Serialize};

use crate::{GRADES, Split};
use canonical::write_canonical;
use error::ensure;

pub use error::ManifestError;
pub use made::{Duplicates, GradeScale, Preprocess};

/// File name of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// File name of the index.
pub const INDEX_FILE: &str = "index.csv";
/// Largest manifest that is read, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// Largest index that is read, in bytes.
pub const MAX_INDEX_BYTES: u64 = 1 << 30;
/// Least side of a record, in pixels.
pub const MIN_IMAGE_SIZE: u32 = 32;
/// Largest side of a record, in pixels.
pub const MAX_IMAGE_SIZE: u32 = 2048;

/// `format` is this and the version.
const FORMAT: &str = "fovea-dataset-";
/// The newest version that is read. All older ones are read.
///
/// Version 2 has a test part; version 3 says which preprocessing, which scale, and what was found of copies; version 4 may
/// have no grades.
const VERSION: u32 = 4;
/// The version that is written of photographs with grades: what they have, version 3 says, and older programs read it.
const GRADED: u32 = 3;
const LAYOUT: &str = "HWC";
const CHANNELS: &str = "BGR";
/// Largest pack that is accepted, in bytes.
const MAX_PACK_BYTES: u64 = 16 << 30;

/// A dataset's manifest, validated by [`Manifest::parse`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `fovea-dataset-3`, or -4 without grades: the format and its version.
    pub format: String,
    /// The dataset's name.
    pub name: DatasetName,
    /// Width and height of every record, in pixels: 32 to 2048.
    pub image_size: u32,
    /// Bytes of a record: `image_size` × `image_size` × 3.
    pub record_bytes: u64,
    /// `HWC`: a record holds rows, a row pixels, a pixel its channels.
    pub layout: String,
    /// `BGR`: order of a pixel's bytes, as Caffe's weights expect it.
    pub channels: String,
    /// How photographs became records.
    pub preprocess: Preprocess,
    /// What the grades mean; None in datasets before version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<GradeScale>,
    /// What was found of copies of photographs; None in datasets before version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<Duplicates>,
    /// Where the split comes from.
    pub split: SplitOrigin,
    /// Samples of each side and grade.
    pub counts: Counts,
    /// The index file.
    pub index: IndexEntry,
    /// The packs: those of the training split first, in plan order.
    pub packs: Vec<PackEntry>,
    /// Rows of the label file that were left out (`excluded.csv` says why).
    pub excluded: u64,
    /// SHA-256 (hexadecimal) of this manifest's canonical JSON without this field.
    pub digest: String,
}

/// Where the split comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum SplitOrigin {
    /// Chosen by patient, stratified by highest grade ([`crate::split::choose`]).
    Stratified {
        /// Seed of the choice and of the order.
        seed: u64,
        /// Share of patients held out for validation.
        validation_fraction: f64,
        /// Share of patients held out for the test; 0 in datasets of version 1.
        #[serde(default)]
        test_fraction: f64,
    },
    /// Imposed by a file.
    File {
        /// Seed of the order.
        seed: u64,
        /// SHA-256 (hexadecimal) of that file.
        sha256: String,
    },
    /// Nothing was split: photographs without grades are all in the validation split.
    Unsplit {},
}

/// Samples of each side, by grade 0 to 4.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Training samples of each grade.
    pub train: [u64; GRADES],
    /// Validation samples of each grade.
    pub validation: [u64; GRADES],
    /// Test samples of each grade; none in datasets of version 1.
    #[serde(default)]
    pub test: [u64; GRADES],
}

impl Counts {
    /// Samples of one side by grade.
    pub fn of(&self, split: Split) -> &[u64; GRADES] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
            Split::Test => &self.test,
        }
    }

    /// The same, to count up.
    pub(crate) fn of_mut(&mut self, split: Split) -> &mut [u64; GRADES] {
        match split {
            Split::Train => &mut self.train,
            Split::Validation => &mut self.validation,
            Split::Test => &mut self.test,
        }
    }
}

/// The index file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// `index.csv`.
    pub file: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// Its rows without the header: samples of all sides.
    pub rows: u64,
}

/// A pack: `records` records of `record_bytes` bytes each, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackEntry {
    /// Path relative to the manifest: `packs/<lower-case letters, digits, '-'>.pack`.
    pub file: String,
    /// The side its samples are on.
    pub split: Split,
    /// Number of records.
    pub records: u32,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Parses and checks a manifest from an untrusted source: its digest, that sizes agree with
    /// each other and are sane, and that no file name leaves the dataset's folder.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge {
                bytes: bytes.len() as u64,
                most: MAX_MANIFEST_BYTES,
            });
        }
        // First of all: a newer version has fields that are unknown here, which says nothing useful.
        let format: Format = serde_json::from_slice(bytes)?;
        match version_of(&format.format) {
            Some(version) if version > VERSION => {
                let newest = VERSION;
                return Err(ManifestError::Newer { version, newest });
            }
            Some(_) => {}
            None => {
                return Err(ManifestError::Field {
                    field: "format".into(),
                    problem: format!(
                        "is {:?}; expected {FORMAT}{VERSION}",
                        shortened(&format.format)
                    ),
                });
            }
        }
        let manifest: Manifest = serde_json::from_slice(bytes)?;
        manifest.check()?;
        let actual = digest(bytes)?;
        if actual != manifest.digest {
            return Err(ManifestError::Digest {
                stated: manifest.digest,
                actual,
            });
        }
        Ok(manifest)
    }

    /// Sets the digest and returns the bytes of `manifest.json`.
    pub(crate) fn seal(&mut self) -> Result<Vec<u8>, ManifestError> {
        self.digest = digest(&serde_json::to_vec(self)?)?;
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Whether its photographs have no grades: they can be scored, neither trained on nor evaluated.
    pub fn is_ungraded(&self) -> bool {
        self.scale == Some(GradeScale::None)
    }

    /// The constant fields of a new manifest of such a scale.
    pub(crate) fn constants(scale: GradeScale) -> [String; 3] {
        let version = match scale {
            GradeScale::None => VERSION,
            GradeScale::Icdr | GradeScale::Messidor | GradeScale::Unstated => GRADED,
        };
        [
            format!("{FORMAT}{version}"),
            LAYOUT.to_owned(),
            CHANNELS.to_owned(),
        ]
    }

    /// How photographs became its images. That of a dataset before version 3 follows from what its manifest has.
    pub fn pipeline(&self) -> Pipeline {
        self.preprocess.pipeline(self.image_size)
    }

    /// Samples of one side.
    pub fn samples(&self, split: Split) -> u64 {
        self.counts.of(split).iter().sum()
    }

    fn check(&self) -> Result<(), ManifestError> {
        let constant = |field: &str, value: &str, wanted: &str| {
            ensure(value == wanted, field, || {
                format!("is {value:?}; this version reads only {wanted:?}")
            })
        };
        constant("layout", &self.layout, LAYOUT)?;
        constant("channels", &self.channels, CHANNELS)?;
        constant("index.file", &self.index.file, INDEX_FILE)?;
        let sizes = MIN_IMAGE_SIZE..=MAX_IMAGE_SIZE;
        ensure(sizes.contains(&self.image_size), "image_size", || {
            format!(
                "is {}; it must be from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}",
                self.image_size
            )
        })?;
        let record = u64::from(self.image_size).pow(2) * 3;
        ensure(self.record_bytes == record, "record_bytes", || {
            format!("is {}; image_size makes it {record}", self.record_bytes)
        })?;
        self.preprocess.check(self.image_size)?;
        self.check_split()?;
        is_sha256("digest", &self.digest)?;
        is_sha256("index.sha256", &self.index.sha256)?;
        ensure(self.index.bytes <= MAX_INDEX_BYTES, "index.bytes", || {
            format!(
                "is {}; at most {MAX_INDEX_BYTES} are read",
                self.index.bytes
            )
        })?;
        self.check_counts()?;
        self.check_packs()
    }

    fn check_split(&self) -> Result<(), ManifestError> {
        match &self.split {
            SplitOrigin::Stratified {
                validation_fraction: validation,
                test_fraction: test,
                ..
            } => {
                ensure(
                    *validation > 0.0 && *validation < 1.0,
                    "split.validation_fraction",
                    || format!("is {validation}; it must lie between 0 and 1"),
                )?;
                ensure(
                    *test >= 0.0 && validation + test < 1.0,
                    "split.test_fraction",
                    || format!("is {test}; with validation_fraction it must stay below 1"),
                )
            }
            SplitOrigin::File { sha256, .. } => is_sha256("split.sha256", sha256),
            SplitOrigin::Unsplit {} => ensure(
                self.is_ungraded() && self.samples(Split::Train) + self.samples(Split::Test) == 0,
                "split.method",
                || "is unsplit, but there are grades or several sides".to_owned(),
            ),
        }
    }

    fn check_counts(&self) -> Result<(), ManifestError> {
        // The numbers are not validated yet: their sum may overflow.
        let all = Split::ALL.iter().flat_map(|split| self.counts.of(*split));
        let total = all.fold(0u64, |sum, n| sum.saturating_add(*n));
        ensure(total == self.index.rows, "counts", || {
            format!("add up to {total}, but index.rows is {}", self.index.rows)
        })?;
        ensure(total <= u64::from(u32::MAX), "counts", || {
            format!("add up to {total}, more than a dataset can hold")
        })
    }

    fn check_packs(&self) -> Result<(), ManifestError> {
        let mut names = HashSet::new();
        let mut records = [0u64; Split::ALL.len()];
        for (i, pack) in self.packs.iter().enumerate() {
            let field = |name: &str| format!("packs[{i}].{name}");
            ensure(is_pack_name(&pack.file), &field("file"), || {
                let file = shortened(&pack.file);
                format!("{file:?} is not of the form packs/train-00000.pack")
            })?;
            ensure(names.insert(&pack.file), &field("file"), || {
                format!("{:?} is listed twice", pack.file)
            })?;
            ensure(pack.records > 0, &field("records"), || "is 0".to_owned())?;
            let bytes = u64::from(pack.records) * self.record_bytes;
            ensure(pack.bytes == bytes, &field("bytes"), || {
                format!(
                    "is {}; {} records make it {bytes}",
                    pack.bytes, pack.records
                )
            })?;
            ensure(bytes <= MAX_PACK_BYTES, &field("bytes"), || {
                format!("is {bytes}; at most {MAX_PACK_BYTES} are read")
            })?;
            is_sha256(&field("sha256"), &pack.sha256)?;
            records[pack.split as usize] += u64::from(pack.records);
        }
        for split in Split::ALL {
            let (packed, counted) = (records[split as usize], self.samples(split));
            ensure(packed == counted, "packs", || {
                format!("hold {packed} {split} records, but counts say {counted}")
            })?;
        }
        Ok(())
    }
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Format {
    format: String,
}

/// The version in `fovea-dataset-N`, from 1.
fn version_of(format: &str) -> Option<u32> {
    let digits = format.strip_prefix(FORMAT)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    // More digits than a number holds: newer than anything.
    plain
        .then(|| digits.parse().unwrap_or(u32::MAX))
        .filter(|_| !digits.is_empty())
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_sha256(field: &str, text: &str) -> Result<(), ManifestError> {
    let good = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ensure(good, field, || {
        "is not a SHA-256 in 64 lower-case hexadecimal digits".to_owned()
    })
}

/// Whether a name is `packs/[a-z0-9-]+.pack`, which cannot leave the folder.
fn is_pack_name(file: &str) -> bool {
    file.strip_prefix("packs/")
        .and_then(|name| name.strip_suffix(".pack"))
        .is_some_and(|stem| {
            (1..=64).contains(&stem.len())
                && stem
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        })
}

/// SHA-256 of a manifest's canonical JSON without the field `digest`: keys sorted, no spaces.
fn digest(bytes: &[u8]) -> Result<String, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("digest");
    }
    let mut canonical = String::new();
    write_canonical(&value, &mut canonical);
    Ok(crate::sha256_hex(canonical.as_bytes()))
}

#[cfg(test)]
pub(crate) mod tests;
