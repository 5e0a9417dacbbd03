//! Why a request is not met, and the one place that maps it to a gRPC status.

use fovea_core::fold::FoldError;
use fovea_core::plan::PlanError;
use fovea_core::run::RunError;
use fovea_core::spec::SpecError;
use fovea_proto::ConvertError;
use tonic::Status;

use crate::blocking::Panicked;
use crate::store::{StoreError, UploadError};

/// Why a request is not met. Every message names the thing and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A field has an impossible value.
    #[error("{field}: {problem}")]
    Invalid { field: String, problem: String },
    /// A run's spec has impossible values.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The dataset is too small for the spec.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It is too small for the folds.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// Whoever asks may not do it.
    #[error("{0}")]
    Denied(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// The state of things does not allow it now.
    #[error("{0}")]
    Precondition(String),
    /// Another request is doing the same.
    #[error("{0}")]
    Conflict(String),
    /// No room: on disk, or too many at once.
    #[error("{0}")]
    Exhausted(String),
    /// The other side was silent for too long.
    #[error("{0}")]
    Silent(String),
    /// What was stored is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The other side broke off.
    #[error("{0}")]
    BrokenOff(String),
    /// The coordinator is going down.
    #[error("the coordinator is shutting down; try again when it is back")]
    ShuttingDown,
    /// A worker's session was ended; the reason is for the worker.
    #[error("{0}")]
    Ended(String),
    /// It cannot be done now: the same request may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// It was done in part: the message says what is done, what is left, and what becomes of that.
    #[error("{0}")]
    Incomplete(String),
    /// The coordinator's own trouble.
    #[error("the coordinator could not do it: {0}")]
    Internal(String),
}

impl ApiError {
    pub(crate) fn invalid(field: impl Into<String>, problem: impl ToString) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// Something was not removed, and nothing was changed. `again`: the command that asks for it again.
    pub(crate) fn kept(what: &str, error: &StoreError, again: &str) -> Self {
        match error {
            StoreError::Remove { .. } => Self::Precondition(format!(
                "{what}: {error}. Correct the cause (owner, rights, a read-only file system), then `{again}` again"
            )),
            error => Self::from(error),
        }
    }

    pub(crate) fn no_run(id: impl std::fmt::Display) -> Self {
        Self::NotFound(format!("there is no run {id}; `fovea runs` lists them"))
    }

    pub(crate) fn no_group(id: impl std::fmt::Display) -> Self {
        Self::NotFound(format!(
            "there is no group {id}; `fovea group list` lists them"
        ))
    }

    pub(crate) fn no_dataset(name: impl std::fmt::Display) -> Self {
        Self::NotFound(format!(
            "there is no dataset {name}; `fovea dataset list` shows those there are, `fovea \
             dataset add` adds one"
        ))
    }
}

impl From<ConvertError> for ApiError {
    fn from(error: ConvertError) -> Self {
        let ConvertError { field, problem } = error;
        Self::Invalid { field, problem }
    }
}

impl From<RunError> for ApiError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Ended { .. }
            | RunError::NotPausable { .. }
            | RunError::NotResumable { .. }
            | RunError::NoPriority { .. } => Self::Precondition(error.to_string()),
            RunError::NoCheckpoint { .. } => Self::NotFound(error.to_string()),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Invalid { field, problem } => Self::invalid(field, problem),
            UploadError::Store(error) => Self::from(&error),
        }
    }
}

impl From<Panicked> for ApiError {
    fn from(error: Panicked) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for ApiError {
    fn from(error: &StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Corrupt { .. } => Self::Damaged(message),
            StoreError::Full { .. } => Self::Exhausted(message),
            StoreError::TooNew { .. } => Self::Precondition(message),
            StoreError::Unavailable { .. }
            | StoreError::Missing { .. }
            | StoreError::Unreadable { .. }
            | StoreError::Write { .. }
            | StoreError::Remove { .. } => Self::Unavailable(message),
        }
    }
}

impl From<Panicked> for Status {
    fn from(error: Panicked) -> Self {
        ApiError::from(error).into()
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let message = error.to_string();
        match error {
            ApiError::Invalid { .. }
            | ApiError::Spec(_)
            | ApiError::Plan(_)
            | ApiError::Fold(_) => Self::invalid_argument(message),
            ApiError::Precondition(_) => Self::failed_precondition(message),
            ApiError::Denied(_) => Self::permission_denied(message),
            ApiError::NotFound(_) => Self::not_found(message),
            ApiError::AlreadyExists(_) => Self::already_exists(message),
            ApiError::Conflict(_) | ApiError::Ended(_) => Self::aborted(message),
            ApiError::Exhausted(_) => Self::resource_exhausted(message),
            ApiError::Silent(_) => Self::deadline_exceeded(message),
            ApiError::Damaged(_) => Self::data_loss(message),
            ApiError::BrokenOff(_) => Self::cancelled(message),
            ApiError::ShuttingDown | ApiError::Unavailable(_) => Self::unavailable(message),
            ApiError::Incomplete(_) | ApiError::Internal(_) => Self::internal(message),
        }
    }
}
