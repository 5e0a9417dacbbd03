//! Dispatch: each event goes to the part of the run that is responsible for it, unless it is of an older generation.

use super::membership::Cause;
use super::{Effect, Event, FormationReason, Phase, Run};

impl Run {
    /// Applies an event and returns what is to be done about it. Events of an older generation change nothing.
    pub fn apply(&mut self, now: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        let was_queued = matches!(self.phase, Phase::Queued { .. });
        let needed_checkpoints = self.may_need_checkpoint();
        self.dispatch(now, event, &mut out);
        if self.may_need_checkpoint() && !needed_checkpoints {
            self.needs_checkpoints(now);
        }
        if matches!(self.phase, Phase::Queued { .. })
            && !was_queued
            && let Some(start) = self.start_checkpoint(now)
        {
            out.push(Effect::ProbeCheckpoint(start.clone()));
        }
        out
    }

    fn dispatch(&mut self, now: u64, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Assigned { workers } => self.assigned(now, workers, out),
            Event::Joined { workers } => self.joined(now, workers, out),
            Event::Ready {
                worker,
                generation,
                state,
                fingerprint,
            } => {
                if generation == self.generation {
                    self.ready(now, worker, state, fingerprint, out);
                }
            }
            Event::StepCommitted { generation, report } => {
                if self.is_under_way(generation) {
                    self.step_committed(report, out);
                }
            }
            Event::Digest {
                worker,
                generation,
                step,
                digest,
            } => {
                if self.is_member(&worker, generation) {
                    self.digest(now, worker, step, digest, out);
                }
            }
            Event::Scored {
                generation,
                epoch,
                scores,
            } => {
                if self.is_under_way(generation) {
                    self.scored(epoch, scores, out);
                }
            }
            Event::CheckpointStored { info } => self.checkpoint_stored(info, out),
            Event::CheckpointFailed {
                generation,
                step,
                reason,
            } => self.checkpoint_failed(generation, step, &reason, out),
            Event::CheckpointCorrupt {
                step,
                generation,
                reason,
            } => self.checkpoint_corrupt(now, step, generation, &reason, out),
            Event::CheckpointUnreadable {
                step,
                generation,
                reason,
            } => self.checkpoint_unreadable(now, step, generation, reason, out),
            Event::CheckpointReadable { step, generation } => {
                self.checkpoint_readable(now, step, generation, out);
            }
            Event::DataUnavailable { reason } => self.data_unavailable(reason, out),
            Event::DataAvailable => self.data_available(out),
            Event::Progress {
                worker,
                generation,
                heartbeat,
            } => {
                if self.is_expected(&worker, generation) {
                    self.liveness.progress(worker, heartbeat, now);
                }
            }
            Event::Interrupted {
                worker,
                generation,
                reason,
            } => self.interrupted(now, worker, generation, reason),
            Event::Unreachable {
                worker,
                generation,
                peers,
            } => self.unreachable(now, worker, generation, peers),
            Event::Released {
                worker,
                generation,
                outcome,
            } => {
                if self.is_member(&worker, generation) {
                    self.released(now, &worker, outcome, out);
                }
            }
            Event::WorkerLost { worker, reason } => {
                let reason = format!("worker {worker} was lost: {reason}");
                let cause = Cause {
                    kind: FormationReason::WorkerLost,
                    log: format!("worker.lost: {reason}"),
                    reason,
                };
                self.lost(now, &worker, cause, out);
                self.troubles.gone(&worker);
            }
            Event::Unfit {
                worker,
                trouble,
                reason,
            } => self.unfit(now, &worker, trouble, reason, out),
            Event::Usable { workers } => self.usable(now, workers),
            Event::WorkerLeaving { worker } => self.leaving(now, &worker, out),
            Event::Give { workers, taker } => self.gives(now, &workers, taker, out),
            Event::WorkerBack { worker, serving } => self.back(now, worker, serving, out),
            Event::Unaccounted {
                generation,
                head,
                last,
            } => {
                if generation == self.generation {
                    self.unaccounted(now, head, last, out);
                }
            }
            Event::Cancel => self.cancel(out),
            Event::Pause => self.pause(out),
            Event::Resume { checkpoint } => self.resume_released(checkpoint, out),
            Event::SetPriority { priority, by } => self.set_priority(priority, by.as_deref(), out),
            Event::Selected { rung, verdict } => self.selected(rung, verdict, out),
            Event::Drain => self.drain(out),
            Event::Tick => self.tick(now, out),
        }
    }

    /// When [`Event::Tick`] is due at the latest, beside the regular pace of a run that has workers. A queued run that
    /// waits for a store has no regular pace: it gets its ticks from here, and [`Run::start_blocked`] is worth asking
    /// after each.
    pub fn wake(&self) -> Option<u64> {
        let liveness = self.roster().and_then(|_| self.liveness.wake());
        [liveness, self.availability_wake(), self.shortage_wake()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Members that have not come back since the coordinator's restart.
    pub fn awaited(&self) -> impl Iterator<Item = &crate::ids::WorkerId> {
        self.liveness.awaited.keys()
    }

    /// Workers that the run does not want, and until when, in milliseconds on the caller's clock.
    pub fn barred(&self) -> std::collections::BTreeMap<crate::ids::WorkerId, u64> {
        let mut barred = self.liveness.barred();
        for (worker, left_out) in self.left_out() {
            let until = barred.entry(worker).or_default();
            *until = left_out.until_ms.max(*until);
        }
        barred
    }

    /// Until when a worker is barred from this run: `u64::MAX` is for good.
    pub fn barred_until(&self, worker: &crate::ids::WorkerId) -> u64 {
        let trouble = self.troubled_until(worker);
        self.liveness.barred_until(worker).max(trouble)
    }

    /// Goes over to `phase`, journals it and tells watchers.
    pub(super) fn enter(&mut self, phase: Phase, out: &mut Vec<Effect>) {
        self.phase = phase;
        if self.roster().is_none() {
            self.liveness.await_nobody();
        }
        out.extend([Effect::Persist, Effect::PublishPhase]);
    }

    fn is_under_way(&self, generation: u64) -> bool {
        generation == self.generation && self.roster().is_some()
    }

    /// Whether work of `worker` is waited for.
    pub(super) fn is_expected(&self, worker: &crate::ids::WorkerId, generation: u64) -> bool {
        let done =
            matches!(&self.phase, Phase::Finishing { pending, .. } if !pending.contains(worker));
        self.is_member(worker, generation) && !done
    }

    /// Whether `worker` serves the run in `generation`, and that is the present one.
    pub fn is_member(&self, worker: &crate::ids::WorkerId, generation: u64) -> bool {
        generation == self.generation
            && self
                .roster()
                .is_some_and(|roster| roster.rank_of(worker).is_some())
    }
}
