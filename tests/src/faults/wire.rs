//! A wire between workers: a TCP proxy in which everything can be read, and a byte changed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes that are kept of what has passed.
const KEPT: usize = 32 << 20;
/// Smaller pieces are left alone: a handshake begins with such.
const CHANGED_FROM: usize = 4096;

/// Passes all connections on to a worker's port for peers. It ends, with them, when it is dropped.
#[derive(Debug)]
pub struct Wire {
    address: String,
    shared: Arc<Shared>,
    _connections: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<u8>>,
    change: AtomicBool,
}

impl Wire {
    /// A wire to the port at `target`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn to(target: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::<Shared>::default();
        let (passed, target) = (shared.clone(), target.to_owned());
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                let (target, passed) = (target.clone(), passed.clone());
                passing.spawn(async move {
                    let Ok(called) = TcpStream::connect(target).await else {
                        return;
                    };
                    let (from_caller, to_caller) = caller.into_split();
                    let (from_called, to_called) = called.into_split();
                    // An end of either side ends both.
                    tokio::select! {
                        () = pass(from_caller, to_called, &passed) => {}
                        () = pass(from_called, to_caller, &passed) => {}
                    }
                });
            }
        });
        Ok(Self {
            address,
            shared,
            _connections: connections,
        })
    }

    /// Where it listens: `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Changes a bit of a large piece that passes next.
    pub fn change_a_bit(&self) {
        self.shared.change.store(true, Ordering::SeqCst);
    }

    /// Whether `what` can be read on the wire.
    pub fn shows(&self, what: &[u8]) -> bool {
        memchr::memmem::find(&self.seen(), what).is_some()
    }

    /// Number of bytes that are kept.
    pub fn kept(&self) -> usize {
        self.seen().len()
    }

    /// The share of the most frequent byte: 1/256 of what is encrypted, and several times that of numbers, whose exponents
    /// are alike.
    pub fn commonest_byte(&self) -> f64 {
        let seen = self.seen();
        let mut counts = [0u32; 256];
        for &byte in seen.iter() {
            counts[usize::from(byte)] += 1;
        }
        let most = counts.into_iter().max().unwrap_or(0);
        f64::from(most) / seen.len().max(1) as f64
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        let seen = self.shared.seen.lock();
        seen.expect("no holder of this lock panics")
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        let passed = &mut buffer[..bytes];
        if bytes >= CHANGED_FROM && shared.change.swap(false, Ordering::SeqCst) {
            passed[bytes / 2] ^= 1;
        }
        {
            let mut seen = shared.seen.lock().expect("no holder of this lock panics");
            let room = KEPT - seen.len();
            seen.extend_from_slice(&passed[..bytes.min(room)]);
        }
        if to.write_all(passed).await.is_err() {
            return;
        }
    }
}
