//! Errors of a file of weights.

use std::io;
use std::path::{Path, PathBuf};

/// Why weights could not be read. Every message names the file and, where there is one, the layer.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("cannot read the weights {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("weights file {} is {kind}, not a regular file; name a .caffemodel or .safetensors file", path.display())]
    NotRegular { path: PathBuf, kind: &'static str },
    #[error(
        "{} is not a {format}: {reason}; give a .caffemodel (binary, not .prototxt) or a .safetensors file",
        path.display()
    )]
    Format {
        path: PathBuf,
        format: &'static str,
        reason: String,
    },
    #[error("{} is damaged after layer {layer}: {reason}; copy it to this worker again", path.display())]
    Damaged {
        path: PathBuf,
        layer: String,
        reason: String,
    },
    #[error("{}: layer {layer}: {problem}", path.display())]
    Layer {
        path: PathBuf,
        layer: String,
        problem: LayerProblem,
    },
    #[error(
        "{} has no {kind} of layer {layer}: these are not weights of BVLC GoogLeNet, or the layer was renamed",
        path.display()
    )]
    Missing {
        path: PathBuf,
        layer: String,
        kind: &'static str,
    },
}

/// What is wrong with one layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerProblem {
    #[error("its {kind} has the shape {found:?}, and the network's has {wanted:?}")]
    OtherShape {
        kind: &'static str,
        found: Vec<usize>,
        wanted: Vec<usize>,
    },
    #[error(
        "its blob {index} is given the shape {shape:?} but holds {count} numbers; the file is damaged"
    )]
    OtherCount {
        index: usize,
        shape: Vec<usize>,
        count: usize,
    },
    #[error("it has a blob {index}, and the network's layer has a weight and a bias only")]
    ExtraBlob { index: usize },
    #[error(
        "its {kind} holds a number that is not finite; the file is damaged, or its training diverged"
    )]
    NotFinite { kind: &'static str },
    #[error("its {kind} is in the file twice")]
    Repeated { kind: &'static str },
    #[error(
        "it declares {declared} bytes, and the file has {left} left; the file is cut off or damaged"
    )]
    Truncated { declared: u64, left: u64 },
    #[error("it declares {declared} bytes, and at most {limit} are read; the file is damaged")]
    TooLong { declared: u64, limit: u64 },
    #[error("its bytes cannot be decoded ({reason}); the file is damaged")]
    Malformed { reason: String },
    #[error("its numbers are of type {dtype}; F32, F16 and BF16 are read")]
    OtherType { dtype: String },
}

/// A problem before the name of the file is put to it.
#[derive(Debug)]
pub(super) enum Problem {
    Io(io::Error),
    /// The file is not of the format that it was read as, such as `.caffemodel`.
    Format(&'static str, String),
    /// The file was of the format up to the end of this layer.
    Damaged(String, String),
    Layer(String, LayerProblem),
}

impl Problem {
    pub fn of(self, path: &Path) -> WeightsError {
        let path = path.to_path_buf();
        match self {
            Problem::Io(source) => WeightsError::Io { path, source },
            Problem::Format(format, reason) => WeightsError::Format {
                path,
                format,
                reason,
            },
            Problem::Damaged(layer, reason) => WeightsError::Damaged {
                path,
                layer,
                reason,
            },
            Problem::Layer(layer, problem) => WeightsError::Layer {
                path,
                layer,
                problem,
            },
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Io(error)
    }
}
