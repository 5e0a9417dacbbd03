//! Messages to the coordinator.

use std::time::Duration;

use fovea_core::run::Heartbeat;
use fovea_proto::pb;
use fovea_proto::pb::worker_message::Message;
use tokio::time::Instant;
use tracing::warn;

use super::convert;
use super::session::Session;
use super::state::{Agent, Work};

/// How often an idle worker measures what memory it can use.
pub(super) const MEASURE_AGAIN: Duration = Duration::from_secs(10);

impl<W: Work> Agent<W> {
    /// Queues a message in the session, if there is one.
    pub(super) fn send(&mut self, message: Message) {
        if let Some(session) = &mut self.session
            && session.send(message).is_err()
        {
            warn!(
                "session.closed: the coordinator does not read this worker's messages; connecting again"
            );
            self.contact.closed();
            self.close_session();
        }
    }

    /// The next message: reports first, so that they arrive before what follows from them.
    pub(super) fn next_message(&mut self) -> Option<Message> {
        let session = self.session.as_mut()?;
        if let Some((run, generation, report)) = self.reports.take_due() {
            session.send_first(convert::report(run, generation, report));
        }
        session.next_queued()
    }

    /// Reports what memory this worker can use, if it is idle and that has changed.
    fn report_memory(&mut self) {
        let (known, due) = self.memory;
        let welcomed = self.session.as_ref().is_some_and(Session::is_welcomed);
        let busy = self.current.is_some() || self.next.is_some();
        if busy || !welcomed || Instant::now() < due {
            return;
        }
        let memory = (self.identity.memory)();
        self.memory.1 = Instant::now() + MEASURE_AGAIN;
        if memory.differs(&known) {
            self.memory.0 = memory;
            self.send(Message::Memory(convert::memory(memory)));
        }
    }

    /// Sends a heartbeat, if there is a session.
    pub(super) fn send_heartbeat(&mut self) {
        self.report_memory();
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
            scored,
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
            let heartbeat = Message::Heartbeat(pb::Heartbeat {
                sequence,
                serving,
                ticks,
                waiting_for,
                polls,
                scored,
                load: Some(self.meter.load(self.current.is_some())),
            });
            if session.send_now(heartbeat).is_err() {
                self.close_session();
            }
        }
    }

    /// Ends the session, if there is one.
    pub(super) fn close_session(&mut self) {
        self.session = None;
        self.channels.send_replace(None);
        // The coordinator does not remember across sessions that it asked for it.
        self.preparing = None;
    }
}
