//! What is logged while there is no session: the first failure, and then at most one line in [`QUIET`].
//!
//! ```text
//!            failed                 failed: a line if QUIET has passed since the last
//! Starting ──────────> Away ───────┐
//!    │                 ^  │ <──────┘
//!    │ welcomed   lost │  │ welcomed
//!    v                 │  v
//!   Joined <──────────────┘
//! ```
//!
//! A session that this end closes is Closing until the link reports its end; then this worker is Away.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two lines about failed attempts.
const QUIET: Duration = Duration::from_secs(30);

/// Whether this worker is in a session, and what was logged about that.
#[derive(Debug)]
pub(super) enum Contact {
    /// There was no session yet, and no attempt has failed.
    Starting,
    /// In a session that the coordinator has welcomed.
    Joined,
    /// This end has closed the session, and logged why.
    Closing,
    /// Without a session.
    Away {
        /// When the last session was lost, or the first attempt failed.
        since: Instant,
        /// Failed attempts since.
        attempts: u32,
        /// When the last line was logged.
        logged: Instant,
    },
}

/// What to log about the end of a session, or of an attempt to open one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The session was lost.
    Lost,
    /// No session could be opened.
    Failed {
        /// Failed attempts so far.
        attempts: u32,
        /// How long this worker has had no session.
        away: Duration,
    },
}

/// The attempts that failed before a session was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Absence {
    pub(super) attempts: u32,
    pub(super) away: Duration,
}

impl Contact {
    /// A session has ended, or an attempt to open one has failed. Returns what to log, if it is time to.
    pub(super) fn down(&mut self, now: Instant) -> Option<Notice> {
        match self {
            Self::Joined => {
                self.leave(now, 0);
                Some(Notice::Lost)
            }
            Self::Closing => {
                self.leave(now, 0);
                None
            }
            Self::Starting => {
                self.leave(now, 1);
                let away = Duration::ZERO;
                Some(Notice::Failed { attempts: 1, away })
            }
            Self::Away {
                since,
                attempts,
                logged,
            } => {
                *attempts = attempts.saturating_add(1);
                if now - *logged < QUIET {
                    return None;
                }
                *logged = now;
                let (attempts, away) = (*attempts, now - *since);
                Some(Notice::Failed { attempts, away })
            }
        }
    }

    /// This worker has closed its session, and logged why.
    pub(super) fn closed(&mut self) {
        match self {
            Self::Joined => *self = Self::Closing,
            Self::Starting | Self::Closing | Self::Away { .. } => {}
        }
    }

    /// The coordinator has welcomed this worker. Returns the absence that this ends.
    pub(super) fn welcomed(&mut self, now: Instant) -> Option<Absence> {
        match std::mem::replace(self, Self::Joined) {
            Self::Starting | Self::Joined | Self::Closing => None,
            Self::Away {
                since, attempts, ..
            } => {
                let away = now - since;
                Some(Absence { attempts, away })
            }
        }
    }

    fn leave(&mut self, now: Instant, attempts: u32) {
        *self = Self::Away {
            since: now,
            attempts,
            logged: now,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(attempts: u32, seconds: u64) -> Option<Notice> {
        let away = Duration::from_secs(seconds);
        Some(Notice::Failed { attempts, away })
    }

    #[test]
    fn the_first_failure_is_logged_and_then_one_line_in_30_s() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut contact = Contact::Starting;
        // Nothing is lost that never was.
        assert_eq!(contact.down(at(0)), failed(1, 0));
        for second in 1..30 {
            assert_eq!(contact.down(at(second)), None);
        }
        assert_eq!(contact.down(at(30)), failed(31, 30));
        assert_eq!(contact.down(at(59)), None);
        assert_eq!(contact.down(at(61)), failed(33, 61));
        let away = Duration::from_secs(62);
        let absence = Absence { attempts: 33, away };
        assert_eq!(contact.welcomed(at(62)), Some(absence));
    }

    #[test]
    fn a_session_is_lost_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut contact = Contact::Starting;
        assert_eq!(contact.welcomed(at(0)), None);
        assert_eq!(contact.down(at(10)), Some(Notice::Lost));
        assert_eq!(contact.down(at(11)), None);
        assert_eq!(contact.down(at(40)), failed(2, 30));
        contact.welcomed(at(41));
        // Why this end closed it is logged already.
        contact.closed();
        assert_eq!(contact.down(at(50)), None);
        let away = Duration::from_secs(1);
        let absence = Absence { attempts: 0, away };
        assert_eq!(contact.welcomed(at(51)), Some(absence));
    }
}
