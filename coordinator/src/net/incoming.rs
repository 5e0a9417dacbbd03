//! The accept loop: connections within the limits, whatever goes wrong.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fovea_core::count::count;
use fovea_security::Tls;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;
use tracing::warn;

use super::connection::{Connection, Deadlines};
use super::farewell;
use super::handshakes::Handshakes;
use super::limits::Limits;
use super::listeners::Listeners;
use super::quota::Client;
use super::repeated::Repeated;
use super::socket::Socket;

/// The first and the longest wait after the system could not accept a connection.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The stream of accepted connections. It never ends, and none of its items is an error.
#[derive(Debug)]
pub(crate) struct Incoming {
    listeners: Listeners,
    limits: Limits,
    deadlines: Deadlines,
    /// None without TLS.
    handshakes: Option<Handshakes>,
    /// The wait after an error of the system, and how long the next one is.
    pause: Option<Pin<Box<Sleep>>>,
    next_pause: Duration,
    refusals: Repeated,
    failures: Repeated,
}

impl Incoming {
    /// With TLS, clients without a certificate are let in if `strangers` may.
    pub(crate) fn new(
        listeners: Listeners,
        limits: Limits,
        deadlines: Deadlines,
        tls: Option<Tls>,
        strangers: bool,
    ) -> Self {
        Self {
            listeners,
            limits,
            deadlines,
            handshakes: tls.map(|tls| Handshakes::new(tls, strangers)),
            pause: None,
            next_pause: FIRST_PAUSE,
            refusals: Repeated::default(),
            failures: Repeated::default(),
        }
    }

    /// The connection, unless a limit is reached. With TLS it comes when its handshake is done.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        match self.limits.connection(Some(Client::at(peer.ip()))) {
            Ok(permit) => {
                // Heartbeats and acknowledgements are small and urgent. If it fails, they are late.
                let _ = stream.set_nodelay(true);
                if let Some(handshakes) = &mut self.handshakes {
                    handshakes.begin(stream, peer, self.deadlines, permit);
                    return None;
                }
                let socket = Socket::Plain(stream);
                Some(Connection::new(socket, peer, self.deadlines, permit))
            }
            Err(reached) => {
                if let Some(closed) = self.refusals.on_event(Instant::now()) {
                    warn!(
                        %peer,
                        count = closed,
                        "connection.refused: closed {}, the last from {peer}: {reached}",
                        count(closed, "new connection", "new connections")
                    );
                }
                // Best effort: it is closed at once, whether the client can read this or not.
                let _ = stream.try_write(&farewell::beyond_limit(&reached));
                None
            }
        }
    }

    /// Waits after an error that will not go away by itself at once, such as EMFILE.
    fn pause(&mut self, error: &io::Error) {
        if let Some(count) = self.failures.on_event(Instant::now()) {
            warn!(
                count,
                "connection.accept_failed: the system cannot accept a connection: {error}; trying \
                 again in {} ms",
                self.next_pause.as_millis()
            );
        }
        self.pause = Some(Box::pin(sleep(self.next_pause)));
        self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(handshakes) = &mut this.handshakes
                && let Poll::Ready(connection) = handshakes.poll_next(context)
            {
                return Poll::Ready(Some(Ok(connection)));
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(context));
                this.pause = None;
            }
            match ready!(this.listeners.poll_accept(context)) {
                Ok((stream, peer)) => {
                    this.next_pause = FIRST_PAUSE;
                    if let Some(connection) = this.admit(stream, peer) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                    // The loop goes on, so that a handshake that has begun is polled.
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => this.pause(&error),
            }
        }
    }
}

/// Whether the error is about a connection that broke before it was accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_waited_out_and_those_of_a_client_are_not() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            let error = io::Error::from_raw_os_error(code);
            assert!(!concerns_one_connection(&error), "{error}");
        }
        for code in [libc::ECONNABORTED, libc::ECONNRESET, libc::EINTR] {
            let error = io::Error::from_raw_os_error(code);
            assert!(concerns_one_connection(&error), "{error}");
        }
    }
}
