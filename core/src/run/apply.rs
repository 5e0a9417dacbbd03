//! How a run takes events in: the transitions, and the effects that follow from them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Effect, EpochResult, Event, FUTILE_GENERATIONS, Next, Outcome, Phase, Run, StepReport,
};
use crate::checkpoint::{CheckpointInfo, Fingerprint};
use crate::ids::WorkerId;
use crate::metrics::{self, Score};
use crate::roster::Roster;

impl Run {
    /// Takes an event in. Events of an older generation change nothing.
    pub fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Assigned { workers } => self.assigned(&workers, &mut out),
            Event::Ready {
                worker,
                generation,
                state_digest,
                fingerprint,
            } => {
                if generation == self.generation {
                    self.ready(worker, state_digest, fingerprint, &mut out);
                }
            }
            Event::StepCommitted {
                worker: _,
                generation,
                report,
            } => {
                if generation == self.generation && self.roster().is_some() {
                    self.step_committed(report, &mut out);
                }
            }
            Event::Scored {
                worker: _,
                generation,
                epoch,
                scores,
            } => {
                if generation == self.generation && self.roster().is_some() {
                    self.scored(epoch, scores, &mut out);
                }
            }
            Event::CheckpointStored { info } => {
                if self.resume_from.is_some_and(|s| info.step > s) {
                    self.resume_from = None;
                }
                self.checkpoints.retain(|c| c.step != info.step);
                self.checkpoints.push(info.clone());
                self.checkpoints.sort_by_key(|c| c.step);
                out.extend([Effect::Persist, Effect::PublishCheckpoint(info)]);
                self.settle(&mut out);
            }
            Event::CheckpointFailed { step, reason } => {
                out.push(Effect::Log {
                    warning: true,
                    message: format!("checkpoint of step {step} was not stored: {reason}"),
                });
                self.checkpoint_failed(step, &reason, &mut out);
            }
            Event::Released {
                worker,
                generation,
                outcome,
            } => {
                if generation == self.generation {
                    self.released(&worker, outcome, &mut out);
                }
            }
            Event::WorkerLost { worker, reason } => {
                let reason = format!("worker {worker} was lost: {reason}");
                self.left(&worker, Next::Requeue { reason, step: None }, &mut out);
            }
            Event::Cancel => self.cancel(&mut out),
            Event::Resume { checkpoint } => {
                self.resume_from = checkpoint;
                self.futile = 0;
                self.enter(Phase::Queued { reason: None }, &mut out);
            }
            Event::Drain => self.drain(&mut out),
        }
        out
    }

    fn enter(&mut self, phase: Phase, out: &mut Vec<Effect>) {
        self.phase = phase;
        out.extend([Effect::Persist, Effect::PublishPhase]);
    }

    fn assigned(&mut self, workers: &[(WorkerId, String)], out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Queued { .. }) {
            return;
        }
        self.generation += 1;
        self.futile += 1;
        self.scores.clear();
        let start_step = self.start_checkpoint().map_or(0, |c| c.step);
        let roster = Roster::deal(
            self.generation,
            workers,
            self.spec.train.virtual_ranks,
            start_step,
        );
        self.enter(
            Phase::Forming {
                roster: roster.clone(),
                ready: BTreeMap::new(),
            },
            out,
        );
        out.push(Effect::SendRoster(roster));
    }

    fn ready(
        &mut self,
        worker: WorkerId,
        digest: String,
        fingerprint: Fingerprint,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Forming { roster, ready } = &mut self.phase else {
            return;
        };
        if roster.rank_of(&worker).is_none() {
            return;
        }
        ready.insert(worker.clone(), digest.clone());
        if let Some((other, theirs)) = ready.iter().find(|(_, d)| **d != digest) {
            let reason = format!(
                "workers {worker} and {other} start from different states ({} and {}): do they read \
                 the same weights file? Give model.weights_sha256 to be sure",
                short(&digest),
                short(theirs),
            );
            self.end_generation(Next::Fail { reason }, None, out);
            return;
        }
        if let Some(then) = &self.fingerprint {
            let differences = fingerprint.differences(then);
            if !differences.is_empty() {
                out.push(Effect::Log {
                    warning: true,
                    message: format!(
                        "worker {worker} computes under another numeric fingerprint than the run so \
                         far; its bits may differ: {}",
                        differences.join("; ")
                    ),
                });
            }
        }
        self.fingerprint = Some(fingerprint);
        if ready.len() == roster.members.len() {
            let roster = roster.clone();
            self.enter(
                Phase::Running {
                    roster,
                    cancelling: false,
                },
                out,
            );
        }
    }

    fn step_committed(&mut self, report: StepReport, out: &mut Vec<Effect>) {
        if report.step > self.furthest {
            self.furthest = report.step;
            self.futile = 0;
        }
        // The step that ends at `report.step` belongs to the epoch of its predecessor.
        let epoch = (report.step.saturating_sub(1) / self.extent.steps_per_epoch.max(1)) as u32;
        if self.epoch_loss.0 != epoch {
            self.epoch_loss = (epoch, 0.0, 0);
        }
        self.epoch_loss.1 += report.loss * f64::from(report.images);
        self.epoch_loss.2 += u64::from(report.images);
        self.progress = Some(report);
        out.push(Effect::PublishStep(report));
    }

    fn scored(&mut self, epoch: u32, scores: Vec<Score>, out: &mut Vec<Effect>) {
        let classes = self.spec.model.classes;
        let valid = |s: &Score| {
            s.label < classes
                && s.probabilities.len() == classes as usize
                && u64::from(s.sample) < self.extent.validation_samples
        };
        let gathered = self.scores.entry(epoch).or_default();
        gathered.extend(scores.into_iter().filter(valid).map(|s| (s.sample, s)));
        if (gathered.len() as u64) < self.extent.validation_samples {
            return;
        }
        let all: Vec<Score> = self
            .scores
            .remove(&epoch)
            .unwrap_or_default()
            .into_values()
            .collect();
        let (of, sum, samples) = self.epoch_loss;
        let result = EpochResult {
            epoch,
            step: (u64::from(epoch) + 1) * self.extent.steps_per_epoch,
            train_loss: (of == epoch && samples > 0).then(|| sum / samples as f64),
            validation: metrics::evaluate(&all, classes as usize, self.spec.positive_class()),
        };
        self.epochs.retain(|e| e.epoch != epoch);
        self.epochs.push(result.clone());
        self.epochs.sort_by_key(|e| e.epoch);
        out.extend([Effect::Persist, Effect::PublishEpoch(result)]);
    }

    fn released(&mut self, worker: &WorkerId, outcome: Outcome, out: &mut Vec<Effect>) {
        let next = match outcome {
            Outcome::Completed { step } => Next::Complete { step },
            Outcome::Stopped { step } => {
                let cancelling = matches!(
                    self.phase,
                    Phase::Running {
                        cancelling: true,
                        ..
                    }
                );
                if cancelling {
                    Next::Cancel { step: Some(step) }
                } else {
                    Next::Requeue {
                        reason: "a worker or the coordinator was asked to shut down".into(),
                        step: Some(step),
                    }
                }
            }
            Outcome::Aborted => Next::Requeue {
                reason: format!("worker {worker} let go of the run"),
                step: None,
            },
            Outcome::Failed { reason, fatal } => {
                let reason = format!("worker {worker}: {reason}");
                if fatal {
                    Next::Fail { reason }
                } else {
                    Next::Requeue { reason, step: None }
                }
            }
        };
        self.left(worker, next, out);
    }

    /// `worker` takes no more part in this generation.
    fn left(&mut self, worker: &WorkerId, next: Next, out: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Forming { roster, .. } | Phase::Running { roster, .. } => {
                if roster.rank_of(worker).is_some() {
                    self.end_generation(next, Some(worker), out);
                }
            }
            Phase::Finishing {
                pending,
                next: planned,
                ..
            } => {
                if pending.remove(worker) {
                    // A worker that could not upload its slice spoils the checkpoint waited for;
                    // one that fails for good spoils the run.
                    match (&*planned, next) {
                        (
                            Next::Complete { .. } | Next::Requeue { .. },
                            next @ Next::Fail { .. },
                        )
                        | (Next::Complete { .. }, next @ Next::Requeue { .. }) => *planned = next,
                        (Next::Cancel { .. }, Next::Requeue { step: None, .. }) => {
                            *planned = Next::Cancel { step: None };
                        }
                        (Next::Requeue { reason, .. }, Next::Requeue { step: None, .. }) => {
                            let reason = reason.clone();
                            *planned = Next::Requeue { reason, step: None };
                        }
                        (
                            Next::Complete { .. }
                            | Next::Cancel { .. }
                            | Next::Requeue { .. }
                            | Next::Fail { .. },
                            _,
                        ) => {}
                    }
                    self.settle(out);
                }
            }
            Phase::Queued { .. } | Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => {}
        }
    }

    /// Ends the generation under way. `gone` has already let go. The others are told to stop at
    /// once, unless they are about to finish by themselves.
    fn end_generation(&mut self, next: Next, gone: Option<&WorkerId>, out: &mut Vec<Effect>) {
        let Some(roster) = self.roster().cloned() else {
            return;
        };
        let cancelling = matches!(
            self.phase,
            Phase::Running {
                cancelling: true,
                ..
            }
        );
        let next = match next {
            Next::Requeue { step, .. } if cancelling => Next::Cancel { step },
            Next::Requeue { reason, step }
                if self.futile >= FUTILE_GENERATIONS && step.is_none() =>
            {
                Next::Fail {
                    reason: format!(
                        "{FUTILE_GENERATIONS} attempts in a row got no further than step {}; the \
                         last: {reason}",
                        self.furthest
                    ),
                }
            }
            next => next,
        };
        let pending: BTreeSet<WorkerId> = roster
            .members
            .iter()
            .map(|m| m.worker.clone())
            .filter(|w| Some(w) != gone)
            .collect();
        let finish_themselves = match &next {
            Next::Complete { .. } => true,
            Next::Cancel { step } | Next::Requeue { step, .. } => step.is_some(),
            Next::Fail { .. } => false,
        };
        if !finish_themselves && !pending.is_empty() {
            out.push(Effect::SendAbort {
                workers: pending.iter().cloned().collect(),
                generation: self.generation,
                reason: match &next {
                    Next::Fail { reason } | Next::Requeue { reason, .. } => reason.clone(),
                    Next::Cancel { .. } => "the run was cancelled".into(),
                    Next::Complete { .. } => "the run is complete".into(),
                },
            });
        }
        if let Next::Fail { reason } | Next::Requeue { reason, .. } = &next {
            out.push(Effect::Log {
                warning: true,
                message: reason.clone(),
            });
        }
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

    /// Leaves `Finishing` when nothing is waited for any more.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        let Phase::Finishing {
            roster,
            pending,
            next,
        } = &self.phase
        else {
            return;
        };
        let awaited = match next {
            Next::Complete { step } => Some(*step),
            Next::Cancel { step } | Next::Requeue { step, .. } => *step,
            Next::Fail { .. } => None,
        };
        // One that an earlier generation left at this step does not count: a run that was resumed
        // from an older checkpoint takes the step again.
        let ours =
            |c: &CheckpointInfo| c.generation == self.generation || c.step == roster.start_step;
        let stored = awaited.is_none_or(|step| {
            step == 0 || self.checkpoints.iter().any(|c| c.step == step && ours(c))
        });
        if !pending.is_empty() || !stored {
            return;
        }
        let phase = match next.clone() {
            Next::Complete { .. } => Phase::Completed,
            Next::Cancel { .. } => Phase::Cancelled,
            Next::Requeue { reason, .. } => Phase::Queued {
                reason: Some(reason),
            },
            Next::Fail { reason } => Phase::Failed { reason },
        };
        self.enter(phase, out);
    }

    fn checkpoint_failed(&mut self, failed: u64, why: &str, out: &mut Vec<Effect>) {
        if let Phase::Finishing { next, .. } = &mut self.phase {
            match next {
                Next::Complete { step } if *step == failed => {
                    *next = Next::Fail {
                        reason: format!("the final checkpoint could not be stored: {why}"),
                    };
                }
                Next::Cancel { step } | Next::Requeue { step, .. } if *step == Some(failed) => {
                    *step = None;
                }
                Next::Complete { .. }
                | Next::Cancel { .. }
                | Next::Requeue { .. }
                | Next::Fail { .. } => {}
            }
            self.settle(out);
        }
    }

    fn cancel(&mut self, out: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Queued { .. } => self.enter(Phase::Cancelled, out),
            Phase::Forming { .. } => self.end_generation(Next::Cancel { step: None }, None, out),
            Phase::Running { roster, cancelling } => {
                *cancelling = true;
                let workers = roster.members.iter().map(|m| m.worker.clone()).collect();
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
                if let Next::Requeue { step, .. } = next {
                    *next = Next::Cancel { step: *step };
                    out.push(Effect::Persist);
                    self.settle(out);
                }
            }
            Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => {}
        }
    }

    fn drain(&mut self, out: &mut Vec<Effect>) {
        match &self.phase {
            Phase::Forming { .. } => {
                let reason = "a worker or the coordinator was asked to shut down".into();
                self.futile = self.futile.saturating_sub(1);
                self.end_generation(Next::Requeue { reason, step: None }, None, out);
            }
            Phase::Running { roster, .. } => {
                let workers = roster.members.iter().map(|m| m.worker.clone()).collect();
                let generation = self.generation;
                out.push(Effect::SendStop {
                    workers,
                    generation,
                });
            }
            Phase::Queued { .. }
            | Phase::Finishing { .. }
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => {}
        }
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
