//! What keeps a run from being judged.

use fovea_proto::ConvertError;

/// Why a run cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What was asked for is not there.
    #[error("{0}")]
    Usage(String),
    /// The coordinator's answer is not as it should be.
    #[error("{0}")]
    Protocol(String),
    /// A dataset's files cannot be used.
    #[error("{0}")]
    Dataset(String),
}

impl From<ConvertError> for Error {
    fn from(e: ConvertError) -> Self {
        Self::Protocol(e.to_string())
    }
}
