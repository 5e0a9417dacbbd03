//! Messages between the workers of a generation, and the connection with a peer.
//!
//! Connections do not block: [`exchange`](super::exchange) waits for all of them at once.

use std::io::{self, IoSlice};
use std::net::TcpStream;

use fovea_core::roster::Member;

use super::CollectiveError;
use super::channel::Channel;

/// A connected peer.
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) rank: usize,
    channel: Channel,
    /// Parts that it contributes to a reduction: one for each virtual rank that it hosts.
    pub(super) parts: usize,
}

/// Identifies the message that is due: a peer that sends another one is out of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: u32,
    /// Counts the calls.
    pub(super) sequence: u64,
}

pub(super) const MAGIC: u32 = 0x4656_4131;
pub(super) const SCATTER: u32 = 1;
pub(super) const GATHER: u32 = 2;
pub(super) const GATHER_BYTES: u32 = 3;
pub(super) const STATE: u32 = 4;
/// magic, kind, sequence, length in bytes.
pub(super) const HEADER: usize = 24;
/// Header of a message.
pub(super) type Header = [u8; HEADER];

/// The header of a message of `bytes` bytes.
pub(super) fn header(tag: Tag, bytes: usize) -> Header {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&tag.kind.to_le_bytes());
    header[8..16].copy_from_slice(&tag.sequence.to_le_bytes());
    header[16..].copy_from_slice(&(bytes as u64).to_le_bytes());
    header
}

/// A message on its way to a peer.
pub(super) struct Sending<'a> {
    pub(super) rank: usize,
    slices: Vec<IoSlice<'a>>,
    /// So many of them are taken by the connection.
    taken: usize,
    /// The connection has not sent all that it has taken.
    pending: bool,
}

impl<'a> Sending<'a> {
    /// A message of `parts` for the peer of rank `rank`.
    pub(super) fn new(rank: usize, header: &'a Header, parts: Vec<&'a [u8]>) -> Self {
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        Self {
            rank,
            slices: std::iter::once(&header[..])
                .chain(parts)
                .map(IoSlice::new)
                .collect(),
            taken: 0,
            pending: false,
        }
    }

    /// Whether all of it is sent.
    pub(super) fn is_done(&self) -> bool {
        self.taken == self.slices.len() && !self.pending
    }

    /// Sends what the connection takes now. Returns whether that was anything.
    fn advance(&mut self, to: &mut Channel) -> io::Result<bool> {
        let mut rest = &mut self.slices[self.taken..];
        let sent = to.send(rest)?;
        IoSlice::advance_slices(&mut rest, sent.taken);
        let left = rest.len();
        self.taken = self.slices.len() - left;
        self.pending = sent.pending;
        Ok(sent.moved)
    }
}

/// Where a message goes.
pub(super) enum Body<'a> {
    /// It must fill this place.
    Place(&'a mut [u8]),
    /// It may have any length up to `most` bytes.
    Bytes { bytes: Vec<u8>, most: u64 },
}

impl Body<'_> {
    /// What has arrived.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Place(place) => place.to_vec(),
            Self::Bytes { bytes, .. } => bytes,
        }
    }

    fn place(&mut self) -> &mut [u8] {
        match self {
            Self::Place(place) => place,
            Self::Bytes { bytes, .. } => bytes,
        }
    }
}

impl Default for Body<'_> {
    fn default() -> Self {
        Self::Place(&mut [])
    }
}

/// A message that is due from a peer.
pub(super) struct Receiving<'a> {
    pub(super) rank: usize,
    due: Tag,
    header: Header,
    body: Body<'a>,
    /// Bytes of header and body so far.
    read: usize,
    done: bool,
}

/// Why a message cannot be received.
pub(super) enum ReceiveError {
    /// It is not the one that is due.
    OutOfStep(String),
    /// The connection is of no more use.
    Lost(io::Error),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl<'a> Receiving<'a> {
    /// The message `due` from the peer of rank `rank`.
    pub(super) fn new(rank: usize, due: Tag, body: Body<'a>) -> Self {
        Self {
            rank,
            due,
            header: [0; HEADER],
            body,
            read: 0,
            done: false,
        }
    }

    /// Whether all of it has arrived.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// What has arrived.
    pub(super) fn take(&mut self) -> Body<'a> {
        std::mem::take(&mut self.body)
    }

    /// Reads what is there now, and nothing of the message after it. Returns whether that was anything.
    fn advance(&mut self, from: &mut Channel) -> Result<bool, ReceiveError> {
        let before = self.read;
        loop {
            let place = match self.read.checked_sub(HEADER) {
                None => &mut self.header[self.read..],
                Some(at) => &mut self.body.place()[at..],
            };
            match from.read(place) {
                Err(e) => return Ok(nothing_yet(e)? || self.read > before),
                Ok(0) => return Err(ReceiveError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => self.read += bytes,
            }
            let begins = self.read == HEADER;
            if begins {
                self.check().map_err(ReceiveError::OutOfStep)?;
            }
            self.done = self.read >= HEADER && self.read == HEADER + self.body.place().len();
            // The body may be there already. Of what the connection holds the socket does not tell.
            if self.done || !(begins || from.has_unread()) {
                return Ok(true);
            }
        }
    }

    /// Whether the header is that of the message that is due. Makes room for the message.
    fn check(&mut self) -> Result<(), String> {
        let header = &self.header;
        let u32_at = |i: usize| u32::from_le_bytes(header[i..i + 4].try_into().expect("4 bytes"));
        let u64_at = |i: usize| u64::from_le_bytes(header[i..i + 8].try_into().expect("8 bytes"));
        let (magic, length) = (u32_at(0), u64_at(16));
        let came = Tag {
            kind: u32_at(4),
            sequence: u64_at(8),
        };
        if magic != MAGIC {
            return Err(format!("expected magic {MAGIC:#x}, got {magic:#x}"));
        }
        if came != self.due {
            return Err(format!("expected {:?}, got {came:?}", self.due));
        }
        match &mut self.body {
            Body::Place(place) if place.len() as u64 != length => {
                let expected = place.len();
                Err(format!("expected {expected} bytes, got {length}"))
            }
            Body::Place(_) => Ok(()),
            Body::Bytes { most, .. } if length > *most => {
                Err(format!("expected at most {most} bytes, got {length}"))
            }
            Body::Bytes { bytes, .. } => {
                bytes.resize(length as usize, 0);
                Ok(())
            }
        }
    }
}

/// Nothing can be read now, unless the error says more.
fn nothing_yet(error: io::Error) -> io::Result<bool> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
        _ => Err(error),
    }
}

impl Peer {
    /// The peer at the other end of `channel`.
    pub(super) fn new(member: &Member, rank: usize, channel: Channel) -> Self {
        Self {
            id: member.worker.to_string(),
            rank,
            channel,
            parts: member.virtual_ranks as usize,
        }
    }

    /// The socket of its connection.
    pub(super) fn socket(&self) -> &TcpStream {
        self.channel.socket()
    }

    /// Ends its connection.
    pub(super) fn shut_down(&mut self) {
        self.channel.shut_down();
    }

    /// Sends what the connection takes of `message` now. Returns whether that was anything.
    pub(super) fn send(&mut self, message: &mut Sending) -> Result<bool, CollectiveError> {
        message
            .advance(&mut self.channel)
            .map_err(|error| self.lost(&error))
    }

    /// Reads what is there of `message` now. Returns whether that was anything.
    pub(super) fn receive(&mut self, message: &mut Receiving) -> Result<bool, CollectiveError> {
        message
            .advance(&mut self.channel)
            .map_err(|error| match error {
                ReceiveError::Lost(error) => self.lost(&error),
                ReceiveError::OutOfStep(problem) => CollectiveError::OutOfStep {
                    peer: self.id.clone(),
                    rank: self.rank,
                    problem,
                },
            })
    }

    /// It has kept this worker waiting for too long.
    pub(super) fn late(&self) -> CollectiveError {
        self.lost(&io::ErrorKind::TimedOut.into())
    }

    fn lost(&self, error: &io::Error) -> CollectiveError {
        let problem = match error.kind() {
            io::ErrorKind::TimedOut => "did not answer within the deadline".to_owned(),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::WriteZero => "closed the connection".to_owned(),
            io::ErrorKind::InvalidData => broken_tls(error),
            _ => format!("cannot be reached any more: {error}"),
        };
        CollectiveError::Peer {
            peer: self.id.clone(),
            rank: self.rank,
            problem,
        }
    }
}

/// What a failure of TLS means.
fn broken_tls(error: &io::Error) -> String {
    use rustls::{AlertDescription, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::DecryptError | Error::AlertReceived(AlertDescription::BadRecordMac)) => {
            format!(
                "cannot be talked to any more, because bytes were changed on the way ({error}): look for a faulty network card or \
             cable, or for somebody in the network"
            )
        }
        _ => format!("broke the TLS connection: {error}"),
    }
}
