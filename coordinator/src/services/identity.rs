//! `Identity`: certificates for workers, and who the caller is.

use fovea_proto::pb;
use fovea_proto::pb::identity_server::Identity;
use fovea_security::authority::request_key_sha256;
use fovea_security::{Role, Token};
use tonic::{Request, Response, Status};

use super::{Context, check};
use crate::access::{JoinRequest, Signed, Signer, Subject, VALID_MS, caller};
use crate::clock::unix_ms;
use crate::error::ApiError;

/// The largest signing request, bytes. Ours have some 200.
const LARGEST: usize = 16 << 10;

/// The service.
#[derive(Debug)]
pub(crate) struct IdentityService(pub Context);

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::JoinResponse>, Status> {
        let (peer, subject) = (caller(&request).address, Subject::of(&request));
        let pb::JoinRequest {
            token,
            signing_request,
            host,
        } = request.into_inner();
        let token: Token = token
            .parse()
            .map_err(|error| ApiError::invalid("token", error))?;
        let by = format!("token {}", token.id());
        subject.set(&by);
        let host = check::label("host", &host)?;
        let key = key_of(&signing_request)?;
        let signer = self.signer()?.clone();
        // In a task: a client that goes away must not leave a use that was counted and is not known here.
        let context = self.0.clone();
        let asked = JoinRequest {
            token,
            key_sha256: key,
            host,
            peer,
            valid_ms: VALID_MS,
        };
        let joining = async move {
            let name = context.registry.join(asked, unix_ms()).await?;
            let signed = signer.sign(&name, signing_request.into()).await?;
            Ok::<_, ApiError>((name, signed))
        };
        let joined = self.0.tasks.spawn(joining).await;
        let (name, signed) = joined.map_err(|error| ApiError::Internal(error.to_string()))??;
        subject.set(format_args!("worker {name} by {by}"));
        Ok(Response::new(wire(name, signed)))
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::JoinResponse>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let name = match &caller.identity {
            Some(identity) if identity.role() == Role::Worker => identity.name().to_owned(),
            _ => {
                let text = "only a worker with a certificate can have it renewed";
                return Err(ApiError::Denied(text.into()).into());
            }
        };
        subject.set(format_args!("worker {name}"));
        let pb::RenewRequest { signing_request } = request.into_inner();
        let key = key_of(&signing_request)?;
        let signed = self.signer()?.sign(&name, signing_request.into()).await?;
        let (registry, of, until) = (self.0.registry.clone(), name.clone(), signed.expires_at_ms);
        // In a task: a client that goes away must not leave what is in the journal and not known here.
        let noting = async move { registry.renewed(&of, &key, until).await };
        let noted = self.0.tasks.spawn(noting).await;
        noted.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(wire(name, signed)))
    }

    async fn show(
        &self,
        request: Request<pb::ShowIdentityRequest>,
    ) -> Result<Response<pb::ShowIdentityResponse>, Status> {
        let caller = caller(&request);
        let identity = caller.identity.as_deref();
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let token = caller.token.as_ref();
        Ok(Response::new(pb::ShowIdentityResponse {
            cluster: text(identity.map(|i| i.cluster())),
            role: text(identity.map(|i| i.role().as_str())),
            name: text(identity.map(|i| i.name())),
            token_id: text(token.map(|token| &*token.id)),
            token_expires_at_ms: token.map_or(0, |token| token.expires_at_ms),
        }))
    }
}

impl IdentityService {
    fn signer(&self) -> Result<&Signer, ApiError> {
        self.0.signer.as_ref().ok_or_else(|| {
            ApiError::Precondition(
                "this coordinator does not sign certificates, because tls_ca_key is not set; set it, or give the worker \
                 a certificate (`fovea certs issue worker NAME`)"
                    .into(),
            )
        })
    }
}

fn key_of(signing_request: &[u8]) -> Result<String, ApiError> {
    if signing_request.len() > LARGEST {
        let problem = format!("has more than {LARGEST} bytes");
        return Err(ApiError::invalid("signing_request", problem));
    }
    request_key_sha256(signing_request).map_err(|e| ApiError::invalid("signing_request", e))
}

fn wire(name: String, signed: Signed) -> pb::JoinResponse {
    let Signed {
        certificate,
        cas: ca,
        expires_at_ms,
    } = signed;
    pb::JoinResponse {
        certificate,
        ca,
        name,
        expires_at_ms,
    }
}
