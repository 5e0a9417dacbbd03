//! The connection with the coordinator: opened again and again, for as long as the worker lives.
//!
//! ```text
//! connecting ──> Opening ──> Message, Message, ... ──> Down ──> (a jittered wait) ──> connecting
//! ```
//!
//! What is said over it is not decided here: the agent gets one end of each session.

use std::time::Duration;

use fovea_proto::{connect, pb};
use rand_chacha::rand_core::RngCore;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::warn;

/// Messages to the coordinator that may be under way in a session.
const OUTBOUND: usize = 64;
/// Events that the agent has not taken yet.
const EVENTS: usize = 64;
/// How long a connection attempt, and the answer to a hello, may take.
const CONNECT: Duration = Duration::from_secs(5);

/// What becomes of the connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// A session is being opened. The coordinator answers when Hello is in `outbound`.
    Opening(Opening),
    /// The coordinator said something in the session opened last.
    Message(Box<pb::CoordinatorMessage>),
    /// The session is over, or could not be opened.
    Down(String),
}

/// One end of a session.
#[derive(Debug)]
pub struct Opening {
    /// For other calls.
    pub channel: Channel,
    /// What is said in the session.
    pub outbound: mpsc::Sender<pb::WorkerMessage>,
    /// Dropping it ends the session at once.
    pub guard: DropGuard,
}

/// Keeps a session with the coordinator at `address` until `tasks` is dropped.
pub fn start(address: String, tasks: &mut JoinSet<()>) -> mpsc::Receiver<LinkEvent> {
    let (events, receive) = mpsc::channel(EVENTS);
    tasks.spawn(async move {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let reason = match session(&address, &events).await {
                Ok(()) => "the coordinator closed the session".to_owned(),
                Err(reason) => reason,
            };
            if begun.elapsed() > Backoff::LONGEST {
                backoff = Backoff::default();
            }
            if events.send(LinkEvent::Down(reason)).await.is_err() {
                return;
            }
            backoff.wait().await;
        }
    });
    receive
}

/// One session from beginning to end.
async fn session(address: &str, events: &mpsc::Sender<LinkEvent>) -> Result<(), String> {
    let said = |status: Status| status.message().to_owned();
    let channel = connect(address, CONNECT).await.map_err(|e| e.to_string())?;
    let (outbound, messages) = mpsc::channel(OUTBOUND);
    let hung_up = CancellationToken::new();
    let opening = Opening {
        channel: channel.clone(),
        outbound,
        guard: hung_up.clone().drop_guard(),
    };
    let gone = |_| "the worker shuts down".to_owned();
    events
        .send(LinkEvent::Opening(opening))
        .await
        .map_err(gone)?;
    let talking = async {
        let mut client = pb::workers_client::WorkersClient::new(channel);
        let late = |_| format!("no welcome came within {CONNECT:?}");
        let session = client.session(ReceiverStream::new(messages));
        let mut inbound = timeout(CONNECT, session)
            .await
            .map_err(late)?
            .map_err(said)?
            .into_inner();
        let mut welcome = Some(timeout(CONNECT, next(&mut inbound)).await.map_err(late)??);
        loop {
            let message = match welcome.take() {
                Some(message) => message,
                None => next(&mut inbound).await?,
            };
            let Some(message) = message else {
                return Ok(());
            };
            events
                .send(LinkEvent::Message(Box::new(message)))
                .await
                .map_err(gone)?;
        }
    };
    tokio::select! {
        ended = talking => ended,
        () = hung_up.cancelled() => Err("this worker hung up".into()),
    }
}

async fn next(
    inbound: &mut Streaming<pb::CoordinatorMessage>,
) -> Result<Option<pb::CoordinatorMessage>, String> {
    inbound
        .message()
        .await
        .map_err(|status| status.message().to_owned())
}

/// The newest channel to the coordinator, for work that outlives a session.
#[derive(Debug, Clone)]
pub struct Coordinator(pub watch::Receiver<Option<Channel>>);

impl Coordinator {
    /// A channel, waiting until there is one.
    pub async fn channel(&mut self) -> Channel {
        match self.0.wait_for(Option::is_some).await.map(|c| c.clone()) {
            Ok(Some(channel)) => channel,
            // The worker shuts down, and with it whoever waits here.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Tries `attempt` over the newest channel until it succeeds or fails for another reason than that
    /// the coordinator is away.
    pub async fn patiently<T, E, F>(
        &mut self,
        what: &str,
        is_away: impl Fn(&E) -> bool,
        attempt: impl Fn(Channel) -> F,
    ) -> Result<T, E>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match attempt(self.channel().await).await {
                Err(error) if is_away(&error) => {
                    warn!("{what}: {error}; trying again");
                    backoff.wait().await;
                }
                result => return result,
            }
        }
    }
}

/// Whether a call failed because the coordinator is away, rather than because of what it said.
pub fn is_away(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded => true,
        // With a source it comes from this end: the connection broke.
        Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

/// Waits between attempts: growing, half fixed and half random, so that many workers do not come back at
/// once.
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(50))
    }
}

impl Backoff {
    const LONGEST: Duration = Duration::from_secs(1);

    /// How long to wait now.
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        let random = f64::from(random_u32()) / f64::from(u32::MAX);
        pause.mul_f64(0.5 + random / 2.0)
    }

    /// Waits.
    pub async fn wait(&mut self) {
        sleep(self.next()).await;
    }
}

/// Randomness that no run depends on: ids and waits.
pub fn random_u32() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let seed = std::hash::RandomState::new().build_hasher().finish();
    fovea_core::random::stream("process", &[seed, u64::from(std::process::id())]).next_u32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_and_are_half_random() {
        let mut backoff = Backoff::default();
        for full in [50, 100, 200, 400, 800, 1000, 1000] {
            let full = Duration::from_millis(full);
            let wait = backoff.next();
            assert!(full / 2 <= wait && wait <= full, "{wait:?} of {full:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_an_absence() {
        assert!(is_away(&Status::unavailable("gone")));
        assert!(is_away(&Status::cancelled("gone")));
        for said in [
            Status::internal("a full disk"),
            Status::failed_precondition("over"),
        ] {
            assert!(!is_away(&said), "{said}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_and_tried_again() {
        // Bound and closed: nobody listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut tasks = JoinSet::new();
        let mut events = start(format!("http://{free}"), &mut tasks);
        for _ in 0..2 {
            let event = timeout(Duration::from_secs(20), events.recv())
                .await
                .unwrap();
            assert!(matches!(event, Some(LinkEvent::Down(_))), "{event:?}");
        }
    }
}
