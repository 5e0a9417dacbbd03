//! Log lines of what a flood of clients can cause.

use std::time::Duration;

use tokio::time::Instant;

/// A flood of events makes one log line in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Events of which only one in [`LOG_EVERY`] is logged, with their number.
#[derive(Debug, Default)]
pub(crate) struct Repeated {
    last: Option<Instant>,
    count: u64,
}

impl Repeated {
    /// The number of events since the line before, if it is time for a line.
    pub(crate) fn on_event(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| now < last + LOG_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_few_lines_and_no_event_is_lost() {
        let mut events = Repeated::default();
        let start = Instant::now();
        let mut lines = Vec::new();
        for ms in (0..25_000).step_by(10) {
            lines.extend(events.on_event(start + Duration::from_millis(ms)));
        }
        assert_eq!(lines, [1, 1000, 1000]);
        assert_eq!(events.count, 499);
    }
}
