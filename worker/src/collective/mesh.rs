//! How the workers of a generation connect to each other.
//!
//! Every worker listens on one port for its whole life. A worker of rank i connects to all ranks
//! below it and shows the generation's key (16 random bytes from the coordinator) and its own rank;
//! it is called by all ranks above. A connection that shows a key nobody asks for is dropped after a
//! while: the peer may simply have heard of the generation before this worker did.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use fovea_core::roster::Roster;

use super::CollectiveError;

/// What the peers of a generation show each other.
pub type MeshKey = [u8; 16];

const MAGIC: [u8; 8] = *b"fovea-m1";
/// Magic, key, rank.
const GREETING: usize = 8 + 16 + 4;
/// A greeting must come within this.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// A connection that nobody asks for is dropped after this.
const UNCLAIMED: Duration = Duration::from_secs(60);
/// More unclaimed connections than this are refused.
const MOST_UNCLAIMED: usize = 4096;

/// Connections from peers, waiting for the generation that they belong to.
#[derive(Default)]
struct Arrivals {
    by_key: HashMap<MeshKey, Vec<(u32, TcpStream, Instant)>>,
}

/// This worker's end of all connections with peers.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<(Mutex<Arrivals>, Condvar)>,
    address: SocketAddr,
}

impl Mesh {
    /// Starts to accept peers on `listener`; the task ends when `tasks` is dropped.
    pub fn start(listener: TcpListener, tasks: &mut JoinSet<()>) -> io::Result<Self> {
        let mesh = Self {
            shared: Arc::default(),
            address: listener.local_addr()?,
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
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let mesh = self.clone();
                        greetings.spawn(async move {
                            let greeting = tokio::time::timeout(GREETING_DEADLINE, greeted(stream));
                            match greeting.await {
                                Ok(Ok((key, rank, stream))) => mesh.arrived(key, rank, stream),
                                Ok(Err(e)) => debug!(%from, "not a peer: {e}"),
                                Err(_) => debug!(%from, "a connection said nothing"),
                            }
                        });
                    }
                    Err(e) => {
                        // Out of file descriptors, say: do not spin.
                        warn!("cannot accept a peer: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = greetings.join_next(), if !greetings.is_empty() => {}
            }
        }
    }

    fn arrived(&self, key: MeshKey, rank: u32, stream: TcpStream) {
        let (arrivals, changed) = &*self.shared;
        let mut arrivals = arrivals.lock().expect("no holder of this lock panics");
        for waiting in arrivals.by_key.values_mut() {
            waiting.retain(|(_, _, since)| since.elapsed() < UNCLAIMED);
        }
        arrivals.by_key.retain(|_, waiting| !waiting.is_empty());
        if arrivals.by_key.values().map(Vec::len).sum::<usize>() < MOST_UNCLAIMED {
            let waiting = arrivals.by_key.entry(key).or_default();
            waiting.push((rank, stream, Instant::now()));
            changed.notify_all();
        }
    }

    /// Connects the worker of rank `rank` with all its peers, by rank; its own place stays empty.
    /// Blocks for at most `deadline`, and gives up as soon as `aborted` says so.
    pub fn connect(
        &self,
        roster: &Roster,
        key: MeshKey,
        rank: usize,
        deadline: Duration,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<TcpStream>>, CollectiveError> {
        let end = Instant::now() + deadline;
        let mut streams: Vec<Option<TcpStream>> = roster.members.iter().map(|_| None).collect();
        for (peer, slot) in streams.iter_mut().enumerate().take(rank) {
            let member = &roster.members[peer];
            *slot =
                Some(call(&member.address, key, rank, end, aborted).map_err(
                    |problem| match problem {
                        None => CollectiveError::Aborted,
                        Some(problem) => CollectiveError::Peer {
                            peer: member.worker.to_string(),
                            rank: peer,
                            problem: format!("cannot be reached at {}: {problem}", member.address),
                        },
                    },
                )?);
        }
        let (arrivals, changed) = &*self.shared;
        let mut waiting = arrivals.lock().expect("no holder of this lock panics");
        loop {
            for (from, stream, _) in waiting.by_key.remove(&key).unwrap_or_default() {
                let from = from as usize;
                if from > rank && from < streams.len() {
                    streams[from] = Some(stream);
                }
            }
            let missing: Vec<&str> = (rank + 1..streams.len())
                .filter(|&r| streams[r].is_none())
                .map(|r| roster.members[r].worker.as_str())
                .collect();
            if missing.is_empty() {
                return Ok(streams);
            }
            if aborted() {
                return Err(CollectiveError::Aborted);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CollectiveError::Incomplete {
                    missing: missing.join(", "),
                    waited: deadline,
                });
            }
            // Woken by an arrival; in between, a look at `aborted`.
            let wait = left.min(Duration::from_millis(50));
            waiting = changed
                .wait_timeout(waiting, wait)
                .expect("no holder of this lock panics")
                .0;
        }
    }
}

async fn greeted(mut stream: tokio::net::TcpStream) -> io::Result<(MeshKey, u32, TcpStream)> {
    let mut greeting = [0; GREETING];
    stream.read_exact(&mut greeting).await?;
    if greeting[..8] != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it does not greet as a peer does",
        ));
    }
    let key = greeting[8..24].try_into().expect("16 bytes");
    let rank = u32::from_le_bytes(greeting[24..].try_into().expect("4 bytes"));
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok((key, rank, stream))
}

/// Calls a peer until it answers or `end` has come. `Err(None)` means aborted.
fn call(
    address: &str,
    key: MeshKey,
    rank: usize,
    end: Instant,
    aborted: &dyn Fn() -> bool,
) -> Result<TcpStream, Option<String>> {
    let mut pause = Duration::from_millis(10);
    loop {
        if aborted() {
            return Err(None);
        }
        let left = end.saturating_duration_since(Instant::now());
        match try_call(address, key, rank, left.min(Duration::from_secs(1))) {
            Ok(stream) => return Ok(stream),
            Err(e) if left.is_zero() => return Err(Some(e.to_string())),
            Err(_) => std::thread::sleep(pause.min(left)),
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

fn try_call(address: &str, key: MeshKey, rank: usize, wait: Duration) -> io::Result<TcpStream> {
    use std::io::Write;
    let target = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, wait.max(Duration::from_millis(1)))?;
    stream.set_nodelay(true)?;
    let mut greeting = [0; GREETING];
    greeting[..8].copy_from_slice(&MAGIC);
    greeting[8..24].copy_from_slice(&key);
    greeting[24..].copy_from_slice(&(rank as u32).to_le_bytes());
    stream.write_all(&greeting)?;
    Ok(stream)
}
