//! The header of a checkpoint's safetensors file, known before any of its bytes arrive.
//!
//! The file's data is the run's state: one array of little-endian 32-bit floats in the order of
//! [`FlatLayout::state_entries`] (trainable parameters, their velocities, frozen parameters). So the place of each
//! slice of the state in the file is known before the slice arrives.

use std::collections::BTreeMap;

use fovea_core::checkpoint::Fingerprint;
use fovea_core::googlenet::FlatLayout;
use fovea_core::pipeline::Pipeline;
use fovea_core::run::Run;

/// The value of `format` in a checkpoint's metadata.
pub(crate) const FORMAT: &str = "fovea-checkpoint-1";

/// What the header of a checkpoint's file records.
#[derive(Debug, Clone)]
pub(crate) struct Description<'a> {
    /// The run, with its spec and dataset.
    pub run: &'a Run,
    /// Generation that takes the checkpoint.
    pub generation: u64,
    /// Committed steps that it holds.
    pub step: u64,
    /// The machine and libraries that its bits depend on.
    pub fingerprint: &'a Fingerprint,
}

/// The first bytes of the file. Equal checkpoints are equal files.
pub(crate) fn header(layout: &FlatLayout, about: &Description<'_>) -> serde_json::Result<Vec<u8>> {
    let entries = layout.state_entries();
    // They lie one behind the other from the beginning.
    let tensors = entries.iter().map(|e| (e.name.as_str(), &*e.shape));
    fovea_weights::header(&metadata(layout, about)?, tensors)
}

fn metadata(
    layout: &FlatLayout,
    about: &Description<'_>,
) -> serde_json::Result<BTreeMap<&'static str, String>> {
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
    let mut metadata = BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("run_id", run.id.to_string()),
        ("step", step.to_string()),
        ("epoch", epoch.to_string()),
        ("generation", generation.to_string()),
        ("dataset_digest", run.dataset_digest.clone()),
        ("spec", serde_json::to_string(&run.spec)?),
        ("fingerprint", serde_json::to_string(fingerprint)?),
        ("state_order", order.to_string()),
    ]);
    if let Some(pipeline) = &run.pipeline {
        metadata.insert(Pipeline::KEY, serde_json::to_string(pipeline)?);
    }
    Ok(metadata)
}
