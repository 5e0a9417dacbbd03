//! The connector of channels over TLS.

use std::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use fovea_security::{Begun, Expected, Pin, Tls, begin};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tonic::transport::Uri;
use tower::Service;

/// The protocol above TLS.
const PROTOCOLS: &[&[u8]] = &[b"h2"];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a client shows who it is, and by what it knows the coordinator.
#[derive(Clone)]
pub(crate) enum Trust {
    /// By its certificate, and by the cluster's CAs.
    Member(Tls),
    /// Not at all (a token may), and by the key of its CA.
    ByToken(Pin),
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
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience));
        Self {
            tcp,
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
