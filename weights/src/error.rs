//! Errors of a file of weights.

use std::io;

/// Why weights could not be read. Every message names the file and, where there is one, the layer.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("cannot read the weights {file}: {source}")]
    Io { file: String, source: io::Error },
    #[error(
        "weights file {file} is {kind}, not a regular file; name a .caffemodel or .safetensors file"
    )]
    NotRegular { file: String, kind: &'static str },
    #[error(
        "{file} is not a {format}: {reason}; give a .caffemodel (binary, not .prototxt) or a .safetensors file"
    )]
    Format {
        file: String,
        format: &'static str,
        reason: String,
    },
    #[error("{file} is {kind}: {advice}")]
    OtherKind {
        file: String,
        /// What it is.
        kind: &'static str,
        /// What to do.
        advice: &'static str,
    },
    #[error("{file} is damaged after layer {layer}: {reason}; get a whole copy of it")]
    Damaged {
        file: String,
        layer: String,
        reason: String,
    },
    #[error("{file}: layer {layer}: {problem}")]
    Layer {
        file: String,
        layer: String,
        problem: LayerProblem,
    },
    #[error(
        "{file} has no {kind} of layer {layer}{}: these are not weights of BVLC GoogLeNet, or layers were renamed",
        others_of(*others, *of)
    )]
    Missing {
        file: String,
        layer: String,
        kind: &'static str,
        /// Layers after it that are not whole, either.
        others: usize,
        /// Layers that the network has.
        of: usize,
    },
}

fn others_of(others: usize, of: usize) -> String {
    match others {
        0 => String::new(),
        1 => format!(", nor all of 1 other of the {of} layers"),
        n => format!(", nor all of {n} others of the {of} layers"),
    }
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
    #[error("its numbers are of type {dtype}; F64, F32, F16 and BF16 are read")]
    OtherType { dtype: String },
    #[error(
        "{reason}; the weights were trained for another function than BVLC GoogLeNet's, and would give wrong results in \
         it: use weights of a network without that layer"
    )]
    OtherNetwork { reason: String },
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
    pub fn of(self, name: &str) -> WeightsError {
        let file = name.to_owned();
        match self {
            Problem::Io(source) => WeightsError::Io { file, source },
            Problem::Format(format, reason) => WeightsError::Format {
                file,
                format,
                reason,
            },
            Problem::Damaged(layer, reason) => WeightsError::Damaged {
                file,
                layer,
                reason,
            },
            Problem::Layer(layer, problem) => WeightsError::Layer {
                file,
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
