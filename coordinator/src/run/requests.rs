//! What people ask of a run, and the selection of its group.

use std::collections::VecDeque;
use std::sync::Arc;

use fovea_core::priority::Priority;
use fovea_core::run::{Effect, EvaluationRecord, Event, Phase};
use fovea_core::selection::Verdict;
use tracing::info;

use super::effects::rewind;
use super::state::{Actor, RunActorError, not_written};
use super::{RunEvent, Shown};
use crate::error::ApiError;
use crate::journal::OnFull;

/// A request of a person, or of the selection of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PersonRequest {
    Cancel,
    Pause,
    /// From the checkpoint of that step, or the newest.
    Resume {
        checkpoint: Option<u64>,
    },
    /// The priority that is in force from now on, and who asks; None without TLS.
    SetPriority {
        priority: Priority,
        by: Option<String>,
    },
    /// Its group has decided about the rung at which it waits.
    Selected {
        rung: u32,
        verdict: Verdict,
    },
}

/// What was removed with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeletedRun {
    pub checkpoints: u32,
    pub bytes: u64,
}

impl From<PersonRequest> for Event {
    fn from(request: PersonRequest) -> Self {
        match request {
            PersonRequest::Cancel => Self::Cancel,
            PersonRequest::Pause => Self::Pause,
            PersonRequest::Resume { checkpoint } => Self::Resume { checkpoint },
            PersonRequest::SetPriority { priority, by } => Self::SetPriority { priority, by },
            PersonRequest::Selected { rung, verdict } => Self::Selected { rung, verdict },
        }
    }
}

impl Actor {
    /// A person's request: admitted, journalled, applied, answered. The outer error is fatal.
    pub(super) async fn request(
        &mut self,
        request: PersonRequest,
    ) -> Result<Result<Shown, ApiError>, RunActorError> {
        let event = Event::from(request.clone());
        if self.deleted {
            return Ok(Err(ApiError::no_run(&self.run.id)));
        }
        if let Err(refused) = self.run.admit(&event) {
            return Ok(Err(refused.into()));
        }
        info!(run_id = %self.run.id, ?request, "request.accepted: {} {request:?}", self.run.id);
        let is_priority = matches!(request, PersonRequest::SetPriority { .. });
        // On a copy first: a request that cannot be written has not happened.
        let before = self.run.clone();
        let effects = self.run.apply(self.cx.clock.now(), event);
        if is_priority && effects.is_empty() {
            // It is in force already.
            return Ok(Ok(self.shown()));
        }
        if let Err(error) = self.persist(rewind(&effects), None, OnFull::Refuse).await {
            if error.is_fatal() {
                return Err(error.into());
            }
            self.run = before;
            return Ok(Err(not_written(&error)));
        }
        // The cluster says why the run waits only when that is news: a new priority alone does not make it so.
        if !is_priority {
            self.forget_waiting();
        }
        let phase_follows = effects.contains(&Effect::PublishPhase);
        let mut events = VecDeque::new();
        self.carry_out(effects, &mut events)?;
        for event in events {
            self.apply(event).await?;
        }
        if request == PersonRequest::Cancel && self.storage_problem.is_some() {
            self.give_up_storing().await?;
        }
        self.show();
        if !phase_follows {
            // "Is being cancelled" is worth knowing, too. Of a new priority there is a note already.
            let shown = RunEvent::Run(Arc::new(self.shown()));
            match is_priority {
                true => self.send_watchers(shown),
                false => self.publish(shown),
            }
        }
        Ok(Ok(self.shown()))
    }

    /// A checkpoint of the run is going to be evaluated: that is in the journal before anybody sees a figure.
    pub(super) async fn record_evaluation(
        &mut self,
        record: EvaluationRecord,
    ) -> Result<Result<(), ApiError>, RunActorError> {
        if self.deleted {
            return Ok(Err(ApiError::no_run(&self.run.id)));
        }
        self.run.evaluations.push(record);
        if let Err(error) = self.persist(None, None, OnFull::Refuse).await {
            if error.is_fatal() {
                return Err(error.into());
            }
            self.run.evaluations.pop();
            return Ok(Err(not_written(&error)));
        }
        self.show();
        Ok(Ok(()))
    }

    /// A cancelled run does not wait for a checkpoint that cannot be stored.
    async fn give_up_storing(&mut self) -> Result<(), RunActorError> {
        let reason = "the run was cancelled while its checkpoint could not be stored";
        let generation = self.run.generation;
        self.assemblies.clear();
        if let Phase::Finishing { pending, next, .. } = &self.run.phase {
            let pending = pending.iter().cloned().collect();
            let awaited = next.awaited();
            self.abort(pending, generation, reason);
            if let Some(step) = awaited {
                self.apply(Event::CheckpointFailed {
                    generation,
                    step,
                    reason: reason.into(),
                })
                .await?;
                // Without its last checkpoint a run that had done all steps is queued again.
                if matches!(self.run.phase, Phase::Queued { .. }) {
                    self.apply(Event::Cancel).await?;
                }
            }
        } else if let Some(roster) = self.run.roster() {
            let members = roster.members.iter().map(|m| m.worker.clone()).collect();
            self.abort(members, generation, reason);
        }
        self.storage_problem = None;
        Ok(())
    }
}
