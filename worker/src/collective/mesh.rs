//! Connections between the workers of a generation.
//!
//! Every worker listens on one port for its whole life. A worker of rank i connects to all ranks
//! below it and sends the generation's key (16 random bytes from the coordinator) and its own rank;
//! all ranks above connect to it. A connection whose key no generation of this worker has is dropped after 120 s: the
//! peer may have received the generation before this worker did.
//!
//! A probe is a connection that belongs to no generation. It is answered at once, which shows that this
//! worker can be reached.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use fovea_core::roster::{Roster, UNREACHABLE_HINT};

use super::waiting::{Waiting, Waits};
use super::{CollectiveError, Unreached};

/// The secret by which the peers of a generation recognize each other.
pub type MeshKey = [u8; 16];

/// Start of a peer's greeting.
const MAGIC: [u8; 8] = *b"fovea-m1";
/// The whole greeting of a probe, and the answer to it.
const PROBE: [u8; 8] = *b"fovea-p1";
/// Magic, key, rank.
const GREETING: usize = 8 + 16 + 4;
/// A greeting must come within this.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// Connections whose greeting is awaited at a time; others wait in the system's queue.
const MOST_GREETINGS: usize = 256;
/// A connection that no generation claims is dropped after this, or a little later.
const UNCLAIMED: Duration = Duration::from_secs(120);
/// Of more unclaimed connections than this, the oldest are dropped.
const MOST_UNCLAIMED: usize = 512;
/// Longest time of one attempt to connect, so that a peer whose packets are lost does not delay the others.
const CALL: Duration = Duration::from_secs(1);
/// Time between two checks whether the generation was aborted.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// This worker's end of all connections with peers.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<(Mutex<Vec<Arrival>>, Condvar)>,
    address: SocketAddr,
    unclaimed: Duration,
}

/// A connection from a peer, waiting for its generation. They are kept in the order of arrival.
struct Arrival {
    key: MeshKey,
    rank: u32,
    stream: TcpStream,
    since: Instant,
}

/// Connects to a worker's port for peers and waits for its answer. It shows that the worker can be
/// reached from here, before a generation counts on it.
pub async fn probe(address: &str, deadline: Duration) -> io::Result<()> {
    let answered = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(&PROBE).await?;
        let mut answer = [0; PROBE.len()];
        stream.read_exact(&mut answer).await?;
        if answer != PROBE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the program that answers there is not a worker",
            ));
        }
        Ok(())
    };
    match tokio::time::timeout(deadline, answered).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {deadline:?}"),
        )),
    }
}

impl Mesh {
    /// Starts to accept peers on `listener`; the task ends when `tasks` is dropped.
    pub fn start(listener: TcpListener, tasks: &mut JoinSet<()>) -> io::Result<Self> {
        Self::start_dropping_after(UNCLAIMED, listener, tasks)
    }

    fn start_dropping_after(
        unclaimed: Duration,
        listener: TcpListener,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Self> {
        let mesh = Self {
            shared: Arc::default(),
            address: listener.local_addr()?,
            unclaimed,
        };
        let acceptor = mesh.clone();
        tasks.spawn(async move { acceptor.accept(listener).await });
        Ok(mesh)
    }

    /// Where peers reach this worker.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(self, listener: TcpListener) {
        let mut greetings = JoinSet::new();
        // Dropping them must not depend on further arrivals: without a free file descriptor there are none.
        let mut sweep = tokio::time::interval(self.unclaimed / 4);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                accepted = listener.accept(), if greetings.len() < MOST_GREETINGS => match accepted {
                    Ok((stream, from)) => {
                        let mesh = self.clone();
                        greetings.spawn(async move {
                            let greeting = tokio::time::timeout(GREETING_DEADLINE, greeted(stream));
                            match greeting.await {
                                Ok(Ok(Some((key, rank, stream)))) => mesh.arrived(key, rank, stream),
                                Ok(Ok(None)) => debug!(%from, "answered a probe"),
                                Ok(Err(e)) => debug!(%from, "not a peer: {e}"),
                                Err(_) => debug!(%from, "a connection sent no greeting"),
                            }
                        });
                    }
                    Err(e) => {
                        // For example without a free file descriptor: do not spin.
                        warn!("peer.not_accepted: cannot accept a connection of a peer: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = greetings.join_next(), if !greetings.is_empty() => {}
                _ = sweep.tick() => self.arrivals().retain(|a| a.since.elapsed() < self.unclaimed),
            }
        }
    }

    fn arrived(&self, key: MeshKey, rank: u32, stream: TcpStream) {
        let mut arrivals = self.arrivals();
        // The newest belong to the generation that is forming, the oldest to ended ones.
        let excess = (arrivals.len() + 1).saturating_sub(MOST_UNCLAIMED);
        arrivals.drain(..excess);
        arrivals.push(Arrival {
            key,
            rank,
            stream,
            since: Instant::now(),
        });
        self.shared.1.notify_all();
    }

    fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.shared.0.lock().expect("no holder of this lock panics")
    }

    /// Connects the worker of rank `rank` with all its peers, by rank; its own place stays empty.
    /// Blocks for about `deadline` at most, and gives up as soon as `aborted` holds. `waiting` publishes one of the
    /// missing peers.
    pub fn connect(
        &self,
        roster: &Roster,
        key: MeshKey,
        rank: usize,
        deadline: Duration,
        aborted: &dyn Fn() -> bool,
        waiting: &Waiting,
    ) -> Result<Vec<Option<TcpStream>>, CollectiveError> {
        let mut end = Instant::now() + deadline;
        let mut streams: Vec<Option<TcpStream>> = roster.members.iter().map(|_| None).collect();
        let Some(anyone) = (0..streams.len()).find(|&r| r != rank) else {
            return Ok(streams);
        };
        let waits = waiting.begin(anyone);
        let mut problems: HashMap<usize, io::Error> = HashMap::new();
        let mut pause = Duration::from_millis(10);
        let mut next_round = Instant::now();
        loop {
            waits.poll();
            // All are tried in turn: one that cannot be reached must not delay the others.
            if Instant::now() >= next_round {
                let below: Vec<usize> = (0..rank).filter(|&r| streams[r].is_none()).collect();
                for &peer in &below {
                    if aborted() {
                        return Err(CollectiveError::Aborted);
                    }
                    waits.switch(peer);
                    let left = end.saturating_duration_since(Instant::now());
                    let wait = CALL.min(left / below.len() as u32);
                    let address = &roster.members[peer].address;
                    match polling(&waits, || call(address, key, rank, wait)) {
                        Ok(stream) => {
                            streams[peer] = Some(stream);
                            problems.remove(&peer);
                        }
                        Err(problem) => {
                            problems.insert(peer, problem);
                        }
                    }
                }
                next_round = Instant::now() + pause;
                pause = (pause * 2).min(Duration::from_millis(200));
            }

            let mut arrivals = self.arrivals();
            for arrival in arrivals.extract_if(.., |arrival| arrival.key == key) {
                let from = arrival.rank as usize;
                if from > rank && from < streams.len() {
                    streams[from] = Some(arrival.stream);
                }
            }
            // A peer may have disconnected while this worker waited for others.
            for stream in &mut streams {
                stream.take_if(|stream| disconnected(stream));
            }
            let missing: Vec<usize> = (0..streams.len())
                .filter(|&r| r != rank && streams[r].is_none())
                .collect();
            let Some(&first) = missing.first() else {
                return Ok(streams);
            };
            if aborted() {
                return Err(CollectiveError::Aborted);
            }
            waits.switch(first);
            let now = Instant::now();
            if now >= end {
                drop(arrivals);
                // A peer that answers but has not connected is busy with a long step, and not missing.
                let silent = |&peer: &usize| {
                    problems.contains_key(&peer)
                        || polling(&waits, || answers(&roster.members[peer].address)).is_err()
                };
                let missing: Vec<usize> = missing.into_iter().filter(silent).collect();
                if missing.is_empty() {
                    end = Instant::now() + deadline;
                    continue;
                }
                return Err(incomplete(roster, &missing, &problems, deadline));
            }
            // Woken by an arrival; in between `aborted` is checked and the others are tried again.
            let mut wait = POLL_INTERVAL.min(end - now);
            if first < rank {
                wait = wait.min(next_round.saturating_duration_since(now));
            }
            let (guard, _) = (self.shared.1)
                .wait_timeout(arrivals, wait)
                .expect("no holder of this lock panics");
            drop(guard);
        }
    }
}

/// [`probe`], for threads that may block.
fn answers(address: &str) -> io::Result<()> {
    use std::io::{Read, Write};
    let mut stream = open(address, CALL)?;
    stream.set_read_timeout(Some(CALL))?;
    stream.write_all(&PROBE)?;
    let mut answer = [0; PROBE.len()];
    stream.read_exact(&mut answer)?;
    if answer == PROBE {
        Ok(())
    } else {
        Err(io::Error::other(
            "the program that answers there is not a worker",
        ))
    }
}

fn incomplete(
    roster: &Roster,
    missing: &[usize],
    problems: &HashMap<usize, io::Error>,
    waited: Duration,
) -> CollectiveError {
    for peer in missing {
        let member = &roster.members[*peer];
        let (worker, address) = (&member.worker, &member.address);
        let what = match problems.get(peer) {
            Some(problem) => format!("cannot connect to {worker} at {address}: {problem}"),
            None => format!(
                "{worker} at {address} has not connected, or has disconnected, and does not answer"
            ),
        };
        warn!(%worker, address, "peer.unreachable: {what}; {UNREACHABLE_HINT}");
    }
    let peer = |&rank: &usize| {
        let member = &roster.members[rank];
        Unreached {
            worker: member.worker.to_string(),
            address: member.address.clone(),
        }
    };
    CollectiveError::Incomplete {
        missing: missing.iter().map(peer).collect(),
        waited,
    }
}

/// Reads a peer's greeting, or answers a probe.
async fn greeted(
    mut stream: tokio::net::TcpStream,
) -> io::Result<Option<(MeshKey, u32, TcpStream)>> {
    let mut magic = [0; 8];
    stream.read_exact(&mut magic).await?;
    if magic == PROBE {
        stream.write_all(&PROBE).await?;
        return Ok(None);
    }
    if magic != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its greeting is not that of a peer",
        ));
    }
    let mut key = [0; 16];
    stream.read_exact(&mut key).await?;
    let mut rank = [0; 4];
    stream.read_exact(&mut rank).await?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok(Some((key, u32::from_le_bytes(rank), stream)))
}

/// Runs `work` on a thread of its own while this one polls: a name server may take long to answer.
fn polling<T: Send>(waits: &Waits, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let (done, finished) = mpsc::channel();
        let worker = scope.spawn(move || {
            let result = work();
            // The receiver lives until then.
            let _ = done.send(());
            result
        });
        while let Err(RecvTimeoutError::Timeout) = finished.recv_timeout(POLL_INTERVAL) {
            waits.poll();
        }
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Connects to the first address of a name that answers, within `wait` for all together.
fn open(address: &str, wait: Duration) -> io::Result<TcpStream> {
    let targets: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let wait = (wait / targets.len().max(1) as u32).max(Duration::from_millis(1));
    let mut connected = Err(io::Error::other("the name has no address"));
    for target in &targets {
        connected = TcpStream::connect_timeout(target, wait);
        if connected.is_ok() {
            break;
        }
    }
    connected
}

/// Calls a peer once and greets it.
fn call(address: &str, key: MeshKey, rank: usize, wait: Duration) -> io::Result<TcpStream> {
    use std::io::Write;
    let mut stream = open(address, wait)?;
    stream.set_nodelay(true)?;
    let mut greeting = [0; GREETING];
    greeting[..8].copy_from_slice(&MAGIC);
    greeting[8..24].copy_from_slice(&key);
    greeting[24..].copy_from_slice(&(rank as u32).to_le_bytes());
    stream.write_all(&greeting)?;
    Ok(stream)
}

/// Whether the peer has closed the connection. Nothing is read: its first message may be there already.
fn disconnected(stream: &TcpStream) -> bool {
    let peeked = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]));
    let open = match peeked {
        Ok(bytes) => bytes > 0,
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    };
    !open || stream.set_nonblocking(false).is_err()
}

#[cfg(test)]
#[path = "mesh_tests.rs"]
mod tests;
