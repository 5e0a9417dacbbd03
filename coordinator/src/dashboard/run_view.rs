//! What a run's page shows, and its audit.

use std::sync::Arc;
use std::time::Duration;

use fovea_core::ids::RunId;
use fovea_core::run::Run;
use fovea_dashboard::model::{
    Actions, Audited, Noted, Phase, RunPage, Scored, best_epoch, checkpoints,
};
use fovea_judging::material::dataset_removed;
use fovea_proto::pb;

use super::Dashboard;
use super::lists::row;
use super::scores::{Outcome, compute};
use super::views::Refusal;
use super::visitor::Visitor;
use crate::clock::unix_ms;

/// How long a page waits for the figures of an epoch.
const PATIENCE: Duration = Duration::from_millis(60);
/// How long an audit's page waits for it.
const AUDIT: Duration = Duration::from_secs(25);

const AUDITING: &str = "/fovea.v1.Runs/Audit";

impl Dashboard {
    pub(super) async fn run(&self, visitor: &Visitor, id: &RunId) -> Result<RunPage, Refusal> {
        let context = &self.0.context;
        let shown = context.runs.shown(id).await?;
        let run = &shown.run;
        let phase = Phase::of(run);
        let may = self.may_change_run(visitor, id, run.submitted_by.as_deref());
        let mut workers = match phase.is_under_way() {
            true => self.connected(visitor).await?,
            false => Vec::new(),
        };
        workers.retain(|worker| worker.run.as_deref() == Some(id.as_str()));
        let trains = run.spec.evaluate.is_none();
        let losses = match trains {
            true => {
                let losses = self.0.curves.losses(run, &context.runs.journal).await;
                losses.map_err(|e| crate::error::ApiError::Unavailable(e.to_string()))?
            }
            false => Vec::new(),
        };
        let notes = context.notes.of(run.number).into_iter();
        Ok(RunPage {
            row: row(&shown),
            spec_text: toml::to_string(&run.spec).unwrap_or_default(),
            spec: run.spec.clone(),
            generation: run.generation,
            validation_samples: run.extent.validation_samples,
            train_samples: run.extent.train_samples,
            losses,
            epochs: run.epochs.clone(),
            scored: match trains {
                true => self.scored(run).await,
                false => Scored::Missing(String::new()),
            },
            checkpoints: checkpoints(run),
            evaluations: run.evaluations.clone(),
            full_step: self.0.full_steps.of(&shown),
            events: notes
                .map(|note| Noted {
                    at_ms: note.at_ms,
                    event: note.event,
                    text: note.text,
                })
                .collect(),
            events_since_ms: context.notes.since_ms(),
            audit: self.0.audits.known(&id.to_string()).and_then(Result::ok),
            workers,
            actions: Actions::of(phase, may.is_ok()),
            may_not: may.err(),
        })
    }

    /// The figures of the best epoch.
    async fn scored(&self, run: &Arc<Run>) -> Scored {
        let best = best_epoch(run);
        let Some(epoch) = best.or(run.epochs.last()) else {
            let yet = if run.is_terminal() { "" } else { " yet" };
            return Scored::Missing(format!("No epoch was evaluated{yet}."));
        };
        // What was computed before is of no use to whoever cannot see what it is of; the report says the same.
        if self.is_removed(&run.dataset_digest) {
            return Scored::Missing(dataset_removed(&run.spec.dataset, &run.dataset_digest));
        }
        let key = (run.number, run.lineage, epoch.step);
        let journal = self.0.context.runs.journal.clone();
        let store = self.0.context.dataset_files.clone();
        let computing = || compute(journal, store, Arc::clone(run), epoch.step);
        let known = self
            .0
            .scores
            .get(&key, &self.0.computing, PATIENCE, computing);
        let outcome: Option<Outcome> = known.await;
        match outcome {
            None => Scored::Computing,
            Some(Ok(evaluated)) => Scored::Known {
                epoch: epoch.epoch + 1,
                is_best: best.is_some(),
                evaluated: Box::new((*evaluated).clone()),
            },
            Some(Err(reason)) => Scored::Missing(reason),
        }
    }

    /// Audits a run anew.
    pub(super) async fn audit(&self, visitor: &Visitor, id: &RunId) -> Result<Audited, Refusal> {
        self.admit(visitor, AUDITING)?;
        let key = id.to_string();
        self.0.audits.forget(&key);
        let (mut runs, run_id) = (self.0.api.runs(visitor), key.clone());
        let auditing = || async move {
            let report = runs.audit(pb::AuditRequest { run_id }).await;
            report
                .map(|report| audited(report.into_inner()))
                .map_err(Refusal::from)
        };
        let audited = self
            .0
            .audits
            .get(&key, &self.0.computing, AUDIT, auditing)
            .await;
        match audited {
            Some(Ok(audited)) => Ok(audited),
            Some(Err(refusal)) => Err(refusal),
            None => Err(crate::error::ApiError::Unavailable(
                "The audit takes long; it goes on, and the run’s page shows it when it is done."
                    .into(),
            )
            .into()),
        }
    }
}

fn audited(report: pb::AuditReport) -> Audited {
    let pb::AuditReport {
        run_id: _,
        train_samples,
        steps,
        total_steps,
        clean_epochs,
        samples_used,
        problems,
        ledger_bytes: _,
    } = report;
    Audited {
        at_ms: unix_ms(),
        steps,
        total_steps,
        train_samples,
        clean_epochs,
        samples_used,
        problems,
    }
}
