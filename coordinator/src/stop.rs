//! What a request to stop does about the runs under way, and how long each part of a stop may take.
//!
//! ```text
//! request ─> runs ──────────────> connections, transfers ─> cluster, journal ─> spans ─> threads ─> exit
//! checkpoint: drain_timeout_s     5 s                        5 s                2 s      1 s
//! hand-over:  1 s                 0.4 s                      0.4 s              0.08 s   0.1 s      (2 s in all)
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest that [`Coordinator::serve`](crate::Coordinator::serve) takes after `drain_timeout_s`.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A stop that takes so much longer than its parts may hangs.
const MARGIN: Duration = Duration::from_secs(3);

/// What a request to stop does about the runs under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "String")]
pub enum OnStop {
    /// They stop at a step boundary, are checkpointed, and are queued again.
    Checkpoint,
    /// They are written out and left to their workers, which train on. The next coordinator adopts them.
    HandOver,
}

/// How long the parts of a stop may take, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopLimits {
    /// Checkpointing or handing over the runs.
    pub runs: Duration,
    /// Ending connections and transfers.
    pub connections: Duration,
    /// Ending the cluster and closing the journal.
    pub journal: Duration,
    /// Sending the last spans to the collector.
    pub traces: Duration,
    /// Work on blocking threads.
    pub threads: Duration,
    /// All of it. A process that still runs then hangs.
    pub total: Duration,
}

/// No such choice.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("on_stop is {0:?}; use \"checkpoint\" or \"hand-over\"")]
pub struct NoSuchStop(String);

impl OnStop {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::HandOver => "hand-over",
        }
    }

    /// The limits, if checkpointing may take `drain`.
    pub(crate) fn limits(self, drain: Duration) -> StopLimits {
        match self {
            Self::Checkpoint => {
                let threads = Duration::from_secs(1);
                let traces = Duration::from_secs(2);
                StopLimits {
                    runs: drain,
                    connections: CLOSE_TIMEOUT / 2,
                    journal: CLOSE_TIMEOUT / 2,
                    traces,
                    threads,
                    total: drain + CLOSE_TIMEOUT + traces + threads + MARGIN,
                }
            }
            Self::HandOver => StopLimits {
                runs: Duration::from_millis(1000),
                connections: Duration::from_millis(400),
                journal: Duration::from_millis(400),
                traces: Duration::from_millis(80),
                threads: Duration::from_millis(100),
                total: Duration::from_secs(2),
            },
        }
    }
}

impl fmt::Display for OnStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OnStop {
    type Err = NoSuchStop;

    fn from_str(text: &str) -> Result<Self, NoSuchStop> {
        [Self::Checkpoint, Self::HandOver]
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| NoSuchStop(text.to_owned()))
    }
}

/// For serde, whose own error would not say what is possible.
impl TryFrom<String> for OnStop {
    type Error = NoSuchStop;

    fn try_from(text: String) -> Result<Self, NoSuchStop> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_stop_fit_into_its_limit() {
        for on_stop in [OnStop::Checkpoint, OnStop::HandOver] {
            let limits = on_stop.limits(Duration::from_secs(60));
            let parts = limits.runs + limits.connections + limits.journal + limits.threads;
            assert!(parts < limits.total, "{on_stop}: {limits:?}");
        }
        let hand_over = OnStop::HandOver.limits(Duration::from_secs(60));
        assert!(hand_over.total <= Duration::from_secs(2), "{hand_over:?}");
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for on_stop in [OnStop::Checkpoint, OnStop::HandOver] {
            assert_eq!(on_stop.as_str().parse(), Ok(on_stop));
            let json = serde_json::to_string(&on_stop).unwrap();
            assert_eq!(json, format!("{:?}", on_stop.as_str()));
        }
        let error = "handover".parse::<OnStop>().unwrap_err().to_string();
        assert!(error.contains("\"hand-over\""), "{error}");
    }
}
