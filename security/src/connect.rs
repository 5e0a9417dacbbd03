//! Handshakes on tokio's sockets: the server's and the client's.
//!
//! Both look at the first bytes that come, so that an end that speaks plain text is told apart from
//! one that speaks TLS wrongly, and learns why it is refused.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::tls::peer_identity;

/// The first byte of a TLS connection: a record that carries a handshake.
const HANDSHAKE: u8 = 0x16;
/// The first byte of a server's refusal of a TLS connection.
const ALERT: u8 = 0x15;

/// The type of HTTP/2's GOAWAY frame.
const GOAWAY: u8 = 7;

/// How many of the first bytes are kept for a look at them.
const KEPT: usize = 1024;

/// How long a server that speaks plain text may take to say more.
const MORE: Duration = Duration::from_millis(200);

/// A server's end of a connection after the handshake.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: server::TlsStream<TcpStream>,
    /// Who the client is; None if the server lets in clients without a certificate, and this is one.
    pub peer: Option<Identity>,
}

/// Does a server's part of the handshake. A client that speaks plain text gets `farewell`, in plain
/// text.
///
/// # Errors
/// The client does not speak TLS 1.3, or shows a certificate that is not accepted, or none where one is demanded.
pub async fn accept(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    farewell: &[u8],
) -> Result<Accepted, Refusal> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Err(Refusal::Broken("the connection was closed".into())),
        Ok(_) if first[0] == HANDSHAKE => {}
        Ok(_) => {
            say_goodbye(&mut stream, farewell).await;
            return Err(Refusal::PlainText { reason: None });
        }
        Err(error) => return Err(Refusal::from(&error)),
    }
    let stream = TlsAcceptor::from(config)
        .accept(stream)
        .await
        .map_err(|error| Refusal::from(&error))?;
    let peer = peer_identity(stream.get_ref().1.peer_certificates());
    Ok(Accepted { stream, peer })
}

/// Sends a client `farewell` in plain text, and closes. Best effort. What the client still sends is read: a connection
/// that is closed with unread bytes is reset, and the farewell would be lost.
pub async fn say_goodbye(stream: &mut TcpStream, farewell: &[u8]) {
    use tokio::io::AsyncWriteExt;
    if stream.write_all(farewell).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 4096];
    let drain = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    let _ = timeout(Duration::from_secs(1), drain).await;
}

/// A client's end of a connection: TLS over a socket, with what the server has sent already.
pub type Begun = BufReader<client::TlsStream<FirstBytes>>;

/// Does a client's part of the handshake, and waits for the server's first bytes for at most
/// `patience`: with TLS 1.3 the client's part ends before the server has looked at its certificate,
/// so only these show that it is accepted. `host` is what the server may choose a certificate by.
///
/// # Errors
/// The server does not speak TLS 1.3, shows no certificate that is accepted, or refuses ours.
pub async fn begin(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    host: &str,
    patience: Duration,
) -> Result<Begun, Refusal> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .unwrap_or_else(|_| ServerName::try_from("fovea").expect("a DNS name"));
    let handshake = TlsConnector::from(config)
        .connect(name, FirstBytes::new(stream))
        .into_fallible();
    let stream = match timeout(patience, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            return Err(match stream.plain_text().await {
                Some(refusal) => refusal,
                None => Refusal::from(&error),
            });
        }
        Err(_) => return Err(Refusal::Slow),
    };
    // So small that reads go past it.
    let mut stream = BufReader::with_capacity(16, stream);
    match timeout(patience, stream.fill_buf()).await {
        Ok(Ok([])) => Err(Refusal::Broken("the connection was closed".into())),
        // Without an answer: another server than ours may wait for the first request.
        Ok(Ok(_)) | Err(_) => Ok(stream),
        Ok(Err(error)) => Err(Refusal::from(&error)),
    }
}

/// A connection whose handshake is done, for who moves its bytes without tokio.
#[derive(Debug)]
pub struct Parts {
    /// The socket.
    pub stream: TcpStream,
    /// What encrypts and decrypts. It may hold bytes that have come already.
    pub connection: rustls::Connection,
}

impl From<Accepted> for Parts {
    fn from(accepted: Accepted) -> Self {
        let (stream, connection) = accepted.stream.into_inner();
        let connection = connection.into();
        Self { stream, connection }
    }
}

impl TryFrom<Begun> for Parts {
    type Error = Refusal;

    /// # Errors
    /// The server has sent bytes that are not read yet.
    fn try_from(begun: Begun) -> Result<Self, Refusal> {
        if !begun.buffer().is_empty() {
            return Err(Refusal::Broken("it sent more than was expected".into()));
        }
        let (first, connection) = begun.into_inner().into_inner();
        let (stream, connection) = (first.stream, connection.into());
        Ok(Self { stream, connection })
    }
}

/// A socket that keeps the first bytes that come.
#[derive(Debug)]
pub struct FirstBytes {
    stream: TcpStream,
    first: watch::Sender<Vec<u8>>,
}

impl FirstBytes {
    /// A socket from which nothing has been read.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            first: watch::Sender::default(),
        }
    }

    /// How the server begins, for who does not read the socket itself.
    pub fn greeting(&self) -> Greeting {
        Greeting(self.first.subscribe())
    }

    /// The refusal, if the server speaks plain text.
    async fn plain_text(mut self) -> Option<Refusal> {
        let mut first = self.first.borrow().clone();
        if matches!(first.first(), None | Some(&HANDSHAKE | &ALERT)) {
            return None;
        }
        let mut more = [0; KEPT];
        if let Ok(Ok(n)) = timeout(MORE, self.stream.read(&mut more)).await {
            first.extend(&more[..n]);
        }
        Some(Refusal::PlainText {
            reason: goodbye(&first),
        })
    }
}

/// The first bytes of a server that speaks HTTP/2 in plain text, while another task reads them.
#[derive(Debug)]
pub struct Greeting(watch::Receiver<Vec<u8>>);

impl Greeting {
    /// Waits until the server has taken the client in, or has refused it: then the reason in its GOAWAY. None also if the
    /// connection ends without a reason.
    pub async fn refusal(mut self) -> Option<String> {
        let begun = self
            .0
            .wait_for(|first| goodbye(first).is_some() || is_welcome(first));
        goodbye(&begun.await.ok()?)
    }
}

/// Whether a server that begins like this has not refused: its SETTINGS set something, something else than a GOAWAY
/// follows them, or it does not begin with SETTINGS at all and speaks another protocol.
fn is_welcome(first: &[u8]) -> bool {
    const SETTINGS: u8 = 4;
    match first.split_at_checked(9) {
        Some(([0, 0, 0, SETTINGS, ..], rest)) => {
            rest.get(3).is_some_and(|kind| *kind != GOAWAY) || first.len() >= KEPT
        }
        Some(_) => true,
        None => false,
    }
}

/// The reason in an HTTP/2 GOAWAY at the end of `bytes`, behind the server's SETTINGS.
fn goodbye(mut bytes: &[u8]) -> Option<String> {
    loop {
        let (header, rest) = bytes.split_at_checked(9)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        if header[3] == GOAWAY {
            let text = String::from_utf8_lossy(payload.get(8..)?).into_owned();
            return (!text.is_empty()).then_some(text);
        }
        bytes = rest;
    }
}

impl AsyncRead for FirstBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let room = KEPT - self.first.borrow().len();
        let new = &buffer.filled()[before..];
        if room > 0 && !new.is_empty() {
            let new = &new[..new.len().min(room)];
            self.first.send_modify(|first| first.extend(new));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FirstBytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_refused_or_welcomed_as_soon_as_its_bytes_show_it() {
        const EMPTY: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let mut refused = EMPTY.to_vec();
        refused.extend([0, 0, 8 + 4, GOAWAY, 0, 0, 0, 0, 0]);
        refused.extend([0, 0, 0, 0, 0, 0, 0, 0xb]);
        refused.extend(b"full");
        for n in 0..refused.len() {
            let first = &refused[..n];
            assert_eq!((goodbye(first), is_welcome(first)), (None, false), "{n}");
        }
        assert_eq!(goodbye(&refused).as_deref(), Some("full"));

        let mut acknowledged = EMPTY.to_vec();
        acknowledged.extend([0, 0, 0, 4, 1, 0, 0, 0, 0]);
        let setting = [0, 0, 6, 4, 0, 0, 0, 0, 0];
        for welcome in [&acknowledged[..], &setting, b"HTTP/1.1 400 Bad Request"] {
            assert!(is_welcome(welcome), "{welcome:?}");
            assert_eq!(goodbye(welcome), None);
        }
    }
}
