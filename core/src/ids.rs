//! Identifiers. Each is checked once, where it enters, and trusted afterwards.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: {rule}")]
pub struct IdError {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// What every name that becomes part of a path or a log line must look like.
const RULE: &str =
    "use 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or a digit";

fn check(kind: &'static str, text: &str) -> Result<(), IdError> {
    let good = (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if good {
        return Ok(());
    }
    // What a stranger sent may be huge; the message stays short.
    let text = text.chars().take(80).collect();
    Err(IdError {
        kind,
        text,
        rule: RULE,
    })
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and makes it an identifier.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check($kind, &text)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

name_id!(
    /// A run, named by the coordinator when it accepts the run: `<name>-<number>`.
    RunId,
    "run id"
);
name_id!(
    /// A worker process. It lasts as long as the process: a restarted worker has a new one.
    WorkerId,
    "worker id"
);
name_id!(
    /// A dataset's name, unique at one coordinator.
    DatasetName,
    "dataset name"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "a b",
            "-x",
            "é",
            &"x".repeat(65),
        ] {
            assert!(RunId::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "run-1", "EyePACS_2015.v2", &"x".repeat(64)] {
            assert!(RunId::new(good).is_ok(), "{good:?} was refused");
        }
    }
}
