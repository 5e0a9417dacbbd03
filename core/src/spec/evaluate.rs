//! What an evaluation scores.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::RunId;

/// What an evaluation scores: a run's checkpoint on a part of a dataset. No step is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSpec {
    /// The run whose checkpoint it is.
    pub run: RunId,
    /// Committed steps that the checkpoint holds.
    pub step: u64,
    /// Part of the dataset that is scored.
    pub part: Part,
    /// Each image counts as the mean of itself and its three rotations by a quarter turn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotations: bool,
    /// With each score comes its class activation map.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maps: bool,
}

impl EvaluateSpec {
    /// The quarter turns that each image is shown with.
    pub fn turns(&self) -> &'static [u8] {
        match self.rotations {
            true => &[0, 1, 2, 3],
            false => &[0],
        }
    }
}

/// A part of a dataset that can be scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The training split.
    Train,
    /// The validation split.
    Validation,
    /// The test part, which no run trains on or chooses by.
    Test,
    /// Every sample.
    All,
}

impl Part {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::All => "all",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
