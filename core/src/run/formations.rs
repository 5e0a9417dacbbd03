//! Why generations formed, counted.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a generation formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormationReason {
    /// The run's first one.
    Started,
    /// The run had been queued again, or resumed by a person.
    Resumed,
    /// Workers joined.
    WorkerJoined,
    /// A worker shut down, or let go of the run.
    WorkerLeft,
    /// A worker's session ended, or it did not come back after the coordinator's restart.
    WorkerLost,
    /// A worker reported an error.
    WorkerFailed,
    /// A worker was stuck, or its peers could not reach it.
    WorkerEvicted,
    /// A worker had trouble of its own.
    WorkerUnfit,
    /// Workers went to a run of higher priority.
    Displaced,
    /// Connections between workers broke, or all waited for each other.
    Interrupted,
    /// A worker's state differed from the majority's.
    Diverged,
    /// The run was rewound to a checkpoint.
    Rewound,
    /// The checkpoint that the generation before was to start from could not be used.
    CheckpointUnusable,
}

impl FormationReason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Started,
        Self::Resumed,
        Self::WorkerJoined,
        Self::WorkerLeft,
        Self::WorkerLost,
        Self::WorkerFailed,
        Self::WorkerEvicted,
        Self::WorkerUnfit,
        Self::Displaced,
        Self::Interrupted,
        Self::Diverged,
        Self::Rewound,
        Self::CheckpointUnusable,
    ];

    /// The name in metrics and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Resumed => "resumed",
            Self::WorkerJoined => "worker_joined",
            Self::WorkerLeft => "worker_left",
            Self::WorkerLost => "worker_lost",
            Self::WorkerFailed => "worker_failed",
            Self::WorkerEvicted => "worker_evicted",
            Self::WorkerUnfit => "worker_unfit",
            Self::Displaced => "displaced",
            Self::Interrupted => "interrupted",
            Self::Diverged => "diverged",
            Self::Rewound => "rewound",
            Self::CheckpointUnusable => "checkpoint_unusable",
        }
    }

    /// Whether the run recovers from a fault: neither a beginning nor a change that was announced.
    pub fn is_fault(self) -> bool {
        match self {
            Self::WorkerLost
            | Self::WorkerFailed
            | Self::WorkerEvicted
            | Self::WorkerUnfit
            | Self::Interrupted
            | Self::Diverged
            | Self::Rewound
            | Self::CheckpointUnusable => true,
            Self::Started
            | Self::Resumed
            | Self::WorkerJoined
            | Self::WorkerLeft
            | Self::Displaced => false,
        }
    }
}

impl fmt::Display for FormationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often a run formed a generation for which reason, and why it formed the last one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Formations {
    counts: BTreeMap<FormationReason, u64>,
    last: Option<FormationReason>,
    /// Why the run lost its workers, while it is queued for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<FormationReason>,
}

impl Formations {
    /// None was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// So many formed for this reason.
    pub fn count(&self, reason: FormationReason) -> u64 {
        self.counts.get(&reason).copied().unwrap_or(0)
    }

    /// All that were counted.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Why the newest generation formed, or why the run was queued instead.
    pub fn last(&self) -> Option<FormationReason> {
        self.fault.or(self.last)
    }

    pub(super) fn add(&mut self, reason: FormationReason) {
        *self.counts.entry(reason).or_default() += 1;
        self.last = Some(reason);
        self.fault = None;
    }

    /// No generation can form: too few workers are left.
    pub(super) fn too_few(&mut self, reason: FormationReason) {
        self.fault = Some(reason);
    }
}
