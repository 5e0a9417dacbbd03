//! Carrying out what the run decided: messages to workers, files, watchers, the log.
//!
//! Whatever is sent from here is in the journal before (`actor::persist`).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use fovea_core::ids::WorkerId;
use fovea_core::roster::Roster;
use fovea_core::run::{Effect, EpochScores, Event, Phase};
use tracing::{error, info, warn};

use super::RunEvent;
use super::report::Report;
use super::state::{Actor, RunActorError};
use crate::messages::{Assignment, CoordinatorMessage};

impl Actor {
    /// Carries out effects whose `Persist` is done.
    pub(super) fn carry_out(
        &mut self,
        effects: Vec<Effect>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), RunActorError> {
        // Before anyone hears of the next generation: nothing of the old one is assembled any more.
        self.drop_dead_assemblies();
        let mut persisted = false;
        for effect in effects {
            let run = self.run.id.clone();
            match effect {
                Effect::Persist => persisted = true,
                // Written with the run.
                Effect::KeepScores(_) => {}
                Effect::Rewind { step } => self.ledger.rewound(step),
                Effect::SendRoster {
                    roster,
                    at_boundary,
                    discard,
                } => self.send_roster(&roster, at_boundary, &discard),
                Effect::SendYield { worker, generation } => {
                    self.send(&worker, CoordinatorMessage::Yield { run, generation });
                }
                Effect::RemoveCheckpoint(info) => self.remove_file(info),
                Effect::QuarantineCheckpoint(info) => self.quarantine_file(info),
                Effect::ProbeCheckpoint(info) => self.probe_file(info),
                Effect::SendStop {
                    workers,
                    generation,
                } => {
                    for worker in workers {
                        let run = run.clone();
                        self.send(&worker, CoordinatorMessage::Stop { run, generation });
                    }
                }
                Effect::SendAbort {
                    workers,
                    generation,
                    reason,
                } => self.abort(workers, generation, &reason),
                Effect::PublishPhase => {
                    let now = self.cx.clock.now();
                    if let Some(took_ms) = self.recovery.phase(&self.run.phase, now) {
                        let seconds = took_ms as f64 / 1e3;
                        self.cx.recovery_seconds.observe(seconds);
                    }
                    self.spans.phase(&self.run);
                    self.log_phase();
                    self.waits = None;
                    self.show();
                    self.tell_group();
                    let shown = Arc::new(self.shown.borrow().clone());
                    self.publish(RunEvent::Run(shown));
                }
                Effect::PublishStep(report) => {
                    self.spans.step(&self.run, &report);
                    self.step_seconds.observe(report.phases.total_ms() / 1e3);
                    self.shown
                        .send_modify(|shown| shown.progress = Some(report));
                    self.publish(RunEvent::Step(report));
                }
                Effect::PublishEpoch(result) => {
                    self.spans.evaluated(&result);
                    info!(
                        run_id = %run,
                        epoch = result.epoch,
                        step = result.step,
                        train_loss = result.train_loss,
                        auc = result.validation.auc,
                        accuracy = result.validation.accuracy,
                        "epoch.evaluated: {run} epoch {}", result.epoch + 1
                    );
                    self.show();
                    self.publish(RunEvent::Epoch(Arc::new(result)));
                    self.acknowledge();
                }
                Effect::PublishCheckpoint(info) => {
                    info!(
                        run_id = %run,
                        generation = info.generation,
                        step = info.step,
                        bytes = info.bytes,
                        "checkpoint.stored: {run} step {}", info.step
                    );
                    self.show();
                    self.cx.remote.checkpoint_stored(&run, &info);
                    self.publish(RunEvent::Checkpoint(Arc::new(info)));
                }
                Effect::Log { warning, message } => {
                    let generation = self.run.generation;
                    if warning {
                        warn!(run_id = %run, generation, "{message}");
                    } else {
                        info!(run_id = %run, generation, "{message}");
                    }
                    self.publish(RunEvent::Note(message));
                }
            }
        }
        if persisted {
            self.show();
        }
        events.extend(self.hopeless_assembly());
        Ok(())
    }

    /// Gives a generation to its members.
    fn send_roster(&mut self, roster: &Roster, at_boundary: bool, discard: &BTreeSet<WorkerId>) {
        let mesh_key = fovea_service::random_bytes();
        let run = &self.run;
        let checkpoint = run
            .start_checkpoint(self.cx.clock.now())
            .filter(|c| c.step == roster.start_step)
            .or_else(|| run.checkpoints.iter().find(|c| c.step == roster.start_step))
            .cloned();
        let assignment = Assignment {
            run: run.id.clone(),
            spec: run.spec.clone(),
            dataset_digest: run.dataset_digest.clone(),
            roster: roster.clone(),
            checkpoint,
            mesh_key,
            lineage: run.lineage,
            at_boundary,
            discard_state: false,
            next_epoch: run.next_epoch(),
            traceparent: self
                .spans
                .formation(roster.generation)
                .map(|context| context.to_string())
                .unwrap_or_default(),
        };
        for member in &roster.members {
            let mut assignment = assignment.clone();
            assignment.discard_state = discard.contains(&member.worker);
            let message = CoordinatorMessage::Assignment(Box::new(assignment));
            self.send(&member.worker, message);
        }
    }

    pub(super) fn abort(&self, workers: Vec<WorkerId>, generation: u64, reason: &str) {
        for worker in workers {
            let message = CoordinatorMessage::Abort {
                run: self.run.id.clone(),
                generation,
                reason: reason.to_owned(),
            };
            self.send(&worker, message);
        }
    }

    /// Sends a worker something, by way of the cluster.
    pub(super) fn send(&self, worker: &WorkerId, message: CoordinatorMessage) {
        self.tell_cluster(Report::Send {
            number: self.run.number,
            worker: worker.clone(),
            message,
        });
    }

    pub(super) fn tell_cluster(&self, report: Report) {
        // The cluster outlives its runs; when it is gone the coordinator ends.
        let _ = self.cx.reports.send(report);
    }

    /// Tells the selection of its group if the run is at rest, or gone.
    pub(super) fn tell_group(&self) {
        let at_rest = self.run.is_terminal() || self.run.phase == Phase::Paused || self.deleted;
        if let Some(group) = self.run.group.clone().filter(|_| at_rest) {
            // It ends with the coordinator.
            let _ = self.cx.at_rest.send(group);
        }
    }

    pub(super) fn publish(&self, event: RunEvent) {
        self.cx.notes.add(self.run.number, &event);
        self.send_watchers(event);
    }

    /// For those who watch now alone.
    pub(super) fn send_watchers(&self, event: RunEvent) {
        // An error only says that nobody watches.
        let _ = self.events.send(event);
    }

    fn log_phase(&self) {
        let run = &self.run;
        let reason = match &run.phase {
            Phase::Queued { reason } | Phase::Forming { reason, .. } => reason.as_deref(),
            Phase::Failed { reason } => Some(&**reason),
            Phase::Running { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Cancelled => None,
        };
        let (id, phase, generation) = (&run.id, run.phase_name(), run.generation);
        let step = run.progress.map(|p| p.step);
        match &run.phase {
            Phase::Failed { reason } => {
                error!(run_id = %id, generation, phase, step, reason, "run.failed: {id}: {reason}");
            }
            Phase::Running { roster, .. } => info!(
                run_id = %id, generation, phase, step,
                "generation.formed: {id} generation {generation} with {}",
                fovea_core::count::count(roster.members.len(), "worker", "workers")
            ),
            _ => info!(run_id = %id, generation, phase, step, reason, "run.phase: {id} is {phase}"),
        }
    }
}

/// Where the ledger is to be cut.
pub(super) fn rewind(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Rewind { step } => Some(*step),
        _ => None,
    })
}

/// Scores that are written with the run.
pub(super) fn scores(effects: &[Effect]) -> Option<&EpochScores> {
    effects.iter().find_map(|effect| match effect {
        Effect::KeepScores(scores) => Some(scores),
        _ => None,
    })
}
