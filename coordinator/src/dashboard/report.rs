//! A run's report, as `fovea report` writes it, of the scores that the journal has. Looking at it scores nothing, and does not use
//! the test part again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fovea_core::ids::RunId;
use fovea_evaluation::Draws;
use fovea_judging::material::Material;
use fovea_judging::{Described, Receiving, RunInfo, Scored, Scores, Which, choose};
use fovea_proto::pb;
use fovea_report::Report;
use hyper::StatusCode;
use tonic::{Code, Status};

use super::Dashboard;
use super::api::{Datasets, Runs};
use super::background::on_one_thread;
use super::views::Refusal;
use super::visitor::Visitor;
use crate::blocking::blocking;
use crate::clock::unix_ms;
use crate::error::ApiError;

/// How long a page waits for a report.
const PATIENCE: Duration = Duration::from_secs(1);

/// The methods whose results a report shows.
const METHODS: [&str; 3] = [
    "/fovea.v1.Runs/Get",
    "/fovea.v1.Runs/Scores",
    "/fovea.v1.Datasets/Get",
];

/// What a report depends on: of another state of the run there is another report.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ReportKey {
    run: String,
    step: u64,
    generation: u64,
    phase: &'static str,
    epochs: usize,
    /// Evaluations that have ended.
    evaluations: Vec<String>,
    /// Digests of the datasets that were removed.
    removed: BTreeSet<String>,
}

/// A report, or why there is none.
pub(super) type Outcome = Result<Arc<Report>, Refusal>;

impl Dashboard {
    /// The report of a run. None: it is being computed.
    pub(super) async fn report(
        &self,
        visitor: &Visitor,
        id: &RunId,
    ) -> Result<Option<Arc<Report>>, Refusal> {
        for method in METHODS {
            self.admit(visitor, method)?;
        }
        let mut runs = self.0.api.runs(visitor);
        let datasets = self.0.api.datasets(visitor);
        let request = pb::GetRunRequest {
            run_id: id.to_string(),
        };
        let run: RunInfo = runs
            .get(request)
            .await?
            .into_inner()
            .try_into()
            .map_err(unusable)?;
        if let Some(evaluate) = &run.spec.evaluate {
            return Err(not_now(format!(
                "{id} is an evaluation: its figures are in the report of {}, /runs/{}/report.",
                evaluate.run, evaluate.run
            )));
        }
        let key = self.key(&run).await?;
        let computing = || compose(runs, datasets, run);
        let known = self
            .0
            .reports
            .get(&key, &self.0.computing, PATIENCE, computing);
        let outcome = known.await;
        // What keeps a report from being made may pass.
        if let Some(Err(_)) = outcome {
            self.0.reports.forget(&key);
        }
        outcome.transpose()
    }

    /// Whether the dataset with this digest was removed.
    pub(super) fn is_removed(&self, digest: &str) -> bool {
        let datasets = self.0.context.datasets.now();
        matches!(datasets.find(digest), Err(ApiError::NotFound(_)))
    }

    async fn key(&self, run: &RunInfo) -> Result<ReportKey, Refusal> {
        let chosen = choose(run, Which::Best).map_err(unusable)?;
        let scored =
            Material::candidates(run, &chosen).map(|evaluation| &evaluation.dataset_digest);
        let shown = scored.chain([&run.dataset_digest]);
        let removed = shown
            .filter(|digest| self.is_removed(digest))
            .cloned()
            .collect();
        let mut evaluations = Vec::new();
        for evaluation in Material::candidates(run, &chosen) {
            let Ok(id) = RunId::new(&evaluation.run) else {
                continue;
            };
            // It may have been removed.
            if let Ok(shown) = self.0.context.runs.shown(&id).await
                && shown.run.is_terminal()
            {
                evaluations.push(evaluation.run.clone());
            }
        }
        let checkpoint = run.checkpoints.iter().find(|c| c.step == chosen.step);
        Ok(ReportKey {
            run: run.id.clone(),
            step: chosen.step,
            generation: checkpoint.map_or(0, |c| c.generation),
            phase: run.phase.as_str(),
            epochs: run.epochs.len(),
            evaluations,
            removed,
        })
    }
}

/// Makes the report of the checkpoint that is best by now.
async fn compose(mut runs: Runs, mut datasets: Datasets, run: RunInfo) -> Outcome {
    let chosen = choose(&run, Which::Best).map_err(unusable)?;
    let own = describe(&mut datasets, &run.dataset_digest).await?;
    let validation = match own {
        None => None,
        Some(own) => {
            let scores = scores(&mut runs, &run.id, chosen.step).await?;
            let Some(scores) = scores else {
                return Err(not_now(format!(
                    "The scores of checkpoint {} on the validation split are not kept. `fovea report {}` has workers compute them.",
                    chosen.step, run.id
                )));
            };
            let own = own.folded(scores.fold).map_err(unusable)?;
            Some((scores, own))
        }
    };
    let mut material = Material::new(&run, validation);
    for evaluation in Material::candidates(&run, &chosen) {
        if !material.has(evaluation)
            && let Some(scores) = scores(&mut runs, &evaluation.run, chosen.step).await?
        {
            let dataset = describe(&mut datasets, &scores.dataset_digest).await?;
            let scored: Option<Scored> = match dataset {
                None => None,
                Some(dataset) => {
                    let dataset = dataset.folded(scores.fold).map_err(unusable)?;
                    Some((scores, dataset))
                }
            };
            material.add(evaluation, scored);
        }
    }
    let composing = blocking(move || {
        on_one_thread(|| material.compose(&run, &chosen, Draws::default(), unix_ms()))
    });
    let failed = |error: &dyn std::fmt::Display| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Refusal::new(
            status,
            "It did not work",
            format!("The report cannot be computed: {error}."),
        )
    };
    let composed = composing.await.map_err(|e| failed(&e))?;
    let composed = composed.map_err(|e| failed(&e))?.map_err(unusable)?;
    Ok(Arc::new(composed.report))
}

/// The scores that `run` has of a step; None if it has none.
async fn scores(runs: &mut Runs, run: &str, step: u64) -> Result<Option<Scores>, Refusal> {
    let request = pb::ScoresRequest {
        run_id: run.to_owned(),
        step,
        maps: false,
    };
    let mut parts = match found(runs.scores(request).await)? {
        Some(parts) => parts,
        None => return Ok(None),
    };
    let mut receiving = Receiving::default();
    while let Some(part) = parts.message().await? {
        receiving.take(part).map_err(unusable)?;
    }
    Ok(Some(receiving.finish().map_err(unusable)?))
}

/// A dataset by its digest; None if it was removed.
async fn describe(datasets: &mut Datasets, digest: &str) -> Result<Option<Described>, Refusal> {
    let request = pb::GetDatasetRequest {
        dataset: digest.to_owned(),
    };
    let Some(pb::DatasetFiles { manifest, index }) = found(datasets.get(request).await)? else {
        return Ok(None);
    };
    let described = Described::parse(digest, &manifest, &index);
    described.map(Some).map_err(unusable)
}

/// What was asked for; None: there is no such thing.
fn found<T>(reply: Result<tonic::Response<T>, Status>) -> Result<Option<T>, Refusal> {
    match reply {
        Ok(reply) => Ok(Some(reply.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

fn unusable(error: fovea_judging::Error) -> Refusal {
    not_now(error.to_string())
}

fn not_now(text: String) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "No report now", text)
}
