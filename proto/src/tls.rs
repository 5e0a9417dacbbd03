//! The connectors of channels: over TLS, and in plain text.

use std::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use fovea_security::{Begun, Expected, FirstBytes, Greeting, Pin, Tls, begin};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tonic::transport::Uri;
use tower::Service;

/// The protocol above TLS.
const PROTOCOLS: &[&[u8]] = &[b"h2"];

const UNPOISONED: &str = "nobody panics while it is locked";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a client shows who it is, and by what it knows the coordinator.
#[derive(Clone)]
pub(crate) enum Trust {
    /// By its certificate, and by the cluster's CAs.
    Member(Tls),
    /// Not at all (a token may), and by the key of its CA.
    ByToken(Pin),
}

/// Connects sockets.
fn tcp(patience: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(patience));
    tcp
}

/// Connects to the coordinator's host and does the handshake, with the certificate that is current
/// then: a channel that connects anew takes a new one.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    trust: Trust,
    patience: Duration,
}

impl Connector {
    pub(crate) fn new(trust: Trust, patience: Duration) -> Self {
        Self {
            tcp: tcp(patience),
            trust,
            patience,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Begun>;
    type Error = BoxError;
    type Future = pin::Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().to_owned();
        let (connecting, patience) = (self.tcp.call(uri), self.patience);
        let config = match &self.trust {
            Trust::Member(tls) => tls.client_config(Expected::coordinator(), PROTOCOLS),
            Trust::ByToken(pin) => pin.client_config(PROTOCOLS),
        };
        Box::pin(async move {
            let socket = connecting.await?.into_inner();
            let begun = begin(socket, config, &host, patience).await;
            // As itself: boxed first, it would not be found in the error.
            Ok(TokioIo::new(begun.map_err(BoxError::from)?))
        })
    }
}

/// Connects to the coordinator's host in plain text.
#[derive(Clone)]
pub(crate) struct PlainConnector {
    tcp: HttpConnector,
    greeting: Arc<Mutex<Option<Greeting>>>,
}

impl PlainConnector {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            tcp: tcp(patience),
            greeting: Arc::default(),
        }
    }

    /// How the server of the newest connection begins.
    pub(crate) fn greeting(&self) -> Option<Greeting> {
        self.greeting.lock().expect(UNPOISONED).take()
    }
}

impl Service<Uri> for PlainConnector {
    type Response = TokioIo<FirstBytes>;
    type Error = BoxError;
    type Future = pin::Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, greeting) = (self.tcp.call(uri), self.greeting.clone());
        Box::pin(async move {
            let socket = FirstBytes::new(connecting.await?.into_inner());
            *greeting.lock().expect(UNPOISONED) = Some(socket.greeting());
            Ok(TokioIo::new(socket))
        })
    }
}
