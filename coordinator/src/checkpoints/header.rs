//! The header of a checkpoint's safetensors file, known before any of its bytes arrive.
//!
//! The file's data *is* the run's state: one array of little-endian 32-bit floats, trainable
//! parameters, their velocities, frozen parameters, in the order of
//! [`FlatLayout::state_entries`]. So a slice of the state has its place in the file from the start.

use std::collections::BTreeMap;

use fovea_core::checkpoint::Fingerprint;
use fovea_core::googlenet::FlatLayout;
use fovea_core::run::Run;
use safetensors::tensor::{Dtype, TensorInfo};

/// The value of `format` in a checkpoint's metadata.
pub(crate) const FORMAT: &str = "fovea-checkpoint-1";

/// What a checkpoint says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Description<'a> {
    /// The run, with its spec and dataset.
    pub run: &'a Run,
    /// Generation that takes it.
    pub generation: u64,
    /// Committed steps that it holds.
    pub step: u64,
    /// What its bits depend on.
    pub fingerprint: &'a Fingerprint,
}

/// The first bytes of the file: the header's length (8 bytes, little-endian), then the header,
/// padded so that the data is aligned to 8 bytes.
///
/// Written in a fixed order (the library's own writer shuffles the metadata), so that equal
/// checkpoints are equal files.
pub(crate) fn header(layout: &FlatLayout, about: &Description<'_>) -> Result<Vec<u8>, String> {
    let mut json = String::from("{\"__metadata__\":");
    json.push_str(&to_json(&metadata(layout, about)?)?);
    for entry in layout.state_entries() {
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: entry.shape,
            data_offsets: (entry.offset * 4, (entry.offset + entry.len) * 4),
        };
        json.push_str(&format!(",{}:{}", to_json(&entry.name)?, to_json(&info)?));
    }
    json.push('}');
    let mut json = json.into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    Ok(bytes)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|e| e.to_string())
}

fn metadata(
    layout: &FlatLayout,
    about: &Description<'_>,
) -> Result<BTreeMap<&'static str, String>, String> {
    let Description {
        run,
        generation,
        step,
        fingerprint,
    } = about;
    let epoch = step / run.extent.steps_per_epoch.max(1);
    let order = serde_json::json!([
        {"part": "trainable", "elements": layout.trainable_len()},
        {"part": "velocity", "elements": layout.trainable_len()},
        {"part": "frozen", "elements": layout.frozen_len()},
    ]);
    Ok(BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("run_id", run.id.to_string()),
        ("step", step.to_string()),
        ("epoch", epoch.to_string()),
        ("generation", generation.to_string()),
        ("dataset_digest", run.dataset_digest.clone()),
        ("spec", to_json(&run.spec)?),
        ("fingerprint", to_json(fingerprint)?),
        ("state_order", order.to_string()),
    ]))
}
