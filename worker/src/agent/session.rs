//! The agent's end of a session: what is to be said waits here until the link takes it.

use std::collections::VecDeque;

use fovea_proto::pb;
use fovea_proto::pb::worker_message::Message;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::link::Opening;

/// More words than this do not wait: who lets so many pile up does not listen.
const WORDS: usize = 1024;

/// A session that is open, or about to be.
pub(super) struct Session {
    outbound: mpsc::Sender<pb::WorkerMessage>,
    words: VecDeque<Message>,
    welcomed: bool,
    /// Dropped with the session, which the link then ends.
    guard: DropGuard,
}

/// Nobody listens any more.
#[derive(Debug)]
pub(super) struct Deaf;

impl Session {
    /// Begins a session with `hello`.
    pub(super) fn open(opening: Opening, hello: pb::Hello) -> Result<Self, Deaf> {
        let Opening {
            channel: _,
            outbound,
            guard,
        } = opening;
        let session = Self {
            outbound,
            words: VecDeque::new(),
            welcomed: false,
            guard,
        };
        session.say_now(Message::Hello(hello))?;
        Ok(session)
    }

    /// The coordinator has answered: from now on words are passed on.
    pub(super) fn welcome(&mut self) {
        self.welcomed = true;
    }

    /// Whether the coordinator has answered.
    pub(super) fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Says something when its turn comes.
    pub(super) fn say(&mut self, message: Message) -> Result<(), Deaf> {
        if self.words.len() >= WORDS {
            return Err(Deaf);
        }
        self.words.push_back(message);
        Ok(())
    }

    /// Says something at once, before all that waits; not at all if there is no room.
    pub(super) fn say_now(&self, message: Message) -> Result<(), Deaf> {
        match self.outbound.try_send(wire(message)) {
            // What is there keeps the session alive as well.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Deaf),
        }
    }

    /// Whether words wait.
    pub(super) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// The next word that waits.
    pub(super) fn next_word(&mut self) -> Option<Message> {
        self.words.pop_front()
    }

    /// Words that go before those that wait.
    pub(super) fn first(&mut self, messages: Vec<Message>) {
        for message in messages.into_iter().rev() {
            self.words.push_front(message);
        }
    }

    /// Says no more, but lets what was said go out while the returned value is kept.
    pub(super) fn close(self) -> DropGuard {
        self.guard
    }
}

/// Room for one message in the session, once it is welcomed and there is some; None if nobody listens.
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
