//! `Tokens`: secrets that stand for people, or let workers join.

use fovea_proto::pb;
use fovea_proto::pb::tokens_server::Tokens;
use fovea_security::{Identity, Role};
use tonic::{Request, Response, Status};

use super::Context;
use crate::access::{NewToken, ShownToken, StoredToken, Subject, caller};
use crate::clock::unix_ms;
use crate::error::ApiError;

/// The longest validity, seconds.
const LONGEST: u64 = 366 * 24 * 3600;

/// The service.
#[derive(Debug)]
pub(crate) struct TokensService(pub Context);

#[tonic::async_trait]
impl Tokens for TokensService {
    async fn create(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let new = self.checked(request.into_inner(), caller.owner())?;
        let whose = match new.role {
            Role::Worker => "workers that join".to_owned(),
            role => format!("{} ({role})", new.name),
        };
        subject.set(format_args!("a token of {whose}"));
        let ca = self.ca_sha256()?;
        // In a task: a client that goes away must not leave a token that is in the journal and not known here.
        let registry = self.0.registry.clone();
        let creating = async move { registry.create(new, &ca, unix_ms()).await };
        let created = self.0.tasks.spawn(creating).await;
        let (token, stored) = created.map_err(|error| ApiError::Internal(error.to_string()))??;
        subject.set(format_args!("token {} of {whose}", stored.id));
        Ok(Response::new(pb::CreateTokenResponse {
            token: token.reveal(),
            info: Some(wire(stored, None)),
        }))
    }

    async fn list(
        &self,
        _: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let tokens = self.0.registry.tokens(unix_ms());
        let tokens = tokens.into_iter().map(|shown| {
            let ShownToken { token, used_at_ms } = shown;
            wire(token, used_at_ms)
        });
        Ok(Response::new(pb::ListTokensResponse {
            tokens: tokens.collect(),
        }))
    }

    async fn revoke(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let subject = Subject::of(&request);
        let pb::RevokeTokenRequest { id } = request.into_inner();
        subject.set(format_args!("token {id}"));
        let registry = self.0.registry.clone();
        let revoking = self
            .0
            .tasks
            .spawn(async move { registry.revoke(&id).await });
        let revoked = revoking.await;
        let revoked = revoked.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(pb::RevokeTokenResponse {
            info: Some(wire(revoked, None)),
        }))
    }
}

impl TokensService {
    /// The digest by which holders know this coordinator.
    fn ca_sha256(&self) -> Result<String, ApiError> {
        let Some(tls) = &self.0.tls else {
            return Err(ApiError::Precondition(
                "this coordinator has no TLS, and a token over plain text could be read by others; set tls_certificate, \
                 tls_key and tls_ca (`fovea certs init` makes the files)"
                    .into(),
            ));
        };
        if !self.0.config.tokens {
            return Err(ApiError::Precondition(
                "this coordinator takes no tokens: `tokens` is false in its configuration".into(),
            ));
        }
        tls.ca_sha256().ok_or_else(|| {
            ApiError::Precondition(
                "none of the CAs in tls_ca has signed the coordinator's certificate, so that no token can name it".into(),
            )
        })
    }

    fn checked(
        &self,
        request: pb::CreateTokenRequest,
        created_by: Option<String>,
    ) -> Result<NewToken, ApiError> {
        let pb::CreateTokenRequest {
            role,
            name,
            valid_s,
            uses,
        } = request;
        let role: Role = role.parse().map_err(|e| ApiError::invalid("role", e))?;
        if !(1..=LONGEST).contains(&valid_s) {
            return Err(ApiError::invalid(
                "valid_s",
                format!(
                    "is {valid_s} ({}); use 1 to {LONGEST} (366 days)",
                    span(valid_s)
                ),
            ));
        }
        match role {
            Role::Coordinator => {
                return Err(ApiError::invalid(
                    "role",
                    "a coordinator has a certificate (`fovea certs issue coordinator NAME`), and no token",
                ));
            }
            Role::Worker if !name.is_empty() => {
                return Err(ApiError::invalid(
                    "name",
                    "the coordinator chooses the names of workers that join; leave it empty",
                ));
            }
            Role::Worker if self.0.signer.is_none() => {
                return Err(ApiError::Precondition(
                    "no worker can join: the coordinator does not sign certificates, because tls_ca_key is not set".into(),
                ));
            }
            Role::Worker => {}
            Role::Viewer | Role::Submitter | Role::Admin => {
                Identity::new("c", role, &name).map_err(|e| ApiError::invalid("name", e))?;
                if uses > 0 {
                    return Err(ApiError::invalid(
                        "uses",
                        "only tokens for workers have a number of uses",
                    ));
                }
            }
        }
        Ok(NewToken {
            role,
            name,
            valid_ms: valid_s * 1000,
            uses,
            created_by,
        })
    }
}

/// Seconds as people count them.
fn span(seconds: u64) -> String {
    let (unit, per) = match seconds {
        0..7200 => ("seconds", 1),
        7200..172_800 => ("hours", 3600),
        _ => ("days", 24 * 3600),
    };
    let whole = seconds / per;
    let about = if seconds.is_multiple_of(per) {
        ""
    } else {
        "about "
    };
    format!("{about}{whole} {unit}")
}

fn wire(token: StoredToken, used_at_ms: Option<u64>) -> pb::TokenInfo {
    let StoredToken {
        id,
        role,
        name,
        secret_sha256: _,
        created_at_ms,
        expires_at_ms,
        created_by,
        uses,
        used,
        joined: _,
    } = token;
    pb::TokenInfo {
        id,
        role: role.to_string(),
        name,
        created_at_ms,
        expires_at_ms,
        created_by: created_by.unwrap_or_default(),
        uses,
        used,
        last_used_at_ms: used_at_ms.unwrap_or(0),
    }
}
