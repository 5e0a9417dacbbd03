//! The question that `fovea-coordinator health` and `fovea-worker health` ask a running program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ConfigError;

/// How long the whole question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read, bytes.
const ANSWER: usize = 4096;

/// Why a program does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody answers.
    #[error("nothing answers at {address}: {reason}")]
    Unreachable {
        /// The operations listener.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The program itself says so.
    #[error("{0}")]
    NotHealthy(String),
    /// No address to ask.
    #[error("ops_listen is empty, so nobody can be asked; set it as for the program that runs")]
    NotSet,
    /// `ops_listen` is no address.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The question could not be asked.
    #[error("cannot ask: {0}")]
    Io(#[from] std::io::Error),
}

impl HealthError {
    /// The exit code of the command `health`: 2 for a configuration with which nobody can be asked, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotSet | Self::Config(_) => 2,
            Self::Unreachable { .. } | Self::NotHealthy(_) | Self::Io(_) => 1,
        }
    }
}

/// The command `health`: asks the program whose configuration key `ops_listen` is this one whether it is ready, or alive if
/// `live`. Prints `ok` if it is.
///
/// # Errors
/// It is not, does not answer, or nobody can be asked.
pub fn command(ops_listen: &str, live: bool) -> Result<(), HealthError> {
    let address = super::address(ops_listen)?.ok_or(HealthError::NotSet)?;
    let path = if live { "/livez" } else { "/readyz" };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(health(address, path))?;
    println!("ok");
    Ok(())
}

/// Asks the operations listener at `address` for `path` (`/livez` or `/readyz`). For a listener on all addresses, the
/// loopback address is asked.
///
/// # Errors
/// The program says that it is not healthy, or does not answer within 10 s.
pub(super) async fn health(address: SocketAddr, path: &str) -> Result<(), HealthError> {
    let address = reachable(address);
    let unreachable = |reason: String| HealthError::Unreachable { address, reason };
    let (status, text) = timeout(PATIENCE, get(address, path))
        .await
        .map_err(|_| unreachable(format!("no answer within {PATIENCE:?}")))?
        .map_err(|error| unreachable(error.to_string()))?;
    match status {
        StatusCode::OK => Ok(()),
        _ => Err(HealthError::NotHealthy(text.trim().to_owned())),
    }
}

/// The loopback address of a listener on all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, String), Failed> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(hyper::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok::<_, Failed>((status, text))
    };
    // If it breaks, the exchange fails by itself.
    let connection = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = exchange => answer,
        () = connection => Err("the connection was closed".into()),
    }
}
