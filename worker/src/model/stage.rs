//! The stages of a network: what the forward pass computes one after the other.

use fovea_core::googlenet::{AuxiliaryHead, BUCKET_STARTS, HEAD, Network, POOL5};

/// A stage of the network. What passes from one to the next has the kind that convolutions are computed in, up to the average.
/// Normalisation computes in f32 in between, because squares and their sums need the precision.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// Up to pool1/norm1.
    Conv1,
    Conv2Reduce,
    /// Up to pool2.
    Conv2,
    Inception {
        module: &'static str,
        /// Whether the pooling after it, where there is one, belongs to it.
        pooled: bool,
    },
    /// The average over the map.
    Average,
    Classifier,
}

const MODULES: [&str; 9] = [
    "inception_3a",
    "inception_3b",
    "inception_4a",
    "inception_4b",
    "inception_4c",
    "inception_4d",
    "inception_4e",
    "inception_5a",
    "inception_5b",
];

impl Stage {
    /// The stages of a network.
    pub(super) fn of(network: Network) -> Vec<Stage> {
        let tap = network.tap.layer();
        let mut stages = Vec::new();
        let stem = [Stage::Conv1, Stage::Conv2Reduce, Stage::Conv2];
        let modules = MODULES.map(|module| Stage::Inception {
            module,
            pooled: !tap.starts_with(module),
        });
        for stage in stem.into_iter().chain(modules) {
            stages.push(stage);
            if stage.last_layer() == tap {
                break;
            }
        }
        stages.extend([Stage::Average, Stage::Classifier]);
        stages
    }

    /// The layer whose output it gives, without the pooling after a module.
    fn last_layer(self) -> String {
        match self {
            Stage::Conv1 => "pool1/norm1".into(),
            Stage::Conv2Reduce => "conv2/3x3_reduce".into(),
            Stage::Conv2 => "pool2/3x3_s2".into(),
            Stage::Inception { module, .. } => format!("{module}/output"),
            Stage::Average => POOL5.into(),
            Stage::Classifier => HEAD.into(),
        }
    }

    pub(super) fn starts_bucket(self) -> bool {
        matches!(self, Stage::Inception { module, .. } if BUCKET_STARTS.contains(&module))
    }

    pub(super) fn owns(self, layer: &str) -> bool {
        match self {
            Stage::Conv1 => layer == "conv1/7x7_s2",
            Stage::Conv2Reduce => layer == "conv2/3x3_reduce",
            Stage::Conv2 => layer == "conv2/3x3",
            Stage::Inception { module, .. } => layer.starts_with(module),
            Stage::Average => false,
            Stage::Classifier => layer == HEAD,
        }
    }

    /// The auxiliary head that reads its output, if the network has such heads.
    pub(super) fn auxiliary(self) -> Option<AuxiliaryHead> {
        match self {
            Stage::Inception { module, .. } => AuxiliaryHead::after(module),
            _ => None,
        }
    }
}
