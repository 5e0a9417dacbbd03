//! Verification of a peer's certificate: by its CA, its time and its identity. Names of hosts play
//! no part.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    RootCertStore, SignatureScheme,
};

use crate::certificate::identity_of;
use crate::identity::{Identity, Role};
use crate::refusal::Refusal;

/// The methods about signatures that both traits of verifiers have: TLS 1.3 as the provider verifies it, and
/// nothing older.
macro_rules! tls13_signatures {
    ($older:expr) => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err($older.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider
                .signature_verification_algorithms
                .supported_schemes()
        }
    };
}
pub(crate) use tls13_signatures;

/// Who the peer must be, beside being of the same cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any member of the cluster.
    Member,
    /// Anybody in this role.
    Role(Role),
    /// Only this one.
    Named(Role, String),
    /// The worker to which the process with this id belongs.
    WorkerProcess(String),
}

impl Expected {
    /// The coordinator, whatever its name.
    pub fn coordinator() -> Self {
        Self::Role(Role::Coordinator)
    }

    pub(crate) fn is_met_by(&self, identity: &Identity) -> bool {
        match self {
            Self::Member => true,
            Self::Role(role) => identity.role() == *role,
            Self::Named(role, name) => identity.role() == *role && identity.name() == name,
            Self::WorkerProcess(id) => identity.owns_worker(id),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member => f.write_str("a member of the cluster"),
            Self::Role(role @ Role::Admin) => write!(f, "an {role}"),
            Self::Role(role) => write!(f, "a {role}"),
            Self::Named(role, name) => write!(f, "the {role} {name}"),
            Self::WorkerProcess(id) => write!(f, "the worker of process {id}"),
        }
    }
}

/// Verifies the certificates of peers, on either side.
#[derive(Debug)]
pub(crate) struct Verifier {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
    cluster: String,
    expected: Expected,
    /// Whether clients may have no certificate.
    strangers: bool,
}

impl Verifier {
    /// # Errors
    /// There is no CA.
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        cluster: &str,
        expected: Expected,
    ) -> Result<Self, String> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| error.to_string())?;
        Ok(Self {
            roots,
            clients,
            provider,
            cluster: cluster.to_owned(),
            expected,
            strangers: false,
        })
    }

    /// Clients may have no certificate. One that they show is verified.
    pub(crate) fn with_strangers(mut self) -> Self {
        self.strangers = true;
        self
    }

    fn check_identity(&self, certificate: &CertificateDer<'_>) -> Result<(), CertificateError> {
        let identity = match identity_of(certificate) {
            Ok(identity) => identity,
            Err(problem) => {
                let problem = problem.to_string();
                return Err(Refusal::NoIdentity { problem }.into_certificate_error());
            }
        };
        let refusal = if identity.cluster() != self.cluster {
            Refusal::OtherCluster {
                found: identity,
                ours: self.cluster.clone(),
            }
        } else if !self.expected.is_met_by(&identity) {
            Refusal::Unexpected {
                found: identity,
                expected: self.expected.clone(),
            }
        } else {
            return Ok(());
        };
        Err(refusal.into_certificate_error())
    }

    /// The certificate as a server's.
    pub(crate) fn server(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            intermediates,
            now,
            algorithms.all,
        )?;
        Ok(self.check_identity(certificate)?)
    }

    /// The certificate as a client's.
    pub(crate) fn client(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.clients
            .verify_client_cert(certificate, intermediates, now)?;
        Ok(self.check_identity(certificate)?)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.server(certificate, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig);
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.strangers
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.client(certificate, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!(PeerIncompatible::Tls12NotOffered);
}
