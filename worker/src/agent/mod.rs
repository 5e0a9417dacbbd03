//! The worker's main loop. It outlives any session: when the coordinator is away, training continues.
//!
//! ```text
//!          Assignment                    device: ended, interrupted
//!   idle ─────────────> working ───────────────────────────────────────> waiting
//!    ^                   │   ^ Assignment: `next`, when the device is free  │
//!    └── Released ───────┘   └──────────────── Assignment ──────────────────┘
//! ```
//!
//! All state is in [`Agent`] and changes in one place, [`Agent::apply`], which never waits. Reports that a lost session
//! may not have delivered are sent again in the next one.
//!
//! While the coordinator is away, reports accumulate ([`Reports`]). When they reach their limit, the agent takes no
//! more events from the device, which pauses training at a step boundary; no step is dropped.

mod absence;
mod assignments;
mod convert;
mod current;
mod incoming;
mod outgoing;
mod session;
mod state;

use std::future::pending;
use std::time::Duration;

use fovea_proto::pb;
use fovea_proto::pb::worker_message::Message as FromWorker;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use crate::fetch::Refusal;
use crate::job::{Ended, JobEvent};
use crate::link::LinkEvent;
use crate::pulse;
use current::{Current, Stage};
use session::{Session, room, wire};
use state::Preparing;

pub use state::{Agent, AgentError, Identity, Work};

/// A worker that shuts down while the coordinator is away trains on for so long.
const ALONE: Duration = Duration::from_secs(5);
/// How long an aborted assignment may take to end when the worker shuts down.
const ABORTING: Duration = Duration::from_secs(3);
/// How long delivering the last messages may take.
const CLOSING: Duration = Duration::from_secs(1);
/// So long before a stop must be complete the worker waits for nothing more: what is left is to release the run, to
/// deliver that ([`CLOSING`]), and to end the process.
const LAST: Duration = Duration::from_secs(2);

/// Everything that the agent reacts to.
enum Event {
    Link(LinkEvent),
    Room(Option<mpsc::OwnedPermit<pb::WorkerMessage>>),
    Heartbeat,
    Job(JobEvent),
    Ended(Ended),
    Prepared(Result<(), Refusal>),
    Shutdown,
    Idle,
    GiveUp,
}

impl<W: Work> Agent<W> {
    /// Serves the coordinator that `link` connects to until asked to stop, or idle for too long.
    ///
    /// # Errors
    /// If the coordinator speaks another version of the protocol, or refuses this worker for good.
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
                prepared = prepared(&mut self.preparing) => Event::Prepared(prepared),
                () = self.shutdown.wait(), if !self.leaving => Event::Shutdown,
                () = until(self.idle_until) => Event::Idle,
                () = until(self.give_up_at) => Event::GiveUp,
            };
            self.apply(event);
            self.pulse.turn(self.shown_contact());
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
            Event::Link(LinkEvent::Down(reason)) => self.down(&reason),
            Event::Link(LinkEvent::Refused(reason)) => {
                error!("session.refused: another attempt would meet the same: {reason}");
                self.close_session();
                self.fail(AgentError::Refused { reason });
            }
            Event::Room(Some(permit)) => {
                if let Some(message) = self.next_message() {
                    permit.send(wire(message));
                }
            }
            Event::Room(None) => self.close_session(),
            Event::Heartbeat => self.send_heartbeat(),
            Event::Job(event) => self.handle_job_event(event),
            Event::Ended(ended) => {
                let gave_up = |c: &Current| self.leaving && c.control.aborted();
                let gave_up = self.current.as_ref().is_some_and(gave_up);
                self.ended(ended);
                if gave_up && self.failure.is_none() && self.leave_by.is_some() {
                    self.deliver_last();
                }
            }
            Event::Prepared(prepared) => {
                if let Some(Preparing { run_id, .. }) = self.preparing.take() {
                    match &prepared {
                        Ok(()) => info!(run_id, "join.prepared: ready to join run {run_id}"),
                        Err(refusal) => {
                            warn!(run_id, "join.failed: cannot join run {run_id}: {refusal}");
                        }
                    }
                    self.send(convert::prepared(run_id, prepared));
                }
            }
            Event::Shutdown => {
                if self.current.is_some() {
                    info!(
                        "worker.leaving: asked to stop; leaving the run at the next step boundary"
                    );
                }
                self.leave();
            }
            Event::Idle => {
                let limit = self.exit_when_idle.unwrap_or_default().as_secs();
                info!("worker.idle: no assignment for {limit} s (exit_when_idle_s); leaving");
                self.leave();
            }
            Event::GiveUp => self.give_up_waiting(),
        }
        self.update_idle();
        self.update_deadline();
        self.note_pause();
    }

    fn shown_contact(&self) -> pulse::Contact {
        match &self.session {
            _ if self.leaving => pulse::Contact::Leaving,
            Some(session) if session.is_welcomed() => pulse::Contact::Joined,
            Some(_) | None => pulse::Contact::Away,
        }
    }

    /// Takes no more work, and says so.
    fn leave(&mut self) {
        self.leaving = true;
        self.leave_by = self.stop_within.and_then(|limit| {
            let waits = limit.saturating_sub(LAST).max(limit / 2);
            Instant::now().checked_add(waits)
        });
        if let Some(current) = &self.current {
            current.control.leave();
        }
        self.send(FromWorker::Leaving(pb::Leaving {}));
    }

    /// Ends the worker with an error, once the device computes no more.
    fn fail(&mut self, error: AgentError) {
        self.failure = Some(error);
        self.next = None;
        self.preparing = None;
        if let Some(current) = &self.current {
            current.control.abort();
            self.give_up_at = Some(Instant::now() + ABORTING);
        }
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
                "reports.full: the coordinator has not acknowledged {}; training pauses until it does. Check \
                 the coordinator and the network",
                fovea_core::count::count(self.reports.steps(), "step", "steps")
            );
        } else if !full && self.paused {
            info!("reports.drained: the coordinator acknowledges steps again; training continues");
        }
        self.paused = full;
    }

    /// A worker that leaves ends when it has nothing to do and nothing to send.
    fn is_done(&self) -> bool {
        if self.failure.is_some() {
            // The device must not compute when the process ends.
            return !matches!(&self.current, Some(current) if current.is_working());
        }
        let silent = |s: &Session| !s.has_queued() && !self.reports.is_due();
        self.leaving
            && self.current.is_none()
            && self.next.is_none()
            && self.session.as_ref().is_none_or(silent)
    }

    /// Limits how long a leaving worker waits: for a coordinator that is away, and for one that does not take what this
    /// worker holds.
    fn update_deadline(&mut self) {
        if self.failure.is_some() {
            // Set when it failed.
        } else if !self.leaving {
            self.give_up_at = None;
        } else if self.session.as_ref().is_some_and(Session::is_welcomed) {
            self.give_up_at = self.leave_by;
        } else {
            let limits = [self.give_up_at, self.leave_by];
            let alone = Instant::now() + ALONE;
            self.give_up_at = limits.into_iter().flatten().chain([alone]).min();
        }
        let waits = |c: &Current| matches!(c.stage, Stage::Waiting(_));
        if self.leaving && self.session.is_none() && self.current.as_ref().is_some_and(waits) {
            self.current = None;
        }
    }

    /// Nothing is left but to deliver the last messages.
    fn deliver_last(&mut self) {
        self.leave_by = Some(Instant::now() + CLOSING);
        self.give_up_at = self.leave_by;
    }

    fn give_up_waiting(&mut self) {
        self.next = None;
        match &self.current {
            Some(current) if matches!(current.stage, Stage::Waiting(_)) => {
                self.release();
                self.deliver_last();
            }
            Some(current) if !current.control.aborted() => {
                let why = match self.session.as_ref().is_some_and(Session::is_welcomed) {
                    true => "it has not ended in time",
                    false => "the coordinator is away",
                };
                warn!(
                    "assignment.abandoned: {why} while this worker shuts down; aborting the assignment"
                );
                current.control.abort();
                self.leave_by = Some(Instant::now() + ABORTING);
                self.give_up_at = self.leave_by;
            }
            // The session was never welcomed, or takes nothing.
            None => self.session = None,
            Some(_) => {
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

async fn prepared(preparing: &mut Option<Preparing>) -> Result<(), Refusal> {
    match preparing {
        Some(Preparing { task, .. }) => task.await.unwrap_or_else(|e| Err(Refusal::passing(e))),
        None => pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
