//! The connector of channels over TLS.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use fovea_security::{Begun, Expected, Tls, begin};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tonic::transport::Uri;
use tower::Service;

/// The protocol above TLS.
const PROTOCOLS: &[&[u8]] = &[b"h2"];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to the coordinator's host and does the handshake, with the certificate that is current
/// then: a channel that connects anew takes a new one.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Tls,
    patience: Duration,
}

impl Connector {
    pub(crate) fn new(tls: Tls, patience: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience));
        Self { tcp, tls, patience }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Begun>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().to_owned();
        let (connecting, patience) = (self.tcp.call(uri), self.patience);
        let config = self.tls.client_config(Expected::coordinator(), PROTOCOLS);
        Box::pin(async move {
            let socket = connecting.await?.into_inner();
            let begun = begin(socket, config, &host, patience).await;
            // As itself: boxed first, it would not be found in the error.
            Ok(TokioIo::new(begun.map_err(BoxError::from)?))
        })
    }
}
