//! The collective over TCP, in plain text or under TLS, for CPU workers.
//!
//! In a reduction each rank owns one slice of the buffer. First every rank sends every owner the
//! owner's slice of each virtual rank that it hosts, and the owner adds them in the order of the
//! virtual ranks (reduce-scatter); then every owner sends its finished slice to all (all-gather). With
//! one virtual rank per worker each worker sends 2 (N-1)/N of the buffer, as a ring all-reduce does.
//!
//! In a broadcast the source sends every receiver a slice, and the receivers exchange them: the source sends the state once,
//! however many receive it.
//!
//! All messages of a call travel at the same time, on the calling thread ([`Exchange`]).

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fovea_core::roster::{Roster, slice_of};

use super::channel::Channel;
use super::exchange::Exchange;
use super::waiting::Waiting;
use super::wire::{Body, GATHER, GATHER_BYTES, Peer, SCATTER, STATE, Tag};
use super::{Collective, CollectiveError, accumulate, accumulate_tensors};
use crate::device::{Buffer, Ready};
use crate::gpu::communicator::Slot;

/// Longest gathered message in bytes. A peer must not make this worker run out of memory.
const MOST_GATHERED: u64 = 256 << 20;
/// From so many elements on, a state is broadcast in slices; below that, the source sends all of it to every receiver.
const SLICED_FROM: usize = 1 << 16;

/// The collective of one generation over TCP connections.
pub struct TcpCollective {
    /// This worker's id.
    id: String,
    rank: usize,
    /// By rank; this worker's own place is empty.
    peers: Vec<Option<Peer>>,
    /// Calls so far. Every call counts on every rank, also on those that do nothing in it.
    sequence: u64,
    /// What the peers send of a slice; kept from call to call.
    scratch: Vec<f32>,
    /// How long a peer may keep this worker waiting.
    timeout: Duration,
    waiting: Waiting,
    /// Empty but where gradients travel between GPUs.
    communicator: Arc<Slot>,
}

/// Ends a generation's connections from another thread.
#[derive(Clone)]
pub struct Aborter {
    sockets: Arc<Vec<TcpStream>>,
    communicator: Arc<Slot>,
}

impl Aborter {
    /// Shuts the connections down: a blocked read or write returns at once, and so does a wait for the GPU.
    pub fn abort(&self) {
        self.communicator.abort();
        for socket in self.sockets.iter() {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl TcpCollective {
    /// Takes the connections with the members of `roster` (by rank, own place empty). A peer from which nothing comes for `timeout`
    /// while something is due is lost; `waiting` publishes for which peer a call waits.
    pub fn new(
        roster: &Roster,
        rank: usize,
        channels: Vec<Option<Channel>>,
        timeout: Duration,
        waiting: Waiting,
    ) -> Self {
        let members = roster.members.iter().enumerate();
        let peers = channels.into_iter().zip(members);
        let peer = |(channel, (rank, member)): (Option<Channel>, _)| {
            channel.map(|channel| Peer::new(member, rank, channel))
        };
        Self {
            id: roster.members[rank].worker.to_string(),
            rank,
            peers: peers.map(peer).collect(),
            sequence: 0,
            scratch: Vec::new(),
            timeout,
            waiting,
            communicator: Arc::default(),
        }
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
        let sockets = (self.peers.iter().flatten()).map(|peer| peer.socket().try_clone());
        Ok(Aborter {
            sockets: Arc::new(sockets.collect::<io::Result<_>>()?),
            communicator: Arc::clone(&self.communicator),
        })
    }
}

impl TcpCollective {
    /// Counts a call of `kind`.
    fn next(&mut self, kind: u32) -> Tag {
        self.sequence += 1;
        Tag {
            kind,
            sequence: self.sequence,
        }
    }

    /// The other ranks, beginning behind this one, so that not all send to the same one first.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, ranks) = (self.rank, self.peers.len());
        (rank + 1..ranks).chain(0..rank)
    }

    fn reduce_host(&mut self, parts: &[&[f32]], sum: &mut [f32]) -> Result<(), CollectiveError> {
        let (rank, ranks) = (self.rank, self.peers.len());
        let slice = |rank: usize| to_usize(slice_of(sum.len() as u64, ranks, rank));
        let slices: Vec<Range<usize>> = (0..ranks).map(slice).collect();
        let mine = slices[rank].clone();
        let scatter = self.next(SCATTER);
        let gather = Tag {
            kind: GATHER,
            ..scatter
        };

        // Reduce-scatter.
        let theirs = |to: usize| {
            let theirs = parts.iter().map(|part| &part[slices[to].clone()]);
            (to, theirs.map(bytemuck::cast_slice).collect())
        };
        let outgoing = self.others().map(theirs).collect();
        let counts = self.peers.iter().flatten().map(|peer| peer.parts);
        let needed = counts.sum::<usize>() * mine.len();
        self.scratch.resize(needed.max(self.scratch.len()), 0.0);
        let mut rest = &mut self.scratch[..];
        let mut incoming = Vec::with_capacity(ranks);
        for peer in self.peers.iter().flatten() {
            let place = rest.split_off_mut(..peer.parts * mine.len());
            let place = place.expect("there is room for all");
            incoming.push((peer.rank, Body::Place(bytemuck::cast_slice_mut(place))));
        }
        let owned = &mut sum[mine.clone()];
        let mut first = true;
        let mut own = Some(parts);
        let mut add = |part: &[f32]| {
            accumulate(owned, part, first);
            first = false;
        };
        let exchange = Exchange {
            tag: scatter,
            outgoing,
            incoming,
        };
        exchange.run(
            &mut self.peers,
            &self.waiting,
            self.timeout,
            |from, body| {
                // This worker's parts come in the order of ranks, too.
                for part in own.take_if(|_| from > rank).into_iter().flatten() {
                    add(&part[mine.clone()]);
                }
                if let Body::Place(theirs) = body
                    && !mine.is_empty()
                {
                    bytemuck::cast_slice(theirs)
                        .chunks_exact(mine.len())
                        .for_each(&mut add);
                }
            },
        )?;
        for part in own.into_iter().flatten() {
            add(&part[mine.clone()]);
        }

        // All-gather. Only what this rank owns is sent, only the rest is received.
        let finished = sum[mine].to_vec();
        let outgoing = self.others();
        let outgoing = outgoing.map(|to| (to, vec![bytemuck::cast_slice(&finished)]));
        let mut incoming = Vec::with_capacity(ranks);
        let mut rest = sum;
        for (from, slice) in slices.iter().enumerate() {
            let place = rest.split_off_mut(..slice.len()).expect("slices of it");
            if from != rank {
                incoming.push((from, Body::Place(bytemuck::cast_slice_mut(place))));
            }
        }
        let exchange = Exchange {
            tag: gather,
            outgoing: outgoing.collect(),
            incoming,
        };
        exchange.run(&mut self.peers, &self.waiting, self.timeout, |_, _| {})
    }

    /// Gathers messages; a peer is lost from which nothing comes for `timeout`.
    fn gather_within(
        &mut self,
        mine: &[u8],
        timeout: Duration,
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let tag = self.next(GATHER_BYTES);
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
        let mut all = vec![Vec::new(); self.peers.len()];
        all[self.rank] = mine.to_vec();
        let message = |from| {
            let (bytes, most) = (Vec::new(), MOST_GATHERED);
            (from, Body::Bytes { bytes, most })
        };
        let ranks = 0..self.peers.len();
        let exchange = Exchange {
            tag,
            outgoing: self.others().map(|to| (to, vec![mine])).collect(),
            incoming: ranks.filter(|&r| r != self.rank).map(message).collect(),
        };
        exchange.run(&mut self.peers, &self.waiting, timeout, |from, body| {
            all[from] = body.into_bytes();
        })?;
        Ok(all)
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
        self.gather_within(mine, self.timeout)
    }

    fn gather_patiently(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.gather_within(mine, Duration::MAX)
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
        let tag = self.next(STATE);
        let receivers: BTreeSet<usize> = receivers.iter().copied().collect();
        let receivers: Vec<usize> = receivers.into_iter().filter(|&r| r != source).collect();
        let sliced = state.len() >= SLICED_FROM;
        let slice = |number| match sliced {
            true => to_usize(slice_of(state.len() as u64, receivers.len(), number)),
            false => 0..state.len(),
        };
        let slices: Vec<Range<usize>> = (0..receivers.len()).map(slice).collect();
        let Self {
            peers,
            waiting,
            timeout,
            rank,
            ..
        } = self;
        if *rank == source {
            let state: &[f32] = state;
            let slices = slices
                .into_iter()
                .map(|slice| bytemuck::cast_slice(&state[slice]));
            let pieces = slices.map(|slice| vec![slice]);
            let exchange = Exchange {
                tag,
                outgoing: receivers.into_iter().zip(pieces).collect(),
                incoming: Vec::new(),
            };
            return exchange.run(peers, waiting, *timeout, |_, _| {});
        }
        let Some(mine) = receivers.iter().position(|receiver| receiver == rank) else {
            return Ok(());
        };
        let own = &mut state[slices[mine].clone()];
        let exchange = Exchange {
            tag,
            outgoing: Vec::new(),
            incoming: vec![(source, Body::Place(bytemuck::cast_slice_mut(own)))],
        };
        exchange.run(peers, waiting, *timeout, |_, _| {})?;
        if !sliced {
            return Ok(());
        }
        let own = own.to_vec();
        let (mut outgoing, mut incoming) = (Vec::new(), Vec::new());
        let mut rest = state;
        for (&receiver, slice) in receivers.iter().zip(&slices) {
            let place = rest.split_off_mut(..slice.len()).expect("slices of it");
            if receiver != *rank {
                outgoing.push((receiver, vec![bytemuck::cast_slice(&own)]));
                incoming.push((receiver, Body::Place(bytemuck::cast_slice_mut(place))));
            }
        }
        let exchange = Exchange {
            tag,
            outgoing,
            incoming,
        };
        exchange.run(peers, waiting, *timeout, |_, _| {})
    }
}

fn to_usize(range: Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
