//! Sends and receives the messages of one call at the same time, on one thread.
//!
//! The thread waits for all connections at once, and serves those that are ready: full socket buffers block nobody, a
//! slow peer delays only what depends on it, and no thread is started for a message or a peer. As one thread owns both
//! directions of a connection, no lock is needed for it, and its TLS.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::CollectiveError;
use super::waiting::{POLL_INTERVAL, Waiting};
use super::wire::{Body, Header, Peer, Receiving, Sending, Tag, header};

/// The messages of one call.
pub(super) struct Exchange<'a> {
    pub(super) tag: Tag,
    /// For each peer that is sent something, its rank and the pieces of its message.
    pub(super) outgoing: Vec<(usize, Vec<&'a [u8]>)>,
    /// For each peer that sends something, its rank and where that goes; in the order of ranks.
    pub(super) incoming: Vec<(usize, Body<'a>)>,
}

impl<'a> Exchange<'a> {
    /// Sends and receives all. `arrived` is given each message as soon as it and those of all lower ranks have come, so
    /// in the order of ranks. `waiting` publishes the peer whose message is the next, or who must read.
    ///
    /// A peer from which nothing came, or which took nothing, for `timeout` while that was due is lost. After an error
    /// all connections are shut down, so that no peer goes on waiting for this worker.
    pub(super) fn run(
        self,
        peers: &mut [Option<Peer>],
        waiting: &Waiting,
        timeout: Duration,
        arrived: impl FnMut(usize, Body<'a>),
    ) -> Result<(), CollectiveError> {
        let result = self.transfer(peers, waiting, timeout, arrived);
        if result.is_err() {
            peers.iter_mut().flatten().for_each(Peer::shut_down);
        }
        result
    }

    fn transfer(
        self,
        peers: &mut [Option<Peer>],
        waiting: &Waiting,
        timeout: Duration,
        mut arrived: impl FnMut(usize, Body<'a>),
    ) -> Result<(), CollectiveError> {
        let tag = self.tag;
        let length = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum();
        let headers: Vec<Header> = (self.outgoing.iter())
            .map(|(_, parts)| header(tag, length(parts)))
            .collect();
        let now = Instant::now();
        let mut sending: Vec<_> = self
            .outgoing
            .into_iter()
            .zip(&headers)
            .map(|((rank, parts), header)| Transfer::new(Sending::new(rank, header, parts), now))
            .collect();
        let mut receiving: Vec<_> = self
            .incoming
            .into_iter()
            .map(|(rank, body)| Transfer::new(Receiving::new(rank, tag, body), now))
            .collect();
        // Handed over so far.
        let mut taken = 0;
        let mut waits = None;
        loop {
            for Transfer { message, at } in sending.iter_mut().filter(|s| s.at.ready) {
                at.moved(peer(peers, message.rank).send(message)?);
            }
            sending.retain(|sending| !sending.message.is_done());
            let due = &mut receiving[taken..];
            for Transfer { message, at } in due.iter_mut().filter(|r| r.at.ready) {
                at.moved(peer(peers, message.rank).receive(message)?);
                // It is not asked again before it is handed over.
                at.ready &= !message.is_done();
            }
            while let Some(Transfer { message, .. }) = receiving.get_mut(taken)
                && message.is_done()
            {
                arrived(message.rank, message.take());
                taken += 1;
            }
            let due = &mut receiving[taken..];
            let Some(slowest) = (due.first().map(|r| r.message.rank))
                .or_else(|| sending.first().map(|s| s.message.rank))
            else {
                return Ok(());
            };
            waits
                .get_or_insert_with(|| waiting.begin(slowest))
                .switch(slowest);

            let reads = due.iter_mut().filter(|r| !r.message.is_done());
            let reads = reads.map(|r| (r.message.rank, PollFlags::IN, &mut r.at));
            let writes = sending.iter_mut();
            let writes = writes.map(|s| (s.message.rank, PollFlags::OUT, &mut s.at));
            wait(peers, reads.chain(writes).collect(), timeout)?;
        }
    }
}

/// A message, and when something of it was transferred.
struct Transfer<M> {
    message: M,
    at: At,
}

/// When something was transferred last, and whether more can be transferred now.
struct At {
    last: Instant,
    ready: bool,
}

impl<M> Transfer<M> {
    /// It is tried at once: mostly there is room, and what is due may be there already.
    fn new(message: M, last: Instant) -> Self {
        let at = At { last, ready: true };
        Self { message, at }
    }
}

impl At {
    fn moved(&mut self, anything: bool) {
        if anything {
            self.last = Instant::now();
        }
    }
}

fn peer(peers: &mut [Option<Peer>], rank: usize) -> &mut Peer {
    (peers[rank].as_mut()).expect("messages are exchanged with other ranks only")
}

/// Waits until one of the peers is ready, or until the next poll is due, and notes who is.
fn wait(
    peers: &[Option<Peer>],
    transfers: Vec<(usize, PollFlags, &mut At)>,
    timeout: Duration,
) -> Result<(), CollectiveError> {
    let peer = |rank: usize| peers[rank].as_ref().expect("as above");
    let mut polled: Vec<PollFd> = transfers
        .iter()
        .map(|(rank, flags, _)| PollFd::new(peer(*rank).socket(), *flags))
        .collect();
    let interval = POLL_INTERVAL.min(timeout);
    let interval = Timespec {
        tv_sec: interval.as_secs() as i64,
        tv_nsec: interval.subsec_nanos().into(),
    };
    match poll(&mut polled, Some(&interval)) {
        // A signal: the caller polls again.
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(CollectiveError::Poll(io::Error::from(error))),
    }
    for ((rank, _, at), polled) in transfers.into_iter().zip(polled) {
        // Whatever it is, a closed connection included, the next call tells.
        at.ready = !polled.revents().is_empty();
        if !at.ready && at.last.elapsed() >= timeout {
            return Err(peer(rank).late());
        }
    }
    Ok(())
}
