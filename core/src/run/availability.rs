//! What a run needs from the coordinator's stores to start, and how long it waits for it.
//!
//! A checkpoint that *cannot be read now* (an I/O error, an unmounted disk) is not corrupt: it stays listed, nothing is
//! deleted, and the run waits until the store can read it again. After `Limits::unreadable_patience_ms` the run
//! goes on from the previous checkpoint that can be read, which is a rewind. If no other can be read, it waits on:
//! starting again at step 0 is a decision for a person.
//!
//! A worker that cannot get a pack or a checkpoint from the coordinator ends its generation with
//! [`Outcome::Blocked`](super::Outcome::Blocked). That is nobody's failure, so no count grows that would fail the run. The
//! run is queued and tried again after 2 s, then 4 s, up to 30 s.
//!
//! None of this is journalled: after a restart it is found out again.

use std::collections::BTreeMap;

use super::membership::{Cause, ids, peers};
use super::{Effect, FormationReason, Phase, Run, Stopping};
use crate::checkpoint::CheckpointInfo;
use crate::ids::WorkerId;

/// How often the store is asked whether it can read a checkpoint again.
const PROBE_MS: u64 = 1_000;
/// Checkpoints that are probed at a time, at most.
const PROBES: usize = 32;
/// A blocked run is tried again after this time ...
const FIRST_RETRY_MS: u64 = 2_000;
/// ... which doubles up to this.
const LONGEST_RETRY_MS: u64 = 30_000;

/// Limits that the coordinator's configuration sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a run waits for a checkpoint that cannot be read before it goes on from an older one, in milliseconds.
    pub unreadable_patience_ms: u64,
    /// How long a run waits for enough workers without trouble of their own before it fails, in milliseconds.
    pub no_worker_patience_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unreadable_patience_ms: 600_000,
            no_worker_patience_ms: 600_000,
        }
    }
}

/// What keeps a run from being started.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Availability {
    /// Checkpoints, by step and generation, that cannot be read.
    unreadable: BTreeMap<(u64, u64), Unreadable>,
    /// When the store is asked again.
    probe_at: Option<u64>,
    /// Why the coordinator cannot hand out the data, if it cannot.
    data: Option<String>,
    /// Generations in a row that were blocked, without progress between them.
    blocked: u32,
    /// The wait after the last of them: until when, and why.
    retry: Option<(u64, String)>,
}

/// Since when a checkpoint cannot be read, and why.
#[derive(Debug, Clone, PartialEq)]
struct Unreadable {
    since_ms: u64,
    reason: String,
}

fn key(checkpoint: &CheckpointInfo) -> (u64, u64) {
    (checkpoint.step, checkpoint.generation)
}

impl Availability {
    /// The run made progress, or a person resumed it.
    pub fn reset_retries(&mut self) {
        self.blocked = 0;
        self.retry = None;
    }

    /// Whether the store is believed to be able to read this checkpoint.
    pub fn is_readable(&self, checkpoint: &CheckpointInfo) -> bool {
        !self.unreadable.contains_key(&key(checkpoint))
    }

    /// This checkpoint is whole, or gone: either way nothing more is to be found out about it.
    pub fn forget(&mut self, checkpoint: &CheckpointInfo) {
        self.unreadable.remove(&key(checkpoint));
    }

    /// Makes the next tick, due at `now`, ask the store.
    pub fn probe_soon(&mut self, now: u64) {
        self.probe_at = Some(now);
    }
}

fn seconds(ms: u64) -> String {
    format!("{} s", ms.div_ceil(1000))
}

impl Run {
    /// The checkpoint that the next generation starts from, unless its members hold a newer state: the newest that
    /// is neither void nor has been unreadable for longer than the patience. Where none of them can be read, the newest:
    /// the run waits for it ([`Run::start_blocked`]).
    pub fn start_checkpoint(&self, now: u64) -> Option<&CheckpointInfo> {
        let valid = || self.checkpoints.iter().rev().filter(|c| !self.is_void(c));
        valid()
            .find(|c| !self.is_given_up(c, now))
            .or_else(|| valid().next())
    }

    /// Whether a checkpoint has been unreadable for longer than the patience.
    fn is_given_up(&self, checkpoint: &CheckpointInfo, now: u64) -> bool {
        let patience = self.limits.unreadable_patience_ms;
        let unreadable = self.availability.unreadable.get(&key(checkpoint));
        unreadable.is_some_and(|u| now.saturating_sub(u.since_ms) >= patience)
    }

    /// Why a queued run must not be given workers now, if it must not. The answer changes with time, too: ask again
    /// after each `Event::Tick`, which is due at [`Run::wake`].
    pub fn start_blocked(&self, now: u64) -> Option<String> {
        let Availability {
            unreadable,
            data,
            retry,
            ..
        } = &self.availability;
        if let Some(reason) = data {
            return Some(format!("the dataset cannot be read: {reason}"));
        }
        if let Some((until, reason)) = retry
            && now < *until
        {
            return Some(format!("{reason}; retrying in {}", seconds(until - now)));
        }
        let start = self.start_checkpoint(now)?;
        let Unreadable { since_ms, reason } = unreadable.get(&key(start))?;
        let step = start.step;
        let older = |c: &&CheckpointInfo| {
            c.step < step && !self.is_void(c) && self.availability.is_readable(c)
        };
        let follows = match self.checkpoints.iter().rev().find(older) {
            Some(older) => {
                let until = since_ms + self.limits.unreadable_patience_ms;
                format!(
                    "retrying, and going on from checkpoint {} in {} unless it can be",
                    older.step,
                    seconds(until.saturating_sub(now))
                )
            }
            None => {
                "retrying; no older checkpoint can be read, so the run waits for the store".into()
            }
        };
        Some(format!(
            "checkpoint {step} cannot be read ({reason}); {follows}"
        ))
    }

    /// The store cannot read a checkpoint now.
    pub(super) fn checkpoint_unreadable(
        &mut self,
        now: u64,
        step: u64,
        generation: u64,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        let of = (step, generation);
        if !self.checkpoints.iter().any(|c| key(c) == of) {
            return;
        }
        self.availability.probe_at.get_or_insert(now + PROBE_MS);
        if let Some(known) = self.availability.unreadable.get_mut(&of) {
            known.reason = reason;
            return;
        }
        out.push(Effect::Log {
            warning: true,
            message: format!(
                "checkpoint.unreadable: checkpoint {step} of generation {generation} cannot be read ({reason}); it stays \
                 listed, and a run that needs it waits up to {}",
                seconds(self.limits.unreadable_patience_ms)
            ),
        });
        let since_ms = now;
        self.availability
            .unreadable
            .insert(of, Unreadable { since_ms, reason });
    }

    /// The store can read a checkpoint.
    pub(super) fn checkpoint_readable(
        &mut self,
        now: u64,
        step: u64,
        generation: u64,
        out: &mut Vec<Effect>,
    ) {
        if let Some(was) = self.availability.unreadable.remove(&(step, generation)) {
            out.push(Effect::Log {
                warning: false,
                message: format!(
                    "checkpoint.readable: checkpoint {step} of generation {generation} can be read again after {}",
                    seconds(now.saturating_sub(was.since_ms))
                ),
            });
        }
    }

    /// Whether the run may have to read a checkpoint to go on.
    pub(super) fn may_need_checkpoint(&self) -> bool {
        matches!(self.phase, Phase::Queued { .. } | Phase::Forming { .. })
    }

    /// The run begins to need its checkpoints: what is known of them is found out afresh, and their patience begins.
    pub(super) fn needs_checkpoints(&mut self, now: u64) {
        for unreadable in self.availability.unreadable.values_mut() {
            unreadable.since_ms = now;
        }
        if !self.availability.unreadable.is_empty() {
            self.availability.probe_at = Some(now + PROBE_MS);
        }
    }

    /// When a tick is due because the run waits for a store.
    pub(super) fn availability_wake(&self) -> Option<u64> {
        let retry = self.availability.retry.as_ref().map(|(until, _)| *until);
        match &self.phase {
            Phase::Queued { .. } => [self.availability.probe_at, retry]
                .into_iter()
                .flatten()
                .min(),
            Phase::Forming { .. } => self.availability.probe_at,
            Phase::Running { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => None,
        }
    }

    /// Time has passed for a run that is queued or forming: ends a wait that is over, and asks the store.
    pub(super) fn tick_availability(&mut self, now: u64, out: &mut Vec<Effect>) {
        if !self.may_need_checkpoint() {
            return;
        }
        let over = |(until, _): &(u64, String)| *until <= now;
        if self.availability.retry.as_ref().is_some_and(over) {
            self.availability.retry = None;
        }
        if self.availability.probe_at.is_none_or(|at| now < at) {
            return;
        }
        // The one believed readable is asked for, too: the run may have to go on from it.
        let mut readable_found = false;
        for checkpoint in self.checkpoints.iter().rev().filter(|c| !self.is_void(c)) {
            if readable_found || out.len() >= PROBES {
                break;
            }
            readable_found = self.availability.is_readable(checkpoint);
            out.push(Effect::ProbeCheckpoint(checkpoint.clone()));
        }
        let valid = |c: &CheckpointInfo| !self.is_void(c) && !self.availability.is_readable(c);
        let waits = self.checkpoints.iter().any(valid);
        self.availability.probe_at = waits.then_some(now + PROBE_MS);
    }

    /// Whether the checkpoint that a forming generation starts from has been unreadable for longer than the patience,
    /// and there is another to go on from: then the generation is formed anew from that.
    pub(super) fn forming_falls_back(&mut self, now: u64, out: &mut Vec<Effect>) -> bool {
        let Phase::Forming { roster, .. } = &self.phase else {
            return false;
        };
        let from = roster.start_step;
        let given_up = self
            .checkpoints
            .iter()
            .any(|c| c.step == from && !self.is_void(c) && self.is_given_up(c, now));
        let other = self
            .start_checkpoint(now)
            .is_some_and(|c| c.step != from && self.availability.is_readable(c));
        if !given_up || !other {
            return false;
        }
        let step = self.fall_back(now, out);
        let reason = format!(
            "checkpoint {from} could not be read for {}; going on from checkpoint {step}",
            seconds(self.limits.unreadable_patience_ms)
        );
        let members = self.present();
        let cause = Cause {
            kind: FormationReason::CheckpointUnusable,
            log: format!("generation.restarted: {reason}"),
            reason,
        };
        self.regroup(now, members, false, Default::default(), cause, out);
        true
    }

    /// Rewinds past checkpoints that have been unreadable for longer than the patience, if the run would start from one.
    /// Returns the step that it goes on from.
    pub(super) fn fall_back(&mut self, now: u64, out: &mut Vec<Effect>) -> u64 {
        let start = self.start_checkpoint(now).map_or(0, |c| c.step);
        let newest = self.newest_valid().map_or(0, |c| c.step);
        if start < newest {
            let message = format!(
                "run.rewound: checkpoint {newest} could not be read for {}; rewinding to checkpoint {start}. Nothing is \
                 deleted: checkpoint {newest} stays in the store",
                seconds(self.limits.unreadable_patience_ms)
            );
            out.push(Effect::Log {
                warning: true,
                message,
            });
            self.rewind(Some(start), out);
        }
        start
    }

    /// A member cannot go on before something at the coordinator can be read again.
    pub(super) fn blocked(
        &mut self,
        now: u64,
        worker: &WorkerId,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        let reason = format!("worker {worker} is blocked: {reason}");
        if matches!(self.phase, Phase::Finishing { .. }) {
            let cause = Cause {
                kind: FormationReason::WorkerFailed,
                log: format!("worker.blocked: {reason}"),
                reason,
            };
            self.lost(now, worker, cause, out);
            return;
        }
        let doublings = self.availability.blocked.min(10);
        let delay = (FIRST_RETRY_MS << doublings).min(LONGEST_RETRY_MS);
        self.availability.blocked += 1;
        self.availability.retry = Some((now + delay, reason.clone()));
        out.push(Effect::Log {
            warning: true,
            message: format!("worker.blocked: {reason}; retrying in {}", seconds(delay)),
        });
        self.stand_down(Some(worker), reason, out);
    }

    /// The coordinator cannot hand out the run's data.
    pub(super) fn data_unavailable(&mut self, reason: String, out: &mut Vec<Effect>) {
        if self.availability.data.replace(reason.clone()).is_none() {
            out.push(Effect::Log {
                warning: true,
                message: format!("data.unavailable: the dataset cannot be read: {reason}"),
            });
        }
        self.stand_down(None, format!("the dataset cannot be read: {reason}"), out);
    }

    /// It can again.
    pub(super) fn data_available(&mut self, out: &mut Vec<Effect>) {
        if self.availability.data.take().is_some() {
            out.push(Effect::Log {
                warning: false,
                message: "data.available: the dataset can be read again".into(),
            });
        }
    }

    /// Ends a generation that cannot go on through no fault of its members; `released` has let go already. The run is
    /// queued, or comes to rest if a person asked for that.
    fn stand_down(&mut self, released: Option<&WorkerId>, reason: String, out: &mut Vec<Effect>) {
        let (Phase::Forming { roster, .. } | Phase::Running { roster, .. }) = &self.phase else {
            return;
        };
        let mut members = ids(&peers(roster));
        members.retain(|member| Some(member) != released);
        // This generation does not count as an attempt.
        self.futile = self.futile.saturating_sub(1);
        self.stale = self.stale.saturating_sub(1);
        self.abort(members, &reason, out);
        let phase = match self.stopping() {
            Some(Stopping::Cancel) => Phase::Cancelled,
            Some(Stopping::Pause) => Phase::Paused,
            Some(Stopping::Drain | Stopping::Give) | None => Phase::Queued {
                reason: Some(reason),
            },
        };
        self.enter(phase, out);
    }
}
