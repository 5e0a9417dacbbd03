//! The channel to the collector.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use crate::settings::{Settings, TracesError};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A channel that connects when it is used, and again when its connection has ended.
pub(crate) fn channel(settings: &Settings) -> Result<Channel, TracesError> {
    let endpoint = Endpoint::from(settings.endpoint.clone()).connect_timeout(CONNECT);
    let cas = settings.cas()?;
    if cas.is_empty() {
        return Ok(endpoint.connect_lazy());
    }
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca).map_err(|source| TracesError::Ca {
            path: settings.ca.clone(),
            source,
        })?;
    }
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    let config = Arc::new(config);
    Ok(endpoint.connect_with_connector_lazy(Connector { tcp, config }))
}

/// Connects with TLS. The collector is known by its name, as everywhere on the web.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    config: Arc<ClientConfig>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default();
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let (connecting, config) = (self.tcp.call(uri), Arc::clone(&self.config));
        Box::pin(async move {
            let socket = connecting.await?.into_inner();
            let handshake = TlsConnector::from(config).connect(name?, socket);
            let stream = tokio::time::timeout(CONNECT, handshake).await??;
            Ok(TokioIo::new(stream))
        })
    }
}
