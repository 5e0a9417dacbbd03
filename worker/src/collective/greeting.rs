//! How a connection between workers begins: who calls, who is called, and what they say first.
//!
//! ```text
//! in plain text:  caller ── greeting ──> called ── answer ──> caller
//! under TLS:      handshake, called ── answer ──> caller ── greeting ──> called
//! then:           called ── claim ──> caller
//! ```
//!
//! The answer says that the port is a worker's. The claim says that the generation takes the call, and comes when the called worker
//! has fetched all that it needs, which may take long.
//!
//! Under TLS the caller sends nothing before the called has accepted its certificate: the greeting holds the generation's
//! key. The caller knows whom it calls, and refuses anybody else. The called learns who calls, and its name is compared
//! when a generation claims the connection.
//!
//! The two do not mix. Each end recognizes the other kind by its first bytes and says so in plain text before it closes.

use std::io::{self, IoSlice};
use std::time::Duration;

use fovea_security::{Expected, Identity, Parts, Refusal, Role, Tls, accept, begin, say_goodbye};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::MeshKey;
use super::channel::Channel;

/// The protocol inside TLS.
const PROTOCOLS: &[&[u8]] = &[b"fovea-mesh/3"];
/// The start of a peer's greeting, and the answer to it.
const MAGIC: [u8; 8] = *b"fovea-m3";
/// What a caller is told when a generation takes its call.
const CLAIMED: [u8; 8] = *b"fovea-c3";
/// The whole greeting of a probe, and the answer to it.
const PROBE: [u8; 8] = *b"fovea-p3";
/// The answer of a worker with TLS to one in plain text.
const TLS_ONLY: [u8; 8] = *b"fovea-t3";
/// The answer of a worker in plain text to one with TLS.
const NO_TLS: [u8; 8] = *b"fovea-n3";
/// The first byte of a TLS connection.
const HANDSHAKE: u8 = 0x16;

/// Why there is no connection with a peer.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// The network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer did not do its part in time.
    #[error("no answer within {0:?}")]
    Slow(Duration),
    /// No agreement about TLS.
    #[error("{}", .0.by("the worker there"))]
    Refused(Refusal),
    /// A peer with TLS, and this worker has none.
    #[error(
        "the worker there speaks TLS only, and this one plain text; give both tls_certificate, tls_key and tls_ca, or \
         neither"
    )]
    TlsOnly,
    /// It begins in another way than a peer.
    #[error("the program there is not a worker, or one of another version")]
    NotAPeer,
}

impl From<Refusal> for GreetingError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a peer says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    /// That of its generation.
    pub(super) key: MeshKey,
    /// Its rank there.
    pub(super) rank: u32,
}

impl Greeting {
    const BYTES: usize = MAGIC.len() + 16 + 4;

    fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.key);
        bytes[24..].copy_from_slice(&self.rank.to_le_bytes());
        bytes
    }
}

/// A peer that has called.
pub(super) struct Caller {
    pub(super) greeting: Greeting,
    pub(super) channel: Channel,
    /// Who it is; None in plain text.
    pub(super) identity: Option<Identity>,
}

impl Caller {
    /// Tells the caller that a generation takes its call.
    ///
    /// # Errors
    /// If the caller has hung up.
    pub(super) fn claim(mut self) -> io::Result<Channel> {
        let sent = self.channel.send(&[IoSlice::new(&CLAIMED)])?;
        // It is the first message after the handshake, so there is room for it.
        match sent.taken == CLAIMED.len() && !sent.pending {
            true => Ok(self.channel),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// A call that was answered, and that no generation has claimed yet.
pub(super) struct Called(Channel);

impl Called {
    /// Waits until a generation of the called worker claims the call.
    ///
    /// # Errors
    /// If the called worker hangs up before, or says something else.
    pub(super) async fn claimed(self) -> Result<Channel, GreetingError> {
        let Self(mut channel) = self;
        let socket = TcpStream::from_std(channel.socket().try_clone()?)?;
        let mut claim = [0; CLAIMED.len()];
        let mut read = 0;
        // No byte more: the first message of the generation may follow.
        while read < claim.len() {
            // TLS may have read it from the socket with the handshake, after which the socket shows nothing.
            let done = match channel.read(&mut claim[read..]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    socket.readable().await?;
                    socket.try_io(Interest::READABLE, || channel.read(&mut claim[read..]))
                }
                done => done,
            };
            match done {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(bytes) => read += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        match claim {
            CLAIMED => Ok(channel),
            _ => Err(GreetingError::NotAPeer),
        }
    }
}

/// Calls the worker whose process is `worker` and greets it. It must answer within `patience`.
pub(super) async fn call(
    tls: Option<&Tls>,
    address: &str,
    worker: &str,
    greeting: Greeting,
    patience: Duration,
) -> Result<Called, GreetingError> {
    within(patience, async {
        let mut stream = open(address, patience).await?;
        let Some(tls) = tls else {
            stream.write_all(&greeting.bytes()).await?;
            answered(&mut stream, MAGIC).await?;
            return Ok(Called(Channel::plain(stream.into_std()?)?));
        };
        let expected = Expected::WorkerProcess(worker.to_owned());
        let config = tls.client_config(expected, PROTOCOLS);
        let mut stream = begin(stream, config, NAME, patience).await?;
        answered(&mut stream, MAGIC).await?;
        stream.write_all(&greeting.bytes()).await?;
        stream.flush().await?;
        Ok(Called(Channel::secured(ours(stream.try_into()?)?)?))
    })
    .await
}

/// Connects to a worker's port for peers and waits for its answer, within `patience`. It shows that the worker can be
/// reached from here, before a generation counts on it.
pub(super) async fn probe(
    tls: Option<&Tls>,
    address: &str,
    worker: &str,
    patience: Duration,
) -> Result<(), GreetingError> {
    within(patience, async {
        let mut stream = open(address, patience).await?;
        let Some(tls) = tls else {
            stream.write_all(&PROBE).await?;
            return answered(&mut stream, PROBE).await;
        };
        let expected = Expected::WorkerProcess(worker.to_owned());
        let config = tls.client_config(expected, PROTOCOLS);
        let mut stream = begin(stream, config, NAME, patience).await?;
        answered(&mut stream, MAGIC).await?;
        stream.write_all(&PROBE).await?;
        stream.flush().await?;
        answered(&mut stream, PROBE).await
    })
    .await
}

/// Reads a peer's greeting. A probe is answered, and is None.
pub(super) async fn answer(
    tls: Option<&Tls>,
    mut stream: TcpStream,
) -> Result<Option<Caller>, GreetingError> {
    let Some(tls) = tls else {
        let Some(greeting) = answer_in_plain_text(&mut stream).await? else {
            return Ok(None);
        };
        return Ok(Some(Caller {
            greeting,
            channel: Channel::plain(stream.into_std()?)?,
            identity: None,
        }));
    };
    let config = tls.server_config(Expected::Role(Role::Worker), PROTOCOLS);
    let mut accepted = accept(stream, config, &TLS_ONLY).await?;
    let Some(identity) = accepted.peer.take() else {
        return Err(Refusal::NoCertificate.into());
    };
    let stream = &mut accepted.stream;
    stream.write_all(&MAGIC).await?;
    stream.flush().await?;
    let Some(greeting) = greeted(stream).await? else {
        stream.write_all(&PROBE).await?;
        stream.flush().await?;
        return Ok(None);
    };
    Ok(Some(Caller {
        greeting,
        channel: Channel::secured(ours(accepted.into())?)?,
        identity: Some(identity),
    }))
}

/// A name that certificates are not looked up by.
const NAME: &str = "fovea";

async fn answer_in_plain_text(stream: &mut TcpStream) -> Result<Option<Greeting>, GreetingError> {
    let mut first = [0];
    if stream.peek(&mut first).await? > 0 && first[0] == HANDSHAKE {
        say_goodbye(stream, &NO_TLS).await;
        return Err(GreetingError::TlsOnly);
    }
    let greeting = greeted(stream).await?;
    let answer = match greeting {
        Some(_) => MAGIC,
        None => PROBE,
    };
    stream.write_all(&answer).await?;
    Ok(greeting)
}

/// What the caller says: None for a probe.
async fn greeted(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Greeting>, GreetingError> {
    let mut magic = [0; 8];
    stream.read_exact(&mut magic).await?;
    match magic {
        PROBE => return Ok(None),
        MAGIC => {}
        _ => return Err(GreetingError::NotAPeer),
    }
    let mut key = [0; 16];
    stream.read_exact(&mut key).await?;
    let rank = stream.read_u32_le().await?;
    Ok(Some(Greeting { key, rank }))
}

/// Waits for the `expected` answer.
async fn answered(
    stream: &mut (impl AsyncRead + Unpin),
    expected: [u8; 8],
) -> Result<(), GreetingError> {
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    match answer {
        answer if answer == expected => Ok(()),
        TLS_ONLY => Err(GreetingError::TlsOnly),
        _ => Err(GreetingError::NotAPeer),
    }
}

/// Checks that both ends have agreed on the protocol inside TLS.
fn ours(parts: Parts) -> Result<Parts, GreetingError> {
    match parts.connection.alpn_protocol() {
        Some(protocol) if PROTOCOLS.contains(&protocol) => Ok(parts),
        Some(_) | None => Err(GreetingError::NotAPeer),
    }
}

/// Connects to the first address of a name that answers, within `patience` for all together.
async fn open(address: &str, patience: Duration) -> Result<TcpStream, GreetingError> {
    let targets: Vec<_> = lookup_host(address).await?.collect();
    let patience = patience / targets.len().max(1) as u32;
    let mut failed = io::Error::other("the name has no address").into();
    for target in targets {
        match within(patience, async { Ok(TcpStream::connect(target).await?) }).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, GreetingError>>,
) -> Result<T, GreetingError> {
    match timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => Err(GreetingError::Slow(patience)),
    }
}

#[cfg(test)]
#[path = "greeting_tests.rs"]
mod tests;
