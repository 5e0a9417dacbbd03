//! The types of a run's state machine: phases, events and effects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointInfo, Fingerprint};
use crate::ids::{DatasetName, RunId, WorkerId};
use crate::metrics::{Evaluation, Score};
use crate::priority::Priority;
use crate::roster::Roster;
use crate::selection::Verdict;
use crate::spec::Part;
use crate::state::StateId;

use super::trouble::Trouble;

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
    /// Waits for workers, or for a store. `reason` says why it was interrupted, if it was.
    Queued { reason: Option<String> },
    /// Workers are assigned; they fetch data, connect to each other and agree on a state. `reason` says why this is
    /// not the first generation.
    Forming {
        roster: Roster,
        ready: BTreeMap<WorkerId, StateId>,
        stopping: Option<Stopping>,
        reason: Option<String>,
    },
    /// The workers take steps.
    Running {
        roster: Roster,
        stopping: Option<Stopping>,
    },
    /// The generation ends with a checkpoint; the workers in `pending` have not let go yet.
    Finishing {
        roster: Roster,
        pending: BTreeSet<WorkerId>,
        next: Next,
    },
    /// Stopped by a person, with a checkpoint, to be resumed.
    Paused,
    /// Every epoch is done and the last checkpoint is stored.
    Completed,
    /// Ended by an error that another attempt would not resolve.
    Failed { reason: String },
    /// Ended by a person.
    Cancelled,
}

/// Why the workers were asked to stop at the next step boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stopping {
    /// A person cancels the run.
    Cancel,
    /// A person pauses it.
    Pause,
    /// The coordinator or its last worker shuts down; the run goes on later.
    Drain,
    /// Its workers go to a run of higher priority; it goes on later.
    Give,
}

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancel => "is being cancelled",
            Self::Pause => "is being paused",
            Self::Drain => "is being checkpointed, to go on later",
            Self::Give => {
                "is being checkpointed, and gives its workers to a run of higher priority"
            }
        })
    }
}

/// What follows once every member has let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Next {
    /// All steps are done: complete when the checkpoint of step `step` is stored.
    Complete { step: u64 },
    /// Stopped by a person; `step` is that of the checkpoint being taken, if one is.
    Cancel { step: Option<u64> },
    /// The same, to be resumed.
    Pause { step: Option<u64> },
    /// Queue the run: it goes on when there are workers.
    Requeue { reason: String, step: Option<u64> },
}

impl Next {
    /// The step whose checkpoint is waited for.
    pub fn awaited(&self) -> Option<u64> {
        match self {
            Self::Complete { step } => Some(*step),
            Self::Cancel { step } | Self::Pause { step } | Self::Requeue { step, .. } => *step,
        }
    }
}

/// One epoch's results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochResult {
    /// 0-based epoch.
    pub epoch: u32,
    /// Committed steps at its end.
    pub step: u64,
    /// Mean training loss in nats over the epoch's samples, as far as the ledger knows them.
    pub train_loss: Option<f64>,
    /// Metrics on the validation split.
    pub validation: Evaluation,
}

/// Scores of all samples of the scored part after an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochScores {
    /// 0-based epoch.
    pub epoch: u32,
    /// Committed steps at its end.
    pub step: u64,
    /// Number of classes.
    pub classes: u32,
    /// Probability of each class, sample by sample in the order of their ordinals.
    pub probabilities: Vec<f32>,
    /// Maps, if they were asked for.
    pub maps: Option<EpochMaps>,
}

/// Class activation maps of all samples of the scored part.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochMaps {
    /// Rows of each.
    pub height: u32,
    /// Columns of each.
    pub width: u32,
    /// Sample by sample in the order of their ordinals, row by row.
    pub values: Vec<f32>,
}

impl EpochMaps {
    /// Those of scores in the order of their samples; None if they are not all there, or not all of one size.
    pub(super) fn of(scores: &[Score]) -> Option<Self> {
        let size = |score: &Score| score.map.as_ref().map(|map| (map.height, map.width));
        let (height, width) = size(scores.first()?)?;
        let alike = scores
            .iter()
            .all(|score| size(score) == Some((height, width)));
        let values = || {
            let maps = scores.iter().filter_map(|score| score.map.as_ref());
            maps.flat_map(|map| map.values.iter().copied()).collect()
        };
        alike.then(|| Self {
            height: height as u32,
            width: width as u32,
            values: values(),
        })
    }
}

/// When a run ran. Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// When its first generation had formed.
    pub began_ms: Option<u64>,
    /// When it ended; None while it has not, or if it was resumed.
    pub ended_ms: Option<u64>,
    /// The largest number of workers at a time.
    pub most_workers: u32,
}

/// An evaluation of a run's checkpoint that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// The run that scores.
    pub run: RunId,
    /// Step of the checkpoint.
    pub step: u64,
    /// Generation that took the checkpoint.
    pub generation: u64,
    /// The dataset's name.
    pub dataset: DatasetName,
    /// The dataset's digest.
    pub dataset_digest: String,
    /// Part of the dataset that is scored.
    pub part: Part,
    /// When it was asked for, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Name of the person who asked; None without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How many of the scored samples are of the dataset's test part. None in journals of versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_samples: Option<u64>,
    /// Whether each image counts as the mean of itself and its three rotations by a quarter turn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotations: bool,
}

/// What the ledger held once and rewinds have cut off: with what it holds now, all that was ever committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Discarded {
    /// Steps.
    pub steps: u64,
    /// Images that they used.
    pub images: u64,
}

impl Discarded {
    /// Nothing was cut off.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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

/// Wall-clock times of one step on one worker, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StepPhases {
    /// Waiting for the loader and copying the batch to the device.
    pub load_ms: f64,
    /// Forward pass and loss.
    pub forward_ms: f64,
    /// Backward pass and gathering the flat gradient.
    pub backward_ms: f64,
    /// Reduction over all workers, including the wait for the slowest, as far as it did not overlap the backward pass.
    pub reduce_ms: f64,
    /// Optimizer.
    pub optimizer_ms: f64,
}

impl StepPhases {
    /// The whole step.
    pub fn total_ms(&self) -> f64 {
        let Self {
            load_ms,
            forward_ms,
            backward_ms,
            reduce_ms,
            optimizer_ms,
        } = self;
        load_ms + forward_ms + backward_ms + reduce_ms + optimizer_ms
    }
}

/// How a worker let go of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps done and its slice of the last checkpoint uploaded.
    Completed { step: u64 },
    /// Stopped at a step boundary as asked, its slice of the checkpoint uploaded.
    Stopped { step: u64 },
    /// Stopped at a step boundary; the other members go on.
    Yielded { step: u64 },
    /// Let go at once as asked.
    Aborted,
    /// Could not go on. `fatal` means that another attempt would not help.
    Failed { reason: String, fatal: bool },
    /// Cannot go on before something at the coordinator (a pack, a checkpoint) can be read again. Nobody's failure: the run
    /// is queued and tried again later.
    Blocked { reason: String },
    /// Trouble of this worker alone: others can go on.
    Unfit { trouble: Trouble, reason: String },
}

/// What a worker's heartbeat reports about its part in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// Progress counter: counts up with every piece of work done.
    pub ticks: u64,
    /// The rank that the worker waits for now, if it waits.
    pub waiting_for: Option<u32>,
    /// Poll counter: counts up 5 times a second while the worker waits. A worker that hangs inside a wait does not poll.
    pub polls: u64,
    /// Samples that it has scored in the evaluation under way; 0 outside of one.
    pub scored: u64,
}

/// What happens to a run. Events of an older generation change nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The scheduler assigns workers to a queued run: id and address.
    Assigned { workers: Vec<(WorkerId, String)> },
    /// Workers that are prepared (dataset fetched) join a running one.
    Joined { workers: Vec<(WorkerId, String)> },
    /// A worker has loaded everything, is connected to its peers and agrees with them on a state.
    Ready {
        worker: WorkerId,
        generation: u64,
        state: StateId,
        fingerprint: Fingerprint,
    },
    /// A step was committed.
    StepCommitted { generation: u64, report: StepReport },
    /// A worker's state after `step`.
    Digest {
        worker: WorkerId,
        generation: u64,
        step: u64,
        digest: u128,
    },
    /// Scores of the validation split, or of a part of it, after `epoch`.
    Scored {
        generation: u64,
        epoch: u32,
        scores: Vec<Score>,
    },
    /// A checkpoint is whole, verified and on disk.
    CheckpointStored { info: CheckpointInfo },
    /// A checkpoint that `generation` took could not be stored.
    CheckpointFailed {
        generation: u64,
        step: u64,
        reason: String,
    },
    /// A stored checkpoint was read in full and is not what was written: it is put aside.
    CheckpointCorrupt {
        step: u64,
        generation: u64,
        reason: String,
    },
    /// A stored checkpoint cannot be read now: an I/O error, or its file is missing. It stays listed; the store is
    /// asked again.
    CheckpointUnreadable {
        step: u64,
        generation: u64,
        reason: String,
    },
    /// The store can read this checkpoint, as far as a look at the file tells.
    CheckpointReadable { step: u64, generation: u64 },
    /// The coordinator cannot hand out the run's data: a pack there is damaged.
    DataUnavailable { reason: String },
    /// It can again.
    DataAvailable,
    /// A heartbeat that names this run.
    Progress {
        worker: WorkerId,
        generation: u64,
        heartbeat: Heartbeat,
    },
    /// A worker's connections to its peers broke; it keeps its state and waits for the next generation.
    Interrupted {
        worker: WorkerId,
        generation: u64,
        reason: String,
    },
    /// A worker cannot reach peers of its generation.
    Unreachable {
        worker: WorkerId,
        generation: u64,
        peers: Vec<WorkerId>,
    },
    /// A worker let go of the run.
    Released {
        worker: WorkerId,
        generation: u64,
        outcome: Outcome,
    },
    /// A worker's session ended, or its heartbeats stopped.
    WorkerLost { worker: WorkerId, reason: String },
    /// A worker asks to be let go: it shuts down.
    WorkerLeaving { worker: WorkerId },
    /// A run of higher priority gets these workers; all, if too few would be left.
    Give {
        workers: Vec<WorkerId>,
        taker: RunId,
    },
    /// A worker could not prepare to join, because of trouble of its own.
    Unfit {
        worker: WorkerId,
        trouble: Trouble,
        reason: String,
    },
    /// How many connected workers could serve the run, busy or not: neither left out nor barred, and with enough memory.
    Usable { workers: usize },
    /// After a restart of the coordinator: a worker reconnected, and serves that generation.
    WorkerBack {
        worker: WorkerId,
        serving: Option<u64>,
    },
    /// The workers' state is that after step `last`, but the ledger has the steps only up to `head`, and no worker is
    /// left that could report the others: they died, or the journal was restored from an older backup.
    Unaccounted {
        generation: u64,
        head: u64,
        last: u64,
    },
    /// A person cancels the run.
    Cancel,
    /// A person pauses it.
    Pause,
    /// A person resumes it, from the checkpoint of that step or the newest.
    Resume { checkpoint: Option<u64> },
    /// A person sets its priority; without TLS `by` is None.
    SetPriority {
        priority: Priority,
        by: Option<String>,
    },
    /// The run's group has decided about the rung at which it waits.
    Selected { rung: u32, verdict: Verdict },
    /// The coordinator shuts down: stop at a boundary, with a checkpoint, to go on later.
    Drain,
    /// Time has passed.
    Tick,
}

/// What is to be done about it. The owner of the run does it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write the run to the journal before any other effect is carried out.
    Persist,
    /// Write these scores in the same transaction.
    KeepScores(EpochScores),
    /// Send the roster to each of its members. Members of the generation before leave it at the next step boundary, or
    /// at once. Those in `discard` must discard the state that they hold.
    SendRoster {
        roster: Roster,
        at_boundary: bool,
        discard: BTreeSet<WorkerId>,
    },
    /// Ask these workers to stop at the next step boundary and checkpoint.
    SendStop {
        workers: Vec<WorkerId>,
        generation: u64,
    },
    /// Ask this worker to let go at the next step boundary.
    SendYield { worker: WorkerId, generation: u64 },
    /// Ask these workers to let go at once.
    SendAbort {
        workers: Vec<WorkerId>,
        generation: u64,
        reason: String,
    },
    /// The ledger after this step is void.
    Rewind { step: u64 },
    /// Remove the file of a checkpoint that is listed no more.
    RemoveCheckpoint(CheckpointInfo),
    /// Put the file of a corrupt checkpoint aside.
    QuarantineCheckpoint(CheckpointInfo),
    /// Look whether the store can read this checkpoint, and answer with `CheckpointReadable`,
    /// `CheckpointUnreadable` or `CheckpointCorrupt`.
    ProbeCheckpoint(CheckpointInfo),
    /// Send the phase to watchers, and log it.
    PublishPhase,
    /// Send a step to watchers.
    PublishStep(StepReport),
    /// Send an epoch's result to watchers.
    PublishEpoch(EpochResult),
    /// Send a checkpoint to watchers.
    PublishCheckpoint(CheckpointInfo),
    /// Log a message. It starts with the event's name ("worker.lost: "), which [`without_event_name`] cuts off for people.
    Log { warning: bool, message: String },
}

/// A log message without the name of its event.
pub fn without_event_name(message: &str) -> &str {
    let is_name = |text: &str| {
        text.contains('.')
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'_'))
    };
    match message.split_once(": ") {
        Some((name, rest)) if is_name(name) => rest,
        Some(_) | None => message,
    }
}
