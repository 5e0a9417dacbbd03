//! The worker's main loop. It outlives any session: when the coordinator is away, training continues.
//!
//! ```text
//!          Assignment                    device: ended, interrupted
//!   idle ─────────────> working ───────────────────────────────────────> waiting
//!    ^                   │   ^ Assignment: `next`, when the device is free  │
//!    └── Released ───────┘   └──────────────── Assignment ──────────────────┘
//! ```
//!
//! All state is here and changes in one place, [`Agent::apply`], which never waits. Reports that a lost session may not
//! have delivered are sent again in the next one.
//!
//! While the coordinator is away, reports accumulate ([`Reports`]). When they reach their limit, the agent takes no
//! more events from the device, which pauses training at a step boundary; no step is dropped.

mod assignments;
mod convert;
mod session;

use std::future::pending;
use std::time::Duration;

use fovea_core::ids::{RunId, WorkerId};
use fovea_core::run::Heartbeat;
use fovea_proto::pb;
use fovea_proto::pb::coordinator_message::Message as FromCoordinator;
use fovea_proto::pb::worker_message::Message as FromWorker;
use fovea_service::{Shutdown, VERSION};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tracing::{Instrument, info, warn};

use crate::assignment::{self, AssignmentHandle};
use crate::context::Context;
use crate::fetch;
use crate::job::{Ended, JobEvent};
use crate::link::{LinkEvent, Opening};
use crate::reports::Reports;
use assignments::{Current, Stage};
use session::{Session, room, wire};

/// A worker that shuts down while the coordinator is away trains on for so long.
const ALONE: Duration = Duration::from_secs(5);
/// How long an aborted assignment may take to end when the worker shuts down.
const ABORTING: Duration = Duration::from_secs(3);
/// How long delivering the last messages may take.
const CLOSING: Duration = Duration::from_secs(1);

/// Who this worker is.
pub struct Identity {
    /// Its id.
    pub worker: WorkerId,
    /// Where peers reach it.
    pub address: String,
    /// The machine's name.
    pub host: String,
    /// Its device.
    pub device: String,
}

/// The work that the agent starts, in tasks that it owns.
pub trait Work {
    /// Begins an assignment.
    fn begin(&self, handle: AssignmentHandle) -> AbortOnDropHandle<Ended>;

    /// Prepares to join a run. Returns why that failed, or an empty text.
    fn prepare(&self, request: pb::Prepare) -> AbortOnDropHandle<String>;

    /// The run whose state the device holds.
    fn held_run(&self) -> Option<RunId>;
}

impl Work for Context {
    fn begin(&self, handle: AssignmentHandle) -> AbortOnDropHandle<Ended> {
        let task = assignment::run(self.clone(), handle).in_current_span();
        AbortOnDropHandle::new(tokio::spawn(task))
    }

    fn prepare(&self, request: pb::Prepare) -> AbortOnDropHandle<String> {
        let context = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let prepared = fetch::prepare(&context, request).await;
            prepared
                .err()
                .map_or_else(String::new, |refusal| refusal.to_string())
        }))
    }

    fn held_run(&self) -> Option<RunId> {
        self.device.held_run()
    }
}

/// The worker, as the coordinator knows it.
pub struct Agent<W> {
    identity: Identity,
    work: W,
    shutdown: Shutdown,
    /// The link's newest channel, for work under way.
    channels: watch::Sender<Option<Channel>>,
    session: Option<Session>,
    current: Option<Current>,
    /// Replaces `current` as soon as the device is free.
    next: Option<pb::Assignment>,
    preparing: Option<Preparing>,
    reports: Reports,
    beat: Interval,
    /// Heartbeats so far.
    sequence: u64,
    leaving: bool,
    /// When a worker that is leaving stops waiting.
    give_up_at: Option<Instant>,
    /// Whether the pause because of full reports was logged.
    paused: bool,
    /// Why the worker cannot serve this coordinator.
    failure: Option<AgentError>,
}

/// Why an agent cannot serve its coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The two have different versions.
    #[error(
        "the coordinator speaks version {coordinator} of the protocol, and this worker ({VERSION}) version {}: run \
         the same release of both",
        fovea_proto::PROTOCOL
    )]
    Protocol {
        /// The coordinator's version of the protocol.
        coordinator: u32,
    },
}

struct Preparing {
    run_id: String,
    task: AbortOnDropHandle<String>,
}

/// Everything that the agent reacts to.
enum Event {
    Link(LinkEvent),
    Room(Option<mpsc::OwnedPermit<pb::WorkerMessage>>),
    Heartbeat,
    Job(JobEvent),
    Ended(Ended),
    Prepared(String),
    Shutdown,
    GiveUp,
}

impl<W: Work> Agent<W> {
    /// An idle worker. It puts the coordinator's newest channel into `channels`.
    pub fn new(
        identity: Identity,
        work: W,
        channels: watch::Sender<Option<Channel>>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            identity,
            work,
            shutdown,
            channels,
            session: None,
            current: None,
            next: None,
            preparing: None,
            reports: Reports::default(),
            beat: every(Duration::from_secs(1)),
            sequence: 0,
            leaving: false,
            give_up_at: None,
            paused: false,
            failure: None,
        }
    }

    /// Serves the coordinator that `link` connects to until asked to stop.
    ///
    /// # Errors
    /// If the coordinator speaks another version of the protocol.
    pub async fn run(mut self, mut link: mpsc::Receiver<LinkEvent>) -> Result<(), AgentError> {
        while !self.is_done() {
            let sends =
                self.reports.is_due() || self.session.as_ref().is_some_and(Session::has_queued);
            let takes = self.takes_events();
            let event = tokio::select! {
                event = link_event(&mut link) => Event::Link(event),
                permit = room(&self.session), if sends => Event::Room(permit),
                _ = self.beat.tick() => Event::Heartbeat,
                event = job_event(&mut self.current), if takes => event,
                problem = prepared(&mut self.preparing) => Event::Prepared(problem),
                () = self.shutdown.wait(), if !self.leaving => Event::Shutdown,
                () = until(self.give_up_at) => Event::GiveUp,
            };
            self.apply(event);
        }
        // What was sent is delivered; the coordinator then ends the session.
        if let Some(guard) = self.session.take().map(Session::close) {
            let deadline = Instant::now() + CLOSING;
            while let Ok(event) = timeout_at(deadline, link_event(&mut link)).await {
                if matches!(event, LinkEvent::Down(_)) {
                    break;
                }
            }
            drop(guard);
        }
        self.failure.map_or(Ok(()), Err)
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Link(LinkEvent::Opening(opening)) => self.opened(opening),
            Event::Link(LinkEvent::Message(message)) => {
                // Otherwise it is of a session that this end has closed.
                if self.session.is_some() {
                    self.received(message.message);
                }
            }
            Event::Link(LinkEvent::Down(reason)) => {
                warn!("session.lost: no session with the coordinator: {reason}; connecting again");
                self.close_session();
            }
            Event::Room(Some(permit)) => {
                if let Some(message) = self.next_message() {
                    permit.send(wire(message));
                }
            }
            Event::Room(None) => self.close_session(),
            Event::Heartbeat => self.send_heartbeat(),
            Event::Job(event) => self.handle_job_event(event),
            Event::Ended(ended) => self.ended(ended),
            Event::Prepared(problem) => {
                if let Some(Preparing { run_id, .. }) = self.preparing.take() {
                    match problem.is_empty() {
                        true => info!(run_id, "join.prepared: ready to join run {run_id}"),
                        false => warn!(run_id, "join.failed: cannot join run {run_id}: {problem}"),
                    }
                    self.send(FromWorker::Prepared(pb::Prepared { run_id, problem }));
                }
            }
            Event::Shutdown => {
                self.leaving = true;
                if self.current.is_some() {
                    info!(
                        "worker.leaving: asked to stop; leaving the run at the next step boundary"
                    );
                }
                self.send(FromWorker::Leaving(pb::Leaving {}));
            }
            Event::GiveUp => self.give_up_waiting(),
        }
        self.update_deadline();
        self.note_pause();
    }

    fn opened(&mut self, opening: Opening) {
        self.channels.send_replace(Some(opening.channel.clone()));
        let Identity {
            worker,
            address,
            host,
            device,
        } = &self.identity;
        let hello = pb::Hello {
            protocol: fovea_proto::PROTOCOL,
            worker_id: worker.to_string(),
            address: address.clone(),
            host: host.clone(),
            device: device.clone(),
            version: VERSION.into(),
            serving: self.serving(),
            held_run_id: self
                .work
                .held_run()
                .map_or_else(String::new, |run| run.to_string()),
        };
        self.session = Session::open(opening, hello).ok();
        // The session before may not have delivered it. It is queued until the welcome.
        if let Some(current) = &self.current {
            let again: Vec<FromWorker> = current.unconfirmed().cloned().collect();
            self.reports.send_again();
            again.into_iter().for_each(|message| self.send(message));
        }
        if self.leaving {
            self.send(FromWorker::Leaving(pb::Leaving {}));
        }
    }

    fn received(&mut self, message: Option<FromCoordinator>) {
        match message {
            Some(FromCoordinator::Welcome(welcome)) => {
                let Identity {
                    worker, address, ..
                } = &self.identity;
                if welcome.protocol != fovea_proto::PROTOCOL {
                    self.failure = Some(AgentError::Protocol {
                        // Version 1 did not name itself.
                        coordinator: welcome.protocol.max(1),
                    });
                    return;
                }
                info!(%worker, address, "session.opened: joined the coordinator");
                self.beat = every(Duration::from_millis(u64::from(
                    welcome.heartbeat_ms.max(10),
                )));
                if let Some(session) = &mut self.session {
                    session.welcome();
                }
            }
            Some(FromCoordinator::Assignment(assignment)) => self.assigned(assignment),
            Some(FromCoordinator::Stop(pb::Stop { run_id, generation })) => {
                if let Some(current) = self.serves(&run_id, generation) {
                    info!(
                        run_id,
                        generation,
                        "assignment.stopping: stopping at the next step boundary, with a checkpoint"
                    );
                    current.control.stop();
                }
            }
            Some(FromCoordinator::Yield(pb::Yield { run_id, generation })) => {
                self.yield_(&run_id, generation);
            }
            Some(FromCoordinator::Abort(pb::Abort {
                run_id,
                generation,
                reason,
            })) => self.abort(&run_id, generation, &reason),
            Some(FromCoordinator::Prepare(request)) => {
                let run_id = request.run_id.clone();
                info!(run_id, "join.preparing: preparing to join run {run_id}");
                let task = self.work.prepare(request);
                self.preparing = Some(Preparing { run_id, task });
            }
            Some(FromCoordinator::Ack(pb::Ack {
                run_id,
                step,
                next_epoch,
            })) => {
                self.reports.acknowledge(&run_id, step, next_epoch);
                if let Some(current) = &self.current {
                    current.acknowledged.send_replace(self.reports.next_epoch());
                }
            }
            None => warn!(
                "message.unknown: the coordinator sent a message that this version does not know; ignoring it"
            ),
        }
    }

    /// Queues a message in the session, if there is one.
    fn send(&mut self, message: FromWorker) {
        if let Some(session) = &mut self.session
            && session.send(message).is_err()
        {
            warn!(
                "session.closed: the coordinator does not read this worker's messages; connecting again"
            );
            self.close_session();
        }
    }

    /// The next message: reports first, so that they arrive before what follows from them.
    fn next_message(&mut self) -> Option<FromWorker> {
        let session = self.session.as_mut()?;
        if let Some((run, generation, report)) = self.reports.take_due() {
            session.send_first(convert::report(run, generation, report));
        }
        session.next_queued()
    }

    fn send_heartbeat(&mut self) {
        let serving = self.serving();
        self.sequence += 1;
        let sequence = self.sequence;
        // A pause until the coordinator acknowledges is not a stuck device.
        if self.paused
            && let Some(current) = &self.current
        {
            current.progress.tick();
        }
        let Heartbeat {
            ticks,
            mut waiting_for,
            polls,
        } = self
            .current
            .as_ref()
            .map_or_else(Heartbeat::default, |current| current.heartbeat(sequence));
        // An aborted generation waits for no peer: a device that hangs in a collective must not pass for one that
        // waits. On the way to a step boundary, however, it needs its peers of the old generation, and one of them may
        // be stuck.
        if self.next.as_ref().is_some_and(|next| !next.at_boundary) {
            waiting_for = None;
        }
        if let Some(session) = self.session.as_ref().filter(|s| s.is_welcomed()) {
            let heartbeat = FromWorker::Heartbeat(pb::Heartbeat {
                sequence,
                serving,
                ticks,
                waiting_for,
                polls,
            });
            if session.send_now(heartbeat).is_err() {
                self.close_session();
            }
        }
    }

    fn close_session(&mut self) {
        self.session = None;
        self.channels.send_replace(None);
        // The coordinator does not remember across sessions that it asked for it.
        self.preparing = None;
    }

    /// Whether the device's events are taken. Not while the reports are full, so that training pauses; always when the
    /// generation is to end, because the device's thread must not block then.
    fn takes_events(&self) -> bool {
        let ending = |c: &Current| c.control.given_up();
        !self.reports.is_full() || self.current.as_ref().is_none_or(ending)
    }

    /// Logs that training pauses because the reports are full, or that it continues.
    fn note_pause(&mut self) {
        let full = self.current.is_some() && self.reports.is_full();
        if full && !self.paused {
            warn!(
                steps = self.reports.steps(),
                mib = self.reports.bytes() >> 20,
                "reports.full: the coordinator has not acknowledged {} steps; training pauses until it does. Check \
                 the coordinator and the network",
                self.reports.steps()
            );
        } else if !full && self.paused {
            info!("reports.drained: the coordinator acknowledges steps again; training continues");
        }
        self.paused = full;
    }

    /// A worker that leaves ends when it has nothing to do and nothing to send.
    fn is_done(&self) -> bool {
        if self.failure.is_some() {
            return true;
        }
        let silent = |s: &Session| !s.has_queued() && !self.reports.is_due();
        self.leaving
            && self.current.is_none()
            && self.next.is_none()
            && self.session.as_ref().is_none_or(silent)
    }

    /// Limits how long a leaving worker waits for the coordinator's answer.
    fn update_deadline(&mut self) {
        if !self.leaving || self.session.as_ref().is_some_and(Session::is_welcomed) {
            self.give_up_at = None;
        } else if self.give_up_at.is_none() {
            self.give_up_at = Some(Instant::now() + ALONE);
        }
        let waits = |c: &Current| matches!(c.stage, Stage::Waiting(_));
        if self.leaving && self.session.is_none() && self.current.as_ref().is_some_and(waits) {
            self.current = None;
        }
    }

    fn give_up_waiting(&mut self) {
        self.next = None;
        match &self.current {
            Some(current) if !current.control.aborted() => {
                warn!(
                    "assignment.abandoned: the coordinator is away while this worker shuts down; aborting the assignment"
                );
                current.control.abort();
                self.give_up_at = Some(Instant::now() + ABORTING);
            }
            Some(_) | None => {
                warn!(
                    "assignment.hung: the aborted assignment has not ended within {ABORTING:?}; exiting without it"
                );
                self.current = None;
                self.session = None;
            }
        }
    }
}

/// The next event of the link.
async fn link_event(link: &mut mpsc::Receiver<LinkEvent>) -> LinkEvent {
    match link.recv().await {
        Some(event) => event,
        // Its task lives as long as the program; without it there are no events.
        None => pending().await,
    }
}

/// The next event of the assignment in progress; never, if there is none.
async fn job_event(current: &mut Option<Current>) -> Event {
    match current.as_mut().map(|current| &mut current.stage) {
        Some(Stage::Working { events, task }) => match events.recv().await {
            Some(event) => Event::Job(event),
            // All events are taken; its task is about to end.
            None => Event::Ended(task.await.unwrap_or_else(|e| {
                Ended::failed(format!("the assignment's task ended early: {e}"), false)
            })),
        },
        Some(Stage::Waiting(_)) | None => pending().await,
    }
}

async fn prepared(preparing: &mut Option<Preparing>) -> String {
    match preparing {
        Some(Preparing { task, .. }) => task.await.unwrap_or_else(|e| e.to_string()),
        None => pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

fn every(period: Duration) -> Interval {
    let mut beat = interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

#[cfg(test)]
mod tests;
