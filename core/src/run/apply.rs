//! How a run takes events in: each goes to the part that is responsible for it.

use super::{Effect, Event, Phase, Run};

impl Run {
    /// Takes an event in. Events of an older generation change nothing.
    pub fn apply(&mut self, now: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Assigned { workers } => self.assigned(now, workers, &mut out),
            Event::Joined { workers } => self.joined(now, workers, &mut out),
            Event::Ready {
                worker,
                generation,
                standing,
                fingerprint,
            } => {
                if generation == self.generation {
                    self.ready(now, worker, standing, fingerprint, &mut out);
                }
            }
            Event::StepCommitted { generation, report } => {
                if self.is_under_way(generation) {
                    self.step_committed(report, &mut out);
                }
            }
            Event::Digest {
                worker,
                generation,
                step,
                digest,
            } => {
                if self.is_member(&worker, generation) {
                    self.digest(now, worker, step, digest, &mut out);
                }
            }
            Event::Scored {
                generation,
                epoch,
                scores,
            } => {
                if self.is_under_way(generation) {
                    self.scored(epoch, scores, &mut out);
                }
            }
            Event::CheckpointStored { info } => self.checkpoint_stored(info, &mut out),
            Event::CheckpointFailed { step, reason } => {
                out.push(Effect::Log {
                    warning: true,
                    message: format!("checkpoint of step {step} was not stored: {reason}"),
                });
                self.checkpoint_failed(step, &reason, &mut out);
            }
            Event::CheckpointDamaged {
                step,
                generation,
                reason,
            } => self.checkpoint_damaged(now, step, generation, &reason, &mut out),
            Event::Progress {
                worker,
                generation,
                heartbeat,
            } => {
                if self.is_expected(&worker, generation) {
                    self.vitals.progress(worker, heartbeat, now);
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
                    self.released(now, &worker, outcome, &mut out);
                }
            }
            Event::WorkerLost { worker, reason } => {
                let reason = format!("worker {worker} was lost: {reason}");
                self.lost(now, &worker, reason, &mut out);
            }
            Event::WorkerLeaving { worker } => self.leaving(now, &worker, &mut out),
            Event::WorkerBack { worker, serving } => self.back(now, worker, serving, &mut out),
            Event::Unaccounted { generation, head } => {
                if generation == self.generation {
                    self.unaccounted(now, head, &mut out);
                }
            }
            Event::Cancel => self.cancel(&mut out),
            Event::Pause => self.pause(&mut out),
            Event::Resume { checkpoint } => self.resume(checkpoint, &mut out),
            Event::Drain => self.drain(&mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// When [`Event::Tick`] is due at the latest, beside its regular pace.
    pub fn wake(&self) -> Option<u64> {
        self.roster().and_then(|_| self.vitals.wake())
    }

    /// Until when the run does not want this worker.
    pub fn barred_until(&self, worker: &crate::ids::WorkerId) -> u64 {
        self.vitals.barred_until(worker)
    }

    pub(super) fn enter(&mut self, phase: Phase, out: &mut Vec<Effect>) {
        self.phase = phase;
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
