//! Worker sessions: who is there, what they say, and giving them work.

use std::fs::File;
use std::io::Read;

use fovea_core::ids::WorkerId;
use fovea_core::roster::Roster;
use fovea_core::run::{Event, Outcome, Phase, Run};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::state::{Owner, OwnerError};
use super::{AboutRun, Assignment, Hello, Said, SessionId, ToWorker};
use crate::error::ApiError;
use crate::scheduler::{Verdict, Waiting, schedule};

/// A worker that is there.
#[derive(Debug)]
pub(super) struct Session {
    hello: Hello,
    outbox: mpsc::Sender<ToWorker>,
    /// The run (by number) and generation that it has not let go of; None is idle.
    pub assignment: Option<(u64, u64)>,
    /// It will leave: it gets no more work.
    leaving: bool,
    /// Tells the session's listener, when dropped, that it is over.
    _over: DropGuard,
}

impl Owner {
    /// A worker joins.
    pub(super) fn hello(
        &mut self,
        hello: Hello,
        outbox: mpsc::Sender<ToWorker>,
        over: CancellationToken,
    ) -> Result<SessionId, ApiError> {
        if self.draining.is_some() {
            return Err(ApiError::ShuttingDown);
        }
        if self.session_of(&hello.id).is_some() {
            return Err(ApiError::AlreadyExists(format!(
                "hello.worker_id: worker {} has a session already; every process needs an id of \
                 its own, and a worker that lost its session can come back when the old one has \
                 timed out ({} ms)",
                hello.id, self.config.timeout_ms
            )));
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        info!(
            worker = %hello.id,
            address = hello.address,
            host = hello.host,
            device = hello.device,
            version = hello.version,
            workers = self.sessions.len() + 1,
            "worker joined"
        );
        self.sessions.insert(
            session,
            Session {
                hello,
                outbox,
                assignment: None,
                leaving: false,
                _over: over.drop_guard(),
            },
        );
        Ok(session)
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
                // Its run stops at a boundary, is checkpointed and goes on without it.
                match session.assignment {
                    Some((number, _)) => self.apply(number, Event::Drain),
                    None => Ok(()),
                }
            }
            Said::About {
                run,
                generation,
                what,
            } => {
                let number = self.number(&run).ok();
                let current = number.map(|number| (number, generation));
                let (Some(number), true) = (number, session_is_on(self, id, current)) else {
                    debug!(%worker, run_id = %run, generation, "ignoring what is said of an old assignment");
                    return Ok(());
                };
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
        let Some(entry) = self.runs.get(&number) else {
            return Ok(());
        };
        if let Err(error) = possible(&entry.run, &what) {
            warn!(%worker, run_id = %entry.run.id, generation, %error, "ending a session that makes no sense");
            if let Some(session) = self.sessions.get(&id) {
                let _ = session.outbox.try_send(ToWorker::End(error.clone()));
            }
            return self.session_ended(id, &format!("it said what cannot be: {error}"));
        }
        let event = match what {
            AboutRun::Ready {
                state_digest,
                fingerprint,
            } => Event::Ready {
                worker,
                generation,
                state_digest,
                fingerprint,
            },
            AboutRun::Step(report) => Event::StepCommitted {
                worker,
                generation,
                report,
            },
            AboutRun::Scores { epoch, scores } => Event::Scored {
                worker,
                generation,
                epoch,
                scores,
            },
            AboutRun::Released(outcome) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.assignment = None;
                }
                info!(%worker, run_id = %entry.run.id, generation, ?outcome, "worker let go of the run");
                Event::Released {
                    worker,
                    generation,
                    outcome,
                }
            }
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
    pub(super) fn send_roster(&mut self, number: u64, roster: &Roster) -> Result<(), OwnerError> {
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
        };
        for member in &roster.members {
            if let Some(id) = self.session_of(&member.worker)
                && let Some(session) = self.sessions.get_mut(&id)
            {
                session.assignment = Some((number, roster.generation));
            }
            let message = ToWorker::Assignment(Box::new(assignment.clone()));
            self.send(&member.worker, message);
        }
        Ok(())
    }

    /// Starts what can start. Returns when to look again.
    pub(super) fn schedule(&mut self) -> Result<Option<u64>, OwnerError> {
        if self.draining.is_some() {
            return Ok(None);
        }
        let now = self.now();
        let queued: Vec<Waiting> = self
            .runs
            .iter()
            .filter(|(_, entry)| matches!(entry.run.phase, Phase::Queued { .. }))
            .map(|(number, entry)| Waiting {
                number: *number,
                min: entry.run.spec.workers.min as usize,
                max: entry.run.spec.max_workers() as usize,
                startable_since: entry.startable_since,
            })
            .collect();
        let mut idle = self.idle_workers().into_iter();
        let mut wake: Option<u64> = None;
        for (number, verdict) in schedule(now, self.config.forming_grace_ms, &queued, idle.len()) {
            let Some(entry) = self.runs.get_mut(&number) else {
                continue;
            };
            let (min, max) = (entry.run.spec.workers.min, entry.run.spec.max_workers());
            match verdict {
                Verdict::Start { workers } => {
                    let chosen: Vec<_> = idle.by_ref().take(workers).collect();
                    let names: Vec<&str> = chosen.iter().map(|(id, _)| id.as_str()).collect();
                    info!(
                        run_id = %entry.run.id,
                        generation = entry.run.generation + 1,
                        workers = names.join(" "),
                        "starting with {workers} of at most {max} workers"
                    );
                    self.apply(number, Event::Assigned { workers: chosen })?;
                }
                Verdict::Grace { since, until, free } => {
                    entry.startable_since = Some(since);
                    wake = Some(wake.map_or(until, |wake| wake.min(until)));
                    entry.waits(format!(
                        "could start with {free} workers, waits a moment for up to {max}"
                    ));
                }
                Verdict::TooFew { free } => {
                    entry.startable_since = None;
                    entry.waits(format!("needs {min} workers, {free} are idle"));
                }
            }
        }
        Ok(wake)
    }

    /// Workers that can be given work, by order of joining.
    fn idle_workers(&self) -> Vec<(WorkerId, String)> {
        self.sessions
            .values()
            .filter(|s| s.assignment.is_none() && !s.leaving)
            .map(|s| (s.hello.id.clone(), s.hello.address.clone()))
            .collect()
    }

    pub(super) fn session_of(&self, worker: &WorkerId) -> Option<SessionId> {
        self.sessions
            .iter()
            .find(|(_, s)| s.hello.id == *worker)
            .map(|(id, _)| *id)
    }
}

impl super::state::Entry {
    /// Notes why the run waits; says it when it is news.
    fn waits(&mut self, reason: String) {
        if self.waiting.as_ref() != Some(&reason) {
            info!(run_id = %self.run.id, reason, "run waits");
            self.waiting = Some(reason);
        }
    }
}

fn session_is_on(owner: &Owner, id: SessionId, current: Option<(u64, u64)>) -> bool {
    current.is_some()
        && owner
            .sessions
            .get(&id)
            .is_some_and(|session| session.assignment == current)
}

/// Whether what a worker says of its run can be, the run being what it is.
fn possible(run: &Run, what: &AboutRun) -> Result<(), ApiError> {
    let bad = |field: &str, problem: String| Err(ApiError::invalid(field, problem));
    let total = run.extent.total_steps;
    let start = run.roster().map_or(0, |roster| roster.start_step);
    match what {
        AboutRun::Ready { .. } => Ok(()),
        AboutRun::Step(report) => {
            if report.step <= start || report.step > total {
                return bad(
                    "step.report.step",
                    format!("{} is not in {}..={total}", report.step, start + 1),
                );
            }
            Ok(())
        }
        AboutRun::Scores { epoch, scores } => {
            if *epoch >= run.spec.train.epochs {
                let epochs = run.spec.train.epochs;
                return bad(
                    "scores.epoch",
                    format!("{epoch} is not below {epochs}, the run's epochs"),
                );
            }
            let classes = run.spec.model.classes;
            for (i, score) in scores.iter().enumerate() {
                if u64::from(score.sample) >= run.extent.validation_samples {
                    return bad(
                        &format!("scores.scores[{i}].sample"),
                        format!(
                            "{} is not below {}, the validation samples",
                            score.sample, run.extent.validation_samples
                        ),
                    );
                }
                if score.label >= classes || score.probabilities.len() != classes as usize {
                    return bad(
                        &format!("scores.scores[{i}]"),
                        format!(
                            "label {} and {} probabilities do not fit {classes} classes",
                            score.label,
                            score.probabilities.len()
                        ),
                    );
                }
            }
            Ok(())
        }
        AboutRun::Released(Outcome::Completed { step }) if *step != total => bad(
            "released.completed_step",
            format!("is {step}, but the run has {total} steps"),
        ),
        AboutRun::Released(Outcome::Stopped { step }) if *step < start || *step > total => bad(
            "released.stopped_step",
            format!("{step} is not in {start}..={total}"),
        ),
        AboutRun::Released(_) => Ok(()),
    }
}
