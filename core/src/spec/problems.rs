//! What is wrong with a spec, key by key.

/// A key with a value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key as written in run.toml, such as `train.batch`.
    pub key: String,
    /// What is wrong, and which values are allowed.
    pub message: String,
}

/// All problems of a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|p| format!("{}: {}", p.key, p.message)).collect::<Vec<_>>().join("; "))]
pub struct SpecError(pub Vec<Problem>);

/// Collects them.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: &str, message: String) {
        self.0.push(Problem {
            key: key.into(),
            message,
        });
    }

    pub(super) fn check(&mut self, key: &str, good: bool, message: impl FnOnce() -> String) {
        if !good {
            self.add(key, message());
        }
    }

    pub(super) fn range(&mut self, key: &str, value: f64, low: f64, high: f64) {
        self.check(key, (low..=high).contains(&value), || {
            format!("{value} is not between {low} and {high}")
        });
    }

    pub(super) fn into_result(self) -> Result<(), SpecError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(SpecError(self.0))
        }
    }
}
