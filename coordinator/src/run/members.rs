//! What workers say, and workers that are lost or come back.

use fovea_core::ids::WorkerId;
use fovea_core::run::{Event, Phase};

use super::report::Report;
use super::state::{Actor, RunActorError};
use super::validate::possible;
use crate::messages::{CoordinatorMessage, RunMessage};

impl Actor {
    pub(super) async fn worker_message(
        &mut self,
        worker: WorkerId,
        generation: u64,
        message: RunMessage,
    ) -> Result<(), RunActorError> {
        if let Err(error) = possible(&self.run, &message) {
            // The run first: when the worker hears of it, the run has gone on.
            let event = Event::WorkerLost {
                worker: worker.clone(),
                reason: format!("protocol violation: {error}"),
            };
            self.apply(event).await?;
            self.tell_cluster(Report::EndSession { worker, error });
            return Ok(());
        }
        let event = match message {
            RunMessage::Ready { state, fingerprint } => {
                self.apply(Event::Ready {
                    worker,
                    generation,
                    state,
                    fingerprint,
                })
                .await?;
                return self.account_for().await;
            }
            RunMessage::Heartbeat(heartbeat) => Event::Progress {
                worker,
                generation,
                heartbeat,
            },
            RunMessage::Step { report, samples } => {
                // A step of a generation that is over is sent again in the next.
                if self.run.generation != generation {
                    return Ok(());
                }
                if self.is_gap(report.step) {
                    return self.gap(generation, report.step).await;
                }
                self.ledger.add(&report, samples);
                Event::StepCommitted { generation, report }
            }
            RunMessage::Digest { step, digest } => Event::Digest {
                worker,
                generation,
                step,
                digest,
            },
            RunMessage::Scores { epoch, scores } => Event::Scored {
                generation,
                epoch,
                scores,
            },
            RunMessage::Interrupted { reason } => Event::Interrupted {
                worker,
                generation,
                reason,
            },
            RunMessage::Unreachable { peers } => Event::Unreachable {
                worker,
                generation,
                peers,
            },
            RunMessage::Released(outcome) => Event::Released {
                worker,
                generation,
                outcome,
            },
        };
        self.apply(event).await
    }

    pub(super) async fn worker_back(
        &mut self,
        worker: WorkerId,
        serving: Option<u64>,
        replaced: bool,
    ) -> Result<(), RunActorError> {
        let was_in = self.generation_with(&worker);
        let event = Event::WorkerBack {
            worker: worker.clone(),
            serving,
        };
        self.apply(event).await?;
        let Some(generation) = serving else {
            self.abort_if_removed(worker, was_in);
            return Ok(());
        };
        let run = self.run.id.clone();
        if !self.run.is_member(&worker, generation) {
            let reason = "the run has gone on without it".to_owned();
            let message = CoordinatorMessage::Abort {
                run,
                generation,
                reason,
            };
            self.send(&worker, message);
        } else if replaced
            && let Phase::Running {
                stopping: Some(_), ..
            } = &self.run.phase
        {
            // The request to stop may have been on its way over the connection that broke.
            self.send(&worker, CoordinatorMessage::Stop { run, generation });
        }
        Ok(())
    }

    /// The generation under way, if `worker` is in it.
    pub(super) fn generation_with(&self, worker: &WorkerId) -> Option<u64> {
        let roster = self.run.roster()?;
        roster.rank_of(worker).map(|_| roster.generation)
    }

    /// A worker that was lost may have opened another session before it was sent its assignment; then it serves a
    /// generation that has gone on without it. The cluster drops this message for a worker that does not.
    pub(super) fn abort_if_removed(&self, worker: WorkerId, was_in: Option<u64>) {
        if let Some(generation) = was_in
            && !self.run.is_member(&worker, generation)
        {
            self.abort(vec![worker], generation, "the run has gone on without it");
        }
    }
}
