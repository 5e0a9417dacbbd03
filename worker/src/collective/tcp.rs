//! The ordered reduction over TCP, for CPU workers.
//!
//! Each rank owns one slice of the buffer. First every rank sends every owner the owner's slice of
//! each virtual rank that it hosts, and the owner adds them in the order of the virtual ranks
//! (reduce-scatter); then every owner sends its finished slice to all (all-gather). With one virtual
//! rank per worker each worker sends 2 (N-1)/N of the buffer, as a ring all-reduce does.
//!
//! While this thread reads from its peers in the order of their ranks, one thread per peer writes,
//! so that full socket buffers cannot block everybody.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fovea_core::roster::{Roster, slice_of};

use super::{Collective, CollectiveError, accumulate};

const MAGIC: u32 = 0x4656_4131;
const SCATTER: u32 = 1;
const GATHER: u32 = 2;
/// magic, kind, sequence, length in bytes.
const HEADER: usize = 24;

struct Peer {
    id: String,
    stream: TcpStream,
    virtual_ranks: usize,
}

/// The reduction of one generation over TCP connections.
pub struct TcpCollective {
    rank: usize,
    /// By rank; this worker's own place is empty.
    peers: Vec<Option<Peer>>,
    sequence: u64,
    scratch: Vec<f32>,
}

/// Ends a generation's connections from another thread.
#[derive(Clone)]
pub struct Aborter(Arc<Vec<TcpStream>>);

impl Aborter {
    /// Shuts the connections down: a blocked read or write returns at once.
    pub fn abort(&self) {
        for stream in self.0.iter() {
            // Already closed is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl TcpCollective {
    /// Takes the connected streams of `roster` (by rank, own place empty). No single read or write
    /// may take longer than `patience`.
    pub fn new(
        roster: &Roster,
        rank: usize,
        streams: Vec<Option<TcpStream>>,
        patience: Duration,
    ) -> io::Result<Self> {
        let mut peers = Vec::with_capacity(streams.len());
        for (stream, member) in streams.into_iter().zip(&roster.members) {
            peers.push(match stream {
                None => None,
                Some(stream) => {
                    stream.set_read_timeout(Some(patience))?;
                    stream.set_write_timeout(Some(patience))?;
                    Some(Peer {
                        id: member.worker.to_string(),
                        stream,
                        virtual_ranks: member.virtual_ranks as usize,
                    })
                }
            });
        }
        Ok(Self {
            rank,
            peers,
            sequence: 0,
            scratch: Vec::new(),
        })
    }

    /// A handle that ends the connections from another thread.
    pub fn aborter(&self) -> io::Result<Aborter> {
        let streams = self.peers.iter().flatten().map(|p| p.stream.try_clone());
        Ok(Aborter(Arc::new(streams.collect::<io::Result<_>>()?)))
    }
}

impl Collective for TcpCollective {
    fn reduce(&mut self, parts: &[Vec<f32>], sum: &mut [f32]) -> Result<(), CollectiveError> {
        let ranks = self.peers.len();
        let slice = |rank: usize| to_usize(slice_of(sum.len() as u64, ranks, rank));
        let mine = slice(self.rank);
        let slices: Vec<Range<usize>> = (0..ranks).map(slice).collect();
        self.sequence += 1;
        let Self {
            rank: me,
            peers,
            sequence,
            scratch,
        } = self;
        let (me, sequence) = (*me, *sequence);

        // Reduce-scatter.
        let owned = &mut sum[mine.clone()];
        exchange(
            peers,
            sequence,
            SCATTER,
            |to| parts.iter().map(|part| &part[slices[to].clone()]).collect(),
            |peers| {
                let mut first = true;
                for (rank, peer) in peers.iter().enumerate() {
                    let Some(peer) = peer else {
                        for part in parts {
                            accumulate(owned, &part[mine.clone()], first);
                            first = false;
                        }
                        continue;
                    };
                    let expected = peer.virtual_ranks * owned.len();
                    scratch.resize(expected.max(scratch.len()), 0.0);
                    let theirs = &mut scratch[..expected];
                    receive(peer, rank, sequence, SCATTER, theirs)?;
                    if owned.is_empty() {
                        continue;
                    }
                    for part in theirs.chunks_exact(owned.len()) {
                        accumulate(owned, part, first);
                        first = false;
                    }
                }
                Ok(())
            },
        )?;

        // All-gather. Only what this rank owns is sent, only the rest is received.
        let finished = sum[mine].to_vec();
        exchange(
            peers,
            sequence,
            GATHER,
            |_| vec![&finished[..]],
            |peers| {
                for (rank, peer) in peers.iter().enumerate() {
                    if let Some(peer) = peer {
                        let theirs = &mut sum[slices[rank].clone()];
                        receive(peer, rank, sequence, GATHER, theirs)?;
                    }
                }
                Ok(())
            },
        )?;
        debug_assert_eq!(me, self.rank);
        Ok(())
    }
}

/// Sends `what(rank)` to every peer, each on a thread of its own, while this thread runs `read`.
fn exchange<'a>(
    peers: &[Option<Peer>],
    sequence: u64,
    kind: u32,
    what: impl Fn(usize) -> Vec<&'a [f32]>,
    read: impl FnOnce(&[Option<Peer>]) -> Result<(), CollectiveError>,
) -> Result<(), CollectiveError> {
    std::thread::scope(|scope| {
        let writers: Vec<_> = peers
            .iter()
            .enumerate()
            .filter_map(|(rank, peer)| peer.as_ref().map(|peer| (rank, peer)))
            .map(|(rank, peer)| {
                let parts = what(rank);
                scope.spawn(move || send(peer, rank, sequence, kind, &parts))
            })
            .collect();
        let result = read(peers);
        if result.is_err() {
            // Writers may be stuck towards a peer that does not read: free them.
            for peer in peers.iter().flatten() {
                let _ = peer.stream.shutdown(Shutdown::Both);
            }
        }
        let sent: Result<Vec<()>, _> = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer does not panic"))
            .collect();
        // What was read first names the cause; a writer's error may only follow from it.
        result.and(sent.map(|_| ()))
    })
}

fn send(
    peer: &Peer,
    rank: usize,
    sequence: u64,
    kind: u32,
    parts: &[&[f32]],
) -> Result<(), CollectiveError> {
    let bytes: usize = parts.iter().map(|p| size_of_val(*p)).sum();
    let mut header = [0u8; HEADER];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&kind.to_le_bytes());
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..].copy_from_slice(&(bytes as u64).to_le_bytes());
    let write = || {
        (&peer.stream).write_all(&header)?;
        for part in parts {
            (&peer.stream).write_all(bytemuck::cast_slice(part))?;
        }
        Ok(())
    };
    write().map_err(|e| lost(peer, rank, &e))
}

fn receive(
    peer: &Peer,
    rank: usize,
    sequence: u64,
    kind: u32,
    into: &mut [f32],
) -> Result<(), CollectiveError> {
    let mut header = [0u8; HEADER];
    let mut stream = &peer.stream;
    stream
        .read_exact(&mut header)
        .map_err(|e| lost(peer, rank, &e))?;
    let u32_at = |i: usize| u32::from_le_bytes(header[i..i + 4].try_into().expect("4 bytes"));
    let u64_at = |i: usize| u64::from_le_bytes(header[i..i + 8].try_into().expect("8 bytes"));
    let came = (u32_at(0), u32_at(4), u64_at(8), u64_at(16));
    let expected = (MAGIC, kind, sequence, size_of_val(into) as u64);
    if came != expected {
        return Err(CollectiveError::OutOfStep {
            peer: peer.id.clone(),
            rank,
            problem: format!("expected (magic, kind, sequence, bytes) {expected:?}, got {came:?}"),
        });
    }
    stream
        .read_exact(bytemuck::cast_slice_mut(into))
        .map_err(|e| lost(peer, rank, &e))
}

fn lost(peer: &Peer, rank: usize, error: &io::Error) -> CollectiveError {
    let problem = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "did not answer within the deadline".to_owned()
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "closed the connection".to_owned(),
        _ => format!("cannot be heard: {error}"),
    };
    CollectiveError::Peer {
        peer: peer.id.clone(),
        rank,
        problem,
    }
}

fn to_usize(range: Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
