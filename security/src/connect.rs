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
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::tls::peer_identity;

/// The first byte of a TLS connection: a record that carries a handshake.
const HANDSHAKE: u8 = 0x16;
/// The first byte of a server's refusal of a TLS connection.
const ALERT: u8 = 0x15;

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

/// Best effort. What the client still sends is read: a connection that is closed with unread bytes is
/// reset, and the farewell would be lost.
async fn say_goodbye(stream: &mut TcpStream, farewell: &[u8]) {
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

/// A socket that keeps the first bytes that come.
#[derive(Debug)]
pub struct FirstBytes {
    stream: TcpStream,
    first: Vec<u8>,
}

impl FirstBytes {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            first: Vec::new(),
        }
    }

    /// The refusal, if the server speaks plain text.
    async fn plain_text(mut self) -> Option<Refusal> {
        if matches!(self.first.first(), None | Some(&HANDSHAKE | &ALERT)) {
            return None;
        }
        let mut more = [0; KEPT];
        if let Ok(Ok(n)) = timeout(MORE, self.stream.read(&mut more)).await {
            self.first.extend(&more[..n]);
        }
        Some(Refusal::PlainText {
            reason: goodbye(&self.first),
        })
    }
}

/// The reason in an HTTP/2 GOAWAY at the end of `bytes`, behind the server's SETTINGS.
fn goodbye(mut bytes: &[u8]) -> Option<String> {
    const GOAWAY: u8 = 7;
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
        if self.first.len() < KEPT {
            let room = KEPT - self.first.len();
            let new = &buffer.filled()[before..];
            self.first.extend(&new[..new.len().min(room)]);
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
