//! The accept loop: connections within the limits, whatever goes wrong.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fovea_core::count::count;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;
use tracing::warn;

use super::connection::{Connection, Deadlines};
use super::limits::Limits;
use super::listeners::Listeners;

/// The first and the longest wait after the system could not accept a connection.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A flood of refused connections makes one log line in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The stream of accepted connections. It never ends, and none of its items is an error.
#[derive(Debug)]
pub(crate) struct Incoming {
    listeners: Listeners,
    limits: Limits,
    deadlines: Deadlines,
    /// The wait after an error of the system, and how long the next one is.
    pause: Option<Pin<Box<Sleep>>>,
    next_pause: Duration,
    refusals: Repeated,
    failures: Repeated,
}

impl Incoming {
    pub(crate) fn new(listeners: Listeners, limits: Limits, deadlines: Deadlines) -> Self {
        Self {
            listeners,
            limits,
            deadlines,
            pause: None,
            next_pause: FIRST_PAUSE,
            refusals: Repeated::default(),
            failures: Repeated::default(),
        }
    }

    /// The connection, unless a limit is reached.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        match self.limits.connection(Some(peer.ip())) {
            Ok(permit) => {
                // Heartbeats and acknowledgements are small and urgent. If it fails, they are late.
                let _ = stream.set_nodelay(true);
                Some(Connection::new(stream, peer, self.deadlines, permit))
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
                let _ = stream.try_write(&farewell(&reached));
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

/// What a refused client reads, if it does: an HTTP/2 GOAWAY with the reason, after the empty
/// SETTINGS that every server sends first.
fn farewell(reason: &impl Display) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    let text = format!("connection refused: {reason}");
    let length = 8 + text.len() as u32;
    let mut bytes = SETTINGS.to_vec();
    bytes.extend(&length.to_be_bytes()[1..]);
    // Its type, no flags, and the stream 0: the connection as a whole.
    bytes.extend([7, 0, 0, 0, 0, 0]);
    // No stream was worked on.
    bytes.extend(0u32.to_be_bytes());
    bytes.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// Events of which only one in [`LOG_EVERY`] is logged, with their number.
#[derive(Debug, Default)]
struct Repeated {
    last: Option<Instant>,
    count: u64,
}

impl Repeated {
    /// The number of events since the line before, if it is time for a line.
    fn on_event(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| now < last + LOG_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_few_lines_and_no_event_is_lost() {
        let mut events = Repeated::default();
        let start = Instant::now();
        let mut lines = Vec::new();
        for ms in (0..25_000).step_by(10) {
            lines.extend(events.on_event(start + Duration::from_millis(ms)));
        }
        assert_eq!(lines, [1, 1000, 1000]);
        assert_eq!(events.count, 499);
    }

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
