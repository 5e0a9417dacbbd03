//! The agent's end of a session: outgoing messages are queued here until the link takes them.

use std::collections::VecDeque;

use fovea_proto::pb;
use fovea_proto::pb::worker_message::Message;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::link::Opening;

/// Longest queue. A coordinator that lets it grow longer does not read.
const QUEUE: usize = 1024;

/// A session that is open, or being opened.
pub(super) struct Session {
    outbound: mpsc::Sender<pb::WorkerMessage>,
    queue: VecDeque<Message>,
    welcomed: bool,
    /// Dropped with the session, which the link then ends.
    guard: DropGuard,
}

/// The session's other end is closed, or does not read.
#[derive(Debug, thiserror::Error)]
#[error("the session is disconnected")]
pub(super) struct Disconnected;

impl Session {
    /// Begins a session with `hello`.
    pub(super) fn open(opening: Opening, hello: pb::Hello) -> Result<Self, Disconnected> {
        let Opening {
            channel: _,
            outbound,
            guard,
        } = opening;
        let session = Self {
            outbound,
            queue: VecDeque::new(),
            welcomed: false,
            guard,
        };
        session.send_now(Message::Hello(hello))?;
        Ok(session)
    }

    /// The coordinator has answered the hello: from now on the queue is sent.
    pub(super) fn welcome(&mut self) {
        self.welcomed = true;
    }

    /// Whether the coordinator has answered the hello.
    pub(super) fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Queues a message.
    pub(super) fn send(&mut self, message: Message) -> Result<(), Disconnected> {
        if self.queue.len() >= QUEUE {
            return Err(Disconnected);
        }
        self.queue.push_back(message);
        Ok(())
    }

    /// Sends a message before all that are queued; drops it if the link has no room.
    pub(super) fn send_now(&self, message: Message) -> Result<(), Disconnected> {
        match self.outbound.try_send(wire(message)) {
            // The messages that fill the link keep the session alive as well.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Disconnected),
        }
    }

    /// Whether messages are queued.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next queued message.
    pub(super) fn next_queued(&mut self) -> Option<Message> {
        self.queue.pop_front()
    }

    /// Queues messages before all others.
    pub(super) fn send_first(&mut self, messages: Vec<Message>) {
        for message in messages.into_iter().rev() {
            self.queue.push_front(message);
        }
    }

    /// Sends nothing more; what was sent is still delivered while the returned value is kept.
    pub(super) fn close(self) -> DropGuard {
        self.guard
    }
}

/// Room for one message in the session, once it is welcomed and there is some; None if it is disconnected.
pub(super) async fn room(
    session: &Option<Session>,
) -> Option<mpsc::OwnedPermit<pb::WorkerMessage>> {
    match session {
        Some(session) if session.welcomed => session.outbound.clone().reserve_owned().await.ok(),
        Some(_) | None => std::future::pending().await,
    }
}

pub(super) fn wire(message: Message) -> pb::WorkerMessage {
    pb::WorkerMessage {
        message: Some(message),
    }
}
