//! When a run of a group pauses by itself, and why.

use serde::{Deserialize, Serialize};

use crate::run::EpochResult;
use crate::spec::BestBy;

// How the reasons begin. The journals of all versions keep them as texts, so they are not changed.
const WAITS: &str = "waits after epoch ";
const STOPPED: &str = "stopped early after epoch ";
pub(super) const DROPPED: &str = "dropped after epoch ";

/// Until when a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The validation metric of `patience`.
    pub by: BestBy,
    /// It pauses after so many epochs, and its group decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u32>,
    /// It pauses when the metric has not improved for so many epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
}

/// Why a run is paused, if no person asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPause {
    /// The rung at which it waits for its group's decision. None: it is stopped for good, unless a person resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<u32>,
    /// For people.
    pub reason: String,
}

impl Hold {
    /// Whether a run of `total` epochs pauses after `epochs`, its results so far from the first one on.
    pub fn after(&self, epochs: &[EpochResult], total: u32) -> Option<GroupPause> {
        let Self {
            by,
            until,
            patience,
        } = *self;
        let done = epochs.len() as u32;
        if done >= total {
            return None;
        }
        if let Some(since) = patience.and_then(|patience| stale(epochs, by, patience)) {
            let (best, at) = since;
            return Some(GroupPause {
                rung: None,
                reason: format!(
                    "{STOPPED}{done}: {} was best after epoch {at} ({best:.3}); `fovea resume` goes on",
                    by.title()
                ),
            });
        }
        let rung = until.filter(|until| done >= *until)?;
        Some(GroupPause {
            rung: Some(rung),
            reason: format!("{WAITS}{rung} for the other runs of its group"),
        })
    }
}

/// The best value and its epoch, from 1, if `patience` epochs or more have followed it without a better one.
fn stale(epochs: &[EpochResult], by: BestBy, patience: u32) -> Option<(f64, usize)> {
    let mut best: Option<(f64, usize)> = None;
    for (at, result) in epochs.iter().enumerate() {
        if let Some(merit) = by.merit(&result.validation)
            && best.is_none_or(|(most, _)| merit > most)
        {
            best = Some((merit, at + 1));
        }
    }
    // Without any value nothing is known, and nothing is stopped.
    let (merit, at) = best?;
    (epochs.len() - at >= patience as usize).then_some((by.shown(merit), at))
}

/// Which of the reasons for pausing a text gives; each with the number of epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// It waits at a rung.
    Waits(u32),
    /// Its metric did not improve.
    Stopped(u32),
    /// Its variant was dropped.
    Dropped(u32),
}

impl PauseReason {
    /// Of the text in [`GroupPause::reason`]. None: it is another one, such as that of a failure.
    pub fn read(reason: &str) -> Option<Self> {
        let epochs = |begins: &str| {
            let rest = reason.strip_prefix(begins)?;
            let end = rest.find(|c: char| !c.is_ascii_digit());
            rest[..end.unwrap_or(rest.len())].parse().ok()
        };
        None.or_else(|| epochs(WAITS).map(Self::Waits))
            .or_else(|| epochs(STOPPED).map(Self::Stopped))
            .or_else(|| epochs(DROPPED).map(Self::Dropped))
    }
}
