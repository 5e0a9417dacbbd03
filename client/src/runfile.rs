//! The weights of a run: stored at the coordinator already, or a file here.

use fovea_core::spec::RunSpec;
use fovea_core::weights::WeightsRef;

pub use fovea_runfile::{Problem, RunFile, RunFileError};

use crate::weights::WeightsFile;

/// What `model.weights` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// None are given: the run trains from scratch.
    None,
    /// Weights that the coordinator stores, by name or digest.
    Stored,
    /// A file here, which the coordinator may not have yet.
    File(WeightsFile),
}

/// Finds out what `model.weights` names. A file is read: a relative path starts from the run file's folder, or from
/// the current folder if it was given by a flag.
///
/// # Errors
/// The file cannot be read, or a digest is given and differs.
pub fn resolve_weights(file: &RunFile, spec: &RunSpec) -> Result<Weights, RunFileError> {
    let problem = |key: &str, message: String| {
        RunFileError(vec![Problem {
            place: file.place(key),
            message: format!("{key}: {message}"),
        }])
    };
    let parsed = WeightsRef::parse(&spec.model.weights)
        .map_err(|e| problem("model.weights", e.to_string()))?;
    let text = match parsed {
        WeightsRef::None => return Ok(Weights::None),
        WeightsRef::Digest(_) | WeightsRef::Name(_) => return Ok(Weights::Stored),
        WeightsRef::Path(text) => text,
    };
    let path = file
        .absolute("model.weights", &text)
        .map_err(|e| problem("model.weights", e.to_string()))?;
    let file = WeightsFile::read(&path).map_err(|e| {
        problem(
            "model.weights",
            format!(
                "{e}; name a file here, or weights that the coordinator has (`fovea weights list`)"
            ),
        )
    })?;
    let given = &spec.model.weights_sha256;
    if !given.is_empty() && !given.eq_ignore_ascii_case(&file.sha256) {
        return Err(problem(
            "model.weights_sha256",
            format!(
                "{} has the SHA-256 {}, not {given}; is it the right file?",
                path.display(),
                file.sha256
            ),
        ));
    }
    Ok(Weights::File(file))
}

#[cfg(test)]
mod tests;
