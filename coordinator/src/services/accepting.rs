//! Accepting a run: it gets a number, is journalled, and starts.

use fovea_core::count::count;
use fovea_core::ids::RunId;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::beyond_tested;
use fovea_core::run::{Extent, Run};
use fovea_core::spec::RunSpec;
use fovea_dataset::Manifest;
use tracing::{info, warn};

use super::{Context, classes};
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
    classes::check_dataset(&spec, &dataset)?;
    check_weights(&context, &spec, &dataset.manifest)?;
    let run = new_run(&context, spec, &dataset, submitted_by).await?;
    subject.set(&run.id);
    start(&context, run).await
}

/// Weights that a run of Fovea learnt go on with photographs that were prepared as those that it learnt from, at any size.
/// Weights of other origin do not say.
pub(super) fn check_weights(
    context: &Context,
    spec: &RunSpec,
    manifest: &Manifest,
) -> Result<(), ApiError> {
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
            "run.accepted: {}: {} on {}", run.id, count(total_steps, "step", "steps"), run.spec.dataset
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
    shown.waiting = cluster.nobody_fits(number).await?;
    Ok(shown)
}

/// The plan of a run with this spec, and the number of samples that it scores.
pub(crate) fn plan(dataset: &HeldDataset, spec: &RunSpec) -> Result<(ShardPlan, u32), ApiError> {
    let view = dataset.pool.view(spec.fold)?;
    let part = spec.scored_part();
    let grades = view.grades(part);
    let scored = grades.map_or_else(|| dataset.samples(part), |grades| grades.len() as u32);
    let plan = ShardPlan::of_run(spec, view.training(), scored)?;
    Ok((plan, scored))
}
