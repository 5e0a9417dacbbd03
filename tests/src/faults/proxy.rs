//! A TCP proxy that holds the first connection over which much is downloaded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Passes all connections on to a server. It ends, with them, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    held: Arc<Notify>,
    _connections: JoinSet<()>,
}

impl Proxy {
    /// A proxy for the server at `target`. Nothing more is passed on of the first connection over which the server has
    /// sent `most` bytes; all others are left alone.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn holding_after(target: &str, most: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (held, holds) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (notify, target) = (held.clone(), target.to_owned());
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (target, notify, holds) = (target.clone(), notify.clone(), holds.clone());
                passing.spawn(async move {
                    // An end of either side ends both.
                    let _ = pass(client, &target, most, &holds, &notify).await;
                });
            }
        });
        Ok(Self {
            address,
            held,
            _connections: connections,
        })
    }

    /// Where it listens: `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until it holds a connection.
    ///
    /// # Panics
    /// If that does not happen within `deadline`.
    pub async fn holds(&self, deadline: Duration) {
        let held = tokio::time::timeout(deadline, self.held.notified()).await;
        held.unwrap_or_else(|_| panic!("no connection was held within {deadline:?}"));
    }
}

async fn pass(
    client: TcpStream,
    target: &str,
    most: u64,
    holds: &AtomicBool,
    notify: &Notify,
) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let down = async {
        let (mut buffer, mut passed) = (vec![0; 64 << 10], 0);
        loop {
            let bytes = from_server.read(&mut buffer).await?;
            if bytes == 0 {
                return Ok(());
            }
            passed += bytes as u64;
            if passed > most && !holds.swap(true, Ordering::SeqCst) {
                notify.notify_one();
                std::future::pending::<()>().await;
            }
            to_client.write_all(&buffer[..bytes]).await?;
        }
    };
    tokio::select! {
        down = down => down,
        up = tokio::io::copy(&mut from_client, &mut to_server) => up.map(drop),
    }
}
