//! The layer that every request passes: by the table of rules, into the audit log.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::audit::{Change, Subject, denied};
use super::caller::Caller;
use super::rules::{Rule, rule};

/// Puts [`Access`] before a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AccessLayer {
    /// Whether every caller must have an identity: with TLS.
    pub identified: bool,
}

/// A service that is reached only by those who may call its methods.
#[derive(Debug, Clone)]
pub(crate) struct Access<S> {
    inner: S,
    identified: bool,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access {
            inner,
            identified: self.identified,
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
        let caller: Caller = request.extensions().get().cloned().unwrap_or_default();
        let path = request.uri().path();
        let rule = match check(self.identified, &caller, path) {
            Ok(rule) => rule,
            Err(status) => {
                // Without an identity there is nobody to name, and anybody could fill the log.
                if caller.identity.is_some() {
                    denied(&caller, path);
                }
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        if !rule.is_change {
            return Box::pin(self.inner.call(request));
        }
        let subject = Subject::default();
        let change = Change::begin(caller, path, subject.clone());
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

/// The rule by which the request passes, or why it does not.
fn check(identified: bool, caller: &Caller, path: &str) -> Result<Rule, Status> {
    let Some(rule) = rule(path) else {
        return Err(Status::unimplemented(
            "this coordinator does not know this request; check with --version that coordinator and client have the \
             same version",
        ));
    };
    match &caller.identity {
        None if !identified => Ok(rule),
        None => Err(Status::unauthenticated(
            "a certificate is needed; set tls_certificate, tls_key and tls_ca",
        )),
        Some(identity) if rule.who.includes(identity.role()) => Ok(rule),
        Some(_) => Err(Status::permission_denied(format!(
            "{caller} may not do this: it needs a certificate of {} (`fovea certs issue` makes one)",
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
            "x (viewer) may not do this: it needs a certificate of a submitter, or a person with more rights \
             (`fovea certs issue` makes one)"
        );
    }
}
