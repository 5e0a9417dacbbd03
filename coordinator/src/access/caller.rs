//! Who makes a request.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use fovea_core::ids::WorkerId;
use fovea_security::{Identity, Role};

use crate::error::ApiError;

/// Who makes a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    /// By its certificate or its token; None without TLS.
    pub identity: Option<Arc<Identity>>,
    /// The token that speaks for it, if one does.
    pub token: Option<ByToken>,
    /// Where it is; None if the request did not come over the network.
    pub address: Option<SocketAddr>,
}

/// The token by which somebody is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByToken {
    pub id: String,
    pub expires_at_ms: u64,
}

/// Who makes this request.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Caller {
    request.extensions().get().cloned().unwrap_or_default()
}

impl Caller {
    /// The person that a run belongs to if this caller submits it.
    pub(crate) fn owner(&self) -> Option<String> {
        self.identity
            .as_ref()
            .map(|identity| identity.name().to_owned())
    }

    /// Refuses a submitter a change of a run that is not its own.
    ///
    /// # Errors
    /// [`ApiError::Denied`], with whose it is.
    pub(crate) fn may_change(
        &self,
        run: impl fmt::Display,
        owner: Option<&str>,
    ) -> Result<(), ApiError> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        if identity.role() == Role::Admin || owner == Some(identity.name()) {
            return Ok(());
        }
        let whose = match owner {
            Some(owner) => format!("belongs to {owner}"),
            None => "belongs to nobody".to_owned(),
        };
        Err(ApiError::Denied(format!(
            "{run} {whose}, and {self} may change only its own runs; ask an admin"
        )))
    }

    /// Refuses what only an admin may do: `what` says what that is.
    ///
    /// # Errors
    /// [`ApiError::Denied`].
    pub(crate) fn must_be_admin(&self, what: impl fmt::Display) -> Result<(), ApiError> {
        match &self.identity {
            Some(identity) if identity.role() != Role::Admin => Err(ApiError::Denied(format!(
                "{self} may not {what}; it needs a certificate or a token of an admin"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a worker to speak for another one.
    ///
    /// # Errors
    /// [`ApiError::Denied`], with both names.
    pub(crate) fn may_speak_for(&self, field: &str, worker: &WorkerId) -> Result<(), ApiError> {
        match &self.identity {
            Some(identity) if !identity.owns_worker(worker.as_str()) => {
                let name = identity.name();
                Err(ApiError::Denied(format!(
                    "{field}: {worker} is no process of {self}, whose ids are {name}-PROCESS-RANDOM; leave the \
                     worker's `name` empty, or give it a certificate of that name"
                )))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// `ann (submitter)`, `ann (submitter, token 0a1b2c3d4e5f)`, or the address where there is no identity.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.identity, self.address) {
            (Some(identity), _) => {
                write!(f, "{} ({}", identity.name(), identity.role())?;
                if let Some(ByToken { id, .. }) = &self.token {
                    write!(f, ", token {id}")?;
                }
                f.write_str(")")
            }
            (None, Some(address)) => write!(f, "somebody at {}", address.ip()),
            (None, None) => f.write_str("somebody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fovea_core::ids::RunId;

    use super::*;

    fn as_(role: Role, name: &str) -> Caller {
        Caller {
            identity: Some(Arc::new(Identity::new("c", role, name).unwrap())),
            token: None,
            address: Some(([10, 0, 0, 1], 7).into()),
        }
    }

    #[test]
    fn a_submitter_changes_its_own_runs_an_admin_all_and_nobody_is_known_without_tls() {
        let run = RunId::new("dr-1").unwrap();
        let ann = as_(Role::Submitter, "ann");
        for (caller, owner, allowed) in [
            (&ann, Some("ann"), true),
            (&ann, Some("bob"), false),
            (&ann, None, false),
            (&as_(Role::Admin, "root"), Some("bob"), true),
            (&as_(Role::Admin, "root"), None, true),
            (&Caller::default(), Some("bob"), true),
        ] {
            let may = caller.may_change(&run, owner);
            assert_eq!(may.is_ok(), allowed, "{caller} {owner:?}");
        }
        let text = ann.may_change(&run, Some("bob")).unwrap_err().to_string();
        assert_eq!(
            text,
            "dr-1 belongs to bob, and ann (submitter) may change only its own runs; ask an admin"
        );
    }

    #[test]
    fn a_worker_speaks_for_its_own_processes() {
        let id = |text: &str| WorkerId::new(text).unwrap();
        let node = as_(Role::Worker, "node-1");
        assert!(node.may_speak_for("f", &id("node-1-77-0a0b")).is_ok());
        assert!(Caller::default().may_speak_for("f", &id("x")).is_ok());
        let error = node.may_speak_for("f", &id("node-2-77-0a0b")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("f: node-2-77-0a0b is no process of node-1 (worker)"),
            "{text}"
        );
    }
}
