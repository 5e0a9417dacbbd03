//! A client that has no certificate, and knows the coordinator by the digest of its CA's key.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, SignatureScheme,
};

use crate::certificate::{CertificateInfo, identity_of};
use crate::refusal::Refusal;
use crate::verify::{Expected, tls13_signatures};

/// The CA by which a coordinator is known: SHA-256 of its public key, hexadecimal, as tokens name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin(String);

impl Pin {
    /// By the digest in a token.
    pub fn new(ca_sha256: &str) -> Self {
        Self(ca_sha256.to_owned())
    }

    /// Whether this is the certificate of that CA.
    pub fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        CertificateInfo::read(certificate).is_ok_and(|info| info.key_sha256 == self.0)
    }

    /// The configuration of a client without a certificate. The server must be a coordinator whose certificate that
    /// CA has signed; it sends the CA's certificate, too.
    pub fn client_config(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                pin: self.clone(),
                provider,
            }))
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

/// Verifies the coordinator's certificate.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let refused =
            |refusal: Refusal| Error::InvalidCertificate(refusal.into_certificate_error());
        let Some(ca) = others.iter().find(|other| self.pin.is_of(other)) else {
            return Err(refused(Refusal::OtherPin));
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &roots,
            others,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let identity = identity_of(certificate).map_err(|problem| {
            refused(Refusal::NoIdentity {
                problem: problem.to_string(),
            })
        })?;
        let expected = Expected::coordinator();
        match expected.is_met_by(&identity) {
            true => Ok(()),
            false => Err(refused(Refusal::Unexpected {
                found: identity,
                expected,
            })),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig);
}
