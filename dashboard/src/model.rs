//! What pages show: plain values, read from runs and the cluster at one moment.

mod group;
mod phase;

use std::collections::BTreeMap;

use fovea_core::priority::Priority;
use fovea_core::retention;
use fovea_core::run::{EpochResult, EvaluationRecord, Run, StepPhases, StepReport, time_left};
use fovea_core::spec::{BestBy, RunSpec};
use fovea_evaluation::Evaluated;

pub use group::*;
pub use phase::Phase;

/// A run in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    pub id: String,
    pub phase: Phase,
    /// Why it waits or failed; empty if it does not.
    pub reason: String,
    pub dataset: String,
    /// What an evaluation scores: run, step and part of the dataset.
    pub evaluates: Option<(String, u64, &'static str)>,
    /// Who submitted it.
    pub owner: Option<String>,
    pub group: Option<String>,
    pub priority: Priority,
    pub step: u64,
    pub total_steps: u64,
    pub steps_per_epoch: u64,
    /// Epochs that are behind its newest step and have a result, as the command line counts them.
    pub epochs_done: u32,
    pub epochs: u32,
    /// Figures of the newest evaluated epoch.
    pub auc: Option<f64>,
    pub kappa: Option<f64>,
    pub newest: Option<StepReport>,
    /// How long the steps that are left take at the present rate, in milliseconds; None if it does not train.
    pub left_ms: Option<u64>,
    pub workers: usize,
    pub most_workers: u32,
    pub submitted_at_ms: u64,
    pub began_at_ms: Option<u64>,
    pub ended_at_ms: Option<u64>,
}

impl RunRow {
    /// Of a run with its newest step and what it waits for.
    pub fn of(run: &Run, newest: Option<StepReport>, waiting: Option<&str>) -> Self {
        use fovea_core::run::Phase as Core;
        let reason = match &run.phase {
            Core::Queued { reason } | Core::Forming { reason, .. } => reason.as_deref(),
            Core::Failed { reason } => Some(&**reason),
            Core::Running { stopping, .. } => stopping.map(|stopping| match stopping {
                fovea_core::run::Stopping::Cancel => "being cancelled at the next step",
                fovea_core::run::Stopping::Pause => "being paused at the next step",
                fovea_core::run::Stopping::Drain => "being checkpointed, to go on later",
                fovea_core::run::Stopping::Give => {
                    "being checkpointed; its workers go to a run of higher priority"
                }
            }),
            // Its group paused it; a person gives no reason.
            Core::Paused => run.group_pause.as_ref().map(|pause| &*pause.reason),
            Core::Finishing { .. } | Core::Completed | Core::Cancelled => None,
        };
        let reasons: Vec<&str> = reason.into_iter().chain(waiting).collect();
        let last = run.epochs.last().map(|epoch| &epoch.validation);
        let spec = &run.spec;
        let evaluates = spec.evaluate.as_ref();
        Self {
            id: run.id.to_string(),
            phase: Phase::of(run),
            reason: reasons.join("; "),
            dataset: spec.dataset.to_string(),
            evaluates: evaluates.map(|e| (e.run.to_string(), e.step, e.part.name())),
            owner: run.submitted_by.clone(),
            group: run.group.as_ref().map(ToString::to_string),
            priority: run.priority(),
            step: newest.map_or(0, |newest| newest.step),
            total_steps: run.extent.total_steps,
            steps_per_epoch: run.extent.steps_per_epoch,
            epochs_done: epochs_done(run, newest.as_ref()),
            epochs: spec.train.epochs,
            auc: last.and_then(|v| v.auc),
            kappa: last.and_then(|v| v.quadratic_kappa),
            newest,
            left_ms: newest
                .filter(|_| Phase::of(run) == Phase::Running && evaluates.is_none())
                .and_then(|newest| time_left(spec, &run.extent, &newest))
                .map(|left| left.as_millis() as u64),
            workers: run.roster().map_or(0, |roster| roster.members.len()),
            most_workers: spec.max_workers(),
            submitted_at_ms: run.submitted_at_ms,
            began_at_ms: run.times.began_ms,
            ended_at_ms: run.times.ended_ms,
        }
    }

    /// Images a second, mean of its last steps; None if that is not known, as after a step back.
    pub fn speed(&self) -> Option<f64> {
        let speed = self.newest?.images_per_s;
        (speed > 0.0).then_some(speed)
    }

    /// Share of its steps that are done, 0 to 1.
    pub fn done(&self) -> f64 {
        match self.phase {
            Phase::Completed => 1.0,
            _ => (self.step as f64 / self.total_steps.max(1) as f64).min(1.0),
        }
    }
}

/// Epochs that are behind the newest step and have a result. After a step back there may be results of later ones, which hold
/// when the same steps are taken again.
fn epochs_done(run: &Run, newest: Option<&StepReport>) -> u32 {
    let behind = |epoch: &&EpochResult| newest.is_none_or(|newest| epoch.step <= newest.step);
    run.epochs.iter().filter(behind).count() as u32
}

/// The disk of the stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub free: u64,
    pub total: u64,
    /// Below this no new run starts; 0: there is no such limit.
    pub wanted: u64,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerState {
    Training,
    Preparing,
    Idle,
    Waiting,
    Barred,
    LeftOut,
    Leaving,
}

impl WorkerState {
    /// All, those that work first.
    pub const ALL: [Self; 7] = [
        Self::Training,
        Self::Preparing,
        Self::Idle,
        Self::Waiting,
        Self::Barred,
        Self::LeftOut,
        Self::Leaving,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Preparing => "preparing",
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Barred => "barred",
            Self::LeftOut => "left out",
            Self::Leaving => "leaving",
        }
    }
}

/// A connected worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    pub id: String,
    pub state: WorkerState,
    /// Why it does nothing.
    pub reason: String,
    pub host: String,
    pub address: String,
    pub device: String,
    pub version: String,
    pub run: Option<String>,
    /// The first virtual rank that it hosts, and how many.
    pub hosts: Option<(u32, u32)>,
    /// Memory that it could use when it connected: of its GPU, or of its machine.
    pub memory: Option<u64>,
    /// Memory in use: of its GPU, by whatever process, and all of the GPU's; or of its process.
    pub used: Option<(u64, Option<u64>)>,
    /// Time of a step.
    pub step_ms: Option<f64>,
    /// Share of it that it waits for others, 0 to 1.
    pub waiting: Option<f64>,
    pub last_seen_ms: u64,
    pub connected_ms: u64,
}

/// The overview.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overview {
    /// Runs with workers, and those that wait or are paused, newest first.
    pub live: Vec<RunRow>,
    /// The newest that have ended.
    pub ended: Vec<RunRow>,
    /// Workers by what they do.
    pub workers: BTreeMap<WorkerState, usize>,
    pub disk: Option<Disk>,
    /// What is wrong with the stores and what to do.
    pub problems: Vec<String>,
}

/// A page of the list of runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunList {
    pub runs: Vec<RunRow>,
    /// Where the page of older ones begins; None on the last page.
    pub older: Option<u64>,
    /// Whether this is not the first page.
    pub is_later: bool,
}

/// A page of the list of workers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkerList {
    pub workers: Vec<WorkerRow>,
    pub all: usize,
    /// From 1.
    pub page: usize,
    pub pages: usize,
}

/// What may be done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions {
    pub pause: bool,
    pub resume: bool,
    pub cancel: bool,
    /// Whether it may be given another priority.
    pub prioritize: bool,
}

impl Actions {
    /// What its phase allows; nothing if the viewer may not change it.
    pub fn of(phase: Phase, may: bool) -> Self {
        let stopped = matches!(phase, Phase::Paused | Phase::Failed | Phase::Cancelled);
        Self {
            pause: may && !phase.has_ended() && phase != Phase::Paused,
            resume: may && stopped,
            cancel: may && !phase.has_ended(),
            prioritize: may && !phase.has_ended(),
        }
    }
}

/// Something that happened to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    pub at_ms: u64,
    /// Name of the event, such as `worker.lost`.
    pub event: String,
    pub text: String,
}

/// A stored checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointRow {
    pub step: u64,
    pub bytes: u64,
    pub sha256: String,
    pub stored_at_ms: u64,
    /// Epoch at whose end it was taken, from 1.
    pub epoch: Option<u32>,
    pub auc: Option<f64>,
    pub kappa: Option<f64>,
    pub loss: Option<f64>,
    pub is_best: bool,
    pub is_newest: bool,
}

/// The scores of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub enum Scored {
    /// What they give.
    Known {
        /// From 1.
        epoch: u32,
        is_best: bool,
        evaluated: Box<Evaluated>,
    },
    /// They are being computed.
    Computing,
    /// Why there are none.
    Missing(String),
}

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    pub at_ms: u64,
    pub steps: u64,
    pub total_steps: u64,
    pub train_samples: u64,
    pub clean_epochs: u32,
    pub samples_used: u64,
    pub problems: Vec<String>,
}

/// A run's page.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPage {
    pub row: RunRow,
    pub spec: RunSpec,
    /// The spec as a run file.
    pub spec_text: String,
    pub generation: u64,
    pub validation_samples: u64,
    pub train_samples: u64,
    /// Mean loss by committed step, thinned.
    pub losses: Vec<(f64, f64)>,
    pub epochs: Vec<EpochResult>,
    pub scored: Scored,
    pub checkpoints: Vec<CheckpointRow>,
    pub evaluations: Vec<EvaluationRecord>,
    /// The newest report of a step with as many images as a step can have, if one was seen: what says where a step's time goes.
    pub full_step: Option<StepReport>,
    /// Newest first.
    pub events: Vec<Noted>,
    /// Since when events are known.
    pub events_since_ms: u64,
    pub audit: Option<Audited>,
    pub workers: Vec<WorkerRow>,
    pub actions: Actions,
    /// Why the viewer may not change it, if that is so.
    pub may_not: Option<String>,
}

impl RunPage {
    /// Whether there is a checkpoint whose scores a report can be made of.
    pub fn has_report(&self) -> bool {
        let judged = |checkpoint: &CheckpointRow| checkpoint.epoch.is_some();
        self.row.evaluates.is_none() && self.checkpoints.iter().any(judged)
    }
}

/// Whether a step had as many images as steps of the run can have. The last one of an epoch may have fewer.
pub fn is_full_step(run: &Run, step: &StepReport) -> bool {
    let train = &run.spec.train;
    let most = u64::from(train.batch) * u64::from(train.virtual_ranks);
    u64::from(step.images) >= most.min(run.extent.train_samples)
}

/// The metric that a run's checkpoints are compared by.
pub fn best_by(spec: &RunSpec) -> (BestBy, &'static str) {
    match spec.checkpoint.keep_best {
        BestBy::None | BestBy::Auc => (BestBy::Auc, "validation AUC"),
        BestBy::Loss => (BestBy::Loss, "validation loss"),
        BestBy::Kappa => (BestBy::Kappa, "validation kappa"),
    }
}

/// The epoch with the best result by the metric of the run.
pub fn best_epoch(run: &Run) -> Option<&EpochResult> {
    let (by, _) = best_by(&run.spec);
    let merit = |epoch: &EpochResult| match by {
        BestBy::None | BestBy::Auc => epoch.validation.auc,
        BestBy::Loss => Some(-epoch.validation.loss),
        BestBy::Kappa => epoch.validation.quadratic_kappa,
    };
    let with = run.epochs.iter().filter_map(|e| Some((e, merit(e)?)));
    let best = with.fold(
        None,
        |best: Option<(&EpochResult, f64)>, (epoch, merit)| match best {
            Some((_, most)) if merit <= most || merit.is_nan() => best,
            _ => Some((epoch, merit)),
        },
    );
    best.map(|(epoch, _)| epoch)
}

/// The checkpoints of a run, newest first.
pub fn checkpoints(run: &Run) -> Vec<CheckpointRow> {
    let best = retention::best(&run.checkpoints, &run.epochs, best_by(&run.spec).0);
    let newest = run.checkpoints.last().map(|c| c.step);
    let row = |info: &fovea_core::checkpoint::CheckpointInfo| {
        let epoch = run.epochs.iter().find(|epoch| epoch.step == info.step);
        let validation = epoch.map(|epoch| &epoch.validation);
        CheckpointRow {
            step: info.step,
            bytes: info.bytes,
            sha256: info.sha256.clone(),
            stored_at_ms: info.stored_at_ms,
            epoch: epoch.map(|epoch| epoch.epoch + 1),
            auc: validation.and_then(|v| v.auc),
            kappa: validation.and_then(|v| v.quadratic_kappa),
            loss: validation.map(|v| v.loss),
            is_best: best == Some(info.step),
            is_newest: newest == Some(info.step),
        }
    };
    run.checkpoints.iter().rev().map(row).collect()
}

/// Times of a step by what they were spent on, with their names.
pub fn phases(of: &StepPhases) -> [(&'static str, f64); 5] {
    let StepPhases {
        load_ms,
        forward_ms,
        backward_ms,
        reduce_ms,
        optimizer_ms,
    } = *of;
    [
        ("load", load_ms),
        ("forward", forward_ms),
        ("backward", backward_ms),
        ("reduce", reduce_ms),
        ("optimizer", optimizer_ms),
    ]
}

/// A split of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitRow {
    pub name: &'static str,
    pub samples: u64,
    /// None while it is not known.
    pub patients: Option<u64>,
    /// By grade 0 to 4.
    pub grades: [u64; 5],
}

/// A dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetRow {
    pub name: String,
    pub digest: String,
    pub image_size: u32,
    pub preprocessing: String,
    /// What its grades mean.
    pub scale: String,
    pub is_graded: bool,
    pub packs: usize,
    pub bytes: u64,
    pub splits: Vec<SplitRow>,
    /// What is wrong with its files.
    pub problem: Option<String>,
    /// Runs that have not ended and use it.
    pub used_by: Vec<String>,
}

/// The datasets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatasetList {
    pub datasets: Vec<DatasetRow>,
    /// Names of datasets whose files cannot be read, and why.
    pub unreadable: Vec<(String, String)>,
    pub page: usize,
    pub pages: usize,
}

/// A run in a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    pub row: RunRow,
    pub spec: RunSpec,
    pub epochs: Vec<EpochResult>,
    /// The best epoch, from 1, and its result.
    pub best: Option<EpochResult>,
    pub losses: Vec<(f64, f64)>,
}
