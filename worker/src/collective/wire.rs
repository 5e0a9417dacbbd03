//! Messages between the workers of a generation, sent and received at the same time so that full socket buffers do not
//! block all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use fovea_core::roster::Member;

use super::CollectiveError;
use super::waiting::{POLL_INTERVAL, Waiting, Waits};

/// A connected peer.
pub(super) struct Peer {
    pub(super) id: String,
    pub(super) rank: usize,
    /// Its reads end after [`POLL_INTERVAL`], see [`Peer::new`].
    stream: TcpStream,
    /// Parts that it contributes to a reduction: one for each virtual rank that it hosts.
    pub(super) parts: usize,
    /// Longest time of a single read or write.
    timeout: Duration,
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
const HEADER: usize = 24;

/// Sends `what(rank)`, if there is a message for that rank, to every peer on a thread of its own, while this thread runs
/// `read`.
pub(super) fn exchange<'a>(
    peers: &[Option<Peer>],
    tag: Tag,
    waiting: &Waiting,
    what: impl Fn(usize) -> Option<Vec<&'a [u8]>>,
    read: impl FnOnce() -> Result<(), CollectiveError>,
) -> Result<(), CollectiveError> {
    std::thread::scope(|scope| {
        let (done, finished) = mpsc::channel();
        let mut sending = BTreeSet::new();
        for peer in peers.iter().flatten() {
            if let Some(parts) = what(peer.rank) {
                sending.insert(peer.rank);
                let done = done.clone();
                // The receiver lives until all writers have finished.
                scope.spawn(move || drop(done.send((peer.rank, peer.send(tag, &parts)))));
            }
        }
        drop(done);
        let result = read();
        if result.is_err() {
            // Writers may block on a peer that does not read. This ends them.
            for peer in peers.iter().flatten() {
                let _ = peer.stream.shutdown(Shutdown::Both);
            }
        }
        let mut sent = BTreeMap::new();
        while let Some(&slowest) = sending.first() {
            let waits = waiting.begin(slowest);
            match finished.recv_timeout(POLL_INTERVAL) {
                Ok((rank, result)) => {
                    sending.remove(&rank);
                    sent.insert(rank, result);
                }
                Err(RecvTimeoutError::Timeout) => waits.poll(),
                // A writer has panicked, and so will the scope.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // The reader's error names the cause; a writer's error may only follow from it.
        result.and(sent.into_values().collect())
    })
}

/// Reads from a peer, and counts polls while it waits.
struct Listener<'a> {
    peer: &'a Peer,
    waits: Waits<'a>,
}

impl Read for Listener<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            let read = (&self.peer.stream).read(into);
            self.waits.poll();
            match read {
                Err(e) if timed_out(&e) && begun.elapsed() < self.peer.timeout => {}
                read => return read,
            }
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl Peer {
    /// The peer at the other end of `stream`.
    pub(super) fn new(
        member: &Member,
        rank: usize,
        stream: TcpStream,
        timeout: Duration,
    ) -> io::Result<Self> {
        stream.set_read_timeout(Some(POLL_INTERVAL.min(timeout)))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            id: member.worker.to_string(),
            rank,
            stream,
            parts: member.virtual_ranks as usize,
            timeout,
        })
    }

    /// Another handle to its connection.
    pub(super) fn connection(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    fn send(&self, tag: Tag, parts: &[&[u8]]) -> Result<(), CollectiveError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let mut header = [0u8; HEADER];
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&tag.kind.to_le_bytes());
        header[8..16].copy_from_slice(&tag.sequence.to_le_bytes());
        header[16..].copy_from_slice(&(bytes as u64).to_le_bytes());
        let write = || {
            (&self.stream).write_all(&header)?;
            for part in parts {
                (&self.stream).write_all(part)?;
            }
            Ok(())
        };
        write().map_err(|e| self.lost(&e))
    }

    /// Receives a message that fills `into`.
    pub(super) fn receive(
        &self,
        tag: Tag,
        waiting: &Waiting,
        into: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let mut from = self.listen(waiting);
        let bytes = self.receive_header(tag, &mut from)?;
        let expected = size_of_val(into) as u64;
        if bytes != expected {
            return Err(self.out_of_step(format!("expected {expected} bytes, got {bytes}")));
        }
        from.read_exact(bytemuck::cast_slice_mut(into))
            .map_err(|e| self.lost(&e))
    }

    /// Receives a message of any length up to `most` bytes.
    pub(super) fn receive_bytes(
        &self,
        tag: Tag,
        waiting: &Waiting,
        most: u64,
    ) -> Result<Vec<u8>, CollectiveError> {
        let mut from = self.listen(waiting);
        let bytes = self.receive_header(tag, &mut from)?;
        if bytes > most {
            return Err(self.out_of_step(format!("expected at most {most} bytes, got {bytes}")));
        }
        let mut message = vec![0; bytes as usize];
        from.read_exact(&mut message).map_err(|e| self.lost(&e))?;
        Ok(message)
    }

    fn listen<'a>(&'a self, waiting: &'a Waiting) -> Listener<'a> {
        Listener {
            peer: self,
            waits: waiting.begin(self.rank),
        }
    }

    /// The length of the message that follows, if it is the one that is due.
    fn receive_header(&self, due: Tag, from: &mut Listener) -> Result<u64, CollectiveError> {
        let mut header = [0u8; HEADER];
        from.read_exact(&mut header).map_err(|e| self.lost(&e))?;
        let u32_at = |i: usize| u32::from_le_bytes(header[i..i + 4].try_into().expect("4 bytes"));
        let u64_at = |i: usize| u64::from_le_bytes(header[i..i + 8].try_into().expect("8 bytes"));
        let magic = u32_at(0);
        let came = Tag {
            kind: u32_at(4),
            sequence: u64_at(8),
        };
        if magic != MAGIC {
            return Err(self.out_of_step(format!("expected magic {MAGIC:#x}, got {magic:#x}")));
        }
        if came != due {
            return Err(self.out_of_step(format!("expected {due:?}, got {came:?}")));
        }
        Ok(u64_at(16))
    }

    fn out_of_step(&self, problem: String) -> CollectiveError {
        CollectiveError::OutOfStep {
            peer: self.id.clone(),
            rank: self.rank,
            problem,
        }
    }

    fn lost(&self, error: &io::Error) -> CollectiveError {
        let problem = match error.kind() {
            _ if timed_out(error) => "did not answer within the deadline".to_owned(),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "closed the connection".to_owned(),
            _ => format!("cannot be read from: {error}"),
        };
        CollectiveError::Peer {
            peer: self.id.clone(),
            rank: self.rank,
            problem,
        }
    }
}
