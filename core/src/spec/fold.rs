//! Which fold of a cross-validation a run holds out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most folds of a cross-validation.
pub const MAX_FOLDS: u32 = 100;

/// A fold of a k-fold cross-validation: the run validates on it and trains on the others. `crate::fold` says who is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldSpec {
    /// Which, from 1.
    pub index: u32,
    /// Number of folds, 2 to 100.
    pub of: u32,
}

impl FoldSpec {
    /// The key that has no possible value, and why.
    pub(super) fn problem(self) -> Option<(&'static str, String)> {
        let Self { index, of } = self;
        if !(2..=MAX_FOLDS).contains(&of) {
            return Some(("fold.of", format!("{of} is not between 2 and {MAX_FOLDS}")));
        }
        if !(1..=of).contains(&index) {
            return Some((
                "fold.index",
                format!("{index} is not between 1 and {of} (fold.of)"),
            ));
        }
        None
    }
}

impl fmt::Display for FoldSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.index, self.of)
    }
}
