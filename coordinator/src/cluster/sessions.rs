//! Worker sessions: who is connected, and where their messages go.

use fovea_core::ids::{RunId, WorkerId};
use fovea_core::run::Outcome;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::SessionId;
use super::session::{LastHeard, Served, Session};
use super::state::Actor;
use crate::error::ApiError;
use crate::messages::{CoordinatorMessage, Hello, Reply, RunMessage, WorkerMessage};
use crate::run::RunInput;

impl Actor {
    /// A worker joins, or comes back.
    pub(super) fn hello(
        &mut self,
        hello: Hello,
        outbox: mpsc::Sender<CoordinatorMessage>,
        over: CancellationToken,
        heard: LastHeard,
    ) -> Result<SessionId, ApiError> {
        if self.draining.is_some() {
            return Err(ApiError::ShuttingDown);
        }
        let worker = hello.id.clone();
        let serving = hello
            .serving
            .clone()
            .map(|(run, generation)| Served { run, generation });
        let mut replaced = None;
        if let Some(old) = self.by_worker.get(&worker).copied() {
            // The old connection broke and nobody has noticed yet. If the worker serves what it served, its run
            // need not know.
            let same = self
                .sessions
                .get(&old)
                .is_some_and(|s| s.assignment == serving);
            if same {
                info!(%worker, "worker.reconnected: {worker} is back before its old session was missed");
                replaced = self.sessions.remove(&old);
                self.by_worker.remove(&worker);
            } else {
                self.session_ended(old, "it opened another session", None);
            }
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        info!(
            %worker,
            address = hello.address,
            host = hello.host,
            device = hello.device,
            gpu = hello.gpu.as_ref().map(|gpu| &*gpu.uuid),
            version = hello.version,
            serving = ?hello.serving,
            workers = self.sessions.len() + 1,
            "worker.joined: {worker} on {}", hello.host
        );
        let held_run = hello.held_run.clone();
        for run in held_run.iter().chain(serving.as_ref().map(|s| &s.run)) {
            // Of a journal that was lost: its id must not be given again.
            self.next_run = self.next_run.max(run.number().map_or(0, |n| n + 1));
        }
        self.sessions.insert(
            session,
            Session {
                hello,
                outbox,
                heard,
                since: self.now(),
                assignment: serving.clone(),
                held_run,
                offered: replaced.as_ref().and_then(|s| s.offered),
                preparing: None,
                promised: replaced.as_ref().and_then(|s| s.promised),
                joins_from: 0,
                leaving: replaced.as_ref().is_some_and(|s| s.leaving),
                _over: over.drop_guard(),
            },
        );
        self.by_worker.insert(worker.clone(), session);
        self.note_shared_gpu(session);
        self.changed = true;
        self.returned(&worker, serving, replaced.is_some());
        Ok(session)
    }

    /// Reports to the runs that count on `worker`, and to the one that it says it serves, that it is connected.
    fn returned(&mut self, worker: &WorkerId, serving: Option<Served>, replaced: bool) {
        let mut affected = self.members.get(worker).cloned().unwrap_or_default();
        let served = serving.as_ref().and_then(|s| self.number(&s.run));
        affected.extend(served);
        for number in affected {
            if let Some(live) = self.runs.get(&number) {
                let generation = serving
                    .as_ref()
                    .filter(|s| s.run == live.handle.id)
                    .map(|s| s.generation);
                live.handle.send(RunInput::WorkerBack {
                    worker: worker.clone(),
                    serving: generation,
                    replaced,
                });
            }
        }
        if let (None, Some(Served { run, generation })) = (served, serving) {
            let reason = format!("run {run} is not under way");
            let message = CoordinatorMessage::Abort {
                run,
                generation,
                reason,
            };
            self.send(worker, message);
        }
    }

    /// A session is over, whoever ended it. `done` is answered when its run has gone on without the worker.
    pub(super) fn session_ended(
        &mut self,
        id: SessionId,
        reason: &str,
        mut done: Option<Reply<()>>,
    ) {
        let Some(session) = self.sessions.remove(&id) else {
            if let Some(done) = done {
                drop(done.send(Ok(())));
            }
            return;
        };
        let worker = session.hello.id.clone();
        if self.by_worker.get(&worker) == Some(&id) {
            self.by_worker.remove(&worker);
        }
        self.changed = true;
        let workers = self.sessions.len();
        if session.leaving && session.assignment.is_none() {
            info!(%worker, workers, "worker.left: {worker} has shut down as announced");
        } else {
            warn!(%worker, workers, reason, "worker.lost: {worker}: {reason}");
        }
        let served = session
            .assignment
            .and_then(|served| self.number(&served.run));
        let offered = session.offered.map(|(number, _)| number);
        // A run that it was left out of need not show it any more.
        let left_out = self.runs.iter().filter_map(|(number, live)| {
            let left_out = live.status.left_out.contains_key(&worker);
            left_out.then_some(*number)
        });
        let mut concerned: Vec<u64> = [served, offered].into_iter().flatten().collect();
        concerned.extend(left_out);
        for number in concerned {
            if let Some(live) = self.runs.get(&number) {
                live.handle.send(RunInput::WorkerLost {
                    worker: worker.clone(),
                    reason: reason.to_owned(),
                    done: done.take(),
                });
            }
        }
        if let Some(done) = done {
            drop(done.send(Ok(())));
        }
    }

    /// A worker's message: about itself, or for its run.
    pub(super) fn worker_message(
        &mut self,
        id: SessionId,
        message: WorkerMessage,
        permit: OwnedSemaphorePermit,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let worker = session.hello.id.clone();
        match message {
            WorkerMessage::Leaving => {
                session.leaving = true;
                self.changed = true;
                let served = session.assignment.clone();
                info!(%worker, busy = served.is_some(), "worker.leaving: {worker} will shut down");
                // Its run goes on without it from the next step boundary.
                if let Some(live) = served
                    .and_then(|s| self.number(&s.run))
                    .and_then(|n| self.runs.get(&n))
                {
                    live.handle.send(RunInput::WorkerLeaving { worker });
                }
            }
            WorkerMessage::Memory(memory) => {
                session.hello.memory = memory;
                self.changed = true;
            }
            WorkerMessage::Prepared { run, problem } => self.prepared(id, &worker, &run, problem),
            WorkerMessage::About {
                run,
                generation,
                message,
            } => {
                let about = Served { run, generation };
                if session.assignment.as_ref() != Some(&about) {
                    debug!(%worker, run_id = %about.run, generation, "ignoring a message about an old assignment");
                    return;
                }
                let released = match &message {
                    RunMessage::Released(outcome) => {
                        log_released(&worker, &about, outcome);
                        true
                    }
                    _ => false,
                };
                let number = self.number(&about.run);
                let ticket = self.next_ticket;
                if released && let Some(session) = self.sessions.get_mut(&id) {
                    session.assignment = None;
                    // What is known of the run may still count on this worker.
                    session.offered = number.map(|number| (number, ticket));
                    self.next_ticket += 1;
                    self.changed = true;
                }
                if let Some(live) = number.and_then(|n| self.runs.get(&n)) {
                    live.handle.send(RunInput::Worker {
                        worker,
                        generation,
                        message,
                        permit,
                        ticket: released.then_some(ticket),
                    });
                }
            }
        }
    }

    /// A run's message to one of its workers. An assignment makes the worker busy.
    pub(super) fn deliver(&mut self, number: u64, worker: &WorkerId, message: CoordinatorMessage) {
        if let CoordinatorMessage::Assignment(assignment) = &message
            && let Some(session) = self
                .by_worker
                .get(worker)
                .and_then(|id| self.sessions.get_mut(id))
        {
            session.assignment = Some(Served {
                run: assignment.run.clone(),
                generation: assignment.roster.generation,
            });
            session.held_run = Some(assignment.run.clone());
            session.preparing = None;
            if session.offered.is_some_and(|(to, _)| to == number) {
                session.offered = None;
            }
            self.changed = true;
        }
        if let CoordinatorMessage::Abort {
            run, generation, ..
        } = &message
            && !self.serves(worker, run, *generation)
        {
            // It has let go already, or its session is newer than what the run knows of it.
            return;
        }
        self.send(worker, message);
    }

    fn serves(&self, worker: &WorkerId, run: &RunId, generation: u64) -> bool {
        let session = self
            .by_worker
            .get(worker)
            .and_then(|id| self.sessions.get(id));
        let assignment = session.and_then(|session| session.assignment.as_ref());
        assignment.is_some_and(|served| served.run == *run && served.generation == generation)
    }

    /// The run has handled an offer: who is not in its roster is free again.
    pub(super) fn handled(&mut self, number: u64, ticket: u64) {
        for session in self.sessions.values_mut() {
            if session.offered == Some((number, ticket)) {
                session.offered = None;
                self.changed = true;
            }
        }
    }

    /// Sends a worker something. One that does not take its messages is disconnected in this turn.
    pub(super) fn send(&mut self, worker: &WorkerId, message: CoordinatorMessage) {
        let Some(id) = self.by_worker.get(worker).copied() else {
            return;
        };
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        match session.outbox.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.failing
                    .push((id, "it does not read its messages".to_owned()));
            }
            // Its listener is about to report the end, after what the worker sent before: that may be that it
            // released the run.
            Err(TrySendError::Closed(_)) => debug!(%worker, "its session is closing"),
        }
    }
}

fn log_released(worker: &WorkerId, served: &Served, outcome: &Outcome) {
    let Served { run, generation } = served;
    info!(%worker, run_id = %run, generation, ?outcome, "worker.released: {worker} released {run}");
}
