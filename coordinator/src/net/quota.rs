//! Counting what clients use: a limit for each client and one for all of them.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fovea_security::Identity;

/// Who is counted: a member at an address, or whoever is there, where nobody has an identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    address: IpAddr,
    member: Option<Arc<Identity>>,
}

/// Something that clients may use up to a limit, each of them and all together.
#[derive(Debug)]
pub(crate) struct Quota {
    /// What is counted, in the plural: "watches".
    things: &'static str,
    total: Limit,
    per_client: Limit,
    used: Mutex<Used>,
}

/// A limit, and what to change if it is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub most: u32,
    pub cure: Cure,
}

/// What raises a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// A key of the coordinator's configuration.
    Key(&'static str),
    /// More file descriptors for the coordinator's process.
    Descriptors,
}

#[derive(Debug, Default)]
struct Used {
    total: u32,
    /// Only clients that use something are here.
    by_client: HashMap<Client, u32>,
}

/// The right to use one of what a [`Quota`] counts. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Permit {
    quota: Arc<Quota>,
    client: Option<Client>,
}

/// All places are taken. The text is a sentence for the client, and says what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitReached {
    things: &'static str,
    /// The client whose own limit it is; None if it is the limit of all together.
    client: Option<Client>,
    limit: Limit,
}

impl Quota {
    pub(crate) fn new(things: &'static str, total: Limit, per_client: Limit) -> Arc<Self> {
        Arc::new(Self {
            things,
            total,
            per_client,
            used: Mutex::default(),
        })
    }

    /// Takes a place for a client; one that is unknown counts only in the total.
    ///
    /// # Errors
    /// If this client, or all together, have as many as they may.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        client: Option<Client>,
    ) -> Result<Permit, LimitReached> {
        let mut used = self.used();
        let reached = |client, limit| LimitReached {
            things: self.things,
            client,
            limit,
        };
        let own = client
            .as_ref()
            .and_then(|client| used.by_client.get(client));
        if own.is_some_and(|own| *own >= self.per_client.most) {
            return Err(reached(client.clone(), self.per_client));
        }
        if used.total >= self.total.most {
            return Err(reached(None, self.total));
        }
        used.total += 1;
        if let Some(client) = client.clone() {
            *used.by_client.entry(client).or_default() += 1;
        }
        drop(used);
        Ok(Permit {
            quota: Arc::clone(self),
            client,
        })
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.quota.used();
        used.total -= 1;
        if let Some(client) = &self.client
            && let Some(own) = used.by_client.get_mut(client)
        {
            *own -= 1;
            if *own == 0 {
                used.by_client.remove(client);
            }
        }
    }
}

/// The address by which a client is counted. An IPv6 host has a whole /64 network to choose
/// addresses from, so that counts as one client.
fn client_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
    }
}

impl Client {
    /// Whoever is at this address.
    pub(crate) fn at(peer: IpAddr) -> Self {
        Self {
            address: client_of(peer),
            member: None,
        }
    }

    /// A member at this address: people who share a machine do not take each other's places.
    pub(crate) fn member(peer: IpAddr, member: Option<Arc<Identity>>) -> Self {
        Self {
            member,
            ..Self::at(peer)
        }
    }
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            things,
            client,
            limit: Limit { most, cure },
        } = self;
        write!(f, "the limit of {most} {things}")?;
        match client {
            Some(Client { address, member }) => {
                f.write_str(" for ")?;
                if let Some(member) = member {
                    write!(f, "{} ({}) at ", member.name(), member.role())?;
                }
                match address {
                    IpAddr::V6(network) if !network.is_loopback() && !network.is_unspecified() => {
                        write!(f, "clients in {network}/64")?;
                    }
                    address => write!(f, "the client {address}")?,
                }
            }
            None => f.write_str(" for all clients together")?,
        }
        f.write_str(" is reached; end one, try again later, or raise ")?;
        match cure {
            Cure::Key(key) => write!(f, "{key} in the coordinator's configuration"),
            Cure::Descriptors => f.write_str(
                "the number of file descriptors that the coordinator may have (ulimit -n, or \
                 LimitNOFILE of its service)",
            ),
        }
    }
}

impl std::error::Error for LimitReached {}

#[cfg(test)]
mod tests {
    use fovea_security::Role;

    use super::*;

    fn quota(total: u32, per_client: u32) -> Arc<Quota> {
        let limit = |most, key| Limit {
            most,
            cure: Cure::Key(key),
        };
        Quota::new(
            "watches",
            limit(total, "max_watches"),
            limit(per_client, "max_watches_per_client"),
        )
    }

    fn ip(text: &str) -> Option<Client> {
        Some(Client::at(text.parse().unwrap()))
    }

    #[test]
    fn a_client_cannot_take_the_places_of_others_and_dropping_frees_one() {
        let quota = quota(3, 2);
        let first = quota.acquire(ip("10.0.0.1")).unwrap();
        let _second = quota.acquire(ip("10.0.0.1")).unwrap();
        let refused = quota.acquire(ip("10.0.0.1")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the limit of 2 watches for the client 10.0.0.1 is reached; end one, try again later, \
             or raise max_watches_per_client in the coordinator's configuration"
        );
        let _other = quota.acquire(ip("10.0.0.2")).unwrap();
        for peer in [ip("10.0.0.3"), None] {
            let refused = quota.acquire(peer).unwrap_err().to_string();
            assert!(refused.contains("3 watches for all clients"), "{refused}");
            assert!(refused.contains("raise max_watches in"), "{refused}");
        }
        drop(first);
        let _again = quota.acquire(ip("10.0.0.1")).unwrap();
    }

    #[test]
    fn people_who_share_a_machine_do_not_take_each_others_places() {
        let quota = quota(9, 1);
        let at = |name: &str| {
            let identity = Identity::new("c", Role::Viewer, name).unwrap();
            let address = "10.0.0.1".parse().unwrap();
            Some(Client::member(address, Some(Arc::new(identity))))
        };
        let _ann = quota.acquire(at("ann")).unwrap();
        let _bob = quota.acquire(at("bob")).unwrap();
        let _nobody = quota.acquire(ip("10.0.0.1")).unwrap();
        let refused = quota.acquire(at("ann")).unwrap_err().to_string();
        let named = "1 watches for ann (viewer) at the client 10.0.0.1 is reached";
        assert!(refused.contains(named), "{refused}");
    }

    #[test]
    fn clients_that_left_are_forgotten() {
        let quota = quota(1000, 1);
        for host in 0..=255u8 {
            let permit = quota.acquire(ip(&format!("10.0.0.{host}"))).unwrap();
            drop(permit);
        }
        let used = quota.used();
        assert_eq!((used.total, used.by_client.len()), (0, 0));
    }

    #[test]
    fn one_host_is_one_client() {
        let same = [
            ("10.1.2.3", "::ffff:10.1.2.3"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9"),
        ];
        for (a, b) in same {
            assert_eq!(client_of(a.parse().unwrap()), client_of(b.parse().unwrap()));
        }
        let (a, b) = ("2001:db8:0:1::1", "2001:db8:0:2::1");
        assert_ne!(client_of(a.parse().unwrap()), client_of(b.parse().unwrap()));
        let quota = quota(9, 1);
        let _held = quota.acquire(ip(a)).unwrap();
        let refused = quota.acquire(ip("2001:db8:0:1::2")).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("clients in 2001:db8:0:1::/64"), "{text}");
    }
}
