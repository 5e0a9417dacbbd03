//! How photographs became a dataset's images, as runs, checkpoints and weights record it: a model is given the same later.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was done with photographs before they were stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Everything but the size, for people: `clahe (clip 2, tiles 8), circle, bilinear, rules 3`.
    pub steps: String,
    /// Width and height of the images, in pixels.
    pub size: u32,
    /// SHA-256 (hexadecimal) of all of it.
    pub digest: String,
    /// The method with its numbers for programs, from which all of it is rebuilt: `clahe:clip=2,tiles=8`. None: an older
    /// version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
}

impl Pipeline {
    /// The key in the metadata of a checkpoint's file under which it stands, as JSON. A file without it does not say.
    pub const KEY: &str = "preprocessing";
    /// Longest JSON of it that is read.
    const LONGEST: usize = 1000;

    /// Reads what stands under [`Self::KEY`]; None if it is something else, which other programs may write there.
    pub fn from_metadata(json: &str) -> Option<Self> {
        let short = json.len() <= Self::LONGEST;
        short.then(|| serde_json::from_str(json).ok()).flatten()
    }

    /// Whether weights that were learnt from images of `self` may be trained further on those of `other`: all but the size
    /// is the same. To begin with small images and go on with larger ones is usual, and the network takes any size.
    pub fn continues_on(&self, other: &Self) -> bool {
        self.steps == other.steps
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.digest.chars().take(12).collect();
        write!(f, "{}, {} px (pipeline {start})", self.steps, self.size)
    }
}
