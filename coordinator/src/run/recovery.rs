//! How long it takes from the end of a generation that ran to the next one's first step.

use fovea_core::run::Phase;

/// Follows a run's phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Recovery {
    /// No generation runs: the next one takes nobody's place.
    #[default]
    Idle,
    /// One runs.
    Running,
    /// Another one has been forming in its place since then, milliseconds on the clock.
    Since(u64),
}

impl Recovery {
    /// The run is in that phase at `now`. Returns how long the recovery that ended with it took, milliseconds.
    pub(super) fn phase(&mut self, phase: &Phase, now: u64) -> Option<u64> {
        let (next, took) = match (phase, *self) {
            (Phase::Running { .. }, Self::Since(since)) => {
                (Self::Running, Some(now.saturating_sub(since)))
            }
            (Phase::Running { .. }, _) => (Self::Running, None),
            (Phase::Forming { .. }, Self::Running) => (Self::Since(now), None),
            (Phase::Forming { .. }, before) => (before, None),
            _ => (Self::Idle, None),
        };
        *self = next;
        took
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fovea_core::roster::Roster;

    use super::*;

    #[test]
    fn only_a_generation_in_the_place_of_another_recovers() {
        let roster = || Roster {
            generation: 1,
            start_step: 0,
            members: Vec::new(),
        };
        let running = Phase::Running {
            roster: roster(),
            stopping: None,
        };
        let forming = Phase::Forming {
            roster: roster(),
            ready: BTreeMap::new(),
            stopping: None,
            reason: None,
        };
        let queued = Phase::Queued { reason: None };
        let mut recovery = Recovery::default();
        let steps = [
            // The first one.
            (&forming, 1, None),
            (&running, 2, None),
            // Its successor forms at the second attempt.
            (&forming, 10, None),
            (&forming, 15, None),
            (&running, 30, Some(20)),
            // One that was queued meanwhile begins anew.
            (&forming, 40, None),
            (&queued, 41, None),
            (&forming, 50, None),
            (&running, 60, None),
        ];
        for (phase, now, took) in steps {
            assert_eq!(recovery.phase(phase, now), took, "at {now}");
        }
    }
}
