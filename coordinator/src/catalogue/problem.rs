//! What is known to be wrong with a stored file.

use crate::store::StoreError;

/// A problem of a stored file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub text: String,
    /// It may go away by itself.
    pub transient: bool,
}

impl Problem {
    pub fn of(error: &StoreError) -> Self {
        Self {
            text: error.to_string(),
            transient: error.is_transient(),
        }
    }
}
