//! The flat layout: the place of each parameter in the two flat buffers of a run's state.
//!
//! All trainable parameters are in one buffer, in four groups within each of which the optimizer's multipliers are
//! constant:
//!
//! ```text
//! | weights | biases | head weight | head bias |      lr x1, x2, xh, x2h; weight decay x1, x0, x1, x0
//! ```
//!
//! so that the reduction, the optimizer and checkpoint slices are ranges of one array. The frozen parameters are in a
//! second buffer. Within a group the order is that of the computation, and every parameter is contiguous (out, in,
//! height, width), so a range of a buffer is an ordinary tensor.

use std::collections::HashSet;
use std::ops::Range;

use super::layers::{HEAD, weight_layer_names};
use super::network::{AuxiliaryHead, Network, UnknownTap};
use super::params::{ParamKind, ParamSpec, param_specs};

/// Prefix of the velocities' names in a checkpoint.
pub const VELOCITY_PREFIX: &str = "optimizer/velocity/";

/// The modules at which a new bucket of weights begins, in the order of the forward pass; see [`FlatLayout::buckets`].
pub const BUCKET_STARTS: [&str; 3] = ["inception_4a", "inception_4c", "inception_5a"];

/// Number of the buckets of weights.
const WEIGHT_BUCKETS: usize = BUCKET_STARTS.len() + 1;

/// The flat layout for a network and a set of frozen layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatLayout {
    network: Network,
    groups: [Group; 4],
    trainable: Vec<Entry>,
    frozen: Vec<Entry>,
    trainable_len: usize,
    frozen_len: usize,
}

impl FlatLayout {
    /// Number of the bucket of everything but weights; see [`FlatLayout::buckets`].
    pub const OTHERS: usize = WEIGHT_BUCKETS;

    /// The order in which a backward pass completes the buckets: those of weights from the last to the first, then the other
    /// one.
    pub const BUCKET_ORDER: [usize; WEIGHT_BUCKETS + 1] = [3, 2, 1, 0, Self::OTHERS];

    /// Lays out the parameters of `network`; a number means the trunk with a head of so many outputs. The layers named in
    /// `frozen` are not trained.
    ///
    /// # Errors
    /// If there are fewer than 2 outputs, or a name in `frozen` is unknown, repeated or that of the classifier.
    pub fn new<S: AsRef<str>>(
        network: impl Into<Network>,
        frozen: &[S],
    ) -> Result<FlatLayout, LayoutError> {
        let network = network.into();
        if network.outputs < 2 {
            return Err(LayoutError::Classes {
                classes: network.outputs,
            });
        }
        let frozen = checked_names(frozen)?;
        let specs = param_specs(network);
        let mut layout = FlatLayout {
            network,
            groups: GroupKind::ALL.map(|kind| Group { kind, range: 0..0 }),
            trainable: Vec::new(),
            frozen: Vec::new(),
            trainable_len: 0,
            frozen_len: 0,
        };
        for kind in GroupKind::ALL {
            let start = layout.trainable_len;
            for spec in &specs {
                if GroupKind::of(spec) == kind && !frozen.contains(spec.layer.as_str()) {
                    let offset = layout.trainable_len;
                    layout.trainable_len += spec.len();
                    layout.trainable.push(Entry {
                        spec: spec.clone(),
                        offset,
                        group: Some(kind),
                    });
                }
            }
            layout.groups[kind as usize].range = start..layout.trainable_len;
        }
        for spec in specs {
            if frozen.contains(spec.layer.as_str()) {
                let offset = layout.frozen_len;
                layout.frozen_len += spec.len();
                layout.frozen.push(Entry {
                    spec,
                    offset,
                    group: None,
                });
            }
        }
        Ok(layout)
    }

    /// The network whose parameters they are.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The four groups, in the order of the buffer; a group may be empty.
    pub fn groups(&self) -> &[Group; 4] {
        &self.groups
    }

    /// The parameters of the trainable buffer, in its order.
    pub fn trainable(&self) -> &[Entry] {
        &self.trainable
    }

    /// The parameters of the frozen buffer, in its order.
    pub fn frozen(&self) -> &[Entry] {
        &self.frozen
    }

    /// Number of elements of the trainable buffer, of a flat gradient and of the velocities.
    pub fn trainable_len(&self) -> usize {
        self.trainable_len
    }

    /// Number of elements of the frozen buffer.
    pub fn frozen_len(&self) -> usize {
        self.frozen_len
    }

    /// Number of elements of a run's whole state: trainable parameters, velocities, frozen parameters, in this order, all
    /// f32.
    pub fn state_len(&self) -> usize {
        2 * self.trainable_len + self.frozen_len
    }

    /// Range of the trainable parameters in the state, in elements.
    pub fn params_range(&self) -> Range<usize> {
        0..self.trainable_len
    }

    /// Range of the velocities in the state, in elements.
    pub fn velocity_range(&self) -> Range<usize> {
        self.trainable_len..2 * self.trainable_len
    }

    /// Range of the frozen parameters in the state, in elements.
    pub fn frozen_range(&self) -> Range<usize> {
        2 * self.trainable_len..self.state_len()
    }

    /// The buckets of the trainable buffer, which follow each other without a gap: those of weights, split at
    /// [`BUCKET_STARTS`], then one of everything else (the biases, and the head's parameters). A bucket is empty if all of
    /// its layers are frozen.
    ///
    /// A backward pass computes the gradients of the last modules first, and these have most of the weights. So a bucket of
    /// gradients can be reduced while those of earlier modules are computed, as in PyTorch's DistributedDataParallel.
    pub fn buckets(&self) -> [Range<usize>; WEIGHT_BUCKETS + 1] {
        let weights = &self.groups[GroupKind::Weights as usize].range;
        let mut starts = [weights.end; WEIGHT_BUCKETS + 1];
        for entry in self.trainable.iter().rev() {
            if entry.group == Some(GroupKind::Weights) {
                starts[entry.part()] = entry.offset;
            }
        }
        // An empty bucket starts where the next one starts.
        for i in (0..WEIGHT_BUCKETS).rev() {
            starts[i] = starts[i].min(starts[i + 1]);
        }
        std::array::from_fn(|i| {
            let end = starts.get(i + 1).copied();
            starts[i]..end.unwrap_or(self.trainable_len)
        })
    }

    /// Number of the bucket that holds a trainable parameter's gradient.
    pub fn bucket(&self, entry: &Entry) -> usize {
        match entry.group {
            Some(GroupKind::Weights) => entry.part(),
            Some(GroupKind::Biases | GroupKind::HeadWeight | GroupKind::HeadBias) | None => {
                Self::OTHERS
            }
        }
    }

    /// The named tensors of the state, in its order. They follow each other without a gap, so they are the table of a
    /// safetensors file whose data are the state.
    pub fn state_entries(&self) -> Vec<StateEntry> {
        let part = |entries: &[Entry], prefix: &str, start: usize| -> Vec<StateEntry> {
            entries
                .iter()
                .map(|entry| StateEntry {
                    name: format!("{prefix}{}", entry.spec.name),
                    shape: entry.spec.shape.clone(),
                    offset: start + entry.offset,
                    len: entry.spec.len(),
                })
                .collect()
        };
        let mut entries = part(&self.trainable, "", 0);
        entries.extend(part(
            &self.trainable,
            VELOCITY_PREFIX,
            self.velocity_range().start,
        ));
        entries.extend(part(&self.frozen, "", self.frozen_range().start));
        entries
    }
}

/// Number of the part of the network that a layer or module of the trunk belongs to; see [`Entry::part`].
pub fn part_of(layer: &str) -> usize {
    // The names of the modules sort in the order of the computation.
    BUCKET_STARTS.partition_point(|start| *start <= layer)
}

/// One parameter and its place in its buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub spec: ParamSpec,
    /// First element, in the trainable or the frozen buffer.
    pub offset: usize,
    /// None if the parameter is frozen.
    pub group: Option<GroupKind>,
}

impl Entry {
    /// Number of the part of the network that it belongs to, of those into which [`BUCKET_STARTS`] splits it; the head
    /// belongs to the last, and an auxiliary head to that of the module it reads. It is also the number of a weight's bucket.
    pub fn part(&self) -> usize {
        let layer = self.spec.layer.as_str();
        match AuxiliaryHead::of_layer(layer) {
            Some(head) => part_of(head.module()),
            None => part_of(layer),
        }
    }

    /// Range of its elements in its buffer.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.spec.len()
    }
}

/// One named tensor of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    pub name: String,
    pub shape: Vec<usize>,
    /// First element in the state (a byte offset is four times this).
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

/// A contiguous range of the trainable buffer with the same multipliers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub kind: GroupKind,
    /// Range of its elements in the trainable buffer.
    pub range: Range<usize>,
}

impl Group {
    /// Multiplier of the learning rate; that of the head's weight is `head`. A bias has twice the rate, as is usual in
    /// Caffe.
    pub fn lr_mult(&self, head: f64) -> f64 {
        match self.kind {
            GroupKind::Weights => 1.0,
            GroupKind::Biases => 2.0,
            GroupKind::HeadWeight => head,
            GroupKind::HeadBias => 2.0 * head,
        }
    }

    /// Multiplier of the weight decay; biases are not decayed.
    pub fn decay_mult(&self) -> f64 {
        match self.kind {
            GroupKind::Weights | GroupKind::HeadWeight => 1.0,
            GroupKind::Biases | GroupKind::HeadBias => 0.0,
        }
    }
}

/// The groups, in the order of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupKind {
    Weights,
    Biases,
    HeadWeight,
    HeadBias,
}

impl GroupKind {
    const ALL: [GroupKind; 4] = [
        GroupKind::Weights,
        GroupKind::Biases,
        GroupKind::HeadWeight,
        GroupKind::HeadBias,
    ];

    fn of(spec: &ParamSpec) -> GroupKind {
        match (spec.head, spec.kind) {
            (false, ParamKind::Weight) => GroupKind::Weights,
            (false, ParamKind::Bias) => GroupKind::Biases,
            (true, ParamKind::Weight) => GroupKind::HeadWeight,
            (true, ParamKind::Bias) => GroupKind::HeadBias,
        }
    }
}

/// The arguments do not describe a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("GoogLeNet has no layer {name:?} to freeze; did you mean {}?", nearest.join(" or "))]
    UnknownLayer { name: String, nearest: Vec<String> },
    #[error("layer {name:?} is named twice among the frozen layers; name it once")]
    Repeated { name: String },
    #[error("{HEAD} cannot be frozen: it is the new classifier, which has to be trained")]
    FrozenHead,
    #[error("a classifier needs at least 2 classes, not {classes}")]
    Classes { classes: usize },
    #[error(transparent)]
    Tap(#[from] UnknownTap),
}

/// The names of three layers with parameters that are most similar to `name`, the most similar first.
pub fn nearest_layers(name: &str) -> Vec<String> {
    let wanted = name.to_lowercase();
    let mut ranked: Vec<_> = weight_layer_names()
        .into_iter()
        .map(|known| (strsim::levenshtein(&wanted, &known), known))
        .collect();
    ranked.sort_by_key(|(distance, _)| *distance);
    ranked.into_iter().take(3).map(|(_, known)| known).collect()
}

fn checked_names<S: AsRef<str>>(frozen: &[S]) -> Result<HashSet<&str>, LayoutError> {
    let known: HashSet<String> = weight_layer_names().into_iter().collect();
    let mut names = HashSet::new();
    for name in frozen {
        let name = name.as_ref();
        if name == HEAD {
            return Err(LayoutError::FrozenHead);
        }
        if !known.contains(name) {
            return Err(LayoutError::UnknownLayer {
                name: name.to_string(),
                nearest: nearest_layers(name),
            });
        }
        if !names.insert(name) {
            return Err(LayoutError::Repeated {
                name: name.to_string(),
            });
        }
    }
    Ok(names)
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
