//! Which network a run has: the trunk up to a layer, the pooling before the classifier, and the auxiliary heads.

use serde::{Deserialize, Serialize};

use super::layers::HEAD_INPUT;

/// A network of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Number of the classifier's outputs.
    pub outputs: usize,
    /// The layer whose output the classifier reads, averaged over the map. Layers behind it are left out.
    pub tap: Tap,
    /// How that output is averaged.
    pub pooling: Pooling,
    /// Whether it has the auxiliary heads `loss1` and `loss2`, which only training computes. Only a network that reads the
    /// last module has them.
    pub auxiliary: bool,
}

/// How the map before the classifier is averaged. At 224 px, where that map is 7x7, both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over the whole map: every place counts the same.
    #[default]
    Global,
    /// As the network that became convolutional: Caffe's average over 7x7 windows, the classifier at every place, and the
    /// mean of these scores. Places near the border are in fewer windows, so they count less.
    Dense,
}

impl Pooling {
    /// Whether it is what a spec means that says nothing.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Name of the average that ends the whole trunk.
pub const POOL5: &str = "pool5/7x7_s1";

/// The layers that a classifier can read, with their channels: what passes from one stage to the next, before a pooling
/// between modules.
const TAPS: [(&str, usize); 12] = [
    ("pool1/norm1", 64),
    ("conv2/3x3_reduce", 64),
    ("pool2/3x3_s2", 192),
    ("inception_3a/output", 256),
    ("inception_3b/output", 480),
    ("inception_4a/output", 512),
    ("inception_4b/output", 512),
    ("inception_4c/output", 512),
    ("inception_4d/output", 528),
    ("inception_4e/output", 832),
    ("inception_5a/output", 832),
    ("inception_5b/output", HEAD_INPUT),
];

/// A layer whose averaged output a classifier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tap(usize);

impl Tap {
    /// The end of the trunk.
    pub const TOP: Self = Self(TAPS.len() - 1);

    /// By the layer's name. An empty name, and that of the average at the end, mean the end of the trunk.
    ///
    /// # Errors
    /// There is no such layer among those that can be read.
    pub fn named(name: &str) -> Result<Self, UnknownTap> {
        if name.is_empty() || name == POOL5 {
            return Ok(Self::TOP);
        }
        let place = TAPS.iter().position(|(layer, _)| *layer == name);
        place.map(Self).ok_or_else(|| UnknownTap {
            name: name.to_owned(),
        })
    }

    /// All of them, in the order of the computation.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..TAPS.len()).map(Self)
    }

    /// The layer's name.
    pub fn layer(self) -> &'static str {
        TAPS[self.0].0
    }

    /// The layer's channels, which are the classifier's inputs.
    pub fn channels(self) -> usize {
        TAPS[self.0].1
    }

    /// The name of the average over its map.
    pub fn pool(self) -> String {
        match self {
            Self::TOP => POOL5.to_owned(),
            tap => format!("{}/average", tap.layer()),
        }
    }
}

/// No layer of this name can be read by a classifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a classifier cannot read {name:?}; it reads {POOL5} or one of {}",
    TAPS.map(|(layer, _)| layer).join(", ")
)]
pub struct UnknownTap {
    /// The name.
    pub name: String,
}

impl Network {
    /// The whole trunk with a classifier of `outputs` outputs, as BVLC deploys it.
    pub fn trunk(outputs: usize) -> Self {
        Self {
            outputs,
            tap: Tap::TOP,
            pooling: Pooling::Global,
            auxiliary: false,
        }
    }

    /// What remains of it after training: the auxiliary heads are gone.
    pub fn deployed(self) -> Self {
        Self {
            auxiliary: false,
            ..self
        }
    }

    /// Number of the classifier's inputs.
    pub fn head_input(&self) -> usize {
        self.tap.channels()
    }

    /// Number of the values of one image that dropout may set to zero: the classifier's inputs, then those of each
    /// auxiliary classifier.
    pub fn dropout_units(&self) -> usize {
        let auxiliary = match self.auxiliary {
            true => AuxiliaryHead::ALL.len() * AUXILIARY_UNITS,
            false => 0,
        };
        self.head_input() + auxiliary
    }
}

impl From<usize> for Network {
    fn from(outputs: usize) -> Self {
        Self::trunk(outputs)
    }
}

/// Number of an auxiliary classifier's inputs.
pub const AUXILIARY_UNITS: usize = 1024;
/// Share of an auxiliary classifier's inputs that dropout sets to zero in training.
pub const AUXILIARY_DROPOUT: f64 = 0.7;
/// Height and width of the map that an auxiliary head reads.
pub const AUXILIARY_MAP: usize = 4;
/// Filters of an auxiliary head's convolution.
pub(super) const AUXILIARY_FILTERS: usize = 128;

/// A classifier in the middle of the trunk, which helps to train the layers before it (Szegedy et al. 2014).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuxiliaryHead {
    Loss1,
    Loss2,
}

impl AuxiliaryHead {
    /// Both, in the order of the computation.
    pub const ALL: [Self; 2] = [Self::Loss1, Self::Loss2];

    /// The prefix of its layers' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss1 => "loss1",
            Self::Loss2 => "loss2",
        }
    }

    /// The module whose output it reads.
    pub fn module(self) -> &'static str {
        match self {
            Self::Loss1 => "inception_4a",
            Self::Loss2 => "inception_4d",
        }
    }

    /// The one that reads the output of `module`.
    pub fn after(module: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|head| head.module() == module)
    }

    /// The one that a layer belongs to.
    pub fn of_layer(layer: &str) -> Option<Self> {
        let (first, _) = layer.split_once('/')?;
        Self::ALL.into_iter().find(|head| head.name() == first)
    }

    /// Name of its classifier.
    pub fn classifier(self) -> String {
        format!("{}/classifier", self.name())
    }
}

/// The windows whose means are the [`AUXILIARY_MAP`] values along one side of a map of `length`: 5 pixels at a step of 3 where
/// there are four of these (Caffe's `loss1/ave_pool` at 224 px), else the windows that cut the side into four parts, as
/// adaptive pooling takes them.
pub fn auxiliary_windows(length: usize) -> [std::ops::Range<usize>; AUXILIARY_MAP] {
    std::array::from_fn(|i| match length {
        14 => 3 * i..3 * i + 5,
        _ => i * length / AUXILIARY_MAP..((i + 1) * length).div_ceil(AUXILIARY_MAP),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_found_by_name() {
        for tap in Tap::all() {
            assert_eq!(Tap::named(tap.layer()), Ok(tap));
        }
        for name in ["", POOL5, "inception_5b/output"] {
            assert_eq!(Tap::named(name), Ok(Tap::TOP));
        }
        let error = Tap::named("inception_4a/1x1").unwrap_err().to_string();
        assert!(error.contains("inception_4d/output"), "{error}");
    }

    /// Every pixel is in a window, none is empty, and at 224 px they are Caffe's.
    #[test]
    fn auxiliary_windows_cover_the_map() {
        assert_eq!(auxiliary_windows(14), [0..5, 3..8, 6..11, 9..14]);
        assert_eq!(auxiliary_windows(4), [0..1, 1..2, 2..3, 3..4]);
        for length in 1..40 {
            let windows = auxiliary_windows(length);
            assert_eq!((windows[0].start, windows[3].end), (0, length));
            for (a, b) in windows.iter().zip(&windows[1..]) {
                assert!(!a.is_empty() && b.start <= a.end, "{length}: {windows:?}");
            }
        }
    }
}
