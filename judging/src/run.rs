//! A run as the coordinator reports it, converted from the wire and checked.
//!
//! The serde form is the `--json` output, so field names are kept stable.

use std::time::Duration;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::pipeline::Pipeline;
use fovea_core::priority::Priority;
use fovea_core::run::{EpochResult, Extent, StepReport, Trouble, time_left};
use fovea_core::spec::RunSpec;
use fovea_proto::{pb, priority_from_wire, trouble_from_wire};
use serde::Serialize;

use crate::error::Error;
use crate::evaluation::EvaluationInfo;

/// Where a run is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Waits for workers.
    Queued,
    /// Workers fetch data and connect to each other.
    Forming,
    /// Steps are committed.
    Running,
    /// The last checkpoint is being stored.
    Finishing,
    /// Stopped on request; `fovea resume` continues it.
    Paused,
    /// All steps are committed.
    Completed,
    /// Ended by an error.
    Failed,
    /// Ended on request.
    Cancelled,
}

impl Phase {
    /// The phase of the run `run`.
    ///
    /// # Errors
    /// It is none.
    pub fn from_wire(run: &str, phase: i32) -> Result<Self, Error> {
        Ok(match pb::Phase::try_from(phase) {
            Ok(pb::Phase::Queued) => Phase::Queued,
            Ok(pb::Phase::Forming) => Phase::Forming,
            Ok(pb::Phase::Running) => Phase::Running,
            Ok(pb::Phase::Finishing) => Phase::Finishing,
            Ok(pb::Phase::Paused) => Phase::Paused,
            Ok(pb::Phase::Completed) => Phase::Completed,
            Ok(pb::Phase::Failed) => Phase::Failed,
            Ok(pb::Phase::Cancelled) => Phase::Cancelled,
            Ok(pb::Phase::Unspecified) | Err(_) => {
                return Err(Error::Protocol(format!(
                    "phase of run {run} is {phase}, expected 1 to 8"
                )));
            }
        })
    }

    /// The phase in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Forming => "forming",
            Phase::Running => "running",
            Phase::Finishing => "finishing",
            Phase::Paused => "paused",
            Phase::Completed => "completed",
            Phase::Failed => "failed",
            Phase::Cancelled => "cancelled",
        }
    }

    /// Whether it is completed, failed or cancelled.
    pub fn has_ended(self) -> bool {
        self.is_terminal() && self != Phase::Paused
    }

    /// Whether only a request of a person can continue the run. A watch ends here.
    pub fn is_terminal(self) -> bool {
        match self {
            Phase::Paused | Phase::Completed | Phase::Failed | Phase::Cancelled => true,
            Phase::Queued | Phase::Forming | Phase::Running | Phase::Finishing => false,
        }
    }
}

/// A run as the coordinator reports it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunInfo {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub phase: Phase,
    /// Why it failed or waits; else empty. It may begin with an event name.
    pub reason: String,
    /// Incremented with every change of its workers.
    pub generation: u64,
    /// Ids of the workers that host it now, by rank.
    pub workers: Vec<String>,
    /// Steps in an epoch.
    pub steps_per_epoch: u64,
    /// Steps in the whole run.
    pub total_steps: u64,
    /// Training samples.
    pub train_samples: u64,
    /// Validation samples.
    pub validation_samples: u64,
    /// The group that it was submitted with; empty if it was submitted alone.
    pub group: String,
    /// Digest of the dataset that its name meant when the run was accepted.
    pub dataset_digest: String,
    /// Milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    /// Name of the person who submitted it; empty without TLS.
    pub submitted_by: String,
    /// The priority in force: that of the spec, or what it was set to since.
    pub priority: Priority,
    /// The newest step.
    pub progress: Option<StepReport>,
    /// Results by epoch.
    pub epochs: Vec<EpochResult>,
    /// Stored checkpoints by step.
    pub checkpoints: Vec<CheckpointInfo>,
    /// Workers that are left out of it because of trouble of their own.
    pub left_out: Vec<LeftOutInfo>,
    /// When its first generation had formed, milliseconds since the Unix epoch; 0 before that.
    pub began_at_ms: u64,
    /// When it ended, milliseconds since the Unix epoch; 0 while it has not.
    pub ended_at_ms: u64,
    /// The largest number of workers at a time.
    pub most_workers: u32,
    /// How its photographs were prepared; null if the coordinator does not say.
    pub pipeline: Option<Pipeline>,
    /// Samples of the validation split that are scored in the evaluation under way; 0 outside of one.
    pub scored: u64,
    /// Evaluations of its checkpoints, as they were asked for.
    pub evaluations: Vec<EvaluationInfo>,
    /// The run's specification with every default filled in.
    pub spec: RunSpec,
}

impl RunInfo {
    /// How long the rest takes by the report of a step; None if its rate is not known.
    pub fn time_left(&self, newest: &StepReport) -> Option<Duration> {
        let extent = Extent {
            steps_per_epoch: self.steps_per_epoch,
            total_steps: self.total_steps,
            train_samples: self.train_samples,
            validation_samples: self.validation_samples,
        };
        time_left(&self.spec, &extent, newest)
    }

    /// Committed steps, by the newest report.
    pub fn step(&self) -> u64 {
        let reported = self.progress.map_or(0, |p| p.step);
        if self.phase == Phase::Completed {
            return self.total_steps;
        }
        reported.min(self.total_steps)
    }

    /// Epochs that are behind the newest step and have a result. After a step back there may be results of later ones,
    /// which hold when the same steps are taken again.
    pub fn epochs_done(&self) -> usize {
        // Without a step that is known, the results are all there is.
        let behind = |epoch: &&EpochResult| self.progress.is_none() || epoch.step <= self.step();
        self.epochs.iter().filter(behind).count()
    }

    /// The newest epoch's result.
    pub fn last_epoch(&self) -> Option<&EpochResult> {
        self.epochs.last()
    }
}

impl TryFrom<pb::Run> for RunInfo {
    type Error = Error;

    fn try_from(wire: pb::Run) -> Result<Self, Error> {
        let pb::Run {
            id,
            spec,
            phase,
            reason,
            generation,
            workers,
            steps_per_epoch,
            total_steps,
            train_samples,
            validation_samples,
            progress,
            epochs,
            checkpoints,
            dataset_digest,
            submitted_at_ms,
            left_out,
            submitted_by,
            evaluations,
            began_at_ms,
            ended_at_ms,
            most_workers,
            scored,
            group_id,
            pipeline,
            priority,
        } = wire;
        let spec: RunSpec = spec
            .ok_or_else(|| Error::Protocol("a run lacks its spec".into()))?
            .try_into()?;
        Ok(Self {
            phase: Phase::from_wire(&id, phase)?,
            id,
            reason,
            generation,
            workers,
            steps_per_epoch,
            total_steps,
            train_samples,
            validation_samples,
            dataset_digest,
            submitted_at_ms,
            submitted_by,
            began_at_ms,
            ended_at_ms,
            most_workers,
            scored,
            group: group_id,
            pipeline: pipeline.map(Into::into),
            progress: progress.map(Into::into),
            left_out: left_out.into_iter().map(Into::into).collect(),
            evaluations: evaluations
                .into_iter()
                .map(EvaluationInfo::try_from)
                .collect::<Result<_, _>>()?,
            epochs: epochs
                .into_iter()
                .map(EpochResult::try_from)
                .collect::<Result<_, _>>()?,
            checkpoints: checkpoints
                .into_iter()
                .map(CheckpointInfo::try_from)
                .collect::<Result<_, _>>()?,
            // An older coordinator knows no other.
            priority: priority_from_wire(priority).unwrap_or(spec.priority),
            spec,
        })
    }
}

/// A worker that is left out of a run because of trouble of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOutInfo {
    /// The worker's id.
    pub worker: String,
    /// The run's id.
    pub run: String,
    /// The kind of trouble: memory, disk, data, content, device or system.
    pub trouble: &'static str,
    /// What the worker reported.
    pub reason: String,
    /// For how long it has been left out, in milliseconds.
    pub for_ms: u64,
    /// After so many milliseconds it is offered again; 0: at the next opportunity.
    pub again_in_ms: u64,
}

impl From<pb::LeftOut> for LeftOutInfo {
    fn from(wire: pb::LeftOut) -> Self {
        let pb::LeftOut {
            worker_id,
            run_id,
            trouble,
            reason,
            for_ms,
            again_in_ms,
        } = wire;
        Self {
            worker: worker_id,
            run: run_id,
            // Of a newer coordinator there may be others.
            trouble: trouble_from_wire(trouble).map_or("trouble", Trouble::as_str),
            reason,
            for_ms,
            again_in_ms,
        }
    }
}
