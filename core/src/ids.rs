//! Identifiers. Each is validated once, when it is made from a text, and is valid from then on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: {rule}")]
pub struct IdError {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// The rule for every name that becomes part of a path or a log line.
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
    // The text may have been sent by a client and be huge; the message is kept short.
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
            /// Makes an identifier of `text`.
            ///
            /// # Errors
            /// If `text` is not 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or a digit.
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
    /// Id of a run, given by the coordinator when it accepts the run: `<name>-<number>`.
    RunId,
    "run id"
);
name_id!(
    /// Id of a group of runs, given by the coordinator when it accepts the group: `<name>-g<number>`.
    GroupId,
    "group id"
);
name_id!(
    /// Id of a worker process. A restarted worker has a new one.
    WorkerId,
    "worker id"
);
name_id!(
    /// A dataset's name, unique at one coordinator.
    DatasetName,
    "dataset name"
);
name_id!(
    /// The name of stored weights, unique at one coordinator. One that [`WeightsRef`](crate::weights::WeightsRef) would
    /// take for a path is refused where names are given.
    WeightsName,
    "weights name"
);

impl RunId {
    /// The number at its end, which the coordinator gives: ids are NAME-NUMBER. None: it has none, or one that no
    /// coordinator gives.
    pub fn number(&self) -> Option<u64> {
        let (_, digits) = self.as_str().rsplit_once('-')?;
        let number = digits.parse::<u32>().ok()?;
        Some(number.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_run_is_at_the_end_of_its_id() {
        for (id, number) in [
            ("dr-1", Some(1)),
            ("a-b-70000", Some(70_000)),
            ("dr", None),
            ("dr-", None),
            ("dr-x1", None),
            ("dr-99999999999", None),
        ] {
            assert_eq!(RunId::new(id).unwrap().number(), number, "{id}");
        }
    }

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
