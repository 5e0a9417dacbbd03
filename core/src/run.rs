//! The life of a run, decided purely: `apply(event) -> effects`.
//!
//! ```text
//!             Assigned            every member Ready
//!   Queued ------------> Forming ------------------> Running
//!     ^  \                  |                           |
//!     |   \ Cancel          | member lost, failed,      | member released, lost, failed, Cancel
//!     |    \                v                           v
//!     |     \           Finishing <---------------------+
//!     |      \              |  all members released, checkpoint settled
//!     +-- Requeue ----------+----> Completed | Failed(reason) | Cancelled
//!                                      (Resume leads from Failed or Cancelled to Queued)
//! ```
//!
//! A generation ends in one way only: through `Finishing`, which waits until each of its members
//! has let go of the run, so that nobody can write into a later generation.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointInfo, Fingerprint};
use crate::ids::{RunId, WorkerId};
use crate::metrics::{self, Evaluation, Score};
use crate::roster::Roster;
use crate::spec::RunSpec;

/// After so many generations in a row that got no further, a run fails instead of trying again.
const FUTILE_GENERATIONS: u32 = 5;

/// Sizes that follow from the spec and the dataset; fixed when the run is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Steps in an epoch.
    pub steps_per_epoch: u64,
    /// Steps in the whole run.
    pub total_steps: u64,
    /// Training samples.
    pub train_samples: u64,
    /// Validation samples; an epoch's result is complete with so many scores.
    pub validation_samples: u64,
}

/// Where a run is in its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Phase {
    /// Waits for workers. `reason` says why it was interrupted, if it was.
    Queued { reason: Option<String> },
    /// Workers are chosen; they fetch data and connect to each other.
    Forming {
        roster: Roster,
        ready: BTreeMap<WorkerId, String>,
    },
    /// Steps are taken.
    Running { roster: Roster, cancelling: bool },
    /// The generation ends; `pending` have not let go yet.
    Finishing {
        roster: Roster,
        pending: BTreeSet<WorkerId>,
        next: Next,
    },
    /// Every epoch is done and the last checkpoint is stored.
    Completed,
    /// Ended by an error that trying again would not mend.
    Failed { reason: String },
    /// Ended by a person.
    Cancelled,
}

/// What follows once every member has let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Next {
    /// All steps are done: complete when the checkpoint of step `step` is stored.
    Complete { step: u64 },
    /// Stopped by a person; `step` is that of the checkpoint being taken, if one is.
    Cancel { step: Option<u64> },
    /// Interrupted: wait for workers and go on from the newest checkpoint.
    Requeue { reason: String, step: Option<u64> },
    /// Not to be mended by trying again.
    Fail { reason: String },
}

/// One epoch's results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochResult {
    /// 0-based epoch.
    pub epoch: u32,
    /// Committed steps at its end.
    pub step: u64,
    /// Mean training loss in nats over the samples seen since the epoch began or was resumed.
    pub train_loss: Option<f64>,
    /// Metrics on the validation split.
    pub validation: Evaluation,
}

/// The newest step, as the roster's first worker reported it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Committed steps.
    pub step: u64,
    /// Mean training loss of the step in nats.
    pub loss: f64,
    /// Images in the step over all workers.
    pub images: u32,
    /// Images a second over all workers, smoothed by the worker.
    pub images_per_s: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Where the reporting worker's time went.
    #[serde(default)]
    pub phases: StepPhases,
}

/// Wall-clock time of one step on one worker, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StepPhases {
    /// Waiting for the loader and bringing the batch to the device.
    pub load_ms: f64,
    /// Forward pass and loss.
    pub forward_ms: f64,
    /// Backward pass and gathering the flat gradient.
    pub backward_ms: f64,
    /// Ordered reduction over all workers, waiting for the slowest included.
    pub reduce_ms: f64,
    /// Optimizer.
    pub optimizer_ms: f64,
}

/// How a worker let go of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps done and its slice of the last checkpoint uploaded.
    Completed { step: u64 },
    /// Stopped at a step boundary as asked, its slice of the checkpoint uploaded.
    Stopped { step: u64 },
    /// Let go at once as asked.
    Aborted,
    /// Could not go on. `fatal` means that trying again would not help.
    Failed { reason: String, fatal: bool },
}

/// What happens to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The scheduler gave it workers: id and address.
    Assigned { workers: Vec<(WorkerId, String)> },
    /// A worker has loaded everything and is connected to its peers.
    Ready {
        worker: WorkerId,
        generation: u64,
        state_digest: String,
        fingerprint: Fingerprint,
    },
    /// A step was committed.
    StepCommitted {
        worker: WorkerId,
        generation: u64,
        report: StepReport,
    },
    /// A worker scored its part of the validation split after `epoch`.
    Scored {
        worker: WorkerId,
        generation: u64,
        epoch: u32,
        scores: Vec<Score>,
    },
    /// A checkpoint is whole, verified and on disk.
    CheckpointStored { info: CheckpointInfo },
    /// A checkpoint could not be stored.
    CheckpointFailed { step: u64, reason: String },
    /// A worker let go of the run.
    Released {
        worker: WorkerId,
        generation: u64,
        outcome: Outcome,
    },
    /// A worker is gone.
    WorkerLost { worker: WorkerId, reason: String },
    /// A person cancels the run.
    Cancel,
    /// A person resumes it, from the checkpoint of that step or the newest.
    Resume { checkpoint: Option<u64> },
    /// The coordinator or one of the run's workers shuts down: stop at a boundary, with a
    /// checkpoint, to go on later.
    Drain,
}

/// What is to be done about it. The owner of the run does it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write the run to the journal before anything of it is told to anyone.
    Persist,
    /// Send the roster to each of its members.
    SendRoster(Roster),
    /// Ask these workers to stop at the next step boundary and checkpoint.
    SendStop {
        workers: Vec<WorkerId>,
        generation: u64,
    },
    /// Ask these workers to let go at once.
    SendAbort {
        workers: Vec<WorkerId>,
        generation: u64,
        reason: String,
    },
    /// Tell watchers of the phase.
    PublishPhase,
    /// Tell watchers of a step.
    PublishStep(StepReport),
    /// Tell watchers of an epoch's result.
    PublishEpoch(EpochResult),
    /// Tell watchers of a checkpoint.
    PublishCheckpoint(CheckpointInfo),
    /// Say it in the log.
    Log { warning: bool, message: String },
}

/// Why a person's request cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Cancel of a run that has ended.
    #[error("run {run} is already {phase}; there is nothing to cancel")]
    Ended { run: RunId, phase: &'static str },
    /// Resume of a run that is not at rest.
    #[error("run {run} is {phase}; only a failed or cancelled run can be resumed")]
    NotResumable { run: RunId, phase: &'static str },
    /// Resume from a checkpoint that is not there.
    #[error("run {run} has no checkpoint at step {step}; it has {have}")]
    NoCheckpoint { run: RunId, step: u64, have: String },
}

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
    /// Sizes.
    pub extent: Extent,
    /// Milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// The newest generation, 0 before the first.
    pub generation: u64,
    /// Results by epoch.
    pub epochs: Vec<EpochResult>,
    /// Checkpoints by step.
    pub checkpoints: Vec<CheckpointInfo>,
    /// The checkpoint that a person chose to resume from, until a newer one is stored.
    pub resume_from: Option<u64>,
    /// Fingerprint of the workers that run it.
    pub fingerprint: Option<Fingerprint>,
    /// Generations in a row that did not get further than any before them.
    futile: u32,
    /// The most steps that were ever committed.
    #[serde(default)]
    furthest: u64,
    /// The newest step. Not journalled at every step: checkpoints say what is safe.
    pub progress: Option<StepReport>,
    /// Scores of epochs that are not complete yet.
    #[serde(skip)]
    scores: BTreeMap<u32, BTreeMap<u32, Score>>,
    /// Training loss of the epoch under way: (epoch, sum over samples, samples).
    #[serde(skip)]
    epoch_loss: (u32, f64, u64),
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
            extent,
            submitted_at_ms: now_ms,
            phase: Phase::Queued { reason: None },
            generation: 0,
            epochs: Vec::new(),
            checkpoints: Vec::new(),
            resume_from: None,
            fingerprint: None,
            futile: 0,
            furthest: 0,
            progress: None,
            scores: BTreeMap::new(),
            epoch_loss: (0, 0.0, 0),
        }
    }

    /// The run as a coordinator finds it in its journal at start: whatever was under way waits for
    /// workers again.
    pub fn recovered(mut self) -> Self {
        match self.phase {
            Phase::Forming { .. } | Phase::Running { .. } | Phase::Finishing { .. } => {
                self.phase = match self.phase {
                    Phase::Running {
                        cancelling: true, ..
                    }
                    | Phase::Finishing {
                        next: Next::Cancel { .. },
                        ..
                    } => Phase::Cancelled,
                    Phase::Finishing {
                        next: Next::Fail { reason },
                        ..
                    } => Phase::Failed { reason },
                    _ => Phase::Queued {
                        reason: Some("the coordinator was restarted".into()),
                    },
                };
            }
            Phase::Queued { .. } | Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => {}
        }
        self
    }

    /// The phase in a word.
    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Queued { .. } => "queued",
            Phase::Forming { .. } => "forming",
            Phase::Running { .. } => "running",
            Phase::Finishing { .. } => "finishing",
            Phase::Completed => "completed",
            Phase::Failed { .. } => "failed",
            Phase::Cancelled => "cancelled",
        }
    }

    /// Whether it will not move without a person.
    pub fn is_terminal(&self) -> bool {
        match self.phase {
            Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => true,
            Phase::Queued { .. }
            | Phase::Forming { .. }
            | Phase::Running { .. }
            | Phase::Finishing { .. } => false,
        }
    }

    /// The roster of the generation under way.
    pub fn roster(&self) -> Option<&Roster> {
        match &self.phase {
            Phase::Forming { roster, .. }
            | Phase::Running { roster, .. }
            | Phase::Finishing { roster, .. } => Some(roster),
            Phase::Queued { .. } | Phase::Completed | Phase::Failed { .. } | Phase::Cancelled => {
                None
            }
        }
    }

    /// The checkpoint that the next generation starts from.
    pub fn start_checkpoint(&self) -> Option<&CheckpointInfo> {
        match self.resume_from {
            Some(step) => self.checkpoints.iter().find(|c| c.step == step),
            None => self.checkpoints.last(),
        }
    }

    /// Checks a person's event before it is applied.
    pub fn admit(&self, event: &Event) -> Result<(), RunError> {
        match event {
            Event::Cancel if self.is_terminal() => Err(RunError::Ended {
                run: self.id.clone(),
                phase: self.phase_name(),
            }),
            Event::Resume { checkpoint } => {
                if !matches!(self.phase, Phase::Failed { .. } | Phase::Cancelled) {
                    return Err(RunError::NotResumable {
                        run: self.id.clone(),
                        phase: self.phase_name(),
                    });
                }
                match checkpoint {
                    Some(step) if !self.checkpoints.iter().any(|c| c.step == *step) => {
                        let have: Vec<String> = self
                            .checkpoints
                            .iter()
                            .map(|c| c.step.to_string())
                            .collect();
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

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
