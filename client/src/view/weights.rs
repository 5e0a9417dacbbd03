//! Weights that the coordinator stores.

use fovea_proto::pb;
use serde::Serialize;

/// Weights that the coordinator stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WeightsInfo {
    /// Their name; empty if the coordinator cannot read it now.
    pub name: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// When the file was added, milliseconds since the Unix epoch.
    pub added_at_ms: u64,
    /// `caffemodel` or `safetensors`.
    pub format: String,
    /// The layers that a run starts from.
    pub layers: Vec<LayerInfo>,
    /// Other layers in the file.
    pub ignored: Vec<IgnoredInfo>,
    /// Ids of the runs that have not ended and start from these weights.
    pub used_by: Vec<String>,
    /// A known problem of the stored file; empty if none is.
    pub problem: String,
}

/// A layer that a run starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// Caffe's name.
    pub name: String,
    /// Shape of its weight: outputs, inputs, height, width.
    pub shape: Vec<u32>,
}

/// A layer in a file that no run uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IgnoredInfo {
    /// Its name in the file.
    pub name: String,
    /// Why it is not used, and why that is harmless.
    pub reason: String,
}

impl From<pb::StoredWeights> for WeightsInfo {
    fn from(wire: pb::StoredWeights) -> Self {
        let pb::StoredWeights {
            name,
            sha256,
            size_bytes,
            added_at_ms,
            format,
            layers,
            ignored,
            used_by,
            problem,
        } = wire;
        let layer = |wire: pb::WeightsLayer| {
            let pb::WeightsLayer { name, shape } = wire;
            LayerInfo { name, shape }
        };
        let ignore = |wire: pb::IgnoredLayer| {
            let pb::IgnoredLayer { name, reason } = wire;
            IgnoredInfo { name, reason }
        };
        Self {
            name,
            sha256,
            size_bytes,
            added_at_ms,
            format,
            layers: layers.into_iter().map(layer).collect(),
            ignored: ignored.into_iter().map(ignore).collect(),
            used_by,
            problem,
        }
    }
}
