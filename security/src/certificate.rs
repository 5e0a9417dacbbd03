//! What a certificate says.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::identity::{Identity, IdentityError};
use crate::refusal::date;

/// A certificate that cannot be read, or names no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is not a certificate.
    #[error("it is not an X.509 certificate: {0}")]
    Encoding(String),
    /// It has no URI of ours.
    #[error("it has no URI fovea://CLUSTER/ROLE/NAME as subject alternative name")]
    NoUri,
    /// It has several.
    #[error("it names several identities: {0}")]
    Several(String),
    /// It has one of ours that is wrong.
    #[error("its URI: {0}")]
    Identity(#[from] IdentityError),
}

/// What a certificate says, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Whose it is; an error for a CA's.
    pub identity: Result<Identity, CertificateError>,
    /// The name of who signed it.
    pub issuer: String,
    /// Its own name.
    pub subject: String,
    /// Begin of its validity.
    pub from: OffsetDateTime,
    /// End of its validity.
    pub until: OffsetDateTime,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal.
    pub key_sha256: String,
    /// The DNS names and addresses in it, which Fovea ignores and other programs verify.
    pub hosts: Vec<String>,
}

impl CertificateInfo {
    /// Reads a certificate.
    ///
    /// # Errors
    /// It is none.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let parsed = parse(certificate)?;
        let time = |seconds: i64| {
            OffsetDateTime::from_unix_timestamp(seconds)
                .map_err(|error| CertificateError::Encoding(error.to_string()))
        };
        let key = Sha256::digest(parsed.tbs_certificate.subject_pki.raw);
        Ok(Self {
            identity: identity_in(&parsed),
            issuer: parsed.issuer().to_string(),
            subject: parsed.subject().to_string(),
            from: time(parsed.validity().not_before.timestamp())?,
            until: time(parsed.validity().not_after.timestamp())?,
            is_ca: parsed.is_ca(),
            key_sha256: hex::encode(key),
            hosts: names(&parsed)
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => address(bytes),
                    _ => None,
                })
                .collect(),
        })
    }

    /// How long it is valid yet; negative after its end.
    pub fn left(&self, now: OffsetDateTime) -> Duration {
        self.until - now
    }

    /// Whether it ends soon: within 7 days, or within the last third of a shorter life.
    pub fn ends_soon(&self, now: OffsetDateTime) -> bool {
        let life = self.until - self.from;
        self.left(now) < Duration::days(7).min(life / 3)
    }

    /// The end of its validity for people, in UTC.
    pub fn until_text(&self) -> String {
        date(self.until)
    }

    /// The begin of its validity for people, in UTC.
    pub fn from_text(&self) -> String {
        date(self.from)
    }
}

/// Whose the certificate is.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, CertificateError> {
    identity_in(&parse(certificate)?)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(certificate.as_ref()) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => Err(CertificateError::Encoding(error.to_string())),
    }
}

fn names<'a>(parsed: &'a X509Certificate<'_>) -> Vec<GeneralName<'a>> {
    match parsed.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.clone(),
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// Exactly one of its URIs is ours; URIs of others (a SPIFFE id) may be beside it.
fn identity_in(parsed: &X509Certificate<'_>) -> Result<Identity, CertificateError> {
    let ours: Vec<&str> = names(parsed)
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("fovea:") => Some(*uri),
            _ => None,
        })
        .collect();
    match &*ours {
        [] => Err(CertificateError::NoUri),
        [uri] => Ok(uri.parse()?),
        several => Err(CertificateError::Several(several.join(", "))),
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    let any = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from));
    any.ok().map(|address| address.to_string())
}
