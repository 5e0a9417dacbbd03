//! The state that a run starts from.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;

use fovea_core::googlenet::{FlatLayout, Network, ParamSpec, fill, is_classifier, param_specs};
use fovea_core::spec::RunSpec;
use fovea_weights::{Source, WeightsError, load};
use tracing::info;

/// The state that a run starts from: drawn by the seed, or read from `weights` (the verified file that the spec means)
/// with new classifiers. Layers of auxiliary heads that the file does not hold are drawn, too. Velocities are zero. The same
/// bits on every worker.
pub fn first_state(
    spec: &RunSpec,
    layout: &FlatLayout,
    weights: Option<File>,
) -> Result<Vec<f32>, FirstStateError> {
    let mut state = vec![0f32; layout.state_len()];
    let places: HashMap<String, Range<usize>> = layout
        .state_entries()
        .into_iter()
        .map(|entry| (entry.name, entry.offset..entry.offset + entry.len))
        .collect();
    for param in &param_specs(layout.network()) {
        let values = &mut state[places[&param.name].clone()];
        fill(param, spec.model.init, spec.seed, values);
    }
    let Some(file) = weights else {
        return Ok(state);
    };
    // Layers behind the one that a linear probe reads are read and checked, but have no place.
    let mut set = |param: &ParamSpec, values: &[f32]| {
        if let Some(place) = places.get(&param.name) {
            state[place.clone()].copy_from_slice(values);
        }
    };
    let name = &spec.model.weights;
    let specs = param_specs(Network {
        auxiliary: layout.network().auxiliary,
        ..Network::trunk(layout.network().outputs)
    });
    let replaced: Vec<&str> = specs
        .iter()
        .map(|param| param.layer.as_str())
        .filter(|layer| is_classifier(layer))
        .collect();
    let loaded = load(&mut Source::new(file, name), &specs, &replaced, &mut set)?;
    info!(
        layers = loaded.copied.len(),
        ignored = loaded.ignored.join(" "),
        sha256 = spec.model.weights_sha256,
        "weights.loaded: read the first weights from {name}"
    );
    Ok(state)
}

/// Why a run cannot start from its spec.
#[derive(Debug, thiserror::Error)]
pub enum FirstStateError {
    /// The weights file.
    #[error("the run's model.weights: {0}")]
    Weights(#[from] WeightsError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::state_digest;
    use crate::testing::spec;

    /// The first state from the published weights is the one of every version since the first: runs can be repeated.
    #[cfg_attr(
        not(has_shared),
        ignore = "needs ../shared: real photographs and weights"
    )]
    #[test]
    fn the_first_state_has_the_known_bits() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../shared/weights/bvlc_googlenet_trunk_v1.caffemodel");
        let mut spec = spec("");
        spec.seed = 5;
        spec.model.frozen = fovea_core::spec::ModelSpec::default().frozen;
        spec.model.weights = "bvlc".into();
        let layout = FlatLayout::new(2, &spec.model.frozen).unwrap();
        let state = first_state(&spec, &layout, Some(File::open(path).unwrap())).unwrap();
        let digest = crate::checkpoint::digest_text(state_digest(&state));
        assert_eq!(digest, "d39d1d13e0ded6e8f7706d329af08c82");
    }
}
