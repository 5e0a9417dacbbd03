//! What is known to be wrong with a stored file.

use crate::store::StoreError;

/// A problem of a stored file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub text: String,
    /// It may go away by itself.
    pub transient: bool,
    /// The file is not here, though its store is.
    pub missing: bool,
}

/// Whose turn it is to be read again: the digest after `last` in their order, or the first. So one that stays unreadable keeps
/// no other from being tried.
pub(super) fn next_in_turn<'a>(
    digests: impl IntoIterator<Item = &'a String>,
    last: &str,
) -> Option<String> {
    let mut digests: Vec<&String> = digests.into_iter().collect();
    digests.sort();
    let next = digests.iter().find(|digest| digest.as_str() > last);
    next.or(digests.first()).map(|digest| (*digest).clone())
}

impl Problem {
    pub fn of(error: &StoreError) -> Self {
        Self {
            text: error.to_string(),
            transient: error.is_transient(),
            missing: matches!(error, StoreError::Missing { .. }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_its_turn() {
        let digests = ["c", "a", "b"].map(String::from);
        let mut last = String::new();
        for expected in ["a", "b", "c", "a"] {
            last = next_in_turn(&digests, &last).unwrap();
            assert_eq!(last, expected);
        }
        assert_eq!(next_in_turn(&[], "a"), None);
    }
}
