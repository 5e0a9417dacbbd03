//! The layer that every request passes: by the table of rules, into the audit log.

use std::pin::Pin;
use std::task::{Context, Poll};

use fovea_security::Identity;
use http::{HeaderMap, Request, Response, header};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::audit::{Change, Subject, denied};
use super::caller::{ByToken, Caller};
use super::registry::Registry;
use super::rules::{Rule, Who, rule};
use crate::clock::unix_ms;

/// Puts [`Access`] before a service.
#[derive(Debug, Clone)]
pub(crate) struct AccessLayer {
    /// How callers are known; None without TLS, where nobody is.
    pub known: Option<Known>,
}

/// How callers are known.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The cluster's name.
    pub cluster: String,
    pub registry: Registry,
}

/// A service that is reached only by those who may call its methods.
#[derive(Debug, Clone)]
pub(crate) struct Access<S> {
    inner: S,
    known: Option<Known>,
}

impl AccessLayer {
    /// Whether callers must be known.
    pub(crate) fn is_strict(&self) -> bool {
        self.known.is_some()
    }

    /// The caller as a request with these headers would be known, if it may call the method at this path.
    ///
    /// # Errors
    /// As such a request would be refused.
    pub(crate) fn admit(
        &self,
        mut caller: Caller,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<Caller, Status> {
        let known = self.known.as_ref();
        recognize(known, &mut caller, headers)?;
        check(known.is_some(), &caller, path)?;
        Ok(caller)
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access {
            inner,
            known: self.known.clone(),
        }
    }
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut caller: Caller = request.extensions().get().cloned().unwrap_or_default();
        let known = self.known.as_ref();
        let recognized = recognize(known, &mut caller, request.headers());
        let path = request.uri().path();
        let checked = recognized.and_then(|()| check(known.is_some(), &caller, path));
        let rule = match checked {
            Ok(rule) => rule,
            Err(status) => {
                // Without an identity there is nobody to name, and anybody could fill the log.
                if caller.identity.is_some() {
                    denied(&caller, path, status.message());
                }
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        if caller.token.is_some() {
            request.extensions_mut().insert(caller.clone());
        }
        if !rule.is_change {
            return Box::pin(self.inner.call(request));
        }
        let subject = Subject::default();
        let change = Change::begin(caller, request.uri().path(), subject.clone());
        request.extensions_mut().insert(subject);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let Ok(answer) = &answer {
                change.end(answer);
            }
            answer
        })
    }
}

/// What begins the header of a request with a token.
const BEARER: &str = "Bearer ";

/// Finds out who the caller is, if its certificate does not say that, and refuses one who is shut out.
fn recognize(
    known: Option<&Known>,
    caller: &mut Caller,
    headers: &HeaderMap,
) -> Result<(), Status> {
    let token = headers.get(header::AUTHORIZATION);
    let Some(known) = known else {
        return match token {
            None => Ok(()),
            Some(_) => Err(Status::unauthenticated(
                "a token came in plain text, where others may have read it: have it revoked (`fovea token revoke`), and \
                 use a coordinator with TLS",
            )),
        };
    };
    if let Some(identity) = &caller.identity {
        return match known.registry.denial(identity) {
            None => Ok(()),
            Some(reason) => Err(Status::permission_denied(reason)),
        };
    }
    let Some(token) = token else {
        return Ok(());
    };
    let text = token
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix(BEARER));
    let held = match text {
        Some(text) => known.registry.holder(text, caller.address, unix_ms()),
        None => Err("the header authorization must be \"Bearer \" and a token".into()),
    };
    let holder = held.map_err(Status::unauthenticated)?;
    let identity = Identity::new(&known.cluster, holder.role, &holder.name)
        .map_err(|error| Status::unauthenticated(error.to_string()))?;
    caller.identity = Some(identity.into());
    caller.token = Some(ByToken {
        id: holder.token_id,
        expires_at_ms: holder.expires_at_ms,
    });
    Ok(())
}

/// The rule by which the request passes, or why it does not.
fn check(identified: bool, caller: &Caller, path: &str) -> Result<Rule, Status> {
    let Some(rule) = rule(path) else {
        return Err(Status::unimplemented(
            "this coordinator does not know this request; check with --version that coordinator and client have the \
             same version",
        ));
    };
    match &caller.identity {
        None if !identified || rule.who == Who::Anybody => Ok(rule),
        None => Err(Status::unauthenticated(
            "a certificate or a token is needed: set tls_certificate, tls_key and tls_ca (`fovea certs issue` makes the \
             files), or log in with a token (`fovea login`)",
        )),
        Some(identity) if rule.who.includes(identity.role()) => Ok(rule),
        Some(_) => Err(Status::permission_denied(format!(
            "{caller} may not do this: it needs a certificate or a token of {}; ask an admin",
            rule.who.words()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fovea_security::{Identity, Role};
    use tonic::Code;

    use super::*;

    #[test]
    fn a_request_passes_by_its_rule() {
        let caller = |role| Caller {
            identity: Some(Arc::new(Identity::new("c", role, "x").unwrap())),
            token: None,
            address: None,
        };
        let submit = "/fovea.v1.Runs/Submit";
        let code = |identified, caller: &Caller, path| match check(identified, caller, path) {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        };
        let nobody = Caller::default();
        assert_eq!(code(false, &nobody, submit), Code::Ok);
        assert_eq!(code(true, &nobody, submit), Code::Unauthenticated);
        for (role, expected) in [
            (Role::Coordinator, Code::PermissionDenied),
            (Role::Worker, Code::PermissionDenied),
            (Role::Viewer, Code::PermissionDenied),
            (Role::Submitter, Code::Ok),
            (Role::Admin, Code::Ok),
        ] {
            assert_eq!(code(true, &caller(role), submit), expected, "{role}");
        }
        for identified in [false, true] {
            let admin = caller(Role::Admin);
            assert_eq!(
                code(identified, &admin, "/fovea.v1.Runs/X"),
                Code::Unimplemented
            );
        }
        let status = check(true, &caller(Role::Viewer), submit).unwrap_err();
        assert_eq!(
            status.message(),
            "x (viewer) may not do this: it needs a certificate or a token of a submitter, or a person with more \
             rights; ask an admin"
        );
    }
}
