//! A cluster's own certificate authority (CA): makes it, and signs certificates with it.

use std::net::IpAddr;
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use crate::certificate::CertificateInfo;
use crate::files::{self, FileError};
use crate::identity::Identity;

/// How long a CA is valid, days.
pub const CA_DAYS: u32 = 3650;
/// How long a certificate is valid unless somebody says otherwise, days.
pub const DAYS: u32 = 365;

/// Clocks differ: a certificate is valid a little earlier than now.
const BACKDATED: Duration = Duration::minutes(5);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the CA.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA's key is another CA's.
    #[error(
        "{key}: it is not the key of the CA's certificate; give the two files that were made together"
    )]
    KeyMismatch {
        /// The key's file.
        key: String,
    },
    /// The CA's certificate is none of a CA.
    #[error("{path}: it is not the certificate of a CA; `fovea certs init` makes one")]
    NoCa {
        /// The file.
        path: String,
    },
    /// The CA has expired.
    #[error("{path}: this CA has expired on {until}; make a new one (`fovea certs init`)")]
    Expired {
        /// The file.
        path: String,
        /// When.
        until: String,
    },
    /// The key of a certificate that is to be renewed.
    #[error("{path}: {problem}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The request is none, or its signature is wrong.
    #[error("the signing request cannot be used: {0}")]
    Request(String),
    /// The library could not make it.
    #[error("the certificate cannot be made: {0}")]
    Made(#[from] rcgen::Error),
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// What is chosen for a certificate beside its identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// How long it is valid, days; [`DAYS`] if None.
    pub days: Option<u32>,
    /// DNS names and addresses for programs that verify those, such as grpcurl. Fovea does not.
    pub hosts: Vec<String>,
}

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    until: OffsetDateTime,
}

impl Authority {
    /// Makes the CA of a cluster.
    ///
    /// # Errors
    /// The library fails.
    pub fn create(cluster: &str, now: OffsetDateTime) -> Result<(Self, Pair), AuthorityError> {
        let key = new_key()?;
        // CAs of the same name could not be told apart by who looks for a certificate's issuer.
        let digest = Sha256::digest(key.subject_public_key_info());
        let mark = hex::encode(&digest[..4]);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Fovea CA of {cluster} {mark}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - BACKDATED;
        params.not_after = now + Duration::days(CA_DAYS.into());
        let certificate = params.self_signed(&key)?;
        let pair = Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        };
        let until = params.not_after;
        let issuer = Issuer::new(params, key);
        Ok((Self { issuer, until }, pair))
    }

    /// Reads a CA's files. Of several CAs in the file, the one counts whose key it is.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(
        certificate: &Path,
        key: &Path,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let found = files::read_certificates("the CA's certificate", certificate)?;
        let path = || certificate.display().to_string();
        let infos = found.iter().map(|ca| (ca, CertificateInfo::read(ca)));
        let cas: Vec<_> = infos
            .filter_map(|(ca, info)| Some((ca, info.ok().filter(|info| info.is_ca)?)))
            .collect();
        if cas.is_empty() {
            return Err(AuthorityError::NoCa { path: path() });
        }
        let pair = read_key("the CA's key", key)?;
        let digest = hex::encode(Sha256::digest(pair.subject_public_key_info()));
        let Some((ca, info)) = cas.iter().find(|(_, info)| info.key_sha256 == digest) else {
            return Err(AuthorityError::KeyMismatch {
                key: key.display().to_string(),
            });
        };
        if info.until <= now {
            return Err(AuthorityError::Expired {
                path: path(),
                until: info.until_text(),
            });
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(ca, pair)?,
            until: info.until,
        })
    }

    /// Makes a key, and a certificate of `identity` for it.
    ///
    /// # Errors
    /// The library fails.
    pub fn issue(
        &self,
        identity: &Identity,
        options: &Options,
        now: OffsetDateTime,
    ) -> Result<Pair, AuthorityError> {
        let key = new_key()?;
        Ok(Pair {
            certificate: self.certificate(identity, options, &key, now)?,
            key: key.serialize_pem(),
        })
    }

    /// Makes a new certificate of `identity` for the key in a file.
    ///
    /// # Errors
    /// The key cannot be used.
    pub fn renew(
        &self,
        identity: &Identity,
        options: &Options,
        key: &Path,
        now: OffsetDateTime,
    ) -> Result<String, AuthorityError> {
        self.certificate(identity, options, &read_key("the private key", key)?, now)
    }

    /// Signs the key of a request. Nothing else of the request counts: whose the certificate is says
    /// `identity`.
    ///
    /// # Errors
    /// It is no request, or its signature is wrong.
    pub fn sign_request(
        &self,
        request: &[u8],
        identity: &Identity,
        options: &Options,
        now: OffsetDateTime,
    ) -> Result<String, AuthorityError> {
        let request = parse_request(request)?;
        self.certificate(identity, options, &request.public_key, now)
    }

    fn certificate(
        &self,
        identity: &Identity,
        options: &Options,
        key: &impl PublicKeyData,
        now: OffsetDateTime,
    ) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(identity.name());
        params
            .subject_alt_names
            .push(SanType::URI(ia5(&identity.to_string())?));
        for host in &options.hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(ia5(host)?),
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let days = options.days.unwrap_or(DAYS);
        params.not_before = now - BACKDATED;
        // None is valid longer than its CA.
        params.not_after = (now + Duration::days(days.into())).min(self.until);
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// A request for a certificate of the key in a file (PEM): the request, DER.
///
/// # Errors
/// The key cannot be used.
pub fn request_for(key: &Path) -> Result<Vec<u8>, AuthorityError> {
    let key = read_key("the private key", key)?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok(request.der().to_vec())
}

/// SHA-256 of the public key in a request, hexadecimal.
///
/// # Errors
/// It is no request, or its signature is wrong.
pub fn request_key_sha256(request: &[u8]) -> Result<String, AuthorityError> {
    let key = parse_request(request)?.public_key;
    Ok(hex::encode(Sha256::digest(key.subject_public_key_info())))
}

fn parse_request(request: &[u8]) -> Result<CertificateSigningRequestParams, AuthorityError> {
    let request = CertificateSigningRequestDer::from(request);
    CertificateSigningRequestParams::from_der(&request)
        .map_err(|error| AuthorityError::Request(error.to_string()))
}

/// A new private key, PEM.
///
/// # Errors
/// The library fails.
pub fn key() -> Result<String, AuthorityError> {
    Ok(new_key()?.serialize_pem())
}

/// A certificate as PEM.
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode_config(
        &pem::Pem::new("CERTIFICATE", certificate.as_ref()),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}

fn new_key() -> Result<KeyPair, AuthorityError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn read_key(what: &'static str, path: &Path) -> Result<KeyPair, AuthorityError> {
    let pem = files::read_private(what, path)?;
    let text = String::from_utf8_lossy(&pem);
    KeyPair::from_pem(&text).map_err(|error| AuthorityError::Key {
        path: path.display().to_string(),
        problem: format!("it holds no private key that can be used: {error}"),
    })
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn ia5(text: &str) -> Result<Ia5String, rcgen::Error> {
    Ia5String::try_from(text)
}
