//! An accepted connection: its deadlines, and the count of its open streams.
//!
//! ```text
//! accepted ──preface and SETTINGS──> served ──no stream for idle_timeout_s──> closed
//! (with TLS,  └──not within handshake_timeout_s──> closed
//!  after the
//!  handshake)
//! ```
//!
//! Pings are not use: both ends send them on an idle connection. What counts is an open stream (a
//! request whose answer is not complete), which the `gate` reports. A worker's session and a watch
//! are open streams, so they are never idle.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fovea_security::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::debug;

use super::handshake::Handshake;
use super::quota::{Client, Permit};
use super::socket::Socket;
use crate::access::caller;

/// How long a connection may take to become useful, and be of no use afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// For the HTTP/2 preface and settings.
    pub handshake: Duration,
    /// Without an open stream.
    pub idle: Duration,
}

/// A connection that is closed when a deadline passes.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Socket,
    info: ConnectionInfo,
    /// None once it is complete.
    handshake: Option<Handshake>,
    deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
    _permit: Permit,
}

/// What requests know about their connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInfo {
    pub(super) tcp: TcpConnectInfo,
    /// Who the client is, by its certificate.
    pub(super) peer: Option<Arc<Identity>>,
    streams: Arc<Streams>,
}

/// The open streams of a connection.
#[derive(Debug)]
struct Streams(Mutex<Use>);

#[derive(Debug)]
struct Use {
    open: u32,
    /// When the last stream ended, or the connection was accepted.
    since: Instant,
}

/// Keeps a stream counted as open until it is dropped.
#[derive(Debug)]
pub(super) struct OpenStream(Arc<Streams>);

/// Who a request came from, as clients are counted; None if it did not come over the network.
pub(crate) fn peer<T>(request: &tonic::Request<T>) -> Option<Client> {
    let address = request.remote_addr()?.ip();
    Some(Client::member(address, caller(request).identity))
}

impl Connection {
    pub(super) fn new(
        stream: Socket,
        peer: SocketAddr,
        deadlines: Deadlines,
        permit: Permit,
    ) -> Self {
        let streams = Streams(Mutex::new(Use {
            open: 0,
            since: Instant::now(),
        }));
        let tcp = TcpConnectInfo {
            local_addr: stream.local_addr().ok(),
            remote_addr: Some(peer),
        };
        Self {
            info: ConnectionInfo {
                tcp,
                peer: stream.peer(),
                streams: Arc::new(streams),
            },
            stream,
            handshake: Some(Handshake::default()),
            deadlines,
            timer: Box::pin(sleep(deadlines.handshake)),
            _permit: permit,
        }
    }

    /// An error once a deadline has passed; otherwise wakes the task when the next one does.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let idle = self.deadlines.idle;
            let problem = if self.handshake.is_some() {
                "the HTTP/2 handshake was not complete within handshake_timeout_s"
            } else {
                let now = Instant::now();
                let used = self.info.streams.lock();
                let next = if used.open > 0 { now } else { used.since } + idle;
                drop(used);
                if next > now {
                    self.timer.as_mut().reset(next);
                    continue;
                }
                "it had no request for idle_timeout_s"
            };
            let peer = self.info.tcp.remote_addr;
            debug!(?peer, "connection.closed: {problem}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
        Ok(())
    }
}

impl ConnectionInfo {
    /// Counts a stream.
    pub(super) fn open_stream(&self) -> OpenStream {
        self.streams.lock().open += 1;
        OpenStream(Arc::clone(&self.streams))
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Use> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut used = self.0.lock();
        used.open -= 1;
        used.since = Instant::now();
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(handshake) = &mut self.handshake
            && handshake.on_bytes(&buffer.filled()[before..])
        {
            self.handshake = None;
        }
        Poll::Ready(Ok(()))
    }
}

/// A peer that reads nothing blocks writes; hyper may not read then, so writes are checked, too.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
