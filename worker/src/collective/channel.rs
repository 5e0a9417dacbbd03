//! One connection with a peer: a socket that does not block, in plain text or under TLS.
//!
//! rustls encrypts and decrypts in memory; the socket is read and written here. So two things happen behind `poll`'s back:
//! bytes that have come are not asked for yet ([`Channel::has_unread`]), and bytes that were taken are not sent yet
//! ([`Sent::pending`]). Who waits for the socket must have dealt with both.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};

use fovea_security::Parts;
use rustls::Connection;

/// Most bytes that are encrypted before the socket must take them: eight records.
const UNSENT: usize = 128 << 10;
/// Most bytes that are read from the socket at a time.
const ARRIVED: usize = 128 << 10;

/// A connection with a peer.
pub struct Channel {
    socket: TcpStream,
    tls: Option<Box<Session>>,
}

/// TLS over a socket.
struct Session {
    connection: Connection,
    /// Bytes that are decrypted and not read yet.
    decrypted: usize,
    /// The peer has said that nothing more comes.
    closed: bool,
    /// What came and is not decrypted yet: `arrived[from..to]`.
    arrived: Vec<u8>,
    from: usize,
    to: usize,
}

/// What a call of [`Channel::send`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// So many of the bytes given are taken.
    pub(super) taken: usize,
    /// Bytes that were taken, by this call or earlier, are not sent yet: call again when the socket takes more.
    pub(super) pending: bool,
    /// Something was taken or sent.
    pub(super) moved: bool,
}

impl Channel {
    /// A connection in plain text.
    ///
    /// # Errors
    /// If the socket cannot be set.
    pub fn plain(socket: TcpStream) -> io::Result<Self> {
        Self::new(socket, None)
    }

    /// A connection under TLS, whose handshake is done.
    ///
    /// # Errors
    /// If the socket cannot be set, or what has come already is no TLS.
    pub fn secured(parts: Parts) -> io::Result<Self> {
        let Parts { stream, connection } = parts;
        let mut session = Session {
            connection,
            decrypted: 0,
            closed: false,
            arrived: Vec::new(),
            from: 0,
            to: 0,
        };
        session.connection.set_buffer_limit(Some(UNSENT));
        session.process()?;
        Self::new(stream.into_std()?, Some(Box::new(session)))
    }

    fn new(socket: TcpStream, tls: Option<Box<Session>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, tls })
    }

    /// The socket, to wait for it and to shut it down.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends what can be sent now, of what was taken before and of `slices`.
    pub(super) fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let Self { socket, tls } = self;
        match tls {
            Some(tls) => tls.send(socket, slices),
            None => {
                let taken = match slices.is_empty() {
                    true => 0,
                    false => now(socket.write_vectored(slices))?.unwrap_or(0),
                };
                Ok(Sent {
                    taken,
                    pending: false,
                    moved: taken > 0,
                })
            }
        }
    }

    /// Reads what has come, up to the size of `place`, which must not be empty. 0 bytes are the end of the connection; an
    /// error of the kind `WouldBlock` says that nothing is there now.
    pub(super) fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        let Self { socket, tls } = self;
        match tls {
            Some(tls) => tls.read(socket, place),
            None => socket.read(place),
        }
    }

    /// Whether bytes were taken from the socket that [`Channel::read`] has not returned yet.
    pub(super) fn has_unread(&self) -> bool {
        let unread = |tls: &Session| tls.decrypted > 0 || tls.from < tls.to;
        self.tls.as_deref().is_some_and(unread)
    }

    /// Whether the peer has not closed it. Nothing is lost of what it has sent.
    pub(super) fn is_open(&mut self) -> bool {
        let Self { socket, tls } = self;
        match tls {
            Some(tls) => tls.is_open(socket),
            None => match now(socket.peek(&mut [0])) {
                Ok(None) => true,
                Ok(Some(bytes)) => bytes > 0,
                Err(_) => false,
            },
        }
    }

    /// The state of TLS.
    #[cfg(test)]
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.tls.as_mut().expect("it is under TLS").connection
    }

    /// Ends it. A blocked peer learns of it at once.
    pub(super) fn shut_down(&mut self) {
        self.say_goodbye();
        // It may be closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Tells the peer that nothing more comes, if the socket takes it now.
    fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.connection.send_close_notify();
            let _ = tls.flush(&mut self.socket);
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("socket", &self.socket)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

impl Session {
    fn send(&mut self, socket: &mut TcpStream, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let mut moved = self.flush(socket)?;
        let mut taken = 0;
        // No more is encrypted than the socket takes soon, so that memory stays flat.
        if !self.connection.wants_write() && !slices.is_empty() {
            taken = self.connection.writer().write_vectored(slices)?;
            moved |= self.flush(socket)? || taken > 0;
        }
        Ok(Sent {
            taken,
            pending: self.connection.wants_write(),
            moved,
        })
    }

    /// Writes encrypted bytes until there are none, or the socket takes no more. Returns whether it took any.
    fn flush(&mut self, socket: &mut TcpStream) -> io::Result<bool> {
        let mut moved = false;
        while self.connection.wants_write() {
            match now(self.connection.write_tls(socket))? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(_) => moved = true,
                None => break,
            }
        }
        Ok(moved)
    }

    fn read(&mut self, socket: &mut TcpStream, place: &mut [u8]) -> io::Result<usize> {
        loop {
            match now(self.connection.reader().read(place))? {
                Some(bytes) => {
                    self.decrypted -= bytes;
                    return Ok(bytes);
                }
                None if self.from < self.to => self.decrypt(socket)?,
                None => self.fill(socket)?,
            }
        }
    }

    /// Reads from the socket once. Fails with `WouldBlock` if nothing is there.
    fn fill(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        self.arrived.resize(ARRIVED, 0);
        let bytes = socket.read(&mut self.arrived)?;
        (self.from, self.to) = (0, bytes);
        if bytes == 0 {
            // From now on the reader says so.
            self.connection.read_tls(&mut io::empty())?;
            self.closed = true;
        }
        Ok(())
    }

    /// Decrypts a record or more of what has arrived, if one is complete.
    fn decrypt(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let mut rest = &self.arrived[self.from..self.to];
        // It takes a part at a time, and fails once it has as much as the longest record.
        while !rest.is_empty() && matches!(self.connection.read_tls(&mut rest), Ok(1..)) {}
        self.from = self.to - rest.len();
        self.process().inspect_err(|_| {
            // An alert, that the peer may know.
            let _ = self.connection.write_tls(socket);
        })
    }

    fn process(&mut self) -> io::Result<()> {
        let state = self.connection.process_new_packets();
        let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.decrypted = state.plaintext_bytes_to_read();
        self.closed |= state.peer_has_closed();
        Ok(())
    }

    fn is_open(&mut self, socket: &mut TcpStream) -> bool {
        if self.decrypted > 0 || self.closed {
            return !self.closed;
        }
        let looked = match self.from < self.to {
            true => Ok(Some(())),
            false => now(self.fill(socket)),
        };
        match looked {
            Ok(None) => true,
            Ok(Some(())) => self.decrypt(socket).is_ok() && !self.closed,
            Err(_) => false,
        }
    }
}

/// None if nothing can be read or written now.
fn now<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(e) => match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(e),
        },
    }
}
