//! Layers that a file has and the network has not: which of them are harmless, and which change what the others compute.

use std::collections::{BTreeMap, HashSet};

use super::error::LayerProblem;
use super::source::Head;

/// Outputs of foreign layers that are followed; a network with more of them is another one.
const MOST_FOLLOWED: usize = 4096;

/// Kinds of layers that stand between others and change what these compute, with numbers of their own or without.
const BETWEEN: [&str; 21] = [
    "BatchNorm",
    "BN",
    "Scale",
    "Bias",
    "PReLU",
    "LayerNorm",
    "InstanceNorm",
    "GroupNorm",
    "Normalize",
    "MVN",
    "ELU",
    "Swish",
    "Sigmoid",
    "TanH",
    "BNLL",
    "AbsVal",
    "Power",
    "Exp",
    "Log",
    "Eltwise",
    "Clip",
];
/// Tensors of normalisation layers in PyTorch and Keras.
const STATISTICS: [&str; 6] = [
    "running_mean",
    "running_var",
    "moving_mean",
    "moving_variance",
    "gamma",
    "beta",
];
/// Parts of the names of such layers.
const PARTS: [&str; 7] = ["bn", "batchnorm", "norm", "scale", "prelu", "gn", "ln"];

/// Follows the layers of a file in their order.
///
/// A layer that the network does not have, with numbers or of a kind that computes something of its own, is harmless where nothing that the network has depends on it: an
/// auxiliary or a renamed classifier. Where the file names each layer's inputs and outputs, that is exact. Where it does not,
/// kinds, names and arrays decide.
pub(super) struct Foreign<'a> {
    network: HashSet<&'a str>,
    replaced: &'a [&'a str],
    /// Outputs that depend on a foreign layer, and that layer.
    reached: BTreeMap<String, String>,
}

impl<'a> Foreign<'a> {
    /// `network`: the layers that are copied.
    pub fn new(network: impl Iterator<Item = &'a str>, replaced: &'a [&'a str]) -> Self {
        Self {
            network: network.collect(),
            replaced,
            reached: BTreeMap::new(),
        }
    }

    /// The next layer.
    ///
    /// # Errors
    /// `OtherNetwork`: it changes what layers of the network compute, or is one of these and depends on one that does.
    pub fn follow(&mut self, head: &Head) -> Result<(), LayerProblem> {
        let copied = self.network.contains(head.layer);
        let spare = self.replaced.contains(&head.layer) || is_auxiliary(head.layer);
        let numbers = head.blobs > 0 || STATISTICS.contains(&head.kind);
        let foreign = !copied && !spare && (numbers || is_between(head.kind));
        if foreign && head.bottoms.is_empty() {
            return match self.stands_between(head) {
                true => Err(LayerProblem::OtherNetwork {
                    reason: format!("BVLC GoogLeNet has no such layer{}", described(head.kind)),
                }),
                false => Ok(()),
            };
        }
        let source = match foreign {
            true => Some(format!("{}{}", head.layer, described(head.kind))),
            false => head
                .bottoms
                .iter()
                .find_map(|b| self.reached.get(b))
                .cloned(),
        };
        match source {
            Some(source) if copied => {
                return Err(LayerProblem::OtherNetwork {
                    reason: format!(
                        "its input depends on layer {source}, which BVLC GoogLeNet does not have"
                    ),
                });
            }
            Some(source) => {
                for top in head.tops {
                    self.reached.insert(top.clone(), source.clone());
                }
            }
            // Written anew.
            None => head
                .tops
                .iter()
                .for_each(|top| drop(self.reached.remove(top))),
        }
        if self.reached.len() > MOST_FOLLOWED {
            return Err(LayerProblem::OtherNetwork {
                reason: format!(
                    "the file has over {MOST_FOLLOWED} layers that BVLC GoogLeNet does not have"
                ),
            });
        }
        Ok(())
    }

    /// Whether a foreign layer, of which the file does not say where it is, changes what others compute.
    fn stands_between(&self, head: &Head) -> bool {
        let after = |layer: &&&str| {
            let rest = head.layer.strip_prefix(**layer);
            rest.is_some_and(|rest| rest.starts_with(['/', '_', '.', '-']))
        };
        // Normalisation has mean, variance and their factor.
        head.blobs >= 3
            || is_between(head.kind)
            || STATISTICS.contains(&head.kind)
            || self.network.iter().find(after).is_some()
            || head
                .layer
                .split(['/', '_', '.', '-'])
                .any(|part| PARTS.contains(&part.to_ascii_lowercase().as_str()))
    }
}

fn is_between(kind: &str) -> bool {
    BETWEEN.iter().any(|known| kind.eq_ignore_ascii_case(known))
}

fn described(kind: &str) -> String {
    match kind {
        "" => String::new(),
        kind => format!(" ({})", kind.chars().take(40).collect::<String>()),
    }
}

/// Whether a layer is of an auxiliary classifier, on which no other depends.
pub(super) fn is_auxiliary(layer: &str) -> bool {
    layer.starts_with("loss1/") || layer.starts_with("loss2/")
}
