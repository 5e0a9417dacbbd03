//! Ports for servers that are stopped and started again at the same address.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Below the ports that the system gives to outgoing connections and to port 0 (32768 to 60999 by Linux's default):
/// while a server is stopped, one of those may go to somebody else, even to a worker that is just dialling it.
const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;

/// A port of 127.0.0.1 that nobody uses now, and that nobody is given by the system later.
///
/// # Panics
/// If all are taken.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(start()));
    for _ in 0..COUNT {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {FIRST} to {} is free", FIRST + COUNT - 1);
}

/// Where this process begins: test programs that run beside each other begin far apart.
fn start() -> u16 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mixed = u128::from(process::id()) * 7919 + now.map_or(0, |now| now.as_millis());
    (mixed % u128::from(COUNT)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_or_taken_by_outgoing_connections() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let mut ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
        assert!(ports.iter().all(|p| *p < first), "{ports:?} and {first}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 100);
    }
}
