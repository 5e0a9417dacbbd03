//! Runs and their results on the wire.

use fovea_core::metrics::Evaluation;
use fovea_core::pipeline::Pipeline;
use fovea_core::run::{
    EpochResult, EvaluationRecord, Next, Phase, Run, StepPhases, StepReport, Stopping,
};

use super::ConvertError;
use crate::pb;

impl From<&Run> for pb::Run {
    fn from(run: &Run) -> Self {
        let (phase, reason) = match &run.phase {
            Phase::Queued { reason } => (pb::Phase::Queued, reason.clone().unwrap_or_default()),
            Phase::Forming { reason, .. } => {
                (pb::Phase::Forming, reason.clone().unwrap_or_default())
            }
            Phase::Running { stopping, .. } => (
                pb::Phase::Running,
                stopping.map_or_else(String::new, |stopping| stopping.to_string()),
            ),
            Phase::Finishing { next, .. } => (
                pb::Phase::Finishing,
                match next {
                    Next::Complete { .. } => String::new(),
                    Next::Cancel { .. } => Stopping::Cancel.to_string(),
                    Next::Pause { .. } => Stopping::Pause.to_string(),
                    Next::Requeue { reason, .. } => reason.clone(),
                },
            ),
            Phase::Paused => {
                let held = run.group_pause.as_ref();
                (
                    pb::Phase::Paused,
                    held.map_or_else(String::new, |held| held.reason.clone()),
                )
            }
            Phase::Completed => (pb::Phase::Completed, String::new()),
            Phase::Failed { reason } => (pb::Phase::Failed, reason.clone()),
            Phase::Cancelled => {
                // What its selection had decided before stays true.
                let dropped = run.group_pause.as_ref().filter(|held| held.rung.is_none());
                let reason = dropped.map_or_else(String::new, |held| held.reason.clone());
                (pb::Phase::Cancelled, reason)
            }
        };
        Self {
            id: run.id.to_string(),
            spec: Some((&run.spec).into()),
            phase: phase as i32,
            reason,
            generation: run.generation,
            workers: run.roster().map_or_else(Vec::new, |roster| {
                roster
                    .members
                    .iter()
                    .map(|m| m.worker.to_string())
                    .collect()
            }),
            steps_per_epoch: run.extent.steps_per_epoch,
            total_steps: run.extent.total_steps,
            train_samples: run.extent.train_samples,
            validation_samples: run.extent.validation_samples,
            progress: run.progress.as_ref().map(Into::into),
            epochs: run.epochs.iter().map(Into::into).collect(),
            checkpoints: run.checkpoints.iter().map(Into::into).collect(),
            dataset_digest: run.dataset_digest.clone(),
            submitted_at_ms: run.submitted_at_ms,
            // For how long is known by whoever has the clock.
            left_out: Vec::new(),
            submitted_by: run.submitted_by.clone().unwrap_or_default(),
            evaluations: run.evaluations.iter().map(Into::into).collect(),
            began_at_ms: run.times.began_ms.unwrap_or(0),
            ended_at_ms: run.times.ended_ms.unwrap_or(0),
            most_workers: run.times.most_workers,
            scored: run.scored_so_far(),
            group_id: run
                .group
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            pipeline: run.pipeline.as_ref().map(Into::into),
            priority: pb::Priority::from(run.priority()).into(),
        }
    }
}

impl From<&Pipeline> for pb::Pipeline {
    fn from(pipeline: &Pipeline) -> Self {
        let Pipeline {
            steps,
            size,
            digest,
            recipe,
        } = pipeline;
        Self {
            steps: steps.clone(),
            size: *size,
            digest: digest.clone(),
            recipe: recipe.clone().unwrap_or_default(),
        }
    }
}

impl From<pb::Pipeline> for Pipeline {
    fn from(wire: pb::Pipeline) -> Self {
        let pb::Pipeline {
            steps,
            size,
            digest,
            recipe,
        } = wire;
        Self {
            steps,
            size,
            digest,
            recipe: (!recipe.is_empty()).then_some(recipe),
        }
    }
}

impl From<&EvaluationRecord> for pb::EvaluationRecord {
    fn from(record: &EvaluationRecord) -> Self {
        let EvaluationRecord {
            run,
            step,
            generation,
            dataset,
            dataset_digest,
            part,
            at_ms,
            by,
            test_samples,
            rotations,
        } = record;
        Self {
            run_id: run.to_string(),
            step: *step,
            generation: *generation,
            dataset: dataset.to_string(),
            dataset_digest: dataset_digest.clone(),
            part: pb::Part::from(*part).into(),
            at_ms: *at_ms,
            by: by.clone().unwrap_or_default(),
            test_samples: *test_samples,
            rotations: *rotations,
        }
    }
}

impl From<&StepReport> for pb::StepReport {
    fn from(report: &StepReport) -> Self {
        let StepReport {
            step,
            loss,
            images,
            images_per_s,
            learning_rate,
            phases,
        } = *report;
        Self {
            step,
            loss,
            images,
            images_per_s,
            learning_rate,
            phases: Some(phases.into()),
        }
    }
}

impl From<pb::StepReport> for StepReport {
    fn from(wire: pb::StepReport) -> Self {
        let pb::StepReport {
            step,
            loss,
            images,
            images_per_s,
            learning_rate,
            phases,
        } = wire;
        Self {
            step,
            loss,
            images,
            images_per_s,
            learning_rate,
            phases: phases.unwrap_or_default().into(),
        }
    }
}

impl From<StepPhases> for pb::StepPhases {
    fn from(phases: StepPhases) -> Self {
        let StepPhases {
            load_ms,
            forward_ms,
            backward_ms,
            reduce_ms,
            optimizer_ms,
        } = phases;
        Self {
            load_ms,
            forward_ms,
            backward_ms,
            reduce_ms,
            optimizer_ms,
        }
    }
}

impl From<pb::StepPhases> for StepPhases {
    fn from(wire: pb::StepPhases) -> Self {
        let pb::StepPhases {
            load_ms,
            forward_ms,
            backward_ms,
            reduce_ms,
            optimizer_ms,
        } = wire;
        Self {
            load_ms,
            forward_ms,
            backward_ms,
            reduce_ms,
            optimizer_ms,
        }
    }
}

impl From<&Evaluation> for pb::Evaluation {
    fn from(evaluation: &Evaluation) -> Self {
        let Evaluation {
            samples,
            positives,
            loss,
            accuracy,
            auc,
            sensitivity,
            specificity,
            quadratic_kappa,
            confusion,
        } = evaluation;
        Self {
            samples: *samples,
            positives: *positives,
            loss: *loss,
            accuracy: *accuracy,
            auc: *auc,
            sensitivity: *sensitivity,
            specificity: *specificity,
            quadratic_kappa: *quadratic_kappa,
            confusion: confusion.iter().flatten().copied().collect(),
            classes: confusion.len() as u32,
        }
    }
}

impl TryFrom<pb::Evaluation> for Evaluation {
    type Error = ConvertError;

    fn try_from(wire: pb::Evaluation) -> Result<Self, ConvertError> {
        let pb::Evaluation {
            samples,
            positives,
            loss,
            accuracy,
            auc,
            sensitivity,
            specificity,
            quadratic_kappa,
            confusion,
            classes,
        } = wire;
        let classes = classes as usize;
        if classes == 0 || confusion.len() != classes.saturating_mul(classes) {
            return Err(ConvertError::new(
                "evaluation.confusion",
                format!("has {} counts for {classes} classes", confusion.len()),
            ));
        }
        Ok(Self {
            samples,
            positives,
            loss,
            accuracy,
            auc,
            sensitivity,
            specificity,
            quadratic_kappa,
            confusion: confusion.chunks(classes).map(<[u64]>::to_vec).collect(),
        })
    }
}

impl From<&EpochResult> for pb::EpochResult {
    fn from(result: &EpochResult) -> Self {
        let EpochResult {
            epoch,
            step,
            train_loss,
            validation,
        } = result;
        Self {
            epoch: *epoch,
            step: *step,
            train_loss: *train_loss,
            validation: Some(validation.into()),
        }
    }
}

impl TryFrom<pb::EpochResult> for EpochResult {
    type Error = ConvertError;

    fn try_from(wire: pb::EpochResult) -> Result<Self, ConvertError> {
        let pb::EpochResult {
            epoch,
            step,
            train_loss,
            validation,
        } = wire;
        Ok(Self {
            epoch,
            step,
            train_loss,
            validation: validation
                .ok_or_else(|| ConvertError::missing("epoch.validation"))?
                .try_into()?,
        })
    }
}
