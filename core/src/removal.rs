//! Whether a run or a group of runs may be removed. The coordinator decides so, and the client asks no question about what it
//! would refuse.

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

/// Why a group of runs is not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupRemovalError {
    /// Some of its runs have not ended.
    #[error(
        "group {group}: {} {} not ended; cancel the group first (`fovea group cancel {group}`). Nothing was removed",
        runs.join(", "), plural(runs.len(), "has", "have")
    )]
    NotEnded {
        /// Its id.
        group: String,
        /// Ids and phases of these runs, such as `dr.f1-2 (paused)`.
        runs: Vec<String>,
    },
    /// There are checkpoints, which were not to be removed with it.
    #[error(
        "the runs of group {group} have {}; --with-checkpoints removes {}, too. Nothing was removed",
        count(*checkpoints, "checkpoint", "checkpoints"),
        plural(*checkpoints, "it", "them")
    )]
    HasCheckpoints {
        /// Its id.
        group: String,
        /// How many.
        checkpoints: usize,
    },
}

/// Checks that all runs of a group may be removed, each given as its id, its phase in lower case and its number of checkpoints.
///
/// # Errors
/// One has not ended, or one has checkpoints without `with_checkpoints`.
pub fn check_group<'a>(
    group: &str,
    runs: impl IntoIterator<Item = (&'a str, &'static str, usize)>,
    with_checkpoints: bool,
) -> Result<(), GroupRemovalError> {
    let (mut not_ended, mut kept) = (Vec::new(), 0);
    for (run, phase, checkpoints) in runs {
        match check(run, phase, checkpoints, with_checkpoints) {
            Ok(()) => {}
            Err(RemovalError::NotEnded { run, phase }) => {
                not_ended.push(format!("{run} ({phase})"))
            }
            Err(RemovalError::HasCheckpoints { checkpoints, .. }) => kept += checkpoints,
        }
    }
    let group = group.to_owned();
    if !not_ended.is_empty() {
        let runs = not_ended;
        return Err(GroupRemovalError::NotEnded { group, runs });
    }
    if kept > 0 {
        let checkpoints = kept;
        return Err(GroupRemovalError::HasCheckpoints { group, checkpoints });
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

    #[test]
    fn a_group_is_removed_only_if_each_of_its_runs_may_be() {
        type Runs<'a> = &'a [(&'a str, &'static str, usize)];
        let say = |runs: Runs, with| {
            let checked = check_group("r-g1", runs.iter().copied(), with);
            checked.err().map_or(String::new(), |e| e.to_string())
        };
        let ended = [("a-2", "completed", 3), ("b-3", "cancelled", 1)];
        assert_eq!(say(&ended, true), "");
        assert_eq!(
            say(&ended, false),
            "the runs of group r-g1 have 4 checkpoints; --with-checkpoints removes them, too. Nothing was removed"
        );
        let mixed = [
            ("a-2", "completed", 3),
            ("b-3", "paused", 1),
            ("c-4", "queued", 0),
        ];
        assert_eq!(
            say(&mixed, true),
            "group r-g1: b-3 (paused), c-4 (queued) have not ended; cancel the group first (`fovea group cancel r-g1`). \
             Nothing was removed"
        );
    }
}
