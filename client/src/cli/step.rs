//! The step of a checkpoint, as a person names it.

use std::str::FromStr;

/// Which checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// That of the highest step.
    Newest,
    /// That of this step.
    At(u64),
}

impl Step {
    /// As in requests: None for the newest.
    pub fn number(self) -> Option<u64> {
        match self {
            Step::Newest => None,
            Step::At(step) => Some(step),
        }
    }
}

/// A step is neither a number nor `newest`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give the step as a number, or `newest`")]
pub struct StepError;

impl FromStr for Step {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        match text {
            "newest" => Ok(Step::Newest),
            _ => text.parse().map(Step::At).map_err(|_| StepError),
        }
    }
}
