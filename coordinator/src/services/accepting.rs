//! Accepting a run: it gets a number, is journalled, and starts.

use fovea_core::ids::RunId;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::beyond_tested;
use fovea_core::run::{Extent, Run};
use fovea_core::spec::{Part, RunSpec};
use fovea_dataset::{GRADES, Split};
use tracing::{info, warn};

use super::Context;
use crate::access::Subject;
use crate::clock::unix_ms;
use crate::cluster::Request as ClusterRequest;
use crate::error::ApiError;
use crate::journal::{LiveRun, OnFull, RunChange, Urgency};
use crate::run::Shown;
use crate::store::HeldDataset;

/// Accepts a valid spec: its weights are pinned, it meets its dataset, gets a number, is journalled, starts.
pub(super) async fn accept(
    context: Context,
    mut spec: RunSpec,
    submitted_by: Option<String>,
    subject: Subject,
) -> Result<Shown, ApiError> {
    context.weights.now().pin(&mut spec.model)?;
    let dataset = context.datasets.now().find(spec.dataset.as_str())?;
    check_kinds(&spec, &dataset)?;
    check_weights(&context, &spec, &dataset.manifest)?;
    let run = new_run(&context, spec, &dataset, submitted_by).await?;
    subject.set(&run.id);
    start(&context, run).await
}

/// Weights that a run of Fovea learnt go on with photographs that were prepared as those that it learnt from, at any size.
/// Weights of other origin do not say.
pub(super) fn check_weights(context: &Context, spec: &RunSpec, manifest: &Manifest) -> Result<(), ApiError> {
    if spec.model.weights.is_empty() {
        return Ok(());
    }
    let weights = context.weights.now().find(&spec.model.weights_sha256)?;
    let now = manifest.pipeline();
    match &weights.checked.pipeline {
        Some(then) if !then.continues_on(&now) => Err(ApiError::Precondition(format!(
            "weights {} were learnt from photographs prepared as {then}, and dataset {} has them as {now}: prepare it again \
             in the same way, or start from other weights",
            weights.name, manifest.name
        ))),
        _ => Ok(()),
    }
}

/// Both splits must have negative and positive samples: a model that says the same of every photograph would be right in all
/// cases, and there is no AUC.
pub(super) fn check_kinds(spec: &RunSpec, dataset: &HeldDataset) -> Result<(), ApiError> {
    let from = spec.model.positive_from;
    let splits = [Split::Train, Split::Validation];
    let view = dataset.pool.view(spec.fold)?;
    let counts = [Part::Train, Part::Validation].map(|part| {
        let mut counts = [0u64; GRADES];
        for grade in view.grades(part).unwrap_or_default() {
            counts[usize::from(*grade)] += 1;
        }
        counts
    });
    for (split, grades) in splits.into_iter().zip(&counts) {
        let (below, above) = grades.split_at(from as usize);
        let [negative, positive] = [below, above].map(|grades| grades.iter().sum::<u64>());
        if negative > 0 && positive > 0 {
            continue;
        }
        let kind = if positive == 0 {
            "negative"
        } else {
            "positive"
        };
        let counts: Vec<String> = splits
            .iter()
            .zip(&counts)
            .map(|(split, counts)| format!("{split} {}", counts.map(|n| n.to_string()).join(", ")))
            .collect();
        let (of_fold, cure) = match spec.fold {
            None => (
                String::new(),
                "prepare the dataset again with another split or with more photographs",
            ),
            Some(fold) => (
                format!(" of fold {fold}"),
                "ask for fewer folds, or prepare the dataset again with more photographs",
            ),
        };
        return Err(ApiError::Precondition(format!(
            "the {split} split{of_fold} of dataset {} has only {kind} samples, with model.positive_from = {from} (samples of \
             grades 0 to 4: {}): give another model.positive_from, or {cure}",
            dataset.manifest.name,
            counts.join("; ")
        )));
    }
    Ok(())
}

/// A run of a valid spec, with an id, which is not journalled.
pub(super) async fn new_run(
    context: &Context,
    spec: RunSpec,
    dataset: &HeldDataset,
    submitted_by: Option<String>,
) -> Result<Run, ApiError> {
    let (plan, scored) = plan(dataset, &spec)?;
    let steps_per_epoch = plan.steps_per_epoch();
    let extent = Extent {
        steps_per_epoch,
        total_steps: steps_per_epoch * u64::from(spec.train.epochs),
        train_samples: plan.train_samples(),
        validation_samples: scored.into(),
    };
    let number = |reply| ClusterRequest::NextNumber { reply };
    let number = context.runs.cluster.ask(number).await?;
    let id = RunId::new(format!("{}-{number}", spec.name))
        .map_err(|e| ApiError::invalid("spec.name", e))?;
    let digest = dataset.manifest.digest.clone();
    let mut run = Run::new(id, number, spec, digest, extent, unix_ms());
    run.submitted_by = submitted_by;
    run.pipeline = Some(dataset.manifest.pipeline());
    Ok(run)
}

/// Journals a new run and gives it an actor.
pub(super) async fn start(context: &Context, run: Run) -> Result<Shown, ApiError> {
    let change = RunChange {
        number: run.number,
        run: Some(&run),
        rewind: None,
        steps: Vec::new(),
        scores: None,
        train_samples: run.extent.train_samples,
        head: 0,
    };
    let journal = &context.runs.journal;
    journal
        .put_run(change, Urgency::Now, OnFull::Refuse)
        .await
        .map_err(|e| ApiError::Unavailable(e.to_string()))?;
    open(context, run).await
}

/// Gives a journalled run an actor.
pub(super) async fn open(context: &Context, run: Run) -> Result<Shown, ApiError> {
    let (number, total_steps) = (run.number, run.extent.total_steps);
    match &run.spec.evaluate {
        None => info!(
            run_id = %run.id,
            dataset = %run.spec.dataset,
            total_steps,
            "run.accepted: {}: {total_steps} steps on {}", run.id, run.spec.dataset
        ),
        Some(evaluate) => info!(
            run_id = %run.id,
            dataset = %run.spec.dataset,
            part = %evaluate.part,
            "run.accepted: {}: evaluates step {} of {} on {} ({})",
            run.id, evaluate.step, evaluate.run, run.spec.dataset, evaluate.part
        ),
    }
    if let Some(remark) = beyond_tested(&run.spec) {
        warn!(run_id = %run.id, "run.size_untested: {}: {remark}", run.id);
    }
    let live = LiveRun {
        run,
        ledger_head: 0,
        losses: Vec::new(),
    };
    let cluster = &context.runs.cluster;
    let mut shown = cluster.open(live).await?.shown();
    // What the cluster says a moment later, so that who submits it sees it at once.
    shown.waiting = cluster.memory_shortage(number).await?;
    Ok(shown)
}

/// The plan of a run with this spec, and the number of samples that it scores.
pub(super) fn plan(dataset: &HeldDataset, spec: &RunSpec) -> Result<(ShardPlan, u32), ApiError> {
    let view = dataset.pool.view(spec.fold)?;
    let part = spec.scored_part();
    let grades = view.grades(part);
    let scored = grades.map_or_else(|| dataset.samples(part), |grades| grades.len() as u32);
    let plan = ShardPlan::of_run(spec, view.training(), scored)?;
    Ok((plan, scored))
}
