//! The state that a run starts from.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fovea_core::googlenet::{FlatLayout, HEAD, ParamSpec, fill, param_specs};
use fovea_core::spec::RunSpec;
use sha2::{Digest, Sha256};
use tracing::info;

use crate::weights::{self, WeightsError};

/// The state that a run starts from: drawn by the seed, or read from the spec's weights file with a new
/// classifier. Velocities are zero. The same bits on every worker.
pub fn first_state(spec: &RunSpec, layout: &FlatLayout) -> Result<Vec<f32>, FirstStateError> {
    let mut state = vec![0f32; layout.state_len()];
    let places: HashMap<String, Range<usize>> = layout
        .state_entries()
        .into_iter()
        .map(|entry| (entry.name, entry.offset..entry.offset + entry.len))
        .collect();
    let specs = param_specs(layout.classes());
    for param in &specs {
        let values = &mut state[places[&param.name].clone()];
        fill(param, spec.model.init, spec.seed, values);
    }
    if spec.model.weights.is_empty() {
        return Ok(state);
    }
    let path = Path::new(&spec.model.weights);
    check_digest(path, &spec.model.weights_sha256)?;
    let mut set = |param: &ParamSpec, values: &[f32]| {
        state[places[&param.name].clone()].copy_from_slice(values);
    };
    let loaded = weights::load(path, &specs, &[HEAD], &mut set)?;
    info!(
        layers = loaded.copied.len(),
        ignored = loaded.ignored.join(" "),
        "weights.loaded: read the first weights from {}",
        path.display()
    );
    Ok(state)
}

/// Why a run cannot start from its spec.
#[derive(Debug, thiserror::Error)]
pub enum FirstStateError {
    /// The weights file.
    #[error("the run's model.weights: {0}")]
    Weights(#[from] WeightsError),
    /// Another file than the one meant.
    #[error(
        "the run's model.weights: {} has SHA-256 {found}, but model.weights_sha256 is {expected}: copy the right \
         file to this worker", path.display()
    )]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The one in the spec.
        expected: String,
    },
}

/// The file must be the one that the spec means, where the spec says which.
fn check_digest(path: &Path, expected: &str) -> Result<(), FirstStateError> {
    if expected.is_empty() {
        return Ok(());
    }
    let io = |source| {
        FirstStateError::Weights(WeightsError::Io {
            path: path.to_owned(),
            source,
        })
    };
    let mut hash = Sha256::new();
    let mut file = weights::open(path)?;
    std::io::copy(&mut file, &mut hash).map_err(io)?;
    let found = hex::encode(hash.finalize());
    if found == expected {
        return Ok(());
    }
    Err(FirstStateError::OtherFile {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
    })
}
