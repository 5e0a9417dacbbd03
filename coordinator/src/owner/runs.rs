//! Runs: what people ask, what happens to them, and carrying out the effects.

use std::path::PathBuf;
use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_core::plan::ShardPlan;
use fovea_core::run::{Effect, Event, Extent, Phase, Run, without_event_name};
use fovea_core::spec::RunSpec;
use tracing::{error, info, warn};

use super::state::{Entry, Owner, OwnerError, unix_ms};
use super::{RunEvent, RunView, ToWorker, Watched};
use crate::checkpoints;
use crate::error::ApiError;

impl Owner {
    /// Accepts a run. The spec was validated; here it meets its dataset.
    pub(super) fn submit(&mut self, spec: RunSpec) -> Result<RunView, ApiError> {
        if self.draining.is_some() {
            return Err(ApiError::ShuttingDown);
        }
        let dataset = self
            .datasets
            .get(&spec.dataset)
            .ok_or_else(|| ApiError::no_dataset(&spec.dataset))?;
        let plan = ShardPlan::new(
            &dataset.patients,
            dataset.validation,
            spec.train.virtual_ranks,
            spec.train.batch,
            spec.seed,
            spec.train.rotate,
        )?;
        let steps_per_epoch = plan.steps_per_epoch();
        let extent = Extent {
            steps_per_epoch,
            total_steps: steps_per_epoch * u64::from(spec.train.epochs),
            train_samples: plan.train_samples(),
            validation_samples: dataset.validation.into(),
        };
        let number = self.next_run;
        let id = RunId::new(format!("{}-{number}", spec.name))
            .map_err(|e| ApiError::invalid("spec.name", e))?;
        let digest = dataset.manifest.digest.clone();
        let run = Run::new(id, number, spec, digest, extent, unix_ms());
        self.journal
            .put_run(&run, None)
            .map_err(|e| not_written(&e))?;
        self.next_run += 1;
        info!(
            run_id = %run.id,
            dataset = %run.spec.dataset,
            total_steps = extent.total_steps,
            "run accepted"
        );
        let entry = Entry::new(run);
        let view = entry.view();
        self.runs.insert(number, entry);
        Ok(view)
    }

    pub(super) fn get_run(&self, id: &RunId) -> Result<RunView, ApiError> {
        Ok(self.entry(id)?.view())
    }

    pub(super) fn list_runs(&self, before: u64, limit: usize) -> Vec<RunView> {
        self.runs
            .range(..before)
            .rev()
            .take(limit)
            .map(|(_, entry)| entry.view())
            .collect()
    }

    pub(super) fn watch(&self, id: &RunId) -> Result<Watched, ApiError> {
        let entry = self.entry(id)?;
        Ok(Watched {
            now: entry.view(),
            events: entry.events.subscribe(),
        })
    }

    pub(super) fn find_checkpoint(
        &self,
        id: &RunId,
        step: Option<u64>,
    ) -> Result<(CheckpointInfo, PathBuf), ApiError> {
        let run = &self.entry(id)?.run;
        let found = match step {
            Some(step) => run.checkpoints.iter().find(|c| c.step == step),
            None => run.checkpoints.last(),
        };
        let Some(info) = found else {
            let which = step.map_or("yet".to_owned(), |step| format!("at step {step}"));
            return Err(ApiError::NotFound(format!(
                "run {id} has no checkpoint {which}; `fovea checkpoints {id}` lists those there are"
            )));
        };
        let path = checkpoints::path_for(&self.run_folder(id), info.step, info.generation);
        Ok((info.clone(), path))
    }

    /// A person's event: admitted, journalled, applied, answered.
    ///
    /// The outer error is fatal, the inner one is the person's.
    pub(super) fn request(
        &mut self,
        id: &RunId,
        event: Event,
    ) -> Result<Result<RunView, ApiError>, OwnerError> {
        let number = match self.number(id) {
            Ok(number) => number,
            Err(error) => return Ok(Err(error)),
        };
        let now = self.now();
        self.write_steps_of(number)?;
        let Some(entry) = self.runs.get_mut(&number) else {
            return Ok(Err(ApiError::no_run(id)));
        };
        if let Err(refused) = entry.run.admit(&event) {
            return Ok(Err(refused.into()));
        }
        info!(run_id = %id, ?event, "asked by a person");
        // On a copy first: a request that cannot be written has not happened.
        let mut run = entry.run.clone();
        let effects = run.apply(now, event);
        if let Err(error) = self.journal.put_run(&run, rewind(&effects)) {
            return Ok(Err(not_written(&error)));
        }
        entry.run = run;
        entry.startable_since = None;
        entry.waiting = None;
        let view = entry.view();
        let phase_follows = effects.contains(&Effect::PublishPhase);
        self.carry_out(number, effects)?;
        if !phase_follows {
            // "Is being cancelled" is worth knowing, too.
            self.publish(number, RunEvent::Run(Arc::new(view)));
        }
        Ok(self.get_run(id))
    }

    /// Something happened to a run.
    pub(super) fn apply(&mut self, number: u64, event: Event) -> Result<(), OwnerError> {
        let now = self.now();
        let Some(entry) = self.runs.get_mut(&number) else {
            return Ok(());
        };
        let effects = entry.run.apply(now, event);
        if effects.contains(&Effect::Persist) {
            // The steps first, that a result rests on; both before anything of it is told to anyone.
            self.write_steps_of(number)?;
            if let Some(entry) = self.runs.get(&number) {
                self.journal.put_run(&entry.run, rewind(&effects))?;
            }
        }
        self.carry_out(number, effects)
    }

    /// Carries out effects whose `Persist` is done.
    fn carry_out(&mut self, number: u64, effects: Vec<Effect>) -> Result<(), OwnerError> {
        // Before anyone hears of the next generation: nothing of the old one is gathered any more.
        self.drop_dead_gatherings(number);
        for effect in effects {
            let Some(entry) = self.runs.get(&number) else {
                return Ok(());
            };
            let run = entry.run.id.clone();
            match effect {
                Effect::Persist => {}
                Effect::Rewind { step } => {
                    if let Some(entry) = self.runs.get_mut(&number) {
                        entry.ledger_head = entry.ledger_head.min(step);
                        entry.unwritten.clear();
                    }
                }
                Effect::SendRoster {
                    roster,
                    at_boundary,
                    discard,
                } => self.send_roster(number, &roster, at_boundary, &discard)?,
                Effect::SendYield { worker, generation } => {
                    self.send(&worker, ToWorker::Yield { run, generation });
                }
                Effect::RemoveCheckpoint(info) => {
                    let folder = self.run_folder(&run);
                    info!(run_id = %run, step = info.step, "removing a checkpoint that need not be kept");
                    if let Err(error) = checkpoints::remove(&folder, info.step, info.generation) {
                        warn!(run_id = %run, step = info.step, %error, "cannot remove a checkpoint");
                    }
                }
                Effect::QuarantineCheckpoint(info) => {
                    let folder = self.run_folder(&run);
                    if let Err(error) = checkpoints::quarantine(&folder, info.step, info.generation)
                    {
                        warn!(run_id = %run, step = info.step, %error, "cannot put a checkpoint aside");
                    }
                }
                // The stores that are being rebuilt answer it; this one takes every checkpoint for readable.
                Effect::ProbeCheckpoint(_) => {}
                Effect::SendStop {
                    workers,
                    generation,
                } => {
                    for worker in workers {
                        let run = run.clone();
                        self.send(&worker, ToWorker::Stop { run, generation });
                    }
                }
                Effect::SendAbort {
                    workers,
                    generation,
                    reason,
                } => {
                    for worker in workers {
                        let message = ToWorker::Abort {
                            run: run.clone(),
                            generation,
                            reason: reason.clone(),
                        };
                        self.send(&worker, message);
                    }
                }
                Effect::PublishPhase => {
                    self.log_phase(number);
                    if let Some(entry) = self.runs.get_mut(&number) {
                        entry.startable_since = None;
                        entry.waiting = None;
                        let view = Arc::new(entry.view());
                        self.publish(number, RunEvent::Run(view));
                    }
                }
                Effect::PublishStep(report) => self.publish(number, RunEvent::Step(report)),
                Effect::PublishEpoch(result) => {
                    info!(
                        run_id = %run,
                        epoch = result.epoch,
                        step = result.step,
                        train_loss = result.train_loss,
                        auc = result.validation.auc,
                        accuracy = result.validation.accuracy,
                        "epoch evaluated"
                    );
                    self.publish(number, RunEvent::Epoch(Arc::new(result)));
                    self.acknowledge(number);
                }
                Effect::PublishCheckpoint(info) => {
                    info!(
                        run_id = %run,
                        generation = info.generation,
                        step = info.step,
                        bytes = info.bytes,
                        "checkpoint stored"
                    );
                    self.publish(number, RunEvent::Checkpoint(Arc::new(info)));
                }
                Effect::Log { warning, message } => {
                    let generation = entry.run.generation;
                    if warning {
                        warn!(run_id = %run, generation, "{message}");
                    } else {
                        info!(run_id = %run, generation, "{message}");
                    }
                    let note = without_event_name(&message).to_owned();
                    self.publish(number, RunEvent::Note(note));
                }
            }
        }
        self.end_hopeless_gathering(number)
    }

    /// A run that waits for a checkpoint whose slices can no longer come must not wait for ever.
    fn end_hopeless_gathering(&mut self, number: u64) -> Result<(), OwnerError> {
        let Some(entry) = self.runs.get(&number) else {
            return Ok(());
        };
        let Phase::Finishing { pending, next, .. } = &entry.run.phase else {
            return Ok(());
        };
        let awaited = next.awaited();
        let Some(step) = awaited.filter(|_| pending.is_empty()) else {
            return Ok(());
        };
        let reason = match self.missing_slices(number, entry.run.generation, step) {
            None => return Ok(()),
            Some(reason) => reason,
        };
        let event = Event::CheckpointFailed {
            generation: entry.run.generation,
            step,
            reason,
        };
        self.apply(number, event)
    }

    fn log_phase(&self, number: u64) {
        let Some(entry) = self.runs.get(&number) else {
            return;
        };
        let run = &entry.run;
        let reason = match &run.phase {
            Phase::Queued { reason } | Phase::Forming { reason, .. } => reason.as_deref(),
            Phase::Failed { reason } => Some(&**reason),
            Phase::Running { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Cancelled => None,
        };
        let (phase, generation) = (run.phase_name(), run.generation);
        let step = run.progress.map(|p| p.step);
        if matches!(run.phase, Phase::Failed { .. }) {
            error!(run_id = %run.id, generation, phase, step, reason, "run failed");
        } else {
            info!(run_id = %run.id, generation, phase, step, reason, "run is now {phase}");
        }
    }

    fn publish(&self, number: u64, event: RunEvent) {
        if let Some(entry) = self.runs.get(&number) {
            // An error only says that nobody watches.
            let _ = entry.events.send(event);
        }
    }

    pub(super) fn number(&self, id: &RunId) -> Result<u64, ApiError> {
        // The number is the id's last part; what else is there must agree.
        id.as_str()
            .rsplit_once('-')
            .and_then(|(_, number)| number.parse().ok())
            .filter(|number| self.runs.get(number).is_some_and(|e| e.run.id == *id))
            .ok_or_else(|| ApiError::no_run(id))
    }

    fn entry(&self, id: &RunId) -> Result<&Entry, ApiError> {
        let number = self.number(id)?;
        self.runs.get(&number).ok_or_else(|| ApiError::no_run(id))
    }
}

impl Entry {
    pub(super) fn view(&self) -> RunView {
        RunView {
            run: self.run.clone(),
            waiting: self.waiting.clone(),
        }
    }
}

/// Where the ledger is to be cut.
fn rewind(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Rewind { step } => Some(*step),
        _ => None,
    })
}

fn not_written(error: &crate::legacy_journal::JournalError) -> ApiError {
    error!(%error, "a request could not be journalled and was refused");
    ApiError::Internal(error.to_string())
}
