//! Whether an upload goes on fast enough to keep its place.

use std::time::{Duration, Instant};

/// An upload that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// The slowest pace that an upload may have, bytes per second, averaged over [`WINDOW`].
const SLOWEST: u64 = 16 << 10;

/// The time over which the pace is measured.
const WINDOW: Duration = Duration::from_secs(60);

/// The pace of one upload: given up after 30 s without a message, or if it is slower than 16 KiB/s
/// over a minute.
///
/// Only time spent waiting for the client counts. Call [`waiting`](Self::waiting) before each wait,
/// so that a slow disk of the coordinator is not held against the client.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Since when the client is waited for.
    since: Instant,
    /// Bytes of the present window.
    bytes: u64,
    /// Time of the present window that was spent waiting, until `since`.
    waited: Duration,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// The wait for the next message begins.
    pub(crate) fn waiting(&mut self, now: Instant) {
        self.since = now;
    }

    /// A message with so many bytes came.
    pub(crate) fn on_bytes(&mut self, now: Instant, bytes: u64) {
        self.waited += now.saturating_duration_since(self.since);
        self.since = now;
        self.bytes += bytes;
        if self.waited >= WINDOW && self.bytes >= enough() {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }

    /// When the upload is to be given up if nothing more comes until then.
    pub(crate) fn deadline(&self) -> Instant {
        let silent = self.since + SILENCE;
        if self.bytes >= enough() {
            return silent;
        }
        silent.min(self.since + WINDOW.saturating_sub(self.waited))
    }

    /// Whether the upload is to be given up.
    #[cfg(test)]
    pub(crate) fn expired(&self, now: Instant) -> bool {
        now >= self.deadline()
    }
}

/// The least that comes in a window.
const fn enough() -> u64 {
    SLOWEST * WINDOW.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When an upload that sends `bytes` every `interval` is given up; None if it lasts an hour.
    fn given_up(bytes: u64, interval: Duration) -> Option<Duration> {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        while now < start + Duration::from_secs(3600) {
            now += interval;
            if pace.expired(now) {
                return Some(pace.deadline() - start);
            }
            pace.on_bytes(now, bytes);
        }
        None
    }

    #[test]
    fn silence_and_a_crawl_are_given_up_and_a_slow_line_is_not() {
        let second = Duration::from_secs(1);
        assert_eq!(given_up(1 << 20, 31 * second), Some(30 * second));
        assert_eq!(given_up(1 << 20, 29 * second), None);
        assert_eq!(given_up(1, second), Some(60 * second));
        assert_eq!(given_up(15 << 10, second), Some(60 * second));
        assert_eq!(given_up(17 << 10, second), None);
        assert_eq!(given_up(2 << 10, 100 * MS), None);
    }

    #[test]
    fn who_slows_down_later_is_given_up_too() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..100 {
            now += Duration::from_secs(1);
            pace.on_bytes(now, 1 << 20);
        }
        let fast_until = now;
        while !pace.expired(now) {
            pace.on_bytes(now, 10);
            now += Duration::from_secs(1);
        }
        let lasted = now - fast_until;
        assert!(lasted <= 2 * WINDOW, "{lasted:?}");
    }

    #[test]
    fn the_coordinators_own_slowness_does_not_count() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..100 {
            // A chunk takes 100 ms to come, and 50 s to be written.
            pace.waiting(now);
            now += 100 * MS;
            assert!(!pace.expired(now));
            pace.on_bytes(now, 4 << 10);
            now += Duration::from_secs(50);
        }
    }
}
