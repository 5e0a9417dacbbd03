//! The worker's main loop. It outlives any session: when the coordinator is away, training goes on.
//!
//! ```text
//!          Assignment                    device: ended, interrupted
//!   idle ─────────────> working ───────────────────────────────────────> waiting
//!    ^                   │   ^ Assignment: `next`, when the device is free  │
//!    └── Released ───────┘   └──────────────── Assignment ──────────────────┘
//! ```
//!
//! All state is here and changes in one place, [`Agent::apply`], which never waits. Whatever a lost message
//! would have told is told again in the next session.

mod assignments;
mod session;
mod words;

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

use crate::assignment::{self, Context, Order};
use crate::fetch;
use crate::job::{Ended, JobEvent};
use crate::link::{LinkEvent, Opening};
use crate::reports::Reports;
use assignments::{Current, Stage};
use session::{Session, room, wire};

/// A worker that shuts down lets training go on for so long while the coordinator is away.
const ALONE: Duration = Duration::from_secs(10);
/// How long an aborted assignment may take to let go of the device.
const LET_GO: Duration = Duration::from_secs(60);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

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

/// What is done on behalf of the agent, in tasks that it owns.
pub trait Work {
    /// Begins an assignment.
    fn begin(&self, order: Order) -> AbortOnDropHandle<Ended>;

    /// Gets ready to join a run; returns what stands in the way, or nothing.
    fn prepare(&self, request: pb::Prepare) -> AbortOnDropHandle<String>;

    /// The run whose state the device holds.
    fn held_run(&self) -> Option<RunId>;
}

impl Work for Context {
    fn begin(&self, order: Order) -> AbortOnDropHandle<Ended> {
        let task = assignment::run(self.clone(), order).in_current_span();
        AbortOnDropHandle::new(tokio::spawn(task))
    }

    fn prepare(&self, request: pb::Prepare) -> AbortOnDropHandle<String> {
        let context = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let prepared = fetch::prepare(&context, request).await;
            prepared
                .err()
                .map_or_else(String::new, |refusal| refusal.reason)
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
    /// When a worker that is leaving waits no longer.
    patience_ends: Option<Instant>,
}

struct Preparing {
    run_id: String,
    task: AbortOnDropHandle<String>,
}

/// Something that the agent takes in.
enum Happening {
    Link(LinkEvent),
    Room(Option<mpsc::OwnedPermit<pb::WorkerMessage>>),
    Beat,
    Job(JobEvent),
    Ended(Ended),
    Prepared(String),
    Shutdown,
    PatienceEnds,
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
            patience_ends: None,
        }
    }

    /// Serves the coordinator that `link` leads to until asked to stop.
    pub async fn run(mut self, mut link: mpsc::Receiver<LinkEvent>) {
        while !self.is_done() {
            let talks =
                self.reports.is_due() || self.session.as_ref().is_some_and(Session::has_words);
            let happening = tokio::select! {
                event = heard(&mut link) => Happening::Link(event),
                permit = room(&self.session), if talks => Happening::Room(permit),
                _ = self.beat.tick() => Happening::Beat,
                happening = progress(&mut self.current) => happening,
                problem = prepared(&mut self.preparing) => Happening::Prepared(problem),
                () = self.shutdown.wait(), if !self.leaving => Happening::Shutdown,
                () = until(self.patience_ends) => Happening::PatienceEnds,
            };
            self.apply(happening);
        }
        // What was said goes out; the coordinator then ends the session.
        if let Some(guard) = self.session.take().map(Session::close) {
            let deadline = Instant::now() + LAST_WORDS;
            while let Ok(event) = timeout_at(deadline, heard(&mut link)).await {
                if matches!(event, LinkEvent::Down(_)) {
                    break;
                }
            }
            drop(guard);
        }
    }

    fn apply(&mut self, happening: Happening) {
        match happening {
            Happening::Link(LinkEvent::Opening(opening)) => self.opened(opening),
            Happening::Link(LinkEvent::Message(message)) => {
                // Of a session that this end has given up already.
                if self.session.is_some() {
                    self.received(message.message);
                }
            }
            Happening::Link(LinkEvent::Down(reason)) => {
                warn!("no session with the coordinator: {reason}; trying again");
                self.hang_up();
            }
            Happening::Room(Some(permit)) => {
                if let Some(message) = self.next_word() {
                    permit.send(wire(message));
                }
            }
            Happening::Room(None) => self.hang_up(),
            Happening::Beat => self.beat(),
            Happening::Job(event) => self.happened(event),
            Happening::Ended(ended) => self.ended(ended),
            Happening::Prepared(problem) => {
                if let Some(Preparing { run_id, .. }) = self.preparing.take() {
                    info!(run_id, problem, "prepared to join a run");
                    self.say(FromWorker::Prepared(pb::Prepared { run_id, problem }));
                }
            }
            Happening::Shutdown => {
                self.leaving = true;
                if self.current.is_some() {
                    info!("leaving at the next step boundary");
                }
                self.say(FromWorker::Leaving(pb::Leaving {}));
            }
            Happening::PatienceEnds => self.lose_patience(),
        }
        self.watch_the_time();
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
        // What the session before may not have delivered. It waits for the welcome.
        if let Some(current) = &self.current {
            let again: Vec<FromWorker> = current.news().cloned().collect();
            self.reports.tell_again();
            again.into_iter().for_each(|message| self.say(message));
        }
        if self.leaving {
            self.say(FromWorker::Leaving(pb::Leaving {}));
        }
    }

    fn received(&mut self, message: Option<FromCoordinator>) {
        match message {
            Some(FromCoordinator::Welcome(welcome)) => {
                let Identity {
                    worker, address, ..
                } = &self.identity;
                info!(%worker, address, "joined the coordinator");
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
                    info!(run_id, generation, "stopping at the next step boundary");
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
                info!(run_id, "preparing to join a run");
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
            None => warn!("the coordinator sent a message that this version does not know"),
        }
    }

    /// Says something in the session, if there is one.
    fn say(&mut self, message: FromWorker) {
        if let Some(session) = &mut self.session
            && session.say(message).is_err()
        {
            warn!("the coordinator does not take what is said: ending the session");
            self.hang_up();
        }
    }

    /// What is to be said next: reports before all else, so that they come before what follows from them.
    fn next_word(&mut self) -> Option<FromWorker> {
        let session = self.session.as_mut()?;
        if let Some((run, generation, report)) = self.reports.take_due() {
            session.first(words::report(run, generation, report));
        }
        session.next_word()
    }

    fn beat(&mut self) {
        let serving = self.serving();
        self.sequence += 1;
        let sequence = self.sequence;
        let Heartbeat {
            ticks,
            mut waiting_for,
            polls,
        } = self
            .current
            .as_ref()
            .map_or_else(Heartbeat::default, |current| current.heartbeat(sequence));
        // Nobody keeps it from letting go of the old generation but itself: a device that hangs in a
        // collective must not pass for one that waits. On the way to a boundary, however, it needs its peers
        // of the old generation, and one of them may be stuck.
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
            if session.say_now(heartbeat).is_err() {
                self.hang_up();
            }
        }
    }

    fn hang_up(&mut self) {
        self.session = None;
        self.channels.send_replace(None);
        // Who asked for it does not know any more that it did.
        self.preparing = None;
    }

    /// A worker that leaves ends when it has nothing to do and nothing to say.
    fn is_done(&self) -> bool {
        let silent = |s: &Session| !s.has_words() && !self.reports.is_due();
        self.leaving
            && self.current.is_none()
            && self.next.is_none()
            && self.session.as_ref().is_none_or(silent)
    }

    /// The coordinator's answer to Leaving is waited for, but not for ever.
    fn watch_the_time(&mut self) {
        if !self.leaving || self.session.as_ref().is_some_and(Session::is_welcomed) {
            self.patience_ends = None;
        } else if self.patience_ends.is_none() {
            self.patience_ends = Some(Instant::now() + ALONE);
        }
        let waits = |c: &Current| matches!(c.stage, Stage::Waiting(_));
        if self.leaving && self.session.is_none() && self.current.as_ref().is_some_and(waits) {
            self.current = None;
        }
    }

    fn lose_patience(&mut self) {
        self.next = None;
        match &self.current {
            Some(current) if !current.control.aborted() => {
                warn!("the coordinator is away for too long: letting go of the run");
                current.control.abort();
                self.patience_ends = Some(Instant::now() + LET_GO);
            }
            Some(_) | None => {
                warn!("the device does not let go");
                self.current = None;
                self.session = None;
            }
        }
    }
}

/// The next event of the link.
async fn heard(link: &mut mpsc::Receiver<LinkEvent>) -> LinkEvent {
    match link.recv().await {
        Some(event) => event,
        // Its task lives as long as the program; without it nothing is ever heard.
        None => pending().await,
    }
}

/// What the assignment under way comes to; never, if there is none.
async fn progress(current: &mut Option<Current>) -> Happening {
    match current.as_mut().map(|current| &mut current.stage) {
        Some(Stage::Working { events, task }) => match events.recv().await {
            Some(event) => Happening::Job(event),
            // All is told; the end is near.
            None => Happening::Ended(task.await.unwrap_or_else(|e| {
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
