//! Who is who: the caller, tokens, and workers that are denied.

use fovea_proto::pb;
use serde::Serialize;

/// Who the caller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityInfo {
    /// Name of the cluster; empty without TLS.
    pub cluster: String,
    /// viewer, submitter, admin, worker or coordinator; empty without TLS.
    pub role: String,
    /// The caller's name; empty without TLS.
    pub name: String,
    /// Id of the token that was shown; empty if a certificate was.
    pub token_id: String,
    /// When that token ends, milliseconds since the Unix epoch; 0 without one.
    pub token_expires_at_ms: u64,
}

/// What the coordinator keeps of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// worker (to join), viewer, submitter or admin.
    pub role: String,
    /// The person's name; empty for a worker's.
    pub name: String,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When it ends, milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// Who made it; empty if that is not known.
    pub created_by: String,
    /// How many workers may join with it; 0 is no limit.
    pub uses: u32,
    /// How many have joined.
    pub used: u32,
    /// When it was used last since the coordinator's start, milliseconds since the Unix epoch; 0 if it was not.
    pub last_used_at_ms: u64,
}

/// A worker that is shut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeniedInfo {
    /// The name in its certificate.
    pub name: String,
    /// Why; may be empty.
    pub reason: String,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Who has done it; empty if that is not known.
    pub by: String,
}

impl From<pb::ShowIdentityResponse> for IdentityInfo {
    fn from(wire: pb::ShowIdentityResponse) -> Self {
        let pb::ShowIdentityResponse {
            cluster,
            role,
            name,
            token_id,
            token_expires_at_ms,
        } = wire;
        Self {
            cluster,
            role,
            name,
            token_id,
            token_expires_at_ms,
        }
    }
}

impl From<pb::TokenInfo> for TokenInfo {
    fn from(wire: pb::TokenInfo) -> Self {
        let pb::TokenInfo {
            id,
            role,
            name,
            created_at_ms,
            expires_at_ms,
            created_by,
            uses,
            used,
            last_used_at_ms,
        } = wire;
        Self {
            id,
            role,
            name,
            created_at_ms,
            expires_at_ms,
            created_by,
            uses,
            used,
            last_used_at_ms,
        }
    }
}

impl From<pb::DeniedWorker> for DeniedInfo {
    fn from(wire: pb::DeniedWorker) -> Self {
        let pb::DeniedWorker {
            name,
            reason,
            since_ms,
            by,
        } = wire;
        Self {
            name,
            reason,
            since_ms,
            by,
        }
    }
}
