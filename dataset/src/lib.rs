//! Pictures on disk: importing labels, finding the fundus, packs and reading them.
//!
//! A *prepared dataset* is a folder with `manifest.json`, `index.csv` and `packs/*.pack`. Its
//! pieces are described where they are read: [`Manifest`], [`Index`], [`PackFile`]. [`prepare()`]
//! makes one from a label file and a folder of photographs; [`Dataset`] opens one and checks it.
//!
//! Invariants, established by [`prepare()`] and checked by every reader:
//!
//! - no patient is on two sides of the split (training, validation, test), and the samples of a patient are neighbours;
//! - the samples stand in an order in which every contiguous range is about stratified by grade
//!   ([`split::interleave`]), and packs are cut from that order at patients' boundaries;
//! - the manifest's digest covers the digests of the index and of every pack, so it identifies
//!   the dataset: same photographs, labels and options, same digest.

mod blocks;
pub mod canvas;
pub mod crop;
mod dataset;
mod decode;
pub mod eye;
mod folder;
mod identify;
mod index;
pub mod labels;
pub mod leftovers;
mod likeness;
mod lines;
mod manifest;
mod names;
mod pack;
pub mod patient;
mod photographs;
pub mod prepare;
pub mod preprocess;
mod private;
mod quality;
mod recipe;
mod rotate;
pub mod split;
mod square;
pub mod synthetic;
mod table;

pub use blocks::{Blocks, BlocksError, BlocksId, BlocksProblem};
pub use dataset::{Dataset, DatasetError};
pub use decode::{DecodeError, Encoded, Implausible, Photograph, decode};
pub use eye::Eye;
pub use index::{Content, Index, IndexError, PartOf, Sample};
pub use manifest::{
    Counts, Duplicates, GradeScale, INDEX_FILE, IndexEntry, MANIFEST_FILE, MAX_IMAGE_SIZE,
    MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, MIN_IMAGE_SIZE, Manifest, ManifestError, PackEntry,
    Preprocess, SplitOrigin,
};
pub use names::without_ending;
pub use pack::{PackError, PackFile, verify_pack};
pub use photographs::{Found, PhotographsError, photographs};
pub use prepare::{
    Excluded, MaxBad, MaxBadError, PrepareError, PrepareOptions, PrepareReport, Progress, Warning,
    prepare, write_ungraded,
};
pub use preprocess::{Method, Preprocessing, PreprocessingError};
pub use private::make_private;
pub use quality::{Flaw, Quality};
pub use recipe::{Prepared, Recipe, RecipeError};
pub use rotate::rotate90;
pub use square::{Disc, Square, SquareError};

use serde::{Deserialize, Serialize};

/// Number of grades of the international scale: 0 (none) to 4 (proliferative).
pub const GRADES: usize = 5;

/// A side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// Held out, to choose checkpoints and thresholds by.
    Validation,
    /// Held out for one evaluation at the end: neither training nor validation reads it. Often empty.
    Test,
}

impl Split {
    /// All sides, in the order in which they stand in a dataset.
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// The name used in files: `train`, `validation` or `test`.
    pub fn as_str(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }

    /// Parses that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.as_str() == text)
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
