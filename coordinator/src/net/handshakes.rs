//! TLS handshakes: each in a task of its own, so that no client can hold up the accept loop.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use fovea_core::count::count;
use fovea_security::{Refusal, Tls, accept};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::connection::{Connection, Deadlines};
use super::farewell;
use super::quota::Permit;
use super::repeated::Repeated;
use super::socket::Socket;

/// The longest that a client may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Handshakes under way. One more, and the oldest is given up: a client that means it takes
/// milliseconds, so that those that wait for nothing are hit.
const MOST: usize = 512;

/// The protocol above TLS.
const PROTOCOLS: &[&[u8]] = &[b"h2"];

/// The handshakes under way.
#[derive(Debug)]
pub(super) struct Handshakes {
    tls: Tls,
    /// Whether clients without a certificate are let in, for whom a token may speak.
    strangers: bool,
    under_way: JoinSet<Result<Connection, (SocketAddr, Refusal)>>,
    /// The same, oldest first, and some that have ended.
    order: VecDeque<AbortHandle>,
    refusals: Repeated,
}

impl Handshakes {
    pub(super) fn new(tls: Tls, strangers: bool) -> Self {
        Self {
            tls,
            strangers,
            under_way: JoinSet::new(),
            order: VecDeque::new(),
            refusals: Repeated::default(),
        }
    }

    /// Begins one. Its connection comes from [`Handshakes::poll_next`].
    pub(super) fn begin(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        deadlines: Deadlines,
        permit: Permit,
    ) {
        while self.order.front().is_some_and(AbortHandle::is_finished) {
            self.order.pop_front();
        }
        if self.order.len() >= MOST {
            self.order.retain(|handshake| !handshake.is_finished());
        }
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        // Who may do what is decided for each request.
        let config = self.tls.coordinator_config(self.strangers, PROTOCOLS);
        let handshake = self.under_way.spawn(async move {
            let farewell = farewell::tls_only();
            let deadline = DEADLINE.min(deadlines.handshake);
            match timeout(deadline, accept(stream, config, &farewell)).await {
                Ok(Ok(accepted)) => {
                    let socket = Socket::Tls(Box::new(accepted));
                    Ok(Connection::new(socket, peer, deadlines, permit))
                }
                Ok(Err(refusal)) => Err((peer, refusal)),
                Err(_) => Err((peer, Refusal::Slow)),
            }
        });
        self.order.push_back(handshake);
    }

    /// The next connection whose client is known. Pending also when no handshake is under way.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Connection> {
        loop {
            match self.under_way.poll_join_next(context) {
                Poll::Ready(Some(Ok(Ok(connection)))) => return Poll::Ready(connection),
                Poll::Ready(Some(Ok(Err((peer, refusal))))) => self.log(peer, &refusal),
                // Given up for a newer one.
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn log(&mut self, peer: SocketAddr, refusal: &Refusal) {
        if let Some(refused) = self.refusals.on_event(Instant::now()) {
            let reason = refusal.by("the client");
            warn!(
                %peer,
                count = refused,
                "connection.tls_refused: refused {}, the last from {peer}: {reason}",
                count(refused, "TLS handshake", "TLS handshakes")
            );
        }
    }
}
