//! Safetensors with the parameters alone.

use std::collections::BTreeMap;

use crate::model::Model;

/// The value of `format` in the metadata of such a file.
pub const FORMAT: &str = "fovea-model-1";

/// What the network takes, for who runs it with other programs.
const INPUT: &str =
    "images, 3 channels blue, green, red, height, width; 0 to 255 minus (104, 117, 123)";

/// The parameters under their names in the checkpoint, with its metadata and the names of the classes: about half of the
/// checkpoint's size, because the optimizer's state is left out. Equal models give equal files.
///
/// # Errors
/// A text of the metadata cannot be written as JSON.
pub fn safetensors(model: &Model) -> serde_json::Result<Vec<u8>> {
    let mut metadata: BTreeMap<&str, String> = described(model)?;
    metadata.insert("format", FORMAT.to_owned());
    metadata.insert("input", INPUT.to_owned());
    let specs = model.parameters.iter().map(|(spec, _)| spec);
    let tensors = specs.map(|spec| (spec.name.as_str(), &*spec.shape));
    let mut bytes = fovea_weights::header(&metadata, tensors)?;
    bytes.reserve(model.elements() * 4);
    for (_, values) in &model.parameters {
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(bytes)
}

/// What every exported file says of the model.
pub(crate) fn described(model: &Model) -> serde_json::Result<BTreeMap<&str, String>> {
    // Of the state in the checkpoint, which is not exported.
    let kept = model
        .metadata
        .iter()
        .filter(|(key, _)| *key != "state_order");
    let mut metadata: BTreeMap<&str, String> = kept
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    metadata.insert("classes", serde_json::to_string(&model.class_names())?);
    if let Some(pipeline) = model.pipeline() {
        metadata.insert("image_size", pipeline.size.to_string());
    }
    metadata.insert("note", "research software, not a medical device".to_owned());
    Ok(metadata)
}
