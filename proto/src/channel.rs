//! The one way to open a channel to the coordinator.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use fovea_security::{Pin, Refusal, Tls};
use tonic::transport::{Channel, Endpoint};

use crate::PROTOCOL;
use crate::cause::{Cause, cause, goodbye, limit};
use crate::tls::{Connector, PlainConnector, Trust};

/// Begins an address that is in a file.
const FILE: &str = "file:";

/// Why no channel could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Not an address.
    #[error(
        "{address:?} is not a coordinator's address; write it as https://host:port (http:// without TLS), or file:PATH \
         of a file that holds it"
    )]
    Address { address: String },
    /// The address asks for TLS, and there is no certificate.
    #[error(
        "{address} is an address with TLS, which needs a certificate or a token: set tls_certificate, tls_key and tls_ca \
         (`fovea certs issue` makes the files), log in with a token (`fovea login`; a worker has join_token_file), or \
         write http:// if the coordinator has no TLS"
    )]
    NoCertificate { address: String },
    /// There is a certificate, and the address asks for plain text.
    #[error(
        "{address} is an address without TLS, and tls_certificate, tls_key and tls_ca are set: write https://, or \
         remove these three if the coordinator has no TLS"
    )]
    PlainAddress { address: String },
    /// There is a token, and the address asks for plain text.
    #[error(
        "{address} is an address without TLS, and a token must not be sent in plain text, where others can read it: write \
         https://"
    )]
    PlainToken { address: String },
    /// The address asks for TLS, and who answers there speaks plain text.
    #[error(
        "{address} is an address with TLS, and who answers there speaks plain text: write http:// and leave out certificate \
         and token, or give the coordinator tls_certificate, tls_key and tls_ca"
    )]
    PlainServer { address: String },
    /// The two ends do not accept each other, or one of them speaks plain text.
    #[error("no connection with the coordinator at {address}: {reason}")]
    Refused { address: String, reason: String },
    /// The file that should hold the address.
    #[error(
        "cannot read the coordinator's address from {}: {problem}; the coordinator writes it with --address-file",
        path.display()
    )]
    AddressFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answered.
    #[error("no coordinator answers at {address}: {reason}; is fovea-coordinator running there?")]
    Unreachable { address: String, reason: String },
    /// The coordinator refused the connection.
    #[error("the coordinator at {address} is at a limit: {reason}")]
    Limit { address: String, reason: String },
}

/// HTTP/2 flow control: the most bytes of one stream that its reader has not taken yet.
pub const STREAM_WINDOW: u32 = 1 << 20;

/// HTTP/2 flow control: the most bytes of one connection that are not taken yet. There is room for
/// many streams that nobody reads.
pub const CONNECTION_WINDOW: u32 = 64 << 20;

/// The largest HTTP/2 frame, bytes. With the default of 16 KiB a checkpoint takes thousands of
/// frames, each with its own overhead.
pub const FRAME: u32 = 256 << 10;

/// What a client of Fovea calls itself: `fovea/VERSION protocol/NUMBER`. tonic appends its own name.
pub fn user_agent() -> String {
    format!("fovea/{} protocol/{PROTOCOL}", env!("CARGO_PKG_VERSION"))
}

/// A client of Fovea, as its user agent names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserAgent<'a> {
    /// The program and its version: `fovea/0.1.0`.
    pub program: &'a str,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
}

impl<'a> UserAgent<'a> {
    /// Reads what [`user_agent`] writes. None for other programs (grpcurl, health probes) and for
    /// clients from before version 2, which named neither themselves nor a version.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        let program = words.next().filter(|word| word.starts_with("fovea/"))?;
        let protocol = words.find_map(|word| word.strip_prefix("protocol/"))?;
        Some(Self {
            program,
            protocol: protocol.parse().ok()?,
        })
    }
}

/// [`connect_with`] without TLS.
pub async fn connect(address: &str, timeout: Duration) -> Result<Channel, ChannelError> {
    connect_with(address, None, timeout).await
}

/// Connects to the coordinator at `address`, waiting at most `timeout`: `https://host:port` with TLS, `http://host:port`
/// without, just `host:port`, or `file:PATH` of a file that holds one of these. A file is read again at each call, so that
/// a coordinator may come back on another machine.
///
/// The channel names Fovea's version and the protocol's in every request ([`user_agent`]).
/// Keep-alive pings detect a dead peer even when nothing is being sent.
pub async fn connect_with(
    address: &str,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Result<Channel, ChannelError> {
    open(address, tls.cloned().map(Trust::Member), timeout).await
}

/// The same without a certificate: the coordinator is known by the key of its CA, which a token names. Requests need the
/// token, then.
pub async fn connect_pinned(
    address: &str,
    pin: &Pin,
    timeout: Duration,
) -> Result<Channel, ChannelError> {
    open(address, Some(Trust::ByToken(pin.clone())), timeout).await
}

async fn open(
    address: &str,
    trust: Option<Trust>,
    timeout: Duration,
) -> Result<Channel, ChannelError> {
    let from_file;
    let address = match address.strip_prefix(FILE) {
        // `file:///path` is a path, too.
        Some(path) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            from_file = read_address(path.into(), timeout).await?;
            &from_file
        }
        None => address,
    };
    let bad = || ChannelError::Address {
        address: address.to_owned(),
    };
    let own = || address.to_owned();
    let uri = match (address.split_once("://"), &trust) {
        (Some(("https", _)), None) => return Err(ChannelError::NoCertificate { address: own() }),
        (Some(("http", _)), Some(Trust::Member(_))) => {
            return Err(ChannelError::PlainAddress { address: own() });
        }
        (Some(("http", _)), Some(Trust::ByToken(_))) => {
            return Err(ChannelError::PlainToken { address: own() });
        }
        (Some(_), _) => own(),
        (None, Some(_)) => format!("https://{address}"),
        (None, None) => format!("http://{address}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|_| bad())?;
    if endpoint.uri().host().is_none() || endpoint.uri().port().is_none() {
        return Err(bad());
    }
    let endpoint = endpoint
        .user_agent(user_agent())
        .map_err(|_| bad())?
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        // A stream that is read slowly (a download, a watch) must not use up the connection's
        // window: a worker's session, with its deadlines, lives on the same connection.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let failed = |error| failure(own(), &error);
    let Some(trust) = trust else {
        let connector = PlainConnector::new(timeout);
        let connected = endpoint.connect_with_connector(connector.clone());
        let channel = connected.await.map_err(failed)?;
        return match refusal(&connector, timeout).await {
            Some(Cause::Limit(reason)) => Err(ChannelError::Limit {
                address: own(),
                reason,
            }),
            Some(Cause::Tls(reason)) => Err(ChannelError::Refused {
                address: own(),
                reason,
            }),
            Some(Cause::Broken(_)) | None => Ok(channel),
        };
    };
    let connector = Connector::new(trust, timeout);
    let connected = endpoint.connect_with_connector(connector);
    connected.await.map_err(failed)
}

/// Why a coordinator in plain text refuses the connection, in the first bytes that it sends. hyper loses the reason if the
/// connection ends before the first request. None also for one that says nothing within `patience`.
async fn refusal(connector: &PlainConnector, patience: Duration) -> Option<Cause> {
    let greeting = connector.greeting()?;
    let refusal = tokio::time::timeout(patience, greeting.refusal()).await;
    goodbye(&refusal.ok()??)
}

/// Why there is no connection.
fn failure(address: String, error: &tonic::transport::Error) -> ChannelError {
    if let Some(Refusal::PlainText { reason: Some(text) }) = Refusal::find(error)
        && let Some(reason) = limit(&text)
    {
        return ChannelError::Limit { address, reason };
    }
    if let Some(Refusal::PlainText { reason: None }) = Refusal::find(error) {
        return ChannelError::PlainServer { address };
    }
    match cause(error) {
        Cause::Limit(reason) => ChannelError::Limit { address, reason },
        Cause::Tls(reason) => ChannelError::Refused { address, reason },
        Cause::Broken(reason) => ChannelError::Unreachable { address, reason },
    }
}

impl ChannelError {
    /// Whether another attempt would meet the same, unless somebody changes addresses or certificates.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Address { .. }
            | Self::NoCertificate { .. }
            | Self::PlainAddress { .. }
            | Self::PlainToken { .. }
            | Self::PlainServer { .. }
            | Self::Refused { .. } => true,
            Self::AddressFile { .. } | Self::Unreachable { .. } | Self::Limit { .. } => false,
        }
    }
}

/// Whether an address is that of a file that holds the address.
pub fn is_file(address: &str) -> bool {
    address.starts_with(FILE)
}

/// The address in a file. The file may lie on a mount that does not answer.
async fn read_address(path: PathBuf, timeout: Duration) -> Result<String, ChannelError> {
    /// The longest address, bytes.
    const LONGEST: u64 = 1024;
    let of = path.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        let file = std::fs::File::open(&of)?;
        file.take(LONGEST).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    let fail = |problem: String| {
        let path = path.clone();
        ChannelError::AddressFile { path, problem }
    };
    let text = match tokio::time::timeout(timeout, read).await {
        Ok(Ok(Ok(text))) => text,
        Ok(Ok(Err(error))) => return Err(fail(error.to_string())),
        Ok(Err(error)) => return Err(fail(error.to_string())),
        Err(_) => return Err(fail(format!("it could not be read within {timeout:?}"))),
    };
    match text.trim() {
        "" => Err(fail("it is empty".into())),
        text if text.starts_with(FILE) => Err(fail("it names another file".into())),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_a_file_is_read_at_each_call() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fovea.address");
        let second = Duration::from_secs(1);
        let mut seen = Vec::new();
        // Port 1 refuses; the error names the address that was tried.
        for (text, named) in [
            (None, "No such file"),
            (Some(""), "it is empty"),
            (Some("file:/other"), "it names another file"),
            (
                Some("127.0.0.1:1\n"),
                "no coordinator answers at 127.0.0.1:1:",
            ),
            (
                Some(" http://[::1]:1 "),
                "no coordinator answers at http://[::1]:1:",
            ),
            (
                Some("nonsense"),
                "\"nonsense\" is not a coordinator's address",
            ),
        ] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            for address in [
                format!("file:{}", path.display()),
                format!("file://{}", path.display()),
            ] {
                let error = connect(&address, second).await.unwrap_err().to_string();
                assert!(error.contains(named), "{text:?}: {error}");
                seen.push(error);
            }
        }
        assert!(seen[0].contains(&*path.to_string_lossy()), "{}", seen[0]);
    }

    #[test]
    fn a_user_agent_names_the_protocol() {
        let ours = format!("{} tonic/0.14.9", user_agent());
        let parsed = UserAgent::parse(&ours).unwrap();
        assert_eq!(parsed.protocol, PROTOCOL);
        assert_eq!(parsed.program, concat!("fovea/", env!("CARGO_PKG_VERSION")));
        for other in [
            "",
            "tonic/0.14.9",
            "grpcurl/1.9 protocol/7",
            "fovea/0.1.0",
            "fovea/0.1.0 protocol/two",
            "fovea/0.1.0 protocol/-1",
        ] {
            assert_eq!(UserAgent::parse(other), None, "{other:?}");
        }
    }
}
