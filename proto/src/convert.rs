//! Conversions between wire and domain. Each destructures every field, so that a field added on
//! one side cannot be forgotten on the other.

mod checkpoint;
mod group;
mod run;
mod spec;
mod worker;

pub use spec::{part_from_wire, priority_from_wire};
pub use worker::trouble_from_wire;

/// A wire message that does not make sense. `field` is its path in the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConvertError {
    /// Path of the field, such as `spec.train.policy`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
}

impl ConvertError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, problem: impl ToString) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    fn missing(field: impl Into<String>) -> Self {
        Self::new(field, "is missing")
    }
}

impl From<ConvertError> for tonic::Status {
    fn from(e: ConvertError) -> Self {
        tonic::Status::invalid_argument(e.to_string())
    }
}
