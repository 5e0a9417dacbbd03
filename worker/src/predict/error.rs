//! Why there is no prediction.

use std::path::PathBuf;

use fovea_dataset::{PhotographsError, RecipeError};
use fovea_export::ModelError;
use fovea_predict::TableError;
use fovea_predict::files::FileError;

use crate::device::DeviceError;

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The photographs.
    #[error(transparent)]
    Photographs(#[from] PhotographsError),
    /// A file that is written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The model's file is none.
    #[error("model {}: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The model's file has a spec that no run can have.
    #[error("model {}: the run's spec in its metadata is impossible: {problem}", path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The photographs cannot be prepared as the model's own were.
    #[error("model {}: {source}", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: RecipeError,
    },
    /// The model's file does not say how its photographs were prepared.
    #[error(
        "model {}: it does not say how its photographs were prepared, because an older version of Fovea wrote it: give \
         --preprocess and --size, as `fovea dataset list` shows them for the run's dataset",
        path.display()
    )]
    NoPipeline {
        /// The file.
        path: PathBuf,
    },
    /// libtorch.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The network's output is not finite.
    #[error(
        "model {}: its output for a photograph is not finite: the training diverged; take an earlier checkpoint",
        path.display()
    )]
    Diverged {
        /// The file.
        path: PathBuf,
    },
    /// The table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The device answered for fewer photographs than it was given.
    #[error("the device gave fewer scores than it was given photographs")]
    Missing,
}

impl PredictError {
    /// The program's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Photographs(PhotographsError::Unreadable { .. })
            | Self::File(FileError::Io { .. }) => 1,
            // What was asked for cannot be.
            Self::Photographs(_) | Self::NoPipeline { .. } | Self::File(_) => 2,
            Self::Io { .. }
            | Self::Model { .. }
            | Self::Spec { .. }
            | Self::Recipe { .. }
            | Self::Device(_)
            | Self::Table(_)
            | Self::Diverged { .. }
            | Self::Missing => 1,
        }
    }
}
