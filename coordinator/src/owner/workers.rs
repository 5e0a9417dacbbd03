//! Worker sessions: who is there, and what they say.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use fovea_core::ids::WorkerId;
use fovea_core::roster::Roster;
use fovea_core::run::{Event, Phase, Run};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::plausible::possible;
use super::state::{Owner, OwnerError};
use super::{AboutRun, Assignment, Hello, Said, SessionId, ToWorker};
use crate::error::ApiError;

/// A worker that is there.
#[derive(Debug)]
pub(super) struct Session {
    pub hello: Hello,
    outbox: mpsc::Sender<ToWorker>,
    /// The run (by number) and generation that it has not let go of; None is idle.
    pub assignment: Option<(u64, u64)>,
    /// The run whose state it holds.
    pub held_run: Option<u64>,
    /// The run that it prepares itself for, and whether it is done with that.
    pub preparing: Option<Preparing>,
    /// It joins no run under way before then, on the owner's clock.
    pub joins_from: u64,
    /// It will leave: it gets no more work.
    pub leaving: bool,
    /// Tells the session's listener, when dropped, that it is over.
    _over: DropGuard,
}

/// A worker on its way into a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preparing {
    /// The run's number.
    pub run: u64,
    /// When it was asked, on the owner's clock.
    pub since: u64,
    /// It may be let in.
    pub done: bool,
}

/// The number of a run that this coordinator does not know.
const UNKNOWN_RUN: u64 = 0;

impl Session {
    pub fn is_on(&self, run: u64) -> bool {
        self.assignment.is_some_and(|(number, _)| number == run)
    }
}

impl Owner {
    /// A worker joins, or comes back. The outer error is fatal.
    pub(super) fn hello(
        &mut self,
        hello: Hello,
        outbox: mpsc::Sender<ToWorker>,
        over: CancellationToken,
    ) -> Result<Result<SessionId, ApiError>, OwnerError> {
        if self.draining.is_some() {
            return Ok(Err(ApiError::ShuttingDown));
        }
        let serving = hello
            .serving
            .as_ref()
            .map(|(run, generation)| (self.number(run).unwrap_or(UNKNOWN_RUN), *generation));
        let mut replaced = false;
        if let Some(old) = self.session_of(&hello.id) {
            // The old connection broke and nobody has noticed yet. If the worker serves what it served, its
            // run need not know.
            let same = self
                .sessions
                .get(&old)
                .is_some_and(|s| s.assignment == serving);
            if same {
                info!(worker = %hello.id, "worker came back before its old session was missed");
                self.sessions.remove(&old);
                replaced = true;
            } else {
                self.session_ended(old, "it opened another session")?;
            }
        }
        let held_run = hello
            .held_run
            .as_ref()
            .and_then(|run| self.number(run).ok());
        let session = SessionId(self.next_session);
        self.next_session += 1;
        info!(
            worker = %hello.id,
            address = hello.address,
            host = hello.host,
            device = hello.device,
            version = hello.version,
            serving = ?hello.serving,
            workers = self.sessions.len() + 1,
            "worker joined"
        );
        let worker = hello.id.clone();
        let named = hello.serving.clone();
        self.sessions.insert(
            session,
            Session {
                hello,
                outbox,
                assignment: serving,
                held_run,
                preparing: None,
                joins_from: 0,
                leaving: false,
                _over: over.drop_guard(),
            },
        );
        self.returned(&worker, serving)?;
        if replaced {
            self.stop_again(&worker, serving);
        }
        let welcome_back = serving.is_none_or(|(number, generation)| {
            let run = self.runs.get(&number).map(|entry| &entry.run);
            run.is_some_and(|run| run.is_member(&worker, generation))
        });
        if let (false, Some((run, generation))) = (welcome_back, named) {
            let reason = "the run has gone on without it".to_owned();
            let message = ToWorker::Abort {
                run,
                generation,
                reason,
            };
            self.send(&worker, message);
        }
        Ok(Ok(session))
    }

    /// Tells runs that wait for `worker` since the coordinator's restart that it is there.
    fn returned(
        &mut self,
        worker: &WorkerId,
        serving: Option<(u64, u64)>,
    ) -> Result<(), OwnerError> {
        let has = |run: &Run| run.roster().is_some_and(|r| r.rank_of(worker).is_some());
        let waiting: Vec<u64> = self
            .runs
            .iter()
            .filter(|(_, entry)| has(&entry.run))
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            let event = Event::WorkerBack {
                worker: worker.clone(),
                serving: serving.filter(|(run, _)| *run == number).map(|(_, g)| g),
            };
            self.apply(number, event)?;
        }
        Ok(())
    }

    /// The word to stop may have been on its way over the connection that broke.
    fn stop_again(&mut self, worker: &WorkerId, serving: Option<(u64, u64)>) {
        let Some((number, generation)) = serving else {
            return;
        };
        if let Some(entry) = self.runs.get(&number)
            && entry.run.is_member(worker, generation)
            && matches!(
                entry.run.phase,
                Phase::Running {
                    stopping: Some(_),
                    ..
                }
            )
        {
            let run = entry.run.id.clone();
            self.send(worker, ToWorker::Stop { run, generation });
        }
    }

    /// A session is over, whoever ended it.
    pub(super) fn session_ended(
        &mut self,
        session: SessionId,
        reason: &str,
    ) -> Result<(), OwnerError> {
        let Some(Session {
            hello,
            assignment,
            leaving,
            ..
        }) = self.sessions.remove(&session)
        else {
            return Ok(());
        };
        let workers = self.sessions.len();
        if leaving && assignment.is_none() {
            info!(worker = %hello.id, workers, "worker left, as it said");
        } else {
            warn!(worker = %hello.id, workers, reason, "worker lost");
        }
        if let Some((number, _)) = assignment {
            let event = Event::WorkerLost {
                worker: hello.id,
                reason: reason.to_owned(),
            };
            self.apply(number, event)?;
        }
        Ok(())
    }

    /// A worker says something.
    pub(super) fn said(&mut self, id: SessionId, said: Said) -> Result<(), OwnerError> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        let worker = session.hello.id.clone();
        match said {
            Said::Leaving => {
                session.leaving = true;
                info!(%worker, busy = session.assignment.is_some(), "worker will leave");
                // Its run goes on without it from the next step boundary.
                match session.assignment {
                    Some((number, _)) => self.apply(number, Event::WorkerLeaving { worker }),
                    None => Ok(()),
                }
            }
            Said::Prepared { run, problem } => {
                self.prepared(id, &worker, &run, &problem);
                Ok(())
            }
            Said::About {
                run,
                generation,
                what,
            } => {
                let number = self.number(&run).unwrap_or(UNKNOWN_RUN);
                let on_it = self
                    .sessions
                    .get(&id)
                    .is_some_and(|s| s.assignment == Some((number, generation)));
                if !on_it {
                    debug!(%worker, run_id = %run, generation, "ignoring what is said of an old assignment");
                    return Ok(());
                }
                self.said_about(id, worker, number, generation, what)
            }
        }
    }

    fn said_about(
        &mut self,
        id: SessionId,
        worker: WorkerId,
        number: u64,
        generation: u64,
        what: AboutRun,
    ) -> Result<(), OwnerError> {
        let entry = self.runs.get(&number);
        if let Some(entry) = entry
            && let Err(error) = possible(&entry.run, &what)
        {
            warn!(%worker, run_id = %entry.run.id, generation, %error, "ending a session that makes no sense");
            if let Some(session) = self.sessions.get(&id) {
                let _ = session.outbox.try_send(ToWorker::End(error.clone()));
            }
            return self.session_ended(id, &format!("it said what cannot be: {error}"));
        }
        if let AboutRun::Released(outcome) = &what
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.assignment = None;
            info!(%worker, run = number, generation, ?outcome, "worker let go of the run");
        }
        let Some(entry) = self.runs.get(&number) else {
            return Ok(());
        };
        let event = match what {
            AboutRun::Ready {
                standing,
                fingerprint,
            } => {
                let event = Event::Ready {
                    worker,
                    generation,
                    state: standing,
                    fingerprint,
                };
                self.apply(number, event)?;
                return self.account_for(number);
            }
            AboutRun::Progress(heartbeat) => Event::Progress {
                worker,
                generation,
                heartbeat,
            },
            AboutRun::Step { report, samples } => {
                // A step of a generation that is over is told again in the next.
                return if entry.run.generation == generation {
                    self.step_committed(number, generation, report, samples)
                } else {
                    Ok(())
                };
            }
            AboutRun::Digest { step, digest } => Event::Digest {
                worker,
                generation,
                step,
                digest,
            },
            AboutRun::Scores { epoch, scores } => Event::Scored {
                generation,
                epoch,
                scores,
            },
            AboutRun::Interrupted { reason } => Event::Interrupted {
                worker,
                generation,
                reason,
            },
            AboutRun::Unreachable { peers } => Event::Unreachable {
                worker,
                generation,
                peers,
            },
            AboutRun::Released(outcome) => Event::Released {
                worker,
                generation,
                outcome,
            },
        };
        self.apply(number, event)
    }

    /// Tells a worker something. One that does not take it any more is ended in this turn.
    pub(super) fn send(&mut self, worker: &WorkerId, message: ToWorker) {
        let Some(id) = self.session_of(worker) else {
            return;
        };
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        match session.outbox.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                let reason = "it does not read its messages".to_owned();
                self.failing.push((id, reason));
            }
            // Its listener is about to say so, after what the worker said before: that may be that
            // it let go of the run.
            Err(TrySendError::Closed(_)) => debug!(%worker, "its session is closing"),
        }
    }

    /// Gives a generation to its members.
    pub(super) fn send_roster(
        &mut self,
        number: u64,
        roster: &Roster,
        at_boundary: bool,
        discard: &BTreeSet<WorkerId>,
    ) -> Result<(), OwnerError> {
        let mut mesh_key = [0; 16];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut mesh_key))
            .map_err(OwnerError::Random)?;
        let Some(entry) = self.runs.get(&number) else {
            return Ok(());
        };
        let run = &entry.run;
        let assignment = Assignment {
            run: run.id.clone(),
            spec: run.spec.clone(),
            dataset_digest: run.dataset_digest.clone(),
            roster: roster.clone(),
            checkpoint: run
                .checkpoints
                .iter()
                .find(|c| c.step == roster.start_step)
                .cloned(),
            mesh_key,
            lineage: run.lineage,
            at_boundary,
            discard_state: false,
            next_epoch: run.next_epoch(),
        };
        for member in &roster.members {
            if let Some(id) = self.session_of(&member.worker)
                && let Some(session) = self.sessions.get_mut(&id)
            {
                session.assignment = Some((number, roster.generation));
                session.held_run = Some(number);
                session.preparing = None;
            }
            let mut assignment = assignment.clone();
            assignment.discard_state = discard.contains(&member.worker);
            let message = ToWorker::Assignment(Box::new(assignment));
            self.send(&member.worker, message);
        }
        Ok(())
    }

    pub(super) fn session_of(&self, worker: &WorkerId) -> Option<SessionId> {
        self.sessions
            .iter()
            .find(|(_, s)| s.hello.id == *worker)
            .map(|(id, _)| *id)
    }
}
