//! The sockets that the coordinator listens on: one for each address that `listen` names.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpStream};

/// Ports that are tried when the system chooses one, until one is free on every address.
const ATTEMPTS: usize = 16;

/// Open sockets, at least one.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<TcpListener>,
    /// The one that is looked at first next time: none waits behind a flood of another.
    next: usize,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The system's error.
    pub source: io::Error,
}

impl From<TcpListener> for Listeners {
    fn from(socket: TcpListener) -> Self {
        Self {
            sockets: vec![socket],
            next: 0,
        }
    }
}

impl Listeners {
    /// Listens on all `addresses`; with port 0, on the same port of each. Also returns the addresses that this machine
    /// does not have (such as `::1` without IPv6): the others are enough.
    ///
    /// # Errors
    /// An address is in use or not allowed, or the machine has none of them.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<(Self, Vec<BindError>), BindError> {
        let mut attempt = 1;
        loop {
            let in_use = |e: &BindError| e.source.kind() == io::ErrorKind::AddrInUse;
            match bind_once(addresses).await {
                // The port was free on the first address and is taken on another.
                Err(error) if error.address.port() == 0 && in_use(&error) && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// The addresses that are listened on, in the order in which they were given.
    ///
    /// # Errors
    /// What the system says.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }

    /// The next connection.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    /// The next connection, on whichever socket.
    pub(super) fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.sockets.len();
        for index in (0..count).map(|offset| (self.next + offset) % count) {
            if let Poll::Ready(accepted) = self.sockets[index].poll_accept(context) {
                self.next = (index + 1) % count;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

/// Errors name the address as it was asked for.
async fn bind_once(addresses: &[SocketAddr]) -> Result<(Listeners, Vec<BindError>), BindError> {
    let (mut sockets, mut missing) = (Vec::new(), Vec::new());
    let mut chosen = None;
    for asked in addresses.iter().copied() {
        let fail = |source| BindError {
            address: asked,
            source,
        };
        let mut address = asked;
        if let (0, Some(port)) = (asked.port(), chosen) {
            address.set_port(port);
        }
        match TcpListener::bind(address).await {
            Ok(socket) => {
                chosen = Some(socket.local_addr().map_err(fail)?.port());
                sockets.push(socket);
            }
            Err(error) if is_missing(&error) => missing.push(fail(error)),
            Err(error) => return Err(fail(error)),
        }
    }
    if sockets.is_empty() && !missing.is_empty() {
        return Err(missing.swap_remove(0));
    }
    Ok((Listeners { sockets, next: 0 }, missing))
}

/// Whether this machine does not have the address, or its family.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Of no machine: reserved for documentation.
    const NOBODYS: &str = "192.0.2.1:0";
    /// Both are of this machine, with IPv6 or without.
    const TWO: [&str; 2] = ["127.0.0.1:0", "127.0.0.2:0"];

    fn addresses<const N: usize>(texts: [&str; N]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn both_families_get_the_same_port_where_there_are_both() {
        let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
        let asked = addresses(["127.0.0.1:0", "[::1]:0"]);
        let (listeners, missing) = Listeners::bind(&asked).await.unwrap();
        let bound = listeners.addresses().unwrap();
        assert_eq!(bound.len(), 1 + usize::from(has_ipv6), "{missing:?}");
        assert_eq!(missing.len(), usize::from(!has_ipv6), "{missing:?}");
        assert_ne!(bound[0].port(), 0);
        for (bound, asked) in bound.iter().zip(&asked) {
            assert_eq!(bound.ip(), asked.ip());
        }
        assert!(bound.iter().all(|b| b.port() == bound[0].port()));
    }

    #[tokio::test]
    async fn connections_come_from_every_socket() {
        let (mut listeners, missing) = Listeners::bind(&addresses(TWO)).await.unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        let bound = listeners.addresses().unwrap();
        assert_eq!(bound[0].port(), bound[1].port());
        let mut accepted = Vec::new();
        let mut clients = Vec::new();
        for address in [bound[1], bound[0], bound[1]] {
            clients.push(TcpStream::connect(address).await.unwrap());
            let (stream, _) = poll_fn(|cx| listeners.poll_accept(cx)).await.unwrap();
            accepted.push(stream.local_addr().unwrap());
        }
        assert_eq!(accepted, [bound[1], bound[0], bound[1]]);
    }

    #[tokio::test]
    async fn an_address_that_the_machine_lacks_is_left_out_unless_it_is_the_only_one() {
        let asked = addresses([NOBODYS, "127.0.0.1:0"]);
        let (listeners, missing) = Listeners::bind(&asked).await.unwrap();
        assert_eq!(listeners.addresses().unwrap().len(), 1);
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].address, asked[0]);
        let error = Listeners::bind(&asked[..1]).await.unwrap_err();
        assert_eq!(error.address, asked[0]);
        let family = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
        assert!(is_missing(&family));
    }

    #[tokio::test]
    async fn a_port_in_use_on_any_of_them_is_an_error() {
        let taken = TcpListener::bind(TWO[1]).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut asked = addresses(TWO);
        for address in &mut asked {
            address.set_port(port);
        }
        let error = Listeners::bind(&asked).await.unwrap_err();
        assert_eq!(error.address, asked[1]);
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}
