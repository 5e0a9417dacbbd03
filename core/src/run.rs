//! The life of a run, decided purely: `apply(now, event) -> effects`.
//!
//! ```text
//!             Assigned            every member Ready
//!   Queued ------------> Forming ------------------> Running --------------+
//!     ^  ^                |   ^                         |                  | all steps done,
//!     |  |                |   +-------------------------+                  | Cancel, Pause, Drain
//!     |  +----------------+     generation + 1: a member lost, stuck,      v
//!     |   too few are left,     leaving, joining, diverged             Finishing
//!     |   or a member blocked                                              | members let go,
//!     +--------------------------------------------------------------------+ checkpoint settled
//!     ^                                                                    v
//!     +------ Resume ------ Paused | Failed(reason) | Cancelled        Completed
//! ```
//!
//! A generation is fenced: its members know each other by a key that no other generation has, and their messages carry
//! its number. So when a member is lost the next generation begins at once, without waiting for the old one to
//! end, and the survivors keep their states. Only an end that leaves a checkpoint (`Finishing`) waits for the members.
//!
//! A queued run may have to wait for a store: see [`Run::start_blocked`].
//!
//! `now` is milliseconds on any clock that does not go backwards.

mod adopt;
mod agreement;
mod apply;
mod availability;
mod ending;
mod error;
mod formations;
mod giving;
mod health;
mod holding;
mod lineage;
mod liveness;
mod membership;
mod pace;
mod patience;
mod priority;
mod results;
mod trouble;
mod types;

pub use crate::state::StateId;
pub use adopt::{Adopted, FoundCheckpoint};
pub use availability::Limits;
pub use error::RunError;
pub use formations::{FormationReason, Formations};
pub use lineage::Rewind;
pub use pace::time_left;
pub use trouble::{LeftOut, Trouble};
pub use types::{
    Discarded, Effect, EpochMaps, EpochResult, EpochScores, EvaluationRecord, Event, Extent,
    Heartbeat, Next, Outcome, Phase, StepPhases, StepReport, Stopping, Times, without_event_name,
};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointInfo, Fingerprint};
use crate::ids::{GroupId, RunId, WorkerId};
use crate::metrics::Score;
use crate::pipeline::Pipeline;
use crate::priority::Priority;
use crate::roster::Roster;
use crate::selection::{GroupPause, Hold};
use crate::spec::RunSpec;
use availability::Availability;
use liveness::Liveness;
use trouble::Troubles;

/// The run fails after so many failures in a row that workers reported, without progress between them.
const FUTILE_FAILURES: u32 = 5;
/// It fails after so many generations in a row that ended at the same step, for whatever reason.
const FUTILE_GENERATIONS: u32 = 25;
/// The same for generations that ended at different steps, none further than before.
const STALE_GENERATIONS: u32 = 250;
/// How long after the coordinator's restart its members may take to reconnect.
const RETURN_MS: u64 = 10_000;

/// A run and all that the coordinator knows of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Order of submission.
    pub number: u64,
    /// What it is.
    pub spec: RunSpec,
    /// Digest of the dataset that its name meant when the run was accepted.
    pub dataset_digest: String,
    /// How photographs became that dataset's images; None for runs of versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Pipeline>,
    /// Sizes.
    pub extent: Extent,
    /// Milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    /// Name of the person who submitted it; None without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_by: Option<String>,
    /// The group that it was submitted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// When it ran, and on how many workers.
    #[serde(default)]
    pub times: Times,
    /// Its priority, if somebody changed it after it was submitted; see [`Run::priority`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_priority: Option<Priority>,
    /// The run that its workers went to when it was last displaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_to: Option<RunId>,
    /// Until when it trains, if its group selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Why it was paused last, if its group did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_pause: Option<GroupPause>,
    /// Evaluations of its checkpoints, as they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluations: Vec<EvaluationRecord>,
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// The newest generation, 0 before the first.
    pub generation: u64,
    /// Results by epoch.
    pub epochs: Vec<EpochResult>,
    /// Checkpoints by step.
    pub checkpoints: Vec<CheckpointInfo>,
    /// Counts up with every rewind: states of an older lineage are void.
    #[serde(default)]
    pub lineage: u64,
    /// The rewinds that decide which checkpoints are void, oldest first. Older builds journalled the last one only.
    #[serde(default, alias = "rewound", deserialize_with = "lineage::read_history")]
    pub rewinds: Vec<Rewind>,
    /// What its rewinds have cut off the ledger. The coordinator adds to it, in the transaction that cuts.
    #[serde(default, skip_serializing_if = "Discarded::is_empty")]
    pub discarded: Discarded,
    /// Why its generations formed.
    #[serde(default, skip_serializing_if = "Formations::is_empty")]
    pub formations: Formations,
    /// Checkpoints that could not be stored.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub checkpoint_failures: u64,
    /// Fingerprint of the workers that run it.
    pub fingerprint: Option<Fingerprint>,
    /// A person has resumed it: its next generation may have another fingerprint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    released: bool,
    /// Generations in a row that ended at the same step, and how many of them ended by a
    /// failure that a worker reported.
    futile: u32,
    /// The step at which they ended.
    #[serde(default)]
    ended_at: Option<u64>,
    /// Generations in a row, wherever they ended, that did not get further than any before them.
    #[serde(default)]
    stale: u32,
    #[serde(default)]
    failures: u32,
    /// The most steps that were ever committed.
    #[serde(default)]
    furthest: u64,
    /// The newest step. Not journalled at every step: checkpoints say what is safe.
    pub progress: Option<StepReport>,
    /// Scores of epochs that are not complete yet.
    #[serde(skip)]
    scores: BTreeMap<u32, BTreeMap<u32, Score>>,
    /// Training loss by step of epochs without a result: (mean, samples).
    #[serde(skip)]
    losses: BTreeMap<u64, (f64, u32)>,
    /// What is known of the members' health.
    #[serde(skip)]
    liveness: Liveness,
    /// What keeps it from being started.
    #[serde(skip)]
    availability: Availability,
    /// Workers with trouble of their own.
    #[serde(skip)]
    troubles: Troubles,
    /// Set by the coordinator from its configuration, after it made or read the run.
    #[serde(skip)]
    pub limits: Limits,
}

impl Run {
    /// An accepted run, queued.
    pub fn new(
        id: RunId,
        number: u64,
        spec: RunSpec,
        dataset_digest: String,
        extent: Extent,
        now_ms: u64,
    ) -> Self {
        Self {
            id,
            number,
            spec,
            dataset_digest,
            pipeline: None,
            extent,
            submitted_at_ms: now_ms,
            submitted_by: None,
            group: None,
            times: Times::default(),
            changed_priority: None,
            given_to: None,
            hold: None,
            group_pause: None,
            evaluations: Vec::new(),
            phase: Phase::Queued { reason: None },
            generation: 0,
            epochs: Vec::new(),
            checkpoints: Vec::new(),
            lineage: lineage::first(now_ms),
            rewinds: Vec::new(),
            discarded: Discarded::default(),
            formations: Formations::default(),
            checkpoint_failures: 0,
            fingerprint: None,
            released: false,
            futile: 0,
            ended_at: None,
            stale: 0,
            failures: 0,
            furthest: 0,
            progress: None,
            scores: BTreeMap::new(),
            losses: BTreeMap::new(),
            liveness: Liveness::default(),
            availability: Availability::default(),
            troubles: Troubles::default(),
            limits: Limits::default(),
        }
    }

    /// An accepted evaluation, queued: a run that begins at the end of its only epoch, with `checkpoint`.
    pub fn evaluating(mut self, checkpoint: CheckpointInfo) -> Self {
        self.generation = checkpoint.generation;
        self.checkpoints = vec![checkpoint];
        self
    }

    /// The run as a coordinator finds it in its journal at start. Workers go on training without a coordinator, so
    /// a run that was under way still is; its members have 10 s to reconnect.
    pub fn recovered(mut self, now: u64) -> Self {
        let members: Vec<WorkerId> = match &self.phase {
            // The others have let go of it.
            Phase::Finishing { pending, .. } => pending.iter().cloned().collect(),
            _ => self
                .roster()
                .into_iter()
                .flat_map(|roster| roster.members.iter().map(|m| m.worker.clone()))
                .collect(),
        };
        self.liveness.awaited = members.into_iter().map(|w| (w, now + RETURN_MS)).collect();
        if self.may_need_checkpoint() && self.newest_valid().is_some() {
            self.availability.probe_soon(now);
        }
        self
    }

    /// Training loss of committed steps that the ledger holds, for the result of the epoch under way. The newest is
    /// where the run is, which is written with the run now and then only.
    pub fn restore_losses(&mut self, losses: impl IntoIterator<Item = (u64, f64, u32)>) {
        self.losses = losses
            .into_iter()
            .map(|(step, loss, n)| (step, (loss, n)))
            .collect();
        if let Some((&step, &(loss, images))) = self.losses.last_key_value()
            && self.progress.is_none_or(|written| written.step < step)
        {
            self.progress = Some(self.replayed(step, loss, images));
        }
    }

    /// The phase as one word.
    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Queued { .. } => "queued",
            Phase::Forming { .. } => "forming",
            Phase::Running { .. } => "running",
            Phase::Finishing { .. } => "finishing",
            Phase::Paused => "paused",
            Phase::Completed => "completed",
            Phase::Failed { .. } => "failed",
            Phase::Cancelled => "cancelled",
        }
    }

    /// Notes the time of what it does now, `unix_ms` milliseconds since the Unix epoch. To be called before it is written.
    pub fn note_time(&mut self, unix_ms: u64) {
        if let Phase::Running { roster, .. } = &self.phase {
            self.times.began_ms.get_or_insert(unix_ms);
            let workers = roster.members.len() as u32;
            self.times.most_workers = self.times.most_workers.max(workers);
        }
        if self.is_terminal() {
            self.times.ended_ms.get_or_insert(unix_ms);
        } else {
            self.times.ended_ms = None;
        }
    }

    /// Whether it has ended: only a person can resume it.
    pub fn is_terminal(&self) -> bool {
        match self.phase {
            Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => true,
            Phase::Queued { .. }
            | Phase::Forming { .. }
            | Phase::Running { .. }
            | Phase::Finishing { .. }
            | Phase::Paused => false,
        }
    }

    /// Samples of the validation split that are scored in the evaluation under way; 0 outside of one.
    pub fn scored_so_far(&self) -> u64 {
        match self.phase {
            Phase::Running { .. } => self.liveness.scored().min(self.extent.validation_samples),
            Phase::Queued { .. }
            | Phase::Forming { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => 0,
        }
    }

    /// The roster of the generation under way.
    pub fn roster(&self) -> Option<&Roster> {
        match &self.phase {
            Phase::Forming { roster, .. }
            | Phase::Running { roster, .. }
            | Phase::Finishing { roster, .. } => Some(roster),
            Phase::Queued { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => None,
        }
    }

    /// The first epoch without a result.
    pub fn next_epoch(&self) -> u32 {
        // Epochs are sorted and unique, so those without a gap before them are the ones at their own index.
        let (mut from, mut to) = (0, self.epochs.len());
        while from < to {
            let middle = from.midpoint(to);
            if self.epochs[middle].epoch as usize == middle {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from as u32
    }

    /// How many more workers could join now.
    pub fn vacancies(&self) -> usize {
        match &self.phase {
            // Not before it is known which of its members are still there.
            Phase::Running { .. } if !self.liveness.awaited.is_empty() => 0,
            Phase::Running {
                roster,
                stopping: None,
            } => (self.spec.max_workers() as usize).saturating_sub(roster.members.len()),
            Phase::Running {
                stopping: Some(_), ..
            }
            | Phase::Queued { .. }
            | Phase::Forming { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => 0,
        }
    }

    /// Checks a person's event before it is applied.
    pub fn admit(&self, event: &Event) -> Result<(), RunError> {
        match event {
            Event::Cancel if self.is_terminal() => Err(RunError::Ended {
                run: self.id.clone(),
                phase: self.phase_name(),
            }),
            Event::Pause if self.is_terminal() || self.phase == Phase::Paused => {
                Err(RunError::NotPausable {
                    run: self.id.clone(),
                    phase: self.phase_name(),
                })
            }
            Event::SetPriority { .. } if self.is_terminal() => Err(RunError::NoPriority {
                run: self.id.clone(),
                phase: self.phase_name(),
            }),
            Event::Resume { checkpoint } => {
                if !matches!(
                    self.phase,
                    Phase::Paused | Phase::Failed { .. } | Phase::Cancelled
                ) {
                    return Err(RunError::NotResumable {
                        run: self.id.clone(),
                        phase: self.phase_name(),
                    });
                }
                // The ledger and the results of epochs that belong to void checkpoints are gone.
                let valid = || self.checkpoints.iter().filter(|c| !self.is_void(c));
                match checkpoint {
                    Some(step) if !valid().any(|c| c.step == *step) => {
                        let have: Vec<String> = valid().map(|c| c.step.to_string()).collect();
                        Err(RunError::NoCheckpoint {
                            run: self.id.clone(),
                            step: *step,
                            have: if have.is_empty() {
                                "none".into()
                            } else {
                                have.join(", ")
                            },
                        })
                    }
                    Some(_) | None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests;
