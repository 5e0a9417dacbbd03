//! The actor's task: one input at a time, then whatever follows from it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fovea_core::ids::WorkerId;
use fovea_core::run::{Effect, Event, Limits, Phase, Run};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{error, info, warn};

use super::assembly::Assemblies;
use super::ledger::Ledger;
use super::validate::possible;
use super::{RunContext, RunEvent, RunHandle, RunInput, Shown, Watched};
use crate::cluster::{Demand, Report, RunStatus};
use crate::error::ApiError;
use crate::journal::{JournalError, LiveRun, OnFull, Urgency};
use crate::messages::{Assignment, CoordinatorMessage, RunMessage};

/// How often a run under way is told that time has passed, milliseconds.
const TICK_MS: u64 = 250;
/// How often a run that waits refreshes what it shows, milliseconds.
const REFRESH_MS: u64 = 1_000;
/// Events that a watcher may lag behind before it is sent a fresh snapshot.
const WATCH_BACKLOG: usize = 256;
/// An ended run's actor closes when nobody has asked it for anything for so long, milliseconds.
const LINGER_MS: u64 = 2_000;

/// Why a run's actor, and with it the coordinator, cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunActorError {
    /// The journal is damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A run and all that is under way for it.
pub(super) struct Actor {
    pub cx: RunContext,
    pub run: Run,
    pub ledger: Ledger,
    pub assemblies: Assemblies,
    /// Why the newest checkpoint cannot be stored, while it cannot.
    pub storage_problem: Option<String>,
    /// What is wrong with the dataset at the coordinator.
    data_problem: Option<String>,
    /// Why the cluster gives it no workers.
    waits: Option<String>,
    shown: watch::Sender<Shown>,
    events: broadcast::Sender<RunEvent>,
    /// As last reported to the cluster.
    status: Option<RunStatus>,
    /// When the run was last told that time has passed.
    ticked: u64,
    refreshed: u64,
    /// To itself, from work on files.
    pub me: mpsc::WeakUnboundedSender<RunInput>,
    /// Pieces of work on files whose answers are to come.
    pub files_busy: usize,
    /// When it last had anything to do.
    used: u64,
    reported_end: bool,
    /// The run was removed: nothing of it is written any more.
    pub deleted: bool,
}

/// A run's actor: its handle, and the task to be spawned.
pub(crate) fn start(
    live: LiveRun,
    cx: RunContext,
) -> (
    RunHandle,
    impl Future<Output = Result<(), RunActorError>> + Send + 'static,
) {
    let LiveRun {
        run: written,
        ledger_head,
        losses,
    } = live;
    let now = cx.clock.now();
    // Its members have a while to come back from now on, not from when the journal was read.
    let mut run = written.recovered(now);
    run.limits = Limits {
        unreadable_patience_ms: cx.config.unreadable_patience_s * 1000,
    };
    run.restore_losses(losses);
    if run.roster().is_some() {
        info!(run_id = %run.id, phase = run.phase_name(), "run.recovered: {} waits for its workers to come back", run.id);
    }
    let (inbox, inputs) = mpsc::unbounded_channel();
    let first = Shown {
        run: Arc::new(run.clone()),
        progress: run.progress,
        waiting: None,
    };
    let (shown, seen) = watch::channel(first);
    let handle = RunHandle {
        id: run.id.clone(),
        number: run.number,
        spec: Arc::new(run.spec.clone()),
        dataset_digest: run.dataset_digest.as_str().into(),
        inbox: inbox.clone(),
        shown: seen,
    };
    let actor = Actor {
        cx,
        run,
        ledger: Ledger::new(ledger_head),
        assemblies: Assemblies::default(),
        storage_problem: None,
        data_problem: None,
        waits: None,
        shown,
        events: broadcast::Sender::new(WATCH_BACKLOG),
        status: None,
        ticked: now,
        refreshed: now,
        me: inbox.downgrade(),
        files_busy: 0,
        used: now,
        reported_end: false,
        deleted: false,
    };
    (handle, actor.run(inputs))
}

impl Actor {
    async fn run(
        mut self,
        mut inputs: mpsc::UnboundedReceiver<RunInput>,
    ) -> Result<(), RunActorError> {
        self.tidy().await?;
        let clock = self.cx.clock;
        loop {
            self.report(None);
            self.ledger.write(&self.cx.journal, &self.run);
            let wake = self.wake();
            tokio::select! {
                input = inputs.recv() => match input {
                    None | Some(RunInput::Close) => break,
                    Some(input) => {
                        self.used = clock.now();
                        self.take(input).await?;
                    }
                },
                written = self.ledger.written() => {
                    written?;
                    self.acknowledge();
                }
                () = clock.sleep_until(wake) => self.tick().await?,
            }
        }
        if !self.deleted {
            self.flush().await?;
        }
        Ok(())
    }

    async fn take(&mut self, input: RunInput) -> Result<(), RunActorError> {
        // Who asked may be gone; then nobody misses the answer.
        match input {
            RunInput::Assigned { workers, ticket } => {
                self.apply(Event::Assigned { workers }).await?;
                self.handled(ticket);
            }
            RunInput::Joined { workers, ticket } => {
                self.apply(Event::Joined { workers }).await?;
                self.handled(ticket);
            }
            RunInput::Worker {
                worker,
                generation,
                message,
                permit,
                ticket,
            } => {
                self.worker_message(worker, generation, message).await?;
                drop(permit);
                if let Some(ticket) = ticket {
                    self.handled(ticket);
                }
            }
            RunInput::WorkerLost {
                worker,
                reason,
                done,
            } => {
                self.apply(Event::WorkerLost { worker, reason }).await?;
                self.report(None);
                if let Some(done) = done {
                    drop(done.send(Ok(())));
                }
            }
            RunInput::WorkerLeaving { worker } => {
                self.apply(Event::WorkerLeaving { worker }).await?;
            }
            RunInput::WorkerBack {
                worker,
                serving,
                replaced,
            } => self.worker_back(worker, serving, replaced).await?,
            RunInput::Waits(reason) => {
                self.waits = reason;
                self.show();
            }
            RunInput::DataState(problem) => {
                self.data_problem = problem;
                self.show();
            }
            RunInput::Request { request, reply } => {
                let answer = self.request(request).await?;
                drop(reply.send(answer));
            }
            RunInput::Watch { reply } => drop(reply.send(Watched {
                now: self.shown.borrow().clone(),
                events: self.events.subscribe(),
            })),
            RunInput::Flush { reply } => {
                self.flush().await?;
                let _ = reply.send(());
            }
            RunInput::BeginSlice { claim, reply } => self.begin_slice(claim, reply).await?,
            RunInput::Opened { key, result } => self.opened(key, result).await?,
            RunInput::SliceStored {
                key,
                rank,
                digest,
                reply,
            } => {
                let answer = self.slice_stored(key, rank, digest).await?;
                drop(reply.send(answer));
            }
            RunInput::Assembled { key, result } => self.assembled(key, result).await?,
            RunInput::File(report) => self.file_report(report).await?,
            RunInput::DeleteCheckpoint { step, reply } => {
                let answer = self.delete_checkpoint(step).await?;
                drop(reply.send(answer));
            }
            RunInput::Delete {
                with_checkpoints,
                reply,
            } => {
                let answer = self.delete(with_checkpoints).await?;
                drop(reply.send(answer));
            }
            RunInput::Drain => {
                self.apply(Event::Drain).await?;
                self.flush().await?;
                self.report(None);
                self.tell_cluster(Report::Drained {
                    number: self.run.number,
                });
            }
            // The loop ends before.
            RunInput::Close => {}
        }
        Ok(())
    }

    async fn worker_message(
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

    async fn worker_back(
        &mut self,
        worker: WorkerId,
        serving: Option<u64>,
        replaced: bool,
    ) -> Result<(), RunActorError> {
        let event = Event::WorkerBack {
            worker: worker.clone(),
            serving,
        };
        self.apply(event).await?;
        let Some(generation) = serving else {
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

    /// An offer of workers, or a release, was handled: workers that are not in the roster are free.
    fn handled(&mut self, ticket: u64) {
        // In one report with what the run wants now: the cluster must not combine the one with an older other.
        self.report(Some(ticket));
    }

    /// Something happened to the run: decided, journalled, carried out, and what follows from that.
    pub(super) async fn apply(&mut self, event: Event) -> Result<(), RunActorError> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let effects = self.run.apply(self.cx.clock.now(), event);
            if effects.is_empty() {
                events.extend(self.hopeless_assembly());
                continue;
            }
            self.carry(effects, &mut events).await?;
        }
        Ok(())
    }

    /// Journals what must be, then carries the effects out. Events that follow are put into `events`.
    async fn carry(
        &mut self,
        effects: Vec<Effect>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), RunActorError> {
        if effects.contains(&Effect::Persist) {
            self.persist(rewind(&effects), OnFull::Wait).await?;
        }
        self.carry_out(effects, events)
    }

    /// Writes the run and the steps that wait, in one transaction. With `rewind` the ledger ends at that step.
    pub(super) async fn persist(
        &mut self,
        rewind: Option<u64>,
        on_full: OnFull,
    ) -> Result<(), JournalError> {
        let mut any = self.ledger.finish().await?;
        let steps = self.ledger.take(rewind);
        any |= !steps.is_empty();
        let written = self
            .cx
            .journal
            .put_run(
                self.run.number,
                Some(&self.run),
                rewind,
                steps.clone(),
                self.run.extent.train_samples,
                self.ledger.head(),
                Urgency::Now,
                on_full,
            )
            .await;
        match written {
            Ok(head) => {
                self.ledger.wrote(head);
                if any {
                    self.acknowledge();
                }
                Ok(())
            }
            Err(error) => {
                self.ledger.put_back(steps);
                Err(error)
            }
        }
    }

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
                    self.log_phase();
                    self.waits = None;
                    self.show();
                    let shown = Arc::new(self.shown.borrow().clone());
                    self.publish(RunEvent::Run(shown));
                }
                Effect::PublishStep(report) => {
                    self.shown
                        .send_modify(|shown| shown.progress = Some(report));
                    self.publish(RunEvent::Step(report));
                }
                Effect::PublishEpoch(result) => {
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
    fn send_roster(
        &mut self,
        roster: &fovea_core::roster::Roster,
        at_boundary: bool,
        discard: &std::collections::BTreeSet<WorkerId>,
    ) {
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

    async fn tick(&mut self) -> Result<(), RunActorError> {
        let now = self.cx.clock.now();
        if self.due().is_some_and(|due| due <= now) {
            self.ticked = now;
            self.apply(Event::Tick).await?;
        }
        self.store_next().await?;
        if now >= self.refreshed + REFRESH_MS {
            self.refreshed = now;
            self.show();
        }
        Ok(())
    }

    /// When the run is to be told that time has passed.
    fn due(&self) -> Option<u64> {
        let pace = self.run.roster().map(|_| self.ticked + TICK_MS);
        [pace, self.run.wake()].into_iter().flatten().min()
    }

    /// When to act without an input.
    fn wake(&self) -> Option<u64> {
        let now = self.cx.clock.now();
        let refresh = self
            .blocked()
            .is_some()
            .then_some(self.refreshed + REFRESH_MS);
        let linger = (self.has_ended() && !self.reported_end).then_some(self.used + LINGER_MS);
        [self.due(), refresh, linger, self.assemblies.retry_at()]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(now + 1))
    }

    /// Why the run must not be given workers now.
    fn blocked(&self) -> Option<String> {
        if !matches!(self.run.phase, Phase::Queued { .. }) {
            return None;
        }
        let data = self.data_problem.clone();
        data.or_else(|| self.run.start_blocked(self.cx.clock.now()))
    }

    /// Nothing is left to be done for it.
    fn has_ended(&self) -> bool {
        self.deleted
            || self.run.is_terminal()
                && self.assemblies.is_empty()
                && self.ledger.is_idle()
                && self.files_busy == 0
    }

    /// Tells the cluster what has changed for scheduling, and that the run has ended.
    fn report(&mut self, handled: Option<u64>) {
        let status = self.scheduling_status();
        if handled.is_some() || self.status.as_ref() != Some(&status) {
            self.status = Some(status.clone());
            self.tell_cluster(Report::Status {
                number: self.run.number,
                status: Box::new(status),
                handled,
            });
        }
        let now = self.cx.clock.now();
        if self.has_ended() && !self.reported_end && (self.deleted || now >= self.used + LINGER_MS)
        {
            self.reported_end = true;
            self.tell_cluster(Report::Ended {
                number: self.run.number,
            });
        }
    }

    fn scheduling_status(&self) -> RunStatus {
        let run = &self.run;
        let demand = match &run.phase {
            Phase::Queued { .. } if self.blocked().is_some() => Demand::Nothing,
            Phase::Queued { .. } => Demand::Start {
                min: run.spec.workers.min as usize,
                max: run.spec.max_workers() as usize,
            },
            Phase::Running { .. } => match run.vacancies() {
                0 => Demand::Nothing,
                room => Demand::Join { room },
            },
            Phase::Forming { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => Demand::Nothing,
        };
        RunStatus {
            demand,
            generation: run.generation,
            roster: run.roster().cloned(),
            barred: match demand {
                Demand::Nothing => BTreeMap::new(),
                Demand::Start { .. } | Demand::Join { .. } => run.barred(),
            },
            storing: self.assemblies.any_whole(),
        }
    }

    /// Shows people the run as it is now.
    pub(super) fn show(&self) {
        let waiting = self
            .blocked()
            .or_else(|| self.storage_problem.clone())
            .or_else(|| match self.run.phase {
                Phase::Queued { .. } => self.waits.clone(),
                _ => None,
            });
        self.shown.send_if_modified(|shown| {
            let same = *shown.run == self.run && shown.waiting == waiting;
            if !same {
                shown.run = Arc::new(self.run.clone());
                shown.progress = self.run.progress;
                shown.waiting = waiting;
            }
            !same
        });
    }

    pub(super) fn shown(&self) -> Shown {
        self.shown.borrow().clone()
    }

    pub(super) fn publish(&self, event: RunEvent) {
        // An error only says that nobody watches.
        let _ = self.events.send(event);
    }

    pub(super) fn forget_waiting(&mut self) {
        self.waits = None;
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
                "generation.formed: {id} generation {generation} with {} workers", roster.members.len()
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

/// What a person is told when a request cannot be journalled.
pub(super) fn not_written(error: &JournalError) -> ApiError {
    warn!(%error, "request.refused: it could not be journalled: {error}");
    ApiError::Unavailable(error.to_string())
}
