//! Certificates for workers that join, signed with the cluster's CA.

use std::path::PathBuf;

use fovea_security::authority::{Authority, AuthorityError, Options};
use fovea_security::{Identity, Role, Tls};
use time::OffsetDateTime;

use crate::blocking::blocking;
use crate::error::ApiError;

/// How long the certificate of a worker that joined is valid, days. It is renewed long before.
const DAYS: u32 = 1;
/// The same, milliseconds.
pub(crate) const VALID_MS: u64 = DAYS as u64 * 24 * 3600 * 1000;

/// Signs with the CA's key, which is read each time, so that it can be exchanged.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    tls: Tls,
    ca: PathBuf,
    key: PathBuf,
}

/// A signed certificate.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    /// PEM.
    pub certificate: String,
    /// The CAs of the cluster, PEM.
    pub cas: String,
    pub expires_at_ms: u64,
}

impl Signer {
    /// With the CA's certificate, one of those in `ca`, and its key.
    ///
    /// # Errors
    /// The key cannot be read, or is that of none of these.
    pub(crate) fn new(tls: Tls, ca: PathBuf, key: PathBuf) -> Result<Self, AuthorityError> {
        Authority::read(&ca, &key, OffsetDateTime::now_utc())?;
        Ok(Self { tls, ca, key })
    }

    /// A certificate of the worker `name` for the key in `request` (PKCS #10, DER).
    ///
    /// # Errors
    /// The request is none; the CA cannot be used now.
    pub(crate) async fn sign(&self, name: &str, request: Vec<u8>) -> Result<Signed, ApiError> {
        let cluster = self.tls.identity().cluster().to_owned();
        let identity = Identity::new(&cluster, Role::Worker, name)
            .map_err(|error| ApiError::invalid("name", error))?;
        let (ca, key) = (self.ca.clone(), self.key.clone());
        let now = OffsetDateTime::now_utc();
        let signed = blocking(move || {
            let options = Options {
                days: Some(DAYS),
                hosts: Vec::new(),
            };
            Authority::read(&ca, &key, now)?.sign_request(&request, &identity, &options, now)
        });
        let certificate = signed.await?.map_err(|error| match error {
            AuthorityError::Request(_) => ApiError::invalid("signing_request", error),
            error => ApiError::Unavailable(format!("no certificate can be signed now: {error}")),
        })?;
        let expires = now + time::Duration::days(DAYS.into());
        Ok(Signed {
            certificate,
            cas: self.tls.cas(),
            expires_at_ms: (expires.unix_timestamp_nanos() / 1_000_000) as u64,
        })
    }
}
