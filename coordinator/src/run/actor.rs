//! The actor's task: one input at a time, then whatever follows from it.

use std::collections::VecDeque;
use std::sync::Arc;

use fovea_core::run::{Effect, EpochScores, Event, Limits};
use fovea_service::ops::Histogram;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{info, warn};

use super::assembly::Assemblies;
use super::effects::{rewind, scores};
use super::ledger::Ledger;
use super::recovery::Recovery;
use super::report::{DataProblems, Report};
use super::spans::Spans;
use super::state::{Actor, RunActorError};
use super::status::{LINGER_MS, recovering};
use super::{RunContext, RunHandle, RunInput, Shown};
use crate::clock::unix_ms;
use crate::journal::{JournalError, LiveRun, OnFull, RunChange, Urgency};
use crate::metrics::STEP_SECONDS;

/// Interval of `Event::Tick` while a run is under way, milliseconds.
const TICK_MS: u64 = 250;
/// Steps that are read at a time.
const LOSSES: usize = 10_000;
/// How often a run that waits refreshes what it shows, milliseconds.
const REFRESH_MS: u64 = 1_000;
/// Events that a watcher may lag behind before it is sent a fresh snapshot.
const WATCH_BACKLOG: usize = 256;

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
        no_worker_patience_ms: cx.config.no_worker_patience_s * 1000,
    };
    run.restore_losses(losses);
    if run.roster().is_some() {
        info!(run_id = %run.id, phase = run.phase_name(), "run.recovered: {} waits for its workers to come back", run.id);
    }
    let inherited = run.roster().map(|roster| roster.generation);
    let (inbox, inputs) = mpsc::unbounded_channel();
    let first = Shown {
        run: Arc::new(run.clone()),
        progress: run.progress,
        waiting: recovering(&run),
    };
    let (shown, seen) = watch::channel(first);
    let mut recovery = Recovery::default();
    // One that ran when this coordinator started runs.
    recovery.phase(&run.phase, now);
    let mut spans = Spans::new(cx.traces.clone());
    spans.phase(&run);
    let step_seconds = Arc::new(Histogram::new(STEP_SECONDS));
    let events = broadcast::Sender::new(WATCH_BACKLOG);
    let handle = RunHandle {
        id: run.id.clone(),
        number: run.number,
        spec: Arc::new(run.spec.clone()),
        dataset_digest: run.dataset_digest.as_str().into(),
        inbox: inbox.clone(),
        shown: seen,
        events: events.downgrade(),
        step_seconds: Arc::clone(&step_seconds),
    };
    let actor = Actor {
        cx,
        run,
        ledger: Ledger::new(ledger_head),
        assemblies: Assemblies::default(),
        storage_problem: None,
        storage_needed: 0,
        data_problems: DataProblems::default(),
        inherited,
        waits: None,
        shown,
        events,
        status: None,
        ticked: now,
        refreshed: now,
        me: inbox.downgrade(),
        files_busy: 0,
        used: now,
        reported_end: false,
        deleted: false,
        step_seconds,
        recovery,
        spans,
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
        // However long that took, its members have their whole time to come back from now on.
        self.run = self.run.clone().recovered(clock.now());
        if self.run.waits_at().is_some() {
            // It may have been decided, and not been carried out before this coordinator started.
            self.tell_group();
        }
        loop {
            self.report(None);
            if self.reported_end {
                // From here on nothing is taken: who asks is not answered, and asks a new actor. Otherwise a run
                // could be resumed by a request that was on its way, and be left without an actor.
                break;
            }
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

    /// Nobody waits for the answer any more: what was asked for and has not begun does not happen.
    fn withdrawn(&self, what: &str, withdrawn: bool) -> bool {
        if withdrawn {
            info!(run_id = %self.run.id, "request.withdrawn: {}: {what} was given up before it began", self.run.id);
        }
        withdrawn
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
                let was_in = self.generation_with(&worker);
                let event = Event::WorkerLost {
                    worker: worker.clone(),
                    reason,
                };
                self.apply(event).await?;
                self.abort_if_removed(worker, was_in);
                self.report(None);
                if let Some(done) = done {
                    drop(done.send(Ok(())));
                }
            }
            RunInput::WorkerLeaving { worker } => {
                self.apply(Event::WorkerLeaving { worker }).await?;
            }
            RunInput::Give { workers, taker } => {
                self.apply(Event::Give { workers, taker }).await?;
            }
            RunInput::WorkerBack {
                worker,
                serving,
                replaced,
            } => {
                self.worker_back(worker, serving, replaced).await?;
                self.show();
            }
            RunInput::Unfit {
                worker,
                trouble,
                reason,
            } => {
                self.apply(Event::Unfit {
                    worker,
                    trouble,
                    reason,
                })
                .await?;
                self.show();
            }
            RunInput::Usable(workers) => self.apply(Event::Usable { workers }).await?,
            RunInput::Waits(reason) => {
                self.waits = reason;
                self.show();
            }
            RunInput::DataState(problems) => {
                self.data_problems = problems;
                self.show();
            }
            RunInput::Request { request, reply } => {
                if self.withdrawn(&format!("{request:?}"), reply.is_closed()) {
                    return Ok(());
                }
                let answer = self.request(request).await?;
                // Whoever is answered finds the queue as it is now.
                self.report(None);
                drop(reply.send(answer));
            }
            RunInput::RecordEvaluation { record, reply } => {
                let answer = self.record_evaluation(record).await?;
                drop(reply.send(answer));
            }
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
                claim,
                reply,
            } => {
                let answer = self.slice_stored(key, rank, digest, &claim).await?;
                drop(reply.send(answer));
            }
            RunInput::Assembled { key, result } => self.assembled(key, result).await?,
            RunInput::File(report) => self.file_report(report).await?,
            RunInput::CouldStore(could) => self.could_store(could),
            RunInput::Panicked(error) => return Err(error.into()),
            RunInput::DeleteCheckpoint { step, reply } => {
                if self.withdrawn("removing a checkpoint", reply.is_closed()) {
                    return Ok(());
                }
                let answer = self.delete_checkpoint(step).await?;
                drop(reply.send(answer));
            }
            RunInput::Delete {
                with_checkpoints,
                reply,
            } => {
                if self.withdrawn("removing the run", reply.is_closed()) {
                    return Ok(());
                }
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
            self.persist(rewind(&effects), scores(&effects), OnFull::Wait)
                .await?;
        }
        self.carry_out(effects, events)
    }

    /// Writes the run and the steps that wait, in one transaction. With `rewind` the ledger ends at that step.
    pub(super) async fn persist(
        &mut self,
        rewind: Option<u64>,
        scores: Option<&EpochScores>,
        on_full: OnFull,
    ) -> Result<(), JournalError> {
        self.run.note_time(unix_ms());
        let mut any = self.ledger.finish().await?;
        let discarded = self.run.discarded;
        if let Some(step) = rewind {
            self.count_discarded(step).await;
        }
        let steps = self.ledger.take(rewind);
        any |= !steps.is_empty();
        let written = self
            .cx
            .journal
            .put_run(
                RunChange {
                    number: self.run.number,
                    run: Some(&self.run),
                    rewind,
                    steps: steps.clone(),
                    scores,
                    train_samples: self.run.extent.train_samples,
                    head: self.ledger.head(),
                },
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
                self.run.discarded = discarded;
                self.ledger.put_back(steps);
                Err(error)
            }
        }
    }

    /// Counts what a rewind to `step` cuts off the ledger, so that the number of steps ever committed does not fall.
    async fn count_discarded(&mut self, step: u64) {
        let head = self.ledger.head();
        let (mut from, mut cut) = (step + 1, self.run.discarded);
        while from <= head {
            let read = self.cx.journal.losses(self.run.number, from, LOSSES).await;
            let rows = match read {
                Ok(rows) => rows,
                Err(error) => {
                    warn!(run_id = %self.run.id, %error, "run.uncounted: steps that a rewind cuts off are not counted: {error}");
                    break;
                }
            };
            // Behind a gap there may be more, which were never counted.
            let counted = rows.iter().take_while(|row| row.step <= head);
            cut.images += counted.map(|row| row.images).sum::<u64>();
            match rows.last() {
                Some(last) => from = last.step + 1,
                None => break,
            }
        }
        cut.steps += head.saturating_sub(step);
        self.run.discarded = cut;
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
            self.probe_store();
            self.show();
        }
        Ok(())
    }

    /// When the next `Event::Tick` is due.
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

    pub(super) fn shown(&self) -> Shown {
        self.shown.borrow().clone()
    }

    pub(super) fn forget_waiting(&mut self) {
        self.waits = None;
    }
}
