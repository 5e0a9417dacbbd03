//! How long something has been in the trash, though the clock may be wrong.
//!
//! The name of an entry has the time of a clock that can be corrected at any moment: a machine starts with a date that is years
//! ahead, or somebody sets it so while the coordinator runs. What is deleted does not come back. So an entry is old only if the
//! clock says so now, and its age when this process saw it first and the time that has passed since say so as well, and it
//! has been seen for so long that a clock that was wrong at the start has been corrected.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::identity::unix_ms;
use super::trash::Entry;

/// How long an entry is seen before it can be old.
const SETTLED: Duration = Duration::from_secs(3600);

/// A time by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// What the calendar says.
    pub wall: SystemTime,
    /// Time since a moment in the past, which nobody can set.
    pub running: Duration,
}

/// When this process saw the entries of the trash first.
#[derive(Debug, Default)]
pub(crate) struct TrashAges(BTreeMap<String, First>);

#[derive(Debug, Clone, Copy)]
struct First {
    age: Duration,
    running: Duration,
}

/// One look at the entries.
pub(super) struct Look<'a> {
    ages: &'a mut TrashAges,
    before: BTreeMap<String, First>,
    now: Moment,
    keep: Duration,
}

impl TrashAges {
    /// Looks at the entries that there are now. What is not looked at is forgotten. They are kept for `keep`.
    pub(super) fn look(&mut self, now: Moment, keep: Duration) -> Look<'_> {
        Look {
            before: std::mem::take(&mut self.0),
            ages: self,
            now,
            keep,
        }
    }
}

impl Look<'_> {
    /// Whether the entry has been kept for long enough.
    pub(super) fn is_old(&mut self, entry: &Entry) -> bool {
        let Moment { wall, running } = self.now;
        let age = Duration::from_millis(unix_ms(wall).saturating_sub(entry.since_ms));
        let first = self.before.remove(&entry.name);
        let first = first.unwrap_or(First { age, running });
        self.ages.0.insert(entry.name.clone(), first);
        let seen = running.saturating_sub(first.running);
        age > self.keep && first.age + seen > self.keep && seen >= SETTLED.min(self.keep)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
    /// When the entries were put aside.
    const SINCE: Duration = Duration::from_secs(1_800_000_000);

    fn entry(name: &str) -> Entry {
        Entry {
            since_ms: SINCE.as_millis() as u64,
            name: name.into(),
        }
    }

    /// Whether the entry is old with the clock `wall` after its time, when the process has run for `running`.
    fn is_old(ages: &mut TrashAges, wall: Duration, running: Duration) -> bool {
        let now = Moment {
            wall: UNIX_EPOCH + SINCE + wall,
            running,
        };
        ages.look(now, KEEP).is_old(&entry("a"))
    }

    #[test]
    fn an_entry_is_old_after_its_time() {
        let mut ages = TrashAges::default();
        for days in 0..=7 {
            assert!(!is_old(&mut ages, days * DAY, days * DAY), "{days}");
        }
        assert!(is_old(&mut ages, KEEP + HOUR, KEEP + HOUR));
    }

    /// Another process has put it aside.
    #[test]
    fn one_that_was_old_at_the_start_goes_soon() {
        let mut ages = TrashAges::default();
        assert!(!is_old(&mut ages, 8 * DAY, Duration::ZERO));
        assert!(!is_old(&mut ages, 8 * DAY + HOUR / 2, HOUR / 2));
        assert!(is_old(&mut ages, 8 * DAY + HOUR, HOUR));
    }

    #[test]
    fn a_clock_that_is_ahead_at_the_start_and_corrected_costs_nothing() {
        let mut ages = TrashAges::default();
        assert!(!is_old(&mut ages, YEAR, Duration::ZERO));
        assert!(!is_old(&mut ages, YEAR + HOUR / 2, HOUR / 2));
        assert!(!is_old(&mut ages, DAY, HOUR));
        assert!(!is_old(&mut ages, DAY + HOUR, 2 * HOUR));
    }

    #[test]
    fn a_clock_that_jumps_ahead_costs_nothing() {
        let mut ages = TrashAges::default();
        assert!(!is_old(&mut ages, DAY, 2 * DAY));
        assert!(!is_old(&mut ages, YEAR, 3 * DAY));
        assert!(!is_old(&mut ages, YEAR + 4 * DAY, 7 * DAY));
        // It has really been there for long enough.
        assert!(is_old(&mut ages, YEAR + 6 * DAY, 9 * DAY));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut ages = TrashAges::default();
        let now = Moment {
            wall: UNIX_EPOCH + SINCE,
            running: HOUR,
        };
        for names in [&["a", "b"][..], &["b", "c"]] {
            let mut look = ages.look(now, KEEP);
            for name in names {
                look.is_old(&entry(name));
            }
        }
        assert_eq!(ages.0.keys().collect::<Vec<_>>(), ["b", "c"]);
    }
}
