//! The weights of a run: stored at the coordinator already, or a file here.

use std::path::PathBuf;

use fovea_core::spec::RunSpec;
use fovea_core::weights::WeightsRef;

use super::{Origin, Problem, RunFile, RunFileError};
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

impl RunFile {
    /// Finds out what `model.weights` names. A file is read: a relative path starts from the run file's folder, or from
    /// the current folder if it was given by a flag.
    ///
    /// # Errors
    /// The file cannot be read, or a digest is given and differs.
    pub fn resolve_weights(&self, spec: &RunSpec) -> Result<Weights, RunFileError> {
        let problem = |key: &str, message: String| {
            RunFileError(vec![Problem {
                place: self.place(key),
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
        let path = self
            .absolute(&text)
            .map_err(|e| problem("model.weights", e.to_string()))?;
        let file = WeightsFile::read(&path).map_err(|e| {
            problem(
                "model.weights",
                format!("{e}; name a file here, or weights that the coordinator has (`fovea weights list`)"),
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

    fn absolute(&self, weights: &str) -> std::io::Result<PathBuf> {
        let from_flag = matches!(
            self.given.get("model.weights").map(|g| &g.origin),
            Some(Origin::Flag(_))
        );
        let path = if from_flag {
            PathBuf::from(weights)
        } else {
            self.folder.join(weights)
        };
        // Resolved where the file exists, because a path with `..` is hard to read in a message.
        std::fs::canonicalize(&path).or_else(|_| std::path::absolute(&path))
    }
}
