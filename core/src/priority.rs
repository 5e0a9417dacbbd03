//! Which of two runs gets workers first.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The priority of a run. A queued run goes before those of lower priority, and takes their workers if there are too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// For what may wait, and may be interrupted by all others.
    Low,
    /// What a run has that names none.
    #[default]
    Normal,
    /// For what cannot wait.
    High,
}

impl Priority {
    /// All, the lowest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// As in run.toml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// Its place in the queue after `waited_ms` of waiting: one level higher for each `age_ms`; never higher if that is 0. A
    /// run that has risen is started earlier, and takes workers from nobody by that.
    pub fn aged(self, waited_ms: u64, age_ms: u64) -> Self {
        let levels = waited_ms.checked_div(age_ms).unwrap_or(0);
        let place = (self as usize).saturating_add(usize::try_from(levels).unwrap_or(usize::MAX));
        Self::ALL[place.min(Self::ALL.len() - 1)]
    }

    /// For `skip_serializing_if`: a spec that names none is written as ever.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{High, Low, Normal};

    #[test]
    fn waiting_raises_by_levels_up_to_the_highest() {
        for (priority, waited, age, expected) in [
            (Low, 0, 10, Low),
            (Low, 9, 10, Low),
            (Low, 10, 10, Normal),
            (Low, 20, 10, High),
            (Low, u64::MAX, 1, High),
            (Normal, 15, 10, High),
            (High, 50, 10, High),
            (Low, u64::MAX, 0, Low),
        ] {
            assert_eq!(
                priority.aged(waited, age),
                expected,
                "{priority} {waited} {age}"
            );
        }
        assert!(Low < Normal && Normal < High);
    }
}
