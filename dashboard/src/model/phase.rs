//! Where a run is in its life, in the order in which people ask for it.

use fovea_core::run::Run;

/// Where a run is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    Forming,
    Finishing,
    Queued,
    Paused,
    Completed,
    Failed,
    Cancelled,
}

impl Phase {
    /// All, those with workers first.
    pub const ALL: [Self; 8] = [
        Self::Running,
        Self::Forming,
        Self::Finishing,
        Self::Queued,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Of a run.
    pub fn of(run: &Run) -> Self {
        use fovea_core::run::Phase as Core;
        match run.phase {
            Core::Queued { .. } => Self::Queued,
            Core::Forming { .. } => Self::Forming,
            Core::Running { .. } => Self::Running,
            Core::Finishing { .. } => Self::Finishing,
            Core::Paused => Self::Paused,
            Core::Completed => Self::Completed,
            Core::Failed { .. } => Self::Failed,
            Core::Cancelled => Self::Cancelled,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Forming => "forming",
            Self::Finishing => "finishing",
            Self::Queued => "queued",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it has workers.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::Forming | Self::Finishing)
    }

    /// Whether only a person can resume it, if anybody.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}
