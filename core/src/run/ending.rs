//! Ending a run: the last checkpoint, and the requests of people (cancel, pause, resume).

use std::collections::BTreeSet;

use super::membership::{Cause, ids, peers};
use super::{Effect, Event, Next, Outcome, Phase, Run, Stopping};
use crate::checkpoint::CheckpointInfo;
use crate::ids::WorkerId;

impl Run {
    /// A member has done its part: all steps, or a stop at a boundary.
    pub(super) fn done(&mut self, worker: &WorkerId, outcome: Outcome, out: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Forming { .. } | Phase::Running { .. } => {
                let next = match outcome {
                    Outcome::Completed { step } => Next::Complete { step },
                    Outcome::Stopped { step } => match self.stopping() {
                        Some(Stopping::Cancel) => Next::Cancel { step: Some(step) },
                        Some(Stopping::Pause) => Next::Pause { step: Some(step) },
                        Some(Stopping::Drain) | None => Next::Requeue {
                            reason: "a worker or the coordinator was asked to shut down".into(),
                            step: Some(step),
                        },
                        Some(Stopping::Give) => Next::Requeue {
                            reason: self.given_reason(),
                            step: Some(step),
                        },
                    },
                    Outcome::Yielded { .. }
                    | Outcome::Aborted
                    | Outcome::Failed { .. }
                    | Outcome::Blocked { .. }
                    | Outcome::Unfit { .. } => return,
                };
                let Some(roster) = self.roster().cloned() else {
                    return;
                };
                self.liveness.settle_complaints();
                self.liveness.forget(worker);
                let mut pending: BTreeSet<WorkerId> = ids(&peers(&roster)).into_iter().collect();
                pending.remove(worker);
                self.enter(
                    Phase::Finishing {
                        roster,
                        pending,
                        next,
                    },
                    out,
                );
                self.settle(out);
            }
            Phase::Finishing { pending, .. } => {
                pending.remove(worker);
                self.liveness.forget(worker);
                self.settle(out);
            }
            Phase::Queued { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => {}
        }
    }

    /// `worker` was lost, or failed, while the last checkpoint is assembled: its slice may be missing.
    pub(super) fn left_finishing(
        &mut self,
        worker: &WorkerId,
        cause: Cause,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Finishing { pending, .. } = &mut self.phase else {
            return;
        };
        if !pending.remove(worker) {
            return;
        }
        self.liveness.forget(worker);
        let Cause {
            kind: _,
            log,
            reason,
        } = cause;
        out.push(Effect::Log {
            warning: true,
            message: log,
        });
        if self.awaited_is_stored() {
            self.settle(out);
        } else {
            self.spoiled(&reason, out);
        }
    }

    /// The checkpoint that the end waits for will not be stored.
    fn spoiled(&mut self, reason: &str, out: &mut Vec<Effect>) {
        let Phase::Finishing { pending, next, .. } = &mut self.phase else {
            return;
        };
        match next {
            Next::Cancel { step } | Next::Pause { step } | Next::Requeue { step, .. } => {
                *step = None;
                out.push(Effect::Persist);
                self.settle(out);
            }
            // The steps are done and some workers hold the final state: another generation stores it.
            Next::Complete { .. } => {
                let left: Vec<WorkerId> = std::mem::take(pending).into_iter().collect();
                let reason = format!("the final checkpoint is missing: {reason}");
                if let Some(hopeless) = self.hopeless(&reason) {
                    self.fail(hopeless, &left, out);
                    return;
                }
                self.abort(left, &reason, out);
                let reason = Some(reason);
                self.enter(Phase::Queued { reason }, out);
            }
        }
    }

    /// Whether a member's failure changes nothing any more: the awaited checkpoint is stored, or a person asked for the
    /// end in any case.
    pub(super) fn ends_regardless(&self) -> bool {
        let Phase::Finishing { next, .. } = &self.phase else {
            return false;
        };
        matches!(next, Next::Cancel { .. } | Next::Pause { .. }) || self.awaited_is_stored()
    }

    fn awaited_is_stored(&self) -> bool {
        let Phase::Finishing { roster, next, .. } = &self.phase else {
            return false;
        };
        // A checkpoint of an earlier generation at this step does not count: a run that was resumed from an older
        // checkpoint takes the step again.
        let ours = |c: &CheckpointInfo| {
            c.generation == self.generation || c.step == roster.start_step && !self.is_void(c)
        };
        next.awaited().is_none_or(|step| {
            step == 0 || self.checkpoints.iter().any(|c| c.step == step && ours(c))
        })
    }

    /// Leaves `Finishing` when all members have let go and the awaited checkpoint is stored.
    pub(super) fn settle(&mut self, out: &mut Vec<Effect>) {
        let Phase::Finishing { pending, next, .. } = &self.phase else {
            return;
        };
        if !pending.is_empty() || !self.awaited_is_stored() {
            return;
        }
        let phase = match next.clone() {
            Next::Complete { .. } => Phase::Completed,
            Next::Cancel { .. } => Phase::Cancelled,
            Next::Pause { .. } => Phase::Paused,
            Next::Requeue { reason, .. } => Phase::Queued {
                reason: Some(reason),
            },
        };
        self.enter(phase, out);
        if self.phase == Phase::Completed && self.spec.evaluate.is_some() {
            // Its copy of another run's checkpoint has served.
            let copies = std::mem::take(&mut self.checkpoints);
            out.extend(copies.into_iter().map(Effect::RemoveCheckpoint));
        }
    }

    /// A checkpoint could not be stored. That of an older generation is of interest to nobody.
    pub(super) fn checkpoint_failed(
        &mut self,
        generation: u64,
        step: u64,
        reason: &str,
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Log {
            warning: true,
            message: format!(
                "checkpoint.failed: checkpoint {step} of generation {generation} was not stored: {reason}"
            ),
        });
        self.checkpoint_failures += 1;
        out.push(Effect::Persist);
        if generation != self.generation {
            return;
        }
        if let Phase::Finishing { next, .. } = &self.phase
            && next.awaited() == Some(step)
            && !self.awaited_is_stored()
        {
            // A full disk, for instance: more attempts may help, but not any number.
            self.failures += 1;
            self.spoiled(reason, out);
        }
    }

    /// The checkpoint of `step` turned out corrupt. It may be the one that the end waits for.
    pub(super) fn last_checkpoint_spoiled(&mut self, step: u64, why: &str, out: &mut Vec<Effect>) {
        if let Phase::Finishing { next, .. } = &self.phase
            && next.awaited() == Some(step)
            && !self.awaited_is_stored()
        {
            self.spoiled(why, out);
        }
    }

    pub(super) fn cancel(&mut self, out: &mut Vec<Effect>) {
        self.stop(Stopping::Cancel, out);
    }

    pub(super) fn pause(&mut self, out: &mut Vec<Effect>) {
        self.stop(Stopping::Pause, out);
    }

    /// A person wants the run to stop.
    fn stop(&mut self, how: Stopping, out: &mut Vec<Effect>) {
        let rest = match how {
            Stopping::Cancel => Phase::Cancelled,
            Stopping::Pause => Phase::Paused,
            Stopping::Drain | Stopping::Give => return,
        };
        match &mut self.phase {
            Phase::Queued { .. } => self.enter(rest, out),
            Phase::Paused if how == Stopping::Cancel => self.enter(rest, out),
            Phase::Forming { roster, .. } => {
                let members = ids(&peers(roster));
                self.abort(members, &how.to_string(), out);
                self.enter(rest, out);
            }
            Phase::Running { roster, stopping } => {
                *stopping = Some(how);
                let workers = ids(&peers(roster));
                let generation = self.generation;
                out.extend([
                    Effect::Persist,
                    Effect::SendStop {
                        workers,
                        generation,
                    },
                ]);
            }
            Phase::Finishing { next, .. } => {
                // What is complete stays so; of two requests the later counts.
                if let Next::Requeue { step, .. } | Next::Cancel { step } | Next::Pause { step } =
                    next
                {
                    let step = *step;
                    *next = match how {
                        Stopping::Pause => Next::Pause { step },
                        Stopping::Cancel | Stopping::Drain | Stopping::Give => {
                            Next::Cancel { step }
                        }
                    };
                    out.push(Effect::Persist);
                    self.settle(out);
                }
            }
            Phase::Paused | Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => {}
        }
    }

    /// A person wants it to go on: on other machines, if need be.
    pub(super) fn resume_released(&mut self, checkpoint: Option<u64>, out: &mut Vec<Effect>) {
        if self.admit(&Event::Resume { checkpoint }).is_ok() {
            self.released = true;
            self.resume(checkpoint, out);
        }
    }

    pub(super) fn resume(&mut self, checkpoint: Option<u64>, out: &mut Vec<Effect>) {
        if self.admit(&Event::Resume { checkpoint }).is_err() {
            return;
        }
        // A failed run goes back to what is on disk: the state that workers hold led to the failure.
        if checkpoint.is_some() || matches!(self.phase, Phase::Failed { .. }) {
            self.rewind(checkpoint, out);
            self.furthest = self.progress.map_or(0, |p| p.step);
        }
        if self.group_pause.take().is_some() {
            // Whoever resumes a run that its group has stopped wants it to be trained to its end.
            self.hold = None;
        }
        self.futile = 0;
        self.stale = 0;
        self.failures = 0;
        self.liveness.reset_penalties();
        self.availability.reset_retries();
        self.troubles.reset();
        self.enter(Phase::Queued { reason: None }, out);
    }

    pub(super) fn drain(&mut self, out: &mut Vec<Effect>) {
        let reason = "a worker or the coordinator was asked to shut down";
        match &mut self.phase {
            Phase::Forming { roster, .. } => {
                let members = ids(&peers(roster));
                self.futile = self.futile.saturating_sub(1);
                self.abort(members, reason, out);
                let reason = Some(reason.into());
                self.enter(Phase::Queued { reason }, out);
            }
            Phase::Running { .. } => self.stop_for(Stopping::Drain, out),
            Phase::Queued { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => {}
        }
    }
    /// Asks the workers to stop at the next step boundary with a checkpoint, unless they were asked already.
    pub(super) fn stop_for(&mut self, why: Stopping, out: &mut Vec<Effect>) {
        let generation = self.generation;
        let Phase::Running { roster, stopping } = &mut self.phase else {
            return;
        };
        stopping.get_or_insert(why);
        let workers = ids(&peers(roster));
        out.extend([
            Effect::Persist,
            Effect::SendStop {
                workers,
                generation,
            },
        ]);
    }
}
