//! The weights file of a run: its path made absolute, and pinned by its digest.

use std::io::Read;
use std::path::{Path, PathBuf};

use fovea_core::spec::RunSpec;
use sha2::{Digest, Sha256};

use super::{Origin, Problem, RunFile, RunFileError};

/// The result of resolving `model.weights`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// None are given: the run trains from scratch.
    None,
    /// Read here; the digest is in the spec.
    Pinned,
    /// Not readable here, but perhaps on the workers; the text has the reason.
    Unseen(String),
}

impl RunFile {
    /// Makes a relative `model.weights` absolute (from the file's folder, or from the current folder
    /// if it was given by a flag) and fills in `weights_sha256` when the file can be read here.
    ///
    /// It is an error if a digest is given and differs.
    pub fn resolve_weights(&self, spec: &mut RunSpec) -> Result<Weights, RunFileError> {
        if spec.model.weights.is_empty() {
            return Ok(Weights::None);
        }
        let problem = |key: &str, message: String| {
            RunFileError(vec![Problem {
                place: self.place(key),
                message: format!("{key}: {message}"),
            }])
        };
        let path = self
            .absolute(&spec.model.weights)
            .map_err(|e| problem("model.weights", e.to_string()))?;
        let text = path
            .to_str()
            .ok_or_else(|| problem("model.weights", "the path is not UTF-8".into()))?;
        spec.model.weights = text.to_owned();
        let digest = match sha256_of(&path) {
            Ok(digest) => digest,
            Err(e) => return Ok(Weights::Unseen(format!("{text}: {e}"))),
        };
        let given = &spec.model.weights_sha256;
        if !given.is_empty() && !given.eq_ignore_ascii_case(&digest) {
            return Err(problem(
                "model.weights_sha256",
                format!("{text} has the SHA-256 {digest}, not {given}; is it the right file?"),
            ));
        }
        spec.model.weights_sha256 = digest;
        Ok(Weights::Pinned)
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
        // Resolved where the file exists, because a path with `..` is hard to read in a log.
        std::fs::canonicalize(&path).or_else(|_| std::path::absolute(&path))
    }
}

/// SHA-256 of a file, in hex.
pub(crate) fn sha256_of(path: &Path) -> std::io::Result<String> {
    // Before it is opened: opening a FIFO waits for a writer, and a device may have no end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut file = std::fs::File::open(path)?;
    let mut state = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(state.finalize())),
            n => state.update(&buffer[..n]),
        }
    }
}
