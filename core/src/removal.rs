//! Whether a run may be removed. The coordinator decides so, and the client asks no question about what it would refuse.

use crate::count::{count, plural};

/// Why a run is not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemovalError {
    /// It has not ended.
    #[error("run {run} is {phase}; cancel it first (`fovea cancel {run}`)")]
    NotEnded {
        /// Its id.
        run: String,
        /// Its phase in lower case.
        phase: &'static str,
    },
    /// It has checkpoints, which were not to be removed with it.
    #[error(
        "run {run} has {}; --with-checkpoints removes {}, too",
        count(*checkpoints, "checkpoint", "checkpoints"),
        plural(*checkpoints, "it", "them")
    )]
    HasCheckpoints {
        /// Its id.
        run: String,
        /// How many.
        checkpoints: usize,
    },
}

/// Checks that a run may be removed. `phase` is its phase in lower case; a paused run has not ended.
///
/// # Errors
/// It has not ended, or has checkpoints without `with_checkpoints`.
pub fn check(
    run: &str,
    phase: &'static str,
    checkpoints: usize,
    with_checkpoints: bool,
) -> Result<(), RemovalError> {
    let run = run.to_owned();
    if !["completed", "failed", "cancelled"].contains(&phase) {
        return Err(RemovalError::NotEnded { run, phase });
    }
    if checkpoints > 0 && !with_checkpoints {
        return Err(RemovalError::HasCheckpoints { run, checkpoints });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ended_run_is_removed_and_its_checkpoints_only_on_request() {
        for (phase, checkpoints, with, expected) in [
            ("completed", 0, false, ""),
            ("failed", 2, true, ""),
            ("cancelled", 0, true, ""),
            (
                "cancelled",
                1,
                false,
                "run r-1 has 1 checkpoint; --with-checkpoints removes it, too",
            ),
            (
                "failed",
                2,
                false,
                "run r-1 has 2 checkpoints; --with-checkpoints removes them, too",
            ),
            (
                "paused",
                0,
                true,
                "run r-1 is paused; cancel it first (`fovea cancel r-1`)",
            ),
            (
                "running",
                3,
                false,
                "run r-1 is running; cancel it first (`fovea cancel r-1`)",
            ),
        ] {
            let got = check("r-1", phase, checkpoints, with);
            assert_eq!(got.err().map_or(String::new(), |e| e.to_string()), expected);
        }
    }
}
