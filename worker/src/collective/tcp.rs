//! The collective over TCP, for CPU workers.
//!
//! In a reduction each rank owns one slice of the buffer. First every rank sends every owner the
//! owner's slice of each virtual rank that it hosts, and the owner adds them in the order of the
//! virtual ranks (reduce-scatter); then every owner sends its finished slice to all (all-gather). With
//! one virtual rank per worker each worker sends 2 (N-1)/N of the buffer, as a ring all-reduce does.
//!
//! While this thread reads from its peers in the order of their ranks, one thread per peer writes,
//! so that full socket buffers cannot block all workers.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fovea_core::roster::{Roster, slice_of};

use super::waiting::Waiting;
use super::wire::{GATHER, GATHER_BYTES, Peer, SCATTER, STATE, Tag, exchange};
use super::{Collective, CollectiveError, accumulate, accumulate_tensors};
use crate::device::{Buffer, Ready};
use crate::gpu::communicator::Slot;

/// Longest gathered message in bytes. A peer must not make this worker run out of memory.
const MOST_GATHERED: u64 = 256 << 20;

/// The collective of one generation over TCP connections.
pub struct TcpCollective {
    /// This worker's id.
    id: String,
    rank: usize,
    /// By rank; this worker's own place is empty.
    peers: Vec<Option<Peer>>,
    /// Calls so far. Every call counts on every rank, also on those that do nothing in it.
    sequence: u64,
    scratch: Vec<f32>,
    waiting: Waiting,
    /// Empty but where gradients travel between GPUs.
    communicator: Arc<Slot>,
}

/// Ends a generation's connections from another thread.
#[derive(Clone)]
pub struct Aborter {
    streams: Arc<Vec<TcpStream>>,
    communicator: Arc<Slot>,
}

impl Aborter {
    /// Shuts the connections down: a blocked read or write returns at once, and so does a wait for the GPU.
    pub fn abort(&self) {
        self.communicator.abort();
        for stream in self.streams.iter() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl TcpCollective {
    /// Takes the connected streams of `roster` (by rank, own place empty). No single read or write
    /// may take longer than `timeout`; `waiting` publishes for which peer a call waits.
    pub fn new(
        roster: &Roster,
        rank: usize,
        streams: Vec<Option<TcpStream>>,
        timeout: Duration,
        waiting: Waiting,
    ) -> io::Result<Self> {
        let mut peers = Vec::with_capacity(streams.len());
        for (rank, (stream, member)) in streams.into_iter().zip(&roster.members).enumerate() {
            peers.push(match stream {
                None => None,
                Some(stream) => Some(Peer::new(member, rank, stream, timeout)?),
            });
        }
        Ok(Self {
            id: roster.members[rank].worker.to_string(),
            rank,
            peers,
            sequence: 0,
            scratch: Vec::new(),
            waiting,
            communicator: Arc::default(),
        })
    }

    /// Each worker contributes one part to a reduction, however many virtual ranks it hosts.
    pub fn with_one_part_each(mut self) -> Self {
        for peer in self.peers.iter_mut().flatten() {
            peer.parts = 1;
        }
        self
    }

    /// Where a communicator of this generation belongs, so that an abort ends it.
    pub(super) fn communicator(&self) -> &Arc<Slot> {
        &self.communicator
    }

    /// Where the awaited peer is published.
    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// A handle that ends the connections from another thread.
    pub fn aborter(&self) -> io::Result<Aborter> {
        let streams = self.peers.iter().flatten().map(Peer::connection);
        Ok(Aborter {
            streams: Arc::new(streams.collect::<io::Result<_>>()?),
            communicator: Arc::clone(&self.communicator),
        })
    }
}

impl TcpCollective {
    fn reduce_host(&mut self, parts: &[&[f32]], sum: &mut [f32]) -> Result<(), CollectiveError> {
        let ranks = self.peers.len();
        let slice = |rank: usize| to_usize(slice_of(sum.len() as u64, ranks, rank));
        let mine = slice(self.rank);
        let slices: Vec<Range<usize>> = (0..ranks).map(slice).collect();
        self.sequence += 1;
        let Self {
            peers,
            sequence,
            scratch,
            waiting,
            ..
        } = self;
        let tag = |kind| Tag {
            kind,
            sequence: *sequence,
        };

        // Reduce-scatter.
        let owned = &mut sum[mine.clone()];
        exchange(
            peers,
            tag(SCATTER),
            waiting,
            |to| {
                let theirs = parts.iter().map(|part| &part[slices[to].clone()]);
                Some(theirs.map(bytemuck::cast_slice).collect())
            },
            || {
                let mut first = true;
                for peer in peers.iter() {
                    let Some(peer) = peer else {
                        for part in parts {
                            accumulate(owned, &part[mine.clone()], first);
                            first = false;
                        }
                        continue;
                    };
                    let expected = peer.parts * owned.len();
                    scratch.resize(expected.max(scratch.len()), 0.0);
                    let theirs = &mut scratch[..expected];
                    peer.receive(tag(SCATTER), waiting, theirs)?;
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
            tag(GATHER),
            waiting,
            |_| Some(vec![bytemuck::cast_slice(&finished)]),
            || {
                for peer in peers.iter().flatten() {
                    let theirs = &mut sum[slices[peer.rank].clone()];
                    peer.receive(tag(GATHER), waiting, theirs)?;
                }
                Ok(())
            },
        )
    }
}

impl Collective for TcpCollective {
    fn reduce(
        &mut self,
        parts: &[Buffer],
        sum: &mut Buffer,
        _: Ready,
    ) -> Result<(), CollectiveError> {
        match sum {
            Buffer::Host(sum) => {
                let parts: Vec<&[f32]> = parts.iter().filter_map(Buffer::host).collect();
                self.reduce_host(&parts, sum)
            }
            // Alone there is nothing to send.
            Buffer::Tensor(sum) if self.peers.len() == 1 => {
                let parts = parts.iter().filter_map(Buffer::tensor);
                accumulate_tensors(sum, parts);
                Ok(())
            }
            // Through the host's memory: correct, and slow. Reading waits for all work queued on the GPU so far.
            Buffer::Tensor(_) => {
                let parts: Vec<Vec<f32>> = parts.iter().map(|p| p.read(0..p.len())).collect();
                let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
                let mut total = vec![0.0; sum.len()];
                self.reduce_host(&parts, &mut total)?;
                sum.write(0, &total);
                Ok(())
            }
        }
    }

    fn gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.sequence += 1;
        let tag = Tag {
            kind: GATHER_BYTES,
            sequence: self.sequence,
        };
        if mine.len() as u64 > MOST_GATHERED {
            // The peers would refuse it; this is known before it has been sent.
            return Err(CollectiveError::OutOfStep {
                peer: self.id.clone(),
                rank: self.rank,
                problem: format!(
                    "its message has {} bytes, and at most {MOST_GATHERED} are allowed",
                    mine.len()
                ),
            });
        }
        let mut all = Vec::with_capacity(self.peers.len());
        exchange(
            &self.peers,
            tag,
            &self.waiting,
            |_| Some(vec![mine]),
            || {
                for peer in &self.peers {
                    all.push(match peer {
                        None => mine.to_vec(),
                        Some(peer) => peer.receive_bytes(tag, &self.waiting, MOST_GATHERED)?,
                    });
                }
                Ok(())
            },
        )?;
        Ok(all)
    }

    fn broadcast(
        &mut self,
        source: usize,
        receivers: &[usize],
        state: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let ranks = self.peers.len();
        assert!(
            source < ranks && receivers.iter().all(|&r| r < ranks),
            "broadcast from {source} to {receivers:?} among {ranks} ranks"
        );
        self.sequence += 1;
        let tag = Tag {
            kind: STATE,
            sequence: self.sequence,
        };
        let Self { peers, waiting, .. } = self;
        match &peers[source] {
            // This rank is the source.
            None => {
                let state: &[u8] = bytemuck::cast_slice(state);
                let what = |to: usize| receivers.contains(&to).then(|| vec![state]);
                exchange(peers, tag, waiting, what, || Ok(()))
            }
            Some(source) if receivers.contains(&self.rank) => exchange(
                peers,
                tag,
                waiting,
                |_| None,
                || source.receive(tag, waiting, state),
            ),
            Some(_) => Ok(()),
        }
    }
}

fn to_usize(range: Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
