//! Whether a worker's message can be true, given its run: the last check before the run's state machine sees it.

use fovea_core::class_map;
use fovea_core::googlenet::FlatLayout;
use fovea_core::roster::slice_of;
use fovea_core::run::{Outcome, Run};

use super::assembly::AssemblyKey;
use crate::error::ApiError;
use crate::messages::{RunMessage, SliceClaim};

/// Checks a message against the run's sizes.
///
/// # Errors
/// Names the field, its value and what was expected.
pub(super) fn possible(run: &Run, message: &RunMessage) -> Result<(), ApiError> {
    let bad = |field: &str, problem: String| Err(ApiError::invalid(field, problem));
    let total = run.extent.total_steps;
    let is_step = |field: &str, step: u64, first: u64| {
        if (first..=total).contains(&step) {
            return Ok(());
        }
        Err(ApiError::invalid(
            field,
            format!("{step} is not in {first}..={total}"),
        ))
    };
    match message {
        RunMessage::Heartbeat(_)
        | RunMessage::Interrupted { .. }
        | RunMessage::Unreachable { .. } => Ok(()),
        RunMessage::Ready { state, .. } => is_step("ready.step", state.step, 0),
        RunMessage::Digest { step, .. } => is_step("state_digest.step", *step, 1),
        // Any step may be reported again.
        RunMessage::Step { report, samples } => {
            is_step("step.report.step", report.step, 1)?;
            let train = run.extent.train_samples;
            let batch = run.spec.train.virtual_ranks as usize * run.spec.train.batch as usize;
            if samples.len() > batch {
                return bad(
                    "step.samples",
                    format!("has {} entries; a step uses at most {batch}", samples.len()),
                );
            }
            if let Some(sample) = samples.iter().find(|s| u64::from(**s) >= train) {
                return bad(
                    "step.samples",
                    format!("{sample} is not below {train}, the training samples"),
                );
            }
            Ok(())
        }
        RunMessage::Scores { epoch, scores } => {
            if *epoch >= run.spec.train.epochs {
                let epochs = run.spec.train.epochs;
                return bad(
                    "scores.epoch",
                    format!("{epoch} is not below {epochs}, the run's epochs"),
                );
            }
            let classes = run.spec.model.classes;
            for (i, score) in scores.iter().enumerate() {
                if u64::from(score.sample) >= run.extent.validation_samples {
                    return bad(
                        &format!("scores.scores[{i}].sample"),
                        format!(
                            "{} is not below {}, the validation samples",
                            score.sample, run.extent.validation_samples
                        ),
                    );
                }
                if score.label >= classes || score.probabilities.len() != classes as usize {
                    return bad(
                        &format!("scores.scores[{i}]"),
                        format!(
                            "label {} and {} probabilities do not fit {classes} classes",
                            score.label,
                            score.probabilities.len()
                        ),
                    );
                }
                let wanted = run.spec.evaluate.as_ref().is_some_and(|e| e.maps);
                if score.map.is_some() != wanted {
                    return bad(
                        &format!("scores.scores[{i}].map"),
                        match wanted {
                            true => "is missing; the evaluation asks for maps".to_owned(),
                            false => "is there; nobody asked for maps".to_owned(),
                        },
                    );
                }
                let bytes = score
                    .map
                    .as_ref()
                    .map_or(0, |map| size_of_val(&map.values[..]));
                if bytes as u64 * run.extent.validation_samples > class_map::MOST_BYTES {
                    return bad(
                        &format!("scores.scores[{i}].map"),
                        format!("has {bytes} bytes, too many for all samples"),
                    );
                }
            }
            Ok(())
        }
        RunMessage::Released(Outcome::Completed { step }) if *step != total => bad(
            "released.completed_step",
            format!(
                "is {step}, but the run has {}",
                fovea_core::count::count(total, "step", "steps")
            ),
        ),
        RunMessage::Released(Outcome::Stopped { step }) => {
            is_step("released.stopped_step", *step, 0)
        }
        RunMessage::Released(Outcome::Yielded { step }) => {
            is_step("released.yielded_step", *step, 0)
        }
        RunMessage::Released(_) => Ok(()),
    }
}

/// Checks what a worker wants to upload against the run. Returns which checkpoint it is of, its rank, and the layout
/// of the state.
///
/// # Errors
/// Names the field, its value and what was expected.
pub(super) fn check_claim(
    run: &Run,
    claim: &SliceClaim,
) -> Result<(AssemblyKey, usize, FlatLayout), ApiError> {
    let over = |why: String| {
        Err(ApiError::Precondition(format!(
            "header.generation: generation {} of run {} {why}",
            claim.generation, claim.run
        )))
    };
    let Some(roster) = run.roster().filter(|r| r.generation == claim.generation) else {
        return over(format!(
            "is not under way; the run is {} in generation {}",
            run.phase_name(),
            run.generation
        ));
    };
    let Some(rank) = roster.rank_of(&claim.worker) else {
        return Err(ApiError::Precondition(format!(
            "header.worker_id: worker {} does not serve generation {} of run {}",
            claim.worker, claim.generation, claim.run
        )));
    };
    let first = roster.start_step.max(1);
    if claim.step < first || claim.step > run.extent.total_steps {
        return Err(ApiError::invalid(
            "header.step",
            format!(
                "{} is not in {first}..={}",
                claim.step, run.extent.total_steps
            ),
        ));
    }
    let layout = run
        .spec
        .model
        .layout()
        .map_err(|e| ApiError::Internal(format!("run {}: {e}", run.id)))?;
    let expected = slice_of(layout.state_len() as u64, roster.members.len(), rank);
    if claim.offset != expected.start || claim.elements != expected.end - expected.start {
        return Err(ApiError::invalid(
            "header.offset",
            format!(
                "rank {rank} of {} has the elements {}..{}, not {} from {}",
                roster.members.len(),
                expected.start,
                expected.end,
                claim.elements,
                claim.offset
            ),
        ));
    }
    let key = AssemblyKey {
        generation: claim.generation,
        step: claim.step,
    };
    Ok((key, rank, layout))
}
