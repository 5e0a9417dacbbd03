//! The connection with the coordinator: opened again and again, for as long as the worker lives.
//!
//! ```text
//! connecting ──> Opening ──> Message, Message, ... ──> Down ──> (a jittered delay) ──> connecting
//!                   └──> Refused: the end
//! ```
//!
//! Messages are neither made nor interpreted here: the agent gets one end of each session.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use fovea_proto::{ChannelError, connect_with, describe, is_file, pb, tls_refusal};
use fovea_security::Tls;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::warn;

/// Messages to the coordinator that a session buffers.
const OUTBOUND: usize = 64;
/// Events that are buffered for the agent.
const EVENTS: usize = 64;
/// How long a connection attempt, and the answer to a hello, may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest delay between attempts to reach the coordinator, without its random part. A session that lasted longer
/// starts the delays anew.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// A change of the connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// A session is being opened. The coordinator answers when Hello is in `outbound`.
    Opening(Opening),
    /// A message of the coordinator in the session opened last.
    Message(Box<pb::CoordinatorMessage>),
    /// The session is over, or could not be opened.
    Down(String),
    /// There is no use in another attempt: the coordinator refused the hello, or its address is none. Why; nothing follows.
    Refused(String),
}

/// One end of a session.
#[derive(Debug)]
pub struct Opening {
    /// For other calls.
    pub channel: Channel,
    /// Messages to the coordinator.
    pub outbound: mpsc::Sender<pb::WorkerMessage>,
    /// Dropping it ends the session at once.
    pub guard: DropGuard,
}

/// Keeps a session with the coordinator at `address`, with TLS if there is a certificate, until `tasks` is dropped, or the
/// coordinator refuses this worker for good.
pub fn start(
    address: String,
    tls: Option<Tls>,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<LinkEvent> {
    let (events, receive) = mpsc::channel(EVENTS);
    tasks.spawn(async move {
        let mut delays = backoff().build();
        let mut connected = false;
        loop {
            let begun = Instant::now();
            let reason = match session(&address, tls.as_ref(), &mut connected, &events).await {
                Ok(()) => "the coordinator closed the session".to_owned(),
                Err(SessionError::Refused(status)) => {
                    // Without its receiver the worker is shutting down.
                    let _ = events.send(LinkEvent::Refused(sentence(&status))).await;
                    return;
                }
                // An address in a file may be another one next time. And a worker that has had a session trains on:
                // certificates that have expired meanwhile will be exchanged.
                Err(SessionError::Connect(error))
                    if error.is_final() && !connected && !is_file(&address) =>
                {
                    let _ = events.send(LinkEvent::Refused(error.to_string())).await;
                    return;
                }
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > LONGEST_DELAY {
                delays = backoff().build();
            }
            if events.send(LinkEvent::Down(reason)).await.is_err() {
                return;
            }
            sleep(delays.next().unwrap_or(LONGEST_DELAY)).await;
        }
    });
    receive
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Connect(#[from] ChannelError),
    #[error("the coordinator did not welcome this worker within {CONNECT:?}")]
    NoWelcome(#[from] Elapsed),
    #[error("{}", describe(.0))]
    Status(#[from] Status),
    #[error("the coordinator refuses this worker: {}", sentence(.0))]
    Refused(Status),
    #[error("this worker closed the session")]
    Closed,
    #[error("this worker is shutting down")]
    ShuttingDown,
}

/// One session from beginning to end.
async fn session(
    address: &str,
    tls: Option<&Tls>,
    connected: &mut bool,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), SessionError> {
    let channel = connect_with(address, tls, CONNECT).await?;
    let (outbound, messages) = mpsc::channel(OUTBOUND);
    let closed = CancellationToken::new();
    let opening = Opening {
        channel: channel.clone(),
        outbound,
        guard: closed.clone().drop_guard(),
    };
    let gone = |_| SessionError::ShuttingDown;
    events
        .send(LinkEvent::Opening(opening))
        .await
        .map_err(gone)?;
    let session = async {
        let mut client = pb::workers_client::WorkersClient::new(channel);
        let session = client.session(ReceiverStream::new(messages));
        let not_welcomed = |status| not_welcomed(status, address);
        let session = timeout(CONNECT, session).await?.map_err(not_welcomed)?;
        let mut inbound = session.into_inner();
        let welcome = timeout(CONNECT, inbound.message()).await?;
        let mut welcome = Some(welcome.map_err(not_welcomed)?);
        *connected = true;
        loop {
            let message = match welcome.take() {
                Some(message) => message,
                None => inbound.message().await?,
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
        ended = session => ended,
        () = closed.cancelled() => Err(SessionError::Closed),
    }
}

/// A hello was answered with `status` instead of a welcome.
fn not_welcomed(status: Status, address: &str) -> SessionError {
    if let Some(reason) = tls_refusal(&status) {
        let address = address.to_owned();
        return ChannelError::Refused { address, reason }.into();
    }
    match is_final(&status) {
        true => SessionError::Refused(status),
        false => SessionError::Status(status),
    }
}

/// Whether the same hello would be answered in the same way again: the coordinator itself says that the worker is
/// described wrongly, or not admitted.
fn is_final(status: &Status) -> bool {
    let code = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            // It speaks another version of the protocol.
            | Code::FailedPrecondition
    );
    code && is_the_coordinators(status)
}

/// Whether the coordinator sent this status. One that this end made, because the connection broke, has a source; and a
/// proxy that has no connection with the coordinator answers in HTTP.
fn is_the_coordinators(status: &Status) -> bool {
    std::error::Error::source(status).is_none() && !status.message().contains("mapped from HTTP")
}

/// What a refusal says. A program that is no coordinator gives no text.
fn sentence(status: &Status) -> String {
    match status.message() {
        "" => format!("{} ({:?})", status.code().description(), status.code()),
        text => text.to_owned(),
    }
}

/// The newest channel to the coordinator, for work that outlives a session.
#[derive(Debug, Clone)]
pub struct Coordinator(pub watch::Receiver<Option<Channel>>);

impl Coordinator {
    /// A channel, waiting until there is one.
    pub async fn channel(&mut self) -> Channel {
        match self.0.wait_for(Option::is_some).await.map(|c| c.clone()) {
            Ok(Some(channel)) => channel,
            // The worker shuts down, and this task with it.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Calls `attempt` with the newest channel until it succeeds, or fails with an error for which `is_away` does
    /// not hold.
    pub async fn retry_while_away<T, E, F>(
        &self,
        what: &str,
        is_away: impl Fn(&E) -> bool,
        attempt: impl Fn(Channel) -> F,
    ) -> Result<T, E>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let attempt = || {
            let mut coordinator = self.clone();
            let attempt = &attempt;
            async move { attempt(coordinator.channel().await).await }
        };
        attempt
            .retry(backoff())
            .when(is_away)
            .notify(|error: &E, delay| {
                warn!("coordinator.unavailable: {what}: {error}; trying again in {delay:.1?}");
            })
            .await
    }
}

/// What it means that a call to the coordinator failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is away, shutting down, or the connection broke. Its answer is not known.
    Away,
    /// It cannot read the file now.
    Unreadable,
    /// Its copy of the file is corrupt.
    Corrupt,
    /// It has no room, or is at a limit.
    Exhausted,
    /// Something must be done at the coordinator first.
    Precondition,
    /// Anything else: the same call would meet the same answer.
    Other,
}

/// What `status` means.
///
/// An UNAVAILABLE of the coordinator's own says that it cannot read what was asked for, unless it is shutting down.
pub fn refusal(status: &Status) -> Refused {
    let from_this_end = std::error::Error::source(status).is_some();
    match status.code() {
        Code::Unavailable => {
            let text = status.message();
            let passing = text.contains("shutting down") || text.is_empty();
            match passing || !is_the_coordinators(status) {
                true => Refused::Away,
                false => Refused::Unreadable,
            }
        }
        Code::Cancelled | Code::Unknown | Code::DeadlineExceeded => Refused::Away,
        Code::Internal if from_this_end => Refused::Away,
        Code::DataLoss => Refused::Corrupt,
        Code::ResourceExhausted => Refused::Exhausted,
        Code::FailedPrecondition => Refused::Precondition,
        _ => Refused::Other,
    }
}

/// Delays between attempts to reach the coordinator: 25 ms, doubled up to 500 ms. Each is lengthened at random, by up
/// to its own length, so that many workers do not come back at once. Without end.
pub fn backoff() -> ExponentialBuilder {
    delays(Duration::from_millis(25), LONGEST_DELAY)
}

/// Delays from `shortest` to `longest`, doubled each time, and lengthened at random by up to their own length. Without
/// end.
pub fn delays(shortest: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(shortest)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
}

/// A random number on which no run depends: for ids and names.
///
/// # Panics
/// If the operating system has no randomness to give.
pub fn random_u32() -> u32 {
    getrandom::u32().expect("the operating system gives random bytes")
}

#[cfg(test)]
mod tests;
