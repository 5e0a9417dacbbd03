//! What can be said of a run: its phases, events, effects and errors.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointInfo, Fingerprint};
use crate::ids::{RunId, WorkerId};
use crate::metrics::{Evaluation, Score};
use crate::roster::Roster;

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
