//! The one way to open a channel to the coordinator.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// Why no channel could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Not an address.
    #[error("{address:?} is not a coordinator's address; write it as http://host:port")]
    Address { address: String },
    /// TLS is not there yet.
    #[error("{address:?}: https is not supported yet; use http:// on a trusted network")]
    Tls { address: String },
    /// Nobody answered.
    #[error("no coordinator answers at {address}: {reason}; is fovea-coordinator running there?")]
    Unreachable { address: String, reason: String },
}

/// Bytes that may be under way to one reader of a stream.
pub const STREAM_WINDOW: u32 = 1 << 20;

/// Bytes that may be under way on a connection: room for many streams that nobody reads.
pub const CONNECTION_WINDOW: u32 = 64 << 20;

/// Bytes that are sent in one piece. Of HTTP/2's default, 16 KiB, a checkpoint takes thousands, each with
/// its own overhead.
pub const FRAME: u32 = 256 << 10;

/// Connects to the coordinator at `address` (`http://host:port`, or just `host:port`), waiting at
/// most `timeout`.
///
/// Keep-alive pings find a dead peer even when nothing is being sent. TLS will be configured here.
pub async fn connect(address: &str, timeout: Duration) -> Result<Channel, ChannelError> {
    let bad = || ChannelError::Address {
        address: address.to_owned(),
    };
    if address.starts_with("https://") {
        return Err(ChannelError::Tls {
            address: address.to_owned(),
        });
    }
    let uri = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|_| bad())?;
    if endpoint.uri().host().is_none() || endpoint.uri().port().is_none() {
        return Err(bad());
    }
    endpoint
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        // A stream that is read slowly (a download, a watch) must not use up the connection's
        // window: a worker's session, with its deadlines, lives on the same connection.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|e| ChannelError::Unreachable {
            address: address.to_owned(),
            reason: root_cause(&e),
        })
}

/// tonic says only "transport error"; what a person needs is at the end of the chain.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
