//! The coordinator's clock: milliseconds since its start, the same for all actors.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock. Copies show the same time, so times can be passed between actors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that shows 0 now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    /// Sleeps until `at` (milliseconds since the start); for ever if there is no such time.
    pub(crate) async fn sleep_until(&self, at: Option<u64>) {
        match at {
            Some(ms) => {
                let at = self.0 + Duration::from_millis(ms);
                tokio::time::sleep_until(at.into()).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}
