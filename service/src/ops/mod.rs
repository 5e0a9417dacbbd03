//! The operations listener: `/livez`, `/readyz` and `/metrics` over plain HTTP/1.1, and nothing else.
//!
//! Orchestrators and Prometheus ask here. It tells figures and ids of runs and workers, nothing about data or people, and changes
//! nothing, so it has neither TLS nor users; firewalls keep it within the cluster. A client can hold one of a few connections for a few
//! seconds, and no more.
//!
//! ```text
//! accept ──> permit (of CONNECTIONS) ──> one request, within REQUEST ──> answer ──> closed
//! ```

mod ask;
mod figures;
mod process;

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use ask::{HealthError, command};
pub use figures::{Counts, Figures, Histogram, Kind, Metric, reference};

use crate::ConfigError;

/// Connections at the same time.
const CONNECTIONS: usize = 32;

/// How long a connection may last: its request and the answer.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a program may take to show that it is alive. Probes give up later.
const ALIVE: Duration = Duration::from_secs(5);

/// The pause after an error of `accept` that will not go away at once, such as EMFILE.
const PAUSE: Duration = Duration::from_millis(200);

/// The content type of the text format.
const METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The state of a program: whether it lives, or can work; if not, why.
pub type State = Result<(), String>;

/// What the listener asks its program.
pub trait Vitals: Send + Sync + 'static {
    /// Whether the program's main loops turn. It depends on nothing outside of the process: a program that is not
    /// alive is killed and started again. No answer within 5 s counts as not alive.
    fn live(&self) -> Pin<Box<dyn Future<Output = State> + Send + '_>>;

    /// Whether it can do its work now.
    fn ready(&self) -> State;

    /// What it tells Prometheus beyond the figures of its process, read now. Why not, if it cannot be read: then the scrape
    /// fails, instead of showing that everything is gone.
    fn figures(&self) -> Pin<Box<dyn Future<Output = Result<Figures, String>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(Figures::default())))
    }
}

/// The operations listener of a program.
#[derive(Debug)]
pub struct Ops<V> {
    listener: TcpListener,
    shared: Arc<Shared<V>>,
}

#[derive(Debug)]
struct Shared<V> {
    vitals: V,
    registry: Registry,
}

impl<V: Vitals> Ops<V> {
    /// Listens at `address`. `program` is the program's name, for the metric `fovea_build_info`.
    ///
    /// # Errors
    /// As the system says, such as a port in use.
    pub async fn bind(
        address: SocketAddr,
        program: &'static str,
        vitals: V,
    ) -> std::io::Result<Self> {
        let mut registry = Registry::default();
        process::register(&mut registry, program);
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            shared: Arc::new(Shared { vitals, registry }),
        })
    }

    /// The address that it listens at.
    ///
    /// # Errors
    /// As the system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        if let Ok(address) = self.address() {
            info!(%address, "ops.listening: /livez, /readyz and /metrics at http://{address}");
        }
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        // Dropping this ends no task; each has its own deadline.
        let tasks = TaskTracker::new();
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&self.shared);
                    tasks.spawn(async move {
                        // A client that is too slow or breaks off hears nothing.
                        let _ = timeout(REQUEST, answer(stream, &shared)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "ops.accept_failed: cannot accept a connection: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn answer<V: Vitals>(stream: TcpStream, shared: &Shared<V>) -> hyper::Result<()> {
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(
                |request| async move { Ok::<_, Infallible>(respond(&request, shared).await) },
            ),
        )
        .await
}

async fn respond<V: Vitals>(
    request: &Request<Incoming>,
    shared: &Shared<V>,
) -> Response<Full<Bytes>> {
    let known = ["/livez", "/readyz", "/metrics"].contains(&request.uri().path());
    if !known {
        let paths = "not found; there are /livez, /readyz and /metrics\n";
        return text(StatusCode::NOT_FOUND, paths.to_owned());
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/livez" => state(
            timeout(ALIVE, shared.vitals.live())
                .await
                .unwrap_or_else(|_| Err(format!("its main loop did not answer within {ALIVE:?}"))),
        ),
        "/readyz" => state(shared.vitals.ready()),
        _ => match timeout(ALIVE, shared.vitals.figures()).await {
            Ok(Ok(figures)) => metrics(shared, figures),
            Ok(Err(reason)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            Err(_) => {
                let reason = format!("the figures were not there within {ALIVE:?}\n");
                text(StatusCode::SERVICE_UNAVAILABLE, reason)
            }
        },
    }
}

/// The metrics of the process and those of the program.
fn metrics<V>(shared: &Shared<V>, figures: Figures) -> Response<Full<Bytes>> {
    let mut program = Registry::default();
    program.register_collector(Box::new(figures));
    let mut body = String::new();
    let written = encode_registry(&mut body, &shared.registry)
        .and_then(|()| encode_registry(&mut body, &program))
        .and_then(|()| encode_eof(&mut body));
    if written.is_err() {
        let problem = "the metrics cannot be written\n".to_owned();
        return text(StatusCode::INTERNAL_SERVER_ERROR, problem);
    }
    let mut metrics = text(StatusCode::OK, body);
    metrics.headers_mut().insert(CONTENT_TYPE, METRICS);
    metrics
}

fn state(state: State) -> Response<Full<Bytes>> {
    match state {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The address that the configuration key `ops_listen` names; None if it is empty, which means no listener.
///
/// # Errors
/// It is not `host:port`, or the host has no address.
pub fn address(text: &str) -> Result<Option<SocketAddr>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |problem: String| {
        ConfigError::Value(format!(
            "ops_listen is {text:?}: {problem}; give host:port, such as 127.0.0.1:7072, or leave it empty"
        ))
    };
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?;
    found
        .next()
        .map(Some)
        .ok_or_else(|| wrong("the host has no address".into()))
}

#[cfg(test)]
mod tests;
