//! The cluster's task: one message at a time, then whatever follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fovea_core::ids::{RunId, WorkerId};
use fovea_core::machine::Machines;
use fovea_core::run::Phase;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::needs::Needs;
use super::state::{Actor, ActorError, Live};
use super::{Cluster, INBOX, Request};
use crate::catalogue::Catalogue;
use crate::catalogue::weights::WeightsCatalogue;
use crate::config::Config;
use crate::error::ApiError;
use crate::housekeeping::Room;
use crate::journal::LiveRun;
use crate::run::{
    self, DataProblems, Demand, Report, RunActorError, RunContext, RunHandle, RunInput, RunStatus,
};

/// Messages that are taken at most before scheduling, when they come faster than the cluster takes them.
const TURN: usize = 256;

/// What the cluster starts with.
pub(crate) struct Start {
    pub config: Arc<Config>,
    pub next_run: u64,
    pub recovered: Vec<LiveRun>,
    pub catalogue: watch::Receiver<Arc<Catalogue>>,
    pub weights: watch::Receiver<Arc<WeightsCatalogue>>,
    pub room: watch::Receiver<Room>,
}

/// Starts the cluster with the runs that the journal holds; `context` gives what a run actor works with, given the
/// way to the cluster. The task ends when nobody can reach it any more, and waits for its runs then.
pub(crate) fn start(
    start: Start,
    context: impl FnOnce(mpsc::UnboundedSender<Report>) -> RunContext,
) -> (Cluster, tokio::task::JoinHandle<Result<(), ActorError>>) {
    let (requests, inbox) = mpsc::channel(INBOX);
    let (reports, reported) = mpsc::unbounded_channel();
    let Start {
        config,
        next_run,
        recovered,
        catalogue,
        weights,
        room,
    } = start;
    let context = context(reports);
    let mut actor = Actor {
        config,
        context,
        actors: JoinSet::new(),
        runs: BTreeMap::new(),
        numbers: HashMap::new(),
        members: HashMap::new(),
        next_run,
        sessions: BTreeMap::new(),
        by_worker: HashMap::new(),
        next_session: 1,
        next_ticket: 1,
        failing: Vec::new(),
        changed: true,
        taken: 0,
        wake: None,
        catalogue,
        weights,
        room,
        draining: None,
        undrained: BTreeSet::new(),
        handing_over: None,
    };
    for run in recovered {
        actor.open(run);
    }
    actor.tell_data_problems();
    (
        Cluster { requests },
        tokio::spawn(actor.run(inbox, reported)),
    )
}

impl Actor {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Request>,
        mut reported: mpsc::UnboundedReceiver<Report>,
    ) -> Result<(), ActorError> {
        let clock = self.context.clock;
        loop {
            tokio::select! {
                // Reports first: what runs say of themselves is older than what is asked now.
                biased;
                Some(report) = reported.recv() => self.report(report),
                Some(ended) = self.actors.join_next() => self.actor_ended(ended)?,
                Ok(()) = self.catalogue.changed() => self.tell_data_problems(),
                Ok(()) = self.weights.changed() => self.tell_data_problems(),
                Ok(()) = self.room.changed() => self.changed = true,
                request = inbox.recv() => match request {
                    Some(request) if self.handing_over.is_some() => self.late_request(request),
                    Some(request) => self.request(request),
                    None => break,
                },
                () = clock.sleep_until(self.wake) => self.changed = true,
            }
            self.settle(!reported.is_empty() || !inbox.is_empty());
        }
        for live in self.runs.values() {
            live.handle.send(RunInput::Close);
        }
        while let Some(ended) = self.actors.join_next().await {
            self.actor_ended(ended)?;
        }
        Ok(())
    }

    /// All that follows from the messages taken so far. With `more` of them waiting the scheduling is done for all together.
    fn settle(&mut self, more: bool) {
        while let Some((session, reason)) = self.failing.pop() {
            self.session_ended(session, &reason, None);
        }
        self.taken += 1;
        if !more || self.taken >= TURN {
            self.place();
        }
        if self.undrained.is_empty()
            && self.active() == 0
            && let Some(waiting) = &mut self.draining
        {
            for reply in waiting.drain(..) {
                let _ = reply.send(());
            }
        }
        if self.actors.is_empty()
            && let Some(waiting) = &mut self.handing_over
        {
            for reply in waiting.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    /// Schedules, if something has changed.
    fn place(&mut self) {
        self.taken = 0;
        if std::mem::take(&mut self.changed) && self.handing_over.is_none() {
            self.wake = self.schedule();
        }
    }

    fn request(&mut self, request: Request) {
        // Who asked may be gone; then nobody misses the answer.
        match request {
            Request::Hello {
                hello,
                outbox,
                over,
                heard,
                reply,
            } => drop(reply.send(self.hello(*hello, outbox, over, heard))),
            Request::Worker {
                session,
                message,
                permit,
            } => self.worker_message(session, message, permit),
            Request::SessionEnded {
                session,
                reason,
                reply,
            } => self.session_ended(session, &reason, Some(reply)),
            Request::Find { run, reply } => {
                let live = self.number(&run).and_then(|n| self.runs.get(&n));
                drop(reply.send(live.map(|live| live.handle.clone())));
            }
            Request::Live { reply } => {
                let live = self.runs.values().map(|live| live.handle.clone());
                drop(reply.send(live.collect()));
            }
            Request::Workers { reply } => {
                self.place();
                drop(reply.send(self.workers()));
            }
            Request::Queue { reply } => {
                self.place();
                drop(reply.send(self.queue()));
            }
            Request::MemoryShortage { run, reply } => {
                drop(reply.send(self.nobody_fits(run)));
            }
            Request::NextNumber { reply } => drop(reply.send(self.next_number())),
            Request::Open { run, reply } => drop(reply.send(self.open(*run))),
            Request::Drain { reply } => self.drain(reply),
            Request::HandOver { reply } => self.hand_over(reply),
            Request::CountActive { reply } => drop(reply.send(self.active())),
        }
    }

    /// A request that comes after the runs were handed over. What a worker reports now it reports again to the next
    /// coordinator, and its session ends with this one. Whoever is not answered learns that the coordinator shuts down.
    fn late_request(&mut self, request: Request) {
        match request {
            Request::SessionEnded { session, reply, .. } => {
                self.sessions.remove(&session);
                drop(reply.send(Ok(())));
            }
            // A run that was journalled a moment ago: it is accepted, and begins with the next coordinator.
            Request::Open { run, reply } => drop(reply.send(self.open(*run))),
            Request::HandOver { reply } => self.handing_over.get_or_insert_default().push(reply),
            Request::CountActive { reply } => drop(reply.send(self.actors.len())),
            Request::Hello { .. }
            | Request::Worker { .. }
            | Request::Find { .. }
            | Request::Live { .. }
            | Request::Workers { .. }
            | Request::Queue { .. }
            | Request::MemoryShortage { .. }
            | Request::NextNumber { .. }
            | Request::Drain { .. } => {}
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Status {
                number,
                status,
                handled,
            } => {
                if let Some(ticket) = handled {
                    self.handled(number, ticket);
                }
                if let Some(live) = self.runs.get_mut(&number) {
                    self.changed |= std::mem::take(&mut live.fresh);
                }
                self.status(number, *status);
            }
            Report::Send {
                number,
                worker,
                message,
            } => self.deliver(number, &worker, message),
            Report::EndSession { worker, error } => self.end_session(&worker, error),
            // It takes nothing any more. Who asks for the run from now on gets a new actor.
            Report::Ended { number } => self.forget(number),
            Report::Drained { number } => {
                self.undrained.remove(&number);
            }
        }
    }

    fn next_number(&mut self) -> Result<u64, ApiError> {
        if self.draining.is_some() {
            return Err(ApiError::ShuttingDown);
        }
        let number = self.next_run;
        self.next_run += 1;
        Ok(number)
    }

    fn open(&mut self, run: LiveRun) -> RunHandle {
        let number = run.run.number;
        if let Some(live) = self.runs.get(&number) {
            return live.handle.clone();
        }
        self.next_run = self.next_run.max(number + 1);
        let roster = run.run.roster().cloned();
        let generation = run.run.generation;
        let priority = run.run.priority();
        let group = run.run.group.clone();
        let owner = run.run.submitted_by.clone();
        let fresh = generation == 0 && matches!(run.run.phase, Phase::Queued { .. });
        let (handle, actor) = run::start(run, self.context.clone());
        self.actors.spawn(async move { (number, actor.await) });
        self.numbers.insert(handle.id.clone(), number);
        let mut live = Live {
            handle: handle.clone(),
            // Until it reports: it may have members, and wants nothing yet.
            status: RunStatus {
                demand: Demand::Nothing,
                priority,
                generation,
                roster: None,
                barred: BTreeMap::new(),
                left_out: BTreeMap::new(),
                machines: Machines::default(),
                training: false,
                storing: false,
            },
            usable: None,
            startable_since: None,
            waiting: None,
            logged: None,
            needs: Needs::default(),
            group,
            owner,
            queued_since: None,
            gave: false,
            safe_until: 0,
            fresh,
            data_problems: DataProblems::default(),
        };
        live.data_problems = self.data_problems(&live.handle);
        live.needs.of_images(self.image_size(&live.handle));
        if live.data_problems != DataProblems::default() {
            handle.send(RunInput::DataState(live.data_problems.clone()));
        }
        let status = RunStatus {
            roster,
            ..live.status.clone()
        };
        self.runs.insert(number, live);
        self.status(number, status);
        if self.draining.is_some() {
            self.undrained.insert(number);
            handle.send(RunInput::Drain);
        }
        if self.handing_over.is_some() {
            handle.send(RunInput::Close);
        }
        handle
    }

    fn status(&mut self, number: u64, status: RunStatus) {
        let now = self.now();
        let Some(live) = self.runs.get_mut(&number) else {
            return;
        };
        if live.status == status {
            return;
        }
        let workers = |roster: &Option<fovea_core::roster::Roster>| -> Vec<WorkerId> {
            let members = roster.iter().flat_map(|r| r.members.iter());
            members.map(|m| m.worker.clone()).collect()
        };
        if live.status.roster != status.roster {
            for worker in workers(&live.status.roster) {
                if let Some(of) = self.members.get_mut(&worker) {
                    of.remove(&number);
                    if of.is_empty() {
                        self.members.remove(&worker);
                    }
                }
            }
            for worker in workers(&status.roster) {
                self.members.entry(worker).or_default().insert(number);
            }
        }
        if status.demand != live.status.demand {
            live.startable_since = None;
            live.waiting = None;
            live.logged = None;
        }
        if matches!(status.demand, Demand::Start { .. }) {
            live.queued_since.get_or_insert(now);
        }
        let is_lowered = status.priority < live.status.priority;
        live.status = status;
        self.changed = true;
        if is_lowered {
            self.release_promised(number);
        }
    }

    fn forget(&mut self, number: u64) {
        // Nobody answers for offers to it any more.
        for session in self.sessions.values_mut() {
            if session.offered.is_some_and(|(to, _)| to == number) {
                session.offered = None;
            }
        }
        if let Some(live) = self.runs.get(&number) {
            self.numbers.remove(&live.handle.id);
            let status = RunStatus {
                roster: None,
                ..live.status.clone()
            };
            self.status(number, status);
            self.runs.remove(&number);
        }
        self.undrained.remove(&number);
    }

    fn actor_ended(
        &mut self,
        ended: Result<(u64, Result<(), RunActorError>), tokio::task::JoinError>,
    ) -> Result<(), ActorError> {
        match ended {
            Ok((_, Ok(()))) => Ok(()),
            Ok((_, Err(error))) => Err(error.into()),
            Err(error) => Err(ActorError::Panicked(error.to_string())),
        }
    }

    /// What is known to be wrong with what a run reads from the stores.
    fn data_problems(&self, run: &RunHandle) -> DataProblems {
        DataProblems {
            dataset: self.catalogue.borrow().problem(&run.dataset_digest),
            weights: self.weights.borrow().problem_of_run(&run.spec.model),
        }
    }

    /// Width and height of the images of a run's dataset; None while its manifest cannot be read.
    fn image_size(&self, run: &RunHandle) -> Option<u32> {
        self.catalogue.borrow().image_size(&run.dataset_digest)
    }

    /// Tells runs whether their datasets and weights can be read, where that has changed.
    fn tell_data_problems(&mut self) {
        self.catalogue.mark_unchanged();
        self.weights.mark_unchanged();
        let numbers: Vec<u64> = self.runs.keys().copied().collect();
        for number in numbers {
            let Some(handle) = self.runs.get(&number).map(|live| live.handle.clone()) else {
                continue;
            };
            let (problems, image_size) = (self.data_problems(&handle), self.image_size(&handle));
            let Some(live) = self.runs.get_mut(&number) else {
                continue;
            };
            live.needs.of_images(image_size);
            if live.data_problems != problems {
                live.data_problems.clone_from(&problems);
                live.handle.send(RunInput::DataState(problems));
            }
        }
    }

    fn drain(&mut self, reply: oneshot::Sender<()>) {
        info!(
            active_runs = self.active(),
            "shutdown.draining: checkpointing the runs under way and queueing them again; no run is started"
        );
        if self.draining.is_none() {
            for (number, live) in &self.runs {
                self.undrained.insert(*number);
                live.handle.send(RunInput::Drain);
            }
        }
        self.draining.get_or_insert_default().push(reply);
    }

    /// Nothing is decided about a run any more once its actor has handled what came before.
    fn hand_over(&mut self, reply: oneshot::Sender<()>) {
        info!(
            active_runs = self.active(),
            "shutdown.handing_over: writing the runs out; workers train on until the next coordinator adopts them, and no \
             run is started"
        );
        for live in self.runs.values() {
            live.handle.send(RunInput::Close);
        }
        self.handing_over.get_or_insert_default().push(reply);
    }

    /// Runs that have workers, or a checkpoint that is being stored.
    fn active(&self) -> usize {
        let active = |live: &&Live| live.status.roster.is_some() || live.status.storing;
        self.runs.values().filter(active).count()
    }

    pub(super) fn number(&self, run: &RunId) -> Option<u64> {
        self.numbers.get(run).copied()
    }

    pub(super) fn now(&self) -> u64 {
        self.context.clock.now()
    }

    pub(super) fn end_session(&mut self, worker: &WorkerId, error: ApiError) {
        let Some(id) = self.by_worker.get(worker).copied() else {
            return;
        };
        warn!(%worker, %error, "session.closed: protocol violation by {worker}: {error}");
        if let Some(session) = self.sessions.get(&id) {
            session.end(error.clone());
        }
        self.session_ended(id, &format!("protocol violation: {error}"), None);
    }
}
