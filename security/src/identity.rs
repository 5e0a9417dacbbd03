//! Identities: who a certificate speaks for.
//!
//! A certificate carries one URI as a subject alternative name: `fovea://CLUSTER/ROLE/NAME`.

use std::fmt;
use std::str::FromStr;

/// Begins the URI of an identity.
const SCHEME: &str = "fovea://";

/// The longest name of a cluster or of its member, characters. A worker's id is its name with two
/// numbers behind it, and has at most 64.
const LONGEST_NAME: usize = 40;

/// What somebody may do. The access table of the coordinator says what that is in detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Leads the cluster.
    Coordinator,
    /// Trains.
    Worker,
    /// A person who looks.
    Viewer,
    /// A person who also submits runs and changes its own.
    Submitter,
    /// A person who may do everything that people may.
    Admin,
}

/// Who somebody is: a member of a cluster in a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    cluster: String,
    role: Role,
    name: String,
}

/// A text that is no identity, or no part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not of the form `fovea://CLUSTER/ROLE/NAME`.
    #[error("{text:?} is not an identity; it has the form fovea://CLUSTER/ROLE/NAME")]
    Form {
        /// The text.
        text: String,
    },
    /// No such role.
    #[error("{text:?} is not a role; use coordinator, worker, viewer, submitter or admin")]
    Role {
        /// The text.
        text: String,
    },
    /// A name that cannot be.
    #[error(
        "{what} {text:?}: use 1 to {LONGEST_NAME} letters, digits, '.', '_' or '-', beginning with a \
         letter or a digit"
    )]
    Name {
        /// What it names.
        what: &'static str,
        /// The text.
        text: String,
    },
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [
        Self::Coordinator,
        Self::Worker,
        Self::Viewer,
        Self::Submitter,
        Self::Admin,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Admin => "admin",
        }
    }

    /// Whether it is a person's.
    pub fn is_person(self) -> bool {
        match self {
            Self::Viewer | Self::Submitter | Self::Admin => true,
            Self::Coordinator | Self::Worker => false,
        }
    }
}

impl Identity {
    /// The identity of `name` in `cluster`.
    ///
    /// # Errors
    /// A name has other characters than letters, digits, '.', '_' and '-', or too many.
    pub fn new(cluster: &str, role: Role, name: &str) -> Result<Self, IdentityError> {
        check("cluster", cluster)?;
        check("name", name)?;
        Ok(Self {
            cluster: cluster.to_owned(),
            role,
            name: name.to_owned(),
        })
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The name within the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is the worker whose processes have ids like `worker_id`: NAME-PROCESS-RANDOM.
    ///
    /// The whole name is compared, so that `node-1` does not speak for a process of `node-1-b`.
    pub fn owns_worker(&self, worker_id: &str) -> bool {
        let mut parts = worker_id.rsplitn(3, '-');
        let (random, process) = (parts.next(), parts.next());
        self.role == Role::Worker
            && parts.next() == Some(&self.name)
            && [random, process]
                .iter()
                .all(|part| part.is_some_and(|text| !text.is_empty()))
    }
}

fn check(what: &'static str, text: &str) -> Result<(), IdentityError> {
    let good = text.len() <= LONGEST_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if good {
        return Ok(());
    }
    Err(IdentityError::Name {
        what,
        text: short(text),
    })
}

/// A stranger may have sent it: cut.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form { text: short(text) };
        let path = text.strip_prefix(SCHEME).ok_or_else(form)?;
        let mut parts = path.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(cluster), Some(role), Some(name), None) => {
                Self::new(cluster, role.parse()?, name)
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            role,
            name,
        } = self;
        write!(f, "{SCHEME}{cluster}/{role}/{name}")
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| IdentityError::Role { text: short(text) })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        for role in Role::ALL {
            let identity = Identity::new("eye-1", role, "node_3.b").unwrap();
            let text = identity.to_string();
            assert_eq!(text, format!("fovea://eye-1/{role}/node_3.b"));
            assert_eq!(text.parse::<Identity>().unwrap(), identity);
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_part_that_is_wrong() {
        for (text, named) in [
            ("", "has the form"),
            ("spiffe://c/worker/a", "has the form"),
            ("fovea://c/worker", "has the form"),
            ("fovea://c/worker/a/b", "has the form"),
            ("fovea://c/root/a", "\"root\" is not a role"),
            ("fovea://c/Worker/a", "\"Worker\" is not a role"),
            ("fovea:///worker/a", "cluster \"\""),
            ("fovea://c/worker/", "name \"\""),
            ("fovea://c/worker/-a", "name \"-a\""),
            ("fovea://c/worker/a b", "name \"a b\""),
            ("fovea://c/worker/ä", "name"),
            (&format!("fovea://c/worker/{}", "a".repeat(41)), "1 to 40"),
        ] {
            let error = text.parse::<Identity>().unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_worker_owns_the_processes_of_its_whole_name() {
        let node = Identity::new("c", Role::Worker, "node-1").unwrap();
        for id in ["node-1-77-0a0b", "node-1-1-x"] {
            assert!(node.owns_worker(id), "{id}");
        }
        for id in [
            "",
            "node-1",
            "node-1-77",
            "node-1--x",
            "node-1-1-",
            "node-1-b-77-0a0b",
            "node-77-0a0b",
            "node-12-7-0a0b",
            "NODE-1-77-0a0b",
        ] {
            assert!(!node.owns_worker(id), "{id}");
        }
        let person = Identity::new("c", Role::Admin, "node-1").unwrap();
        assert!(!person.owns_worker("node-1-77-0a0b"));
    }
}
