//! The address by which other workers reach this one: `advertise`, read and checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest name of a host, as in DNS.
const LONGEST_NAME: usize = 253;

/// Why a text is not an address that other workers can connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdvertiseError {
    /// No host at all, or nothing before the port.
    #[error("{0:?} names no host")]
    NoHost(String),
    /// A URL.
    #[error("{0:?} is a URL; leave out the scheme and what follows the port")]
    Url(String),
    /// The port is no number of a port.
    #[error("{text:?}: the port {port:?} is not a number from 1 to 65535")]
    Port {
        /// The setting.
        text: String,
        /// What stands in the place of the port.
        port: String,
    },
    /// Port 0.
    #[error(
        "{0:?}: nobody can connect to port 0; leave the port out, and that of `listen` is used"
    )]
    PortZero(String),
    /// An address that means "every address of this machine".
    #[error("{0:?}: nobody can connect to {1}, which stands for all addresses of a machine")]
    Unspecified(String, IpAddr),
    /// A multicast or broadcast address.
    #[error("{0:?}: {1} is not the address of one machine")]
    Group(String, IpAddr),
    /// Neither a name nor an address.
    #[error("{text:?}: {host:?} is neither the name of a host nor an IP address")]
    Host {
        /// The setting.
        text: String,
        /// What stands in the place of the host.
        host: String,
    },
}

/// A host, with a port or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    Ip(IpAddr),
}

impl Advertised {
    /// The whole address, `host:port` with an IPv6 address in brackets. `listen` is the port that is used where none is
    /// given.
    pub fn address(&self, listen: u16) -> String {
        let port = self.port.unwrap_or(listen);
        match &self.host {
            Host::Name(name) => format!("{name}:{port}"),
            Host::Ip(IpAddr::V4(ip)) => format!("{ip}:{port}"),
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        }
    }
}

impl FromStr for Advertised {
    type Err = AdvertiseError;

    /// Reads `host`, `host:port`, `1.2.3.4`, `1.2.3.4:port`, `::1`, `[::1]` or `[::1]:port`.
    fn from_str(text: &str) -> Result<Self, AdvertiseError> {
        let whole = || text.to_owned();
        if text.contains("://") {
            return Err(AdvertiseError::Url(whole()));
        }
        // A bare IPv6 address: what follows its last colon is no port.
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            let host = checked(text, ip.into())?;
            return Ok(Self { host, port: None });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let no_host = || AdvertiseError::Host {
                    text: whole(),
                    host: whole(),
                };
                let (inside, after) = rest.split_once(']').ok_or_else(no_host)?;
                let ip: Ipv6Addr = inside.parse().map_err(|_| no_host())?;
                let port = match after {
                    "" => None,
                    after => Some(after.strip_prefix(':').ok_or_else(no_host)?),
                };
                (checked(text, ip.into())?, port)
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (named(text, host)?, Some(port)),
                None => (named(text, text)?, None),
            },
        };
        let port = match port {
            None => None,
            // Digits only: `parse` would take a sign.
            Some(port) => match port.parse::<u16>() {
                Ok(0) => return Err(AdvertiseError::PortZero(whole())),
                Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => Some(number),
                Ok(_) | Err(_) => {
                    return Err(AdvertiseError::Port {
                        text: whole(),
                        port: port.to_owned(),
                    });
                }
            },
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Name(name), None) => write!(f, "{name}"),
            (Host::Ip(ip), None) => write!(f, "{ip}"),
            (_, Some(port)) => write!(f, "{}", self.address(port)),
        }
    }
}

/// A host outside of brackets: a name or an IPv4 address.
fn named(text: &str, host: &str) -> Result<Host, AdvertiseError> {
    if host.is_empty() {
        return Err(AdvertiseError::NoHost(text.to_owned()));
    }
    // An IPv6 address with a port needs its brackets.
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return checked(text, ip.into());
    }
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    // A name whose last part is a number would be read as an IPv4 address, and is none.
    let last = host
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit());
    if host.len() > LONGEST_NAME || number || !host.chars().all(letters) || host.contains("..") {
        return Err(AdvertiseError::Host {
            text: text.to_owned(),
            host: host.to_owned(),
        });
    }
    Ok(Host::Name(host.to_owned()))
}

/// An address that one machine can have.
fn checked(text: &str, ip: IpAddr) -> Result<Host, AdvertiseError> {
    let plain = ip.to_canonical();
    if plain.is_unspecified() {
        return Err(AdvertiseError::Unspecified(text.to_owned(), ip));
    }
    let broadcast = matches!(plain, IpAddr::V4(ip) if ip.is_broadcast());
    if plain.is_multicast() || broadcast {
        return Err(AdvertiseError::Group(text.to_owned(), ip));
    }
    Ok(Host::Ip(ip))
}

/// What is doubtful about advertising `address` (`host:port`) to the coordinator at `coordinator` (a URL or
/// `host:port`): other machines cannot connect to a loopback address, and the coordinator is not on this machine's
/// loopback, so they are to be expected. None if nothing is, or if the coordinator's address is not known yet.
pub fn doubt(address: &str, coordinator: &str) -> Option<String> {
    let coordinator = host_of(coordinator)?;
    (is_loopback(host_of(address)?) && !is_loopback(coordinator)).then(|| {
        format!(
            "{address} can be reached from this machine only, and the coordinator is at {coordinator}. If workers run \
             on other machines, give `advertise`, the host name or address by which they reach this one, and `listen` \
             on an address that they can reach"
        )
    })
}

/// The host in `host:port` or in `http://host:port`, without brackets.
fn host_of(address: &str) -> Option<&str> {
    let authority = match address.split_once("://") {
        Some((_, rest)) => rest.split('/').next()?,
        // `file:` and the like name no host.
        None if address.contains('/') => return None,
        None => address,
    };
    let (host, _) = authority.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port_become_addresses() {
        for (text, address) in [
            ("node-3", "node-3:7071"),
            ("node-3.cluster_a.example", "node-3.cluster_a.example:7071"),
            ("node-3:90", "node-3:90"),
            ("10.0.0.3", "10.0.0.3:7071"),
            ("10.0.0.3:65535", "10.0.0.3:65535"),
            ("::1", "[::1]:7071"),
            ("[::1]", "[::1]:7071"),
            ("[::1]:1", "[::1]:1"),
            ("fd00::A:7", "[fd00::a:7]:7071"),
            ("::ffff:10.0.0.3", "[::ffff:10.0.0.3]:7071"),
            ("[fd00::7]:90", "[fd00::7]:90"),
        ] {
            let advertised: Advertised = text.parse().unwrap();
            assert_eq!(advertised.address(7071), address, "{text}");
            assert_eq!(advertised.to_string().parse(), Ok(advertised), "{text}");
        }
    }

    #[test]
    fn what_nobody_can_connect_to_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "names no host"),
            (":7071", "names no host"),
            ("node-3:0", "nobody can connect to port 0"),
            ("[::1]:0", "nobody can connect to port 0"),
            ("node-3:", "the port \"\""),
            ("node-3:http", "the port \"http\""),
            ("node-3:+80", "the port \"+80\""),
            ("node-3:65536", "the port \"65536\""),
            ("[::1]:", "the port \"\""),
            ("0.0.0.0", "0.0.0.0, which stands for all addresses"),
            ("0.0.0.0:7071", "0.0.0.0, which stands for all addresses"),
            ("::", "::, which stands for all addresses"),
            ("[::]:7071", "::, which stands for all addresses"),
            ("::ffff:0.0.0.0", "which stands for all addresses"),
            ("224.0.0.1", "not the address of one machine"),
            ("ff02::1", "not the address of one machine"),
            ("255.255.255.255:1", "not the address of one machine"),
            ("http://node-3:7071", "is a URL"),
            ("tcp://10.0.0.3", "is a URL"),
            ("node 3", "neither the name of a host"),
            ("node-3 ", "neither the name of a host"),
            ("node-3\n", "neither the name of a host"),
            ("node-3/x", "neither the name of a host"),
            ("me@node-3", "neither the name of a host"),
            ("näher", "neither the name of a host"),
            ("a..b", "neither the name of a host"),
            (".", "neither the name of a host"),
            ("10.0.0.256", "neither the name of a host"),
            ("10.0.0", "neither the name of a host"),
            ("7071", "neither the name of a host"),
            ("fe80::1%eth0", "neither the name of a host"),
            ("[node-3]:80", "neither the name of a host"),
            ("[10.0.0.3]:80", "neither the name of a host"),
            ("[::1", "neither the name of a host"),
            ("[::1]80", "neither the name of a host"),
            ("::1:7071:x", "neither the name of a host"),
            ("1:2:3:4:5:6:7:8:7071", "neither the name of a host"),
        ] {
            let error = text.parse::<Advertised>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let long = format!("{}.example", "a".repeat(250));
        assert!(long.parse::<Advertised>().is_err());
    }

    #[test]
    fn a_loopback_address_is_doubtful_unless_the_coordinator_is_there_too() {
        for (address, coordinator) in [
            ("127.0.0.1:7071", "http://10.0.0.1:7070"),
            ("localhost:7071", "http://coordinator:7070/"),
            ("[::1]:7071", "[fd00::1]:7070"),
        ] {
            let doubt = doubt(address, coordinator).expect(address);
            assert!(doubt.starts_with(address), "{doubt}");
            assert!(doubt.contains("`advertise`"), "{doubt}");
        }
        for (address, coordinator) in [
            ("127.0.0.1:7071", "http://127.0.0.1:7070"),
            ("127.0.0.1:7071", "http://localhost:7070"),
            ("127.0.0.2:7071", "[::1]:7070"),
            ("10.0.0.3:7071", "http://10.0.0.1:7070"),
            ("10.0.0.3:7071", "http://localhost:7070"),
            // Not known before the file is read.
            ("127.0.0.1:7071", "file:/shared/fovea.address"),
        ] {
            assert_eq!(doubt(address, coordinator), None, "{address} {coordinator}");
        }
    }
}
