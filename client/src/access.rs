//! Requests about who is who: the caller, tokens, workers that are denied.

use fovea_proto::pb;
use fovea_proto::pb::identity_client::IdentityClient;
use fovea_proto::pb::tokens_client::TokensClient;

use crate::client::Client;
use crate::error::Error;
use crate::view::{DeniedInfo, IdentityInfo, TokenInfo};

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// worker (to join), viewer, submitter or admin.
    pub role: String,
    /// The person's name; empty for a worker's.
    pub name: String,
    /// How long it is valid, seconds.
    pub valid_s: u64,
    /// How many workers may join with it; 0 is no limit.
    pub uses: u32,
}

impl Client {
    /// Who the coordinator says that the caller is.
    pub async fn identity(&self) -> Result<IdentityInfo, Error> {
        let mut client = IdentityClient::new(self.service());
        let request = pb::ShowIdentityRequest {};
        self.answer(client.show(request)).await.map(Into::into)
    }

    /// Makes a token: its text, and what the coordinator keeps of it.
    pub async fn create_token(&self, new: NewToken) -> Result<(String, TokenInfo), Error> {
        let NewToken {
            role,
            name,
            valid_s,
            uses,
        } = new;
        let mut client = TokensClient::new(self.service());
        let request = pb::CreateTokenRequest {
            role,
            name,
            valid_s,
            uses,
        };
        let reply = self.answer(client.create(request)).await?;
        let info = reply
            .info
            .ok_or_else(|| Error::Protocol("a new token without its id".into()))?;
        Ok((reply.token, info.into()))
    }

    /// All tokens, oldest first.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let mut client = TokensClient::new(self.service());
        let reply = self.answer(client.list(pb::ListTokensRequest {})).await?;
        Ok(reply.tokens.into_iter().map(Into::into).collect())
    }

    /// Makes a token useless.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenInfo, Error> {
        let mut client = TokensClient::new(self.service());
        let request = pb::RevokeTokenRequest { id: id.into() };
        let reply = self.answer(client.revoke(request)).await?;
        reply
            .info
            .map(Into::into)
            .ok_or_else(|| Error::Protocol("a revoked token without its id".into()))
    }

    /// Shuts a worker out, by the name in its certificate. How many of its processes were connected.
    pub async fn deny_worker(&self, name: &str, reason: &str) -> Result<u32, Error> {
        let request = pb::DenyWorkerRequest {
            name: name.into(),
            reason: reason.into(),
        };
        let reply = self
            .answer(self.cluster_client().deny_worker(request))
            .await?;
        Ok(reply.sessions)
    }

    /// Lets a worker in again.
    pub async fn allow_worker(&self, name: &str) -> Result<(), Error> {
        let request = pb::AllowWorkerRequest { name: name.into() };
        self.answer(self.cluster_client().allow_worker(request))
            .await?;
        Ok(())
    }

    /// The workers that are denied, by name.
    pub async fn denied_workers(&self) -> Result<Vec<DeniedInfo>, Error> {
        let request = pb::ListDeniedRequest {};
        let reply = self
            .answer(self.cluster_client().list_denied(request))
            .await?;
        Ok(reply.denied.into_iter().map(Into::into).collect())
    }
}
