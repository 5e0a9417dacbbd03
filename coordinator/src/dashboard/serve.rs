//! The listener: connections within the limits, TLS where others can reach it, and deadlines for everything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fovea_security::{Tls, accept};
use fovea_service::Repeated;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::Dashboard;
use super::routes::answer;
use super::stalling::Stalling;
use super::visitor::Peer;
use crate::net::{Client, Listeners, Permit};

/// The longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long it may leave an answer unread.
const UNREAD: Duration = Duration::from_secs(30);
/// The most bytes of the head of a request.
const HEAD_BYTES: usize = 32 << 10;
/// How long connections may take to end when the coordinator stops.
const ENDING: Duration = Duration::from_millis(500);
/// The pause after an error that will not go away at once, such as EMFILE.
const PAUSE: Duration = Duration::from_millis(200);

/// For a client that is one too many.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\nretry-after: 5\r\n\r\n";
/// For one that speaks plain text where TLS is spoken.
const TLS_ONLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 61\r\n\
connection: close\r\n\r\nThis port speaks TLS. Write https:// in front of the address.";

impl Dashboard {
    /// Serves until the coordinator stops. With TLS if it has a certificate and others can reach one of the addresses.
    pub(crate) async fn serve(self, mut listeners: Listeners) {
        let addresses = listeners.addresses().unwrap_or_default();
        let is_open = addresses.iter().any(|a| !a.ip().is_loopback());
        let tls = self.tls().filter(|_| is_open).cloned();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let all: Vec<String> = addresses
            .iter()
            .map(|a| format!("{scheme}://{a}/"))
            .collect();
        let all = all.join(" and ");
        info!(
            address = all,
            "dashboard.listening: the dashboard is at {all}"
        );
        if is_open && tls.is_none() {
            warn!(
                "dashboard.insecure: the dashboard is served beyond this machine without TLS (allow_insecure); whoever reaches \
                 it commands the coordinator"
            );
        }
        let (closing, tasks) = (self.0.context.closing.clone(), self.0.context.tasks.clone());
        let mut refusals = Repeated::default();
        loop {
            let accepted = tokio::select! {
                () = closing.cancelled() => return,
                accepted = listeners.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "dashboard.accept_failed: the system cannot accept a connection: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let limits = &self.0.context.limits;
            match limits.connection(Some(Client::at(address.ip()))) {
                Ok(permit) => {
                    let connection = self
                        .clone()
                        .connection(stream, address, tls.clone(), permit);
                    tasks.spawn(connection);
                }
                Err(reached) => {
                    if let Some(count) = refusals.on_event(Instant::now()) {
                        warn!(%address, count, "dashboard.refused: closed a new connection from {address}: {reached}");
                    }
                    if tls.is_none() {
                        // Best effort.
                        let _ = stream.try_write(TOO_MANY);
                    }
                }
            }
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<Tls>,
        permit: Permit,
    ) {
        let _permit = permit;
        let Some(tls) = tls else {
            let peer = Peer {
                address,
                identity: None,
                is_private: false,
            };
            return self.speak(stream, peer).await;
        };
        let config = tls.coordinator_config(self.0.context.config.tokens, &[b"http/1.1"]);
        // Browsers give up handshakes with a certificate that they do not know: nothing for the log.
        let Ok(Ok(accepted)) = timeout(HANDSHAKE, accept(stream, config, TLS_ONLY)).await else {
            return;
        };
        let peer = Peer {
            address,
            identity: accepted.peer.map(Arc::new),
            is_private: true,
        };
        self.speak(accepted.stream, peer).await;
    }

    async fn speak<S>(self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let closing = self.0.context.closing.clone();
        let head = self.0.context.config.deadlines().handshake;
        let service = service_fn(move |request| {
            let (dashboard, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, Infallible>(answer(&dashboard, &peer, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // A browser that stays without a request is gone as well.
            .header_read_timeout(head)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Stalling::new(stream, UNREAD)), service);
        let mut connection = pin!(connection);
        tokio::select! {
            // A browser that breaks off hears nothing.
            _ = connection.as_mut() => {}
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = timeout(ENDING, connection).await;
            }
        }
    }
}
