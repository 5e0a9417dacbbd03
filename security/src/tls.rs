//! A member's TLS: its certificate and CAs, as they are now, and rustls configurations from them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::OffsetDateTime;
use tracing::warn;

use crate::authority;
use crate::certificate::{CertificateInfo, identity_of};
use crate::files::{self, Contents, FileError, TlsFiles};
use crate::identity::{Identity, Role};
use crate::refusal::Refusal;
use crate::verify::{Expected, Verifier};

/// Why a member cannot use its files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate.
    #[error("tls_certificate {path}: {problem}")]
    Certificate {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The certificate is for another role.
    #[error(
        "tls_certificate {path}: it is {found}, and this program needs a certificate of {needed}; \
         `fovea certs issue` makes one"
    )]
    Role {
        /// The file.
        path: String,
        /// Whose it is.
        found: Identity,
        /// What would be right.
        needed: &'static str,
    },
    /// The key is another certificate's.
    #[error(
        "tls_key {path}: it is not the key of tls_certificate; give the two files that were made together"
    )]
    KeyMismatch {
        /// The key's file.
        path: String,
    },
    /// The files name somebody else than before.
    #[error("tls_certificate names {found} now, and {known} before; restart to use it")]
    OtherIdentity {
        /// Whose it is now.
        found: Identity,
        /// Whose it was.
        known: Identity,
    },
}

/// A member's TLS. Clones share what is current.
#[derive(Debug, Clone)]
pub struct Tls {
    pub(crate) files: Arc<TlsFiles>,
    current: Arc<ArcSwap<State>>,
}

/// What the files held when they were read last.
#[derive(Debug)]
struct State {
    identity: Identity,
    info: CertificateInfo,
    certified: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    cas: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Tls {
    /// Reads and checks the files of a member whose role `allows`; `needed` says in words which
    /// roles those are. Warns when the certificate ends soon.
    ///
    /// # Errors
    /// Names the file, what is wrong with it, and what to do.
    pub fn load(
        files: TlsFiles,
        needed: &'static str,
        allows: impl Fn(Role) -> bool,
    ) -> Result<Self, TlsError> {
        let state = State::of(&files, &Contents::read(&files)?)?;
        if !allows(state.identity.role()) {
            return Err(TlsError::Role {
                path: files.certificate.display().to_string(),
                found: state.identity,
                needed,
            });
        }
        state.warn_of_end();
        Ok(Self {
            files: Arc::new(files),
            current: Arc::new(ArcSwap::from_pointee(state)),
        })
    }

    /// Uses what the files hold now.
    ///
    /// # Errors
    /// As [`Tls::load`], or they name another identity. What was current stays so.
    pub(crate) fn replace(&self, contents: &Contents) -> Result<(), TlsError> {
        let state = State::of(&self.files, contents)?;
        let known = self.identity();
        if state.identity != known {
            return Err(TlsError::OtherIdentity {
                found: state.identity,
                known,
            });
        }
        self.current.store(Arc::new(state));
        Ok(())
    }

    /// Who this member is. It does not change.
    pub fn identity(&self) -> Identity {
        self.current.load().identity.clone()
    }

    /// What the current certificate says.
    pub fn certificate(&self) -> CertificateInfo {
        self.current.load().info.clone()
    }

    /// Logs a warning if the current certificate ends soon.
    pub(crate) fn warn_of_end(&self) {
        self.current.load().warn_of_end();
    }

    /// The configuration of a server, with the present certificate. Clients must show a certificate
    /// of this cluster that meets `clients`; sessions are not resumed, so that each connection is
    /// verified.
    pub fn server_config(&self, clients: Expected, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        let state = self.current.load();
        let verifier = state.verifier(clients);
        state.server_config(verifier, Arc::clone(&state.certified), protocols)
    }

    /// The configuration of a coordinator, whose clients are all members, and also `strangers` without a certificate, for
    /// whom a token speaks, or nothing. It sends its CA's certificate, too, because these know it by that
    /// ([`Pin`](crate::Pin)).
    pub fn coordinator_config(&self, strangers: bool, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        let state = self.current.load();
        let mut verifier = state.verifier(Expected::Member);
        if strangers {
            verifier = verifier.with_strangers();
        }
        let mut certified = CertifiedKey::clone(&state.certified);
        if let Some(ca) = state.signer()
            && !certified.cert.contains(ca)
        {
            certified.cert.push(ca.clone());
        }
        state.server_config(verifier, Arc::new(certified), protocols)
    }

    /// SHA-256 of the public key of the CA that has signed the current certificate, hexadecimal: how tokens name it.
    pub fn ca_sha256(&self) -> Option<String> {
        let state = self.current.load();
        let info = CertificateInfo::read(state.signer()?).ok()?;
        Some(info.key_sha256)
    }

    /// The CAs of the cluster, PEM.
    pub fn cas(&self) -> String {
        let state = self.current.load();
        let pem = |ca: &CertificateDer<'_>| authority::pem(ca);
        state.cas.iter().map(pem).collect()
    }

    /// The configuration of a client, with the present certificate. The server must show a
    /// certificate of this cluster that meets `server`.
    pub fn client_config(&self, server: Expected, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let state = self.current.load();
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&state.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(state.verifier(server)))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
                &state.certified,
            ))));
        config.alpn_protocols = owned(protocols);
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

impl State {
    fn of(files: &TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let path = || files.certificate.display().to_string();
        let chain =
            files::certificates("tls_certificate", &files.certificate, &contents.certificate)?;
        let bad = |problem: String| TlsError::Certificate {
            path: path(),
            problem,
        };
        let info = CertificateInfo::read(&chain[0]).map_err(|e| bad(e.to_string()))?;
        let identity = match &info.identity {
            Ok(identity) => identity.clone(),
            Err(error) => {
                return Err(bad(format!(
                    "{error}; `fovea certs issue` makes a certificate that has it"
                )));
            }
        };
        let cas = files::certificates("tls_ca", &files.ca, &contents.ca)?;
        let roots = roots(&cas).map_err(|error| FileError::Content {
            key: "tls_ca",
            path: files.ca.clone(),
            problem: format!("a certificate in it is no CA's that can be used: {error}"),
        })?;
        let key = files::private_key("tls_key", &files.key, &contents.key)?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| {
                TlsError::File(FileError::Content {
                    key: "tls_key",
                    path: files.key.clone(),
                    problem: format!(
                        "it cannot be used: {error}; use ECDSA P-256 (`fovea certs issue`)"
                    ),
                })
            })?;
        let certified = CertifiedKey::new(chain, key);
        if certified.keys_match().is_err() {
            return Err(TlsError::KeyMismatch {
                path: files.key.display().to_string(),
            });
        }
        let state = Self {
            identity,
            info,
            certified: Arc::new(certified),
            roots: Arc::new(roots),
            cas,
            provider,
        };
        state.check_own().map_err(bad)?;
        Ok(state)
    }

    /// Peers would refuse a certificate that these CAs have not signed, or that is out of date.
    fn check_own(&self) -> Result<(), String> {
        let (own, others) = match self.certified.cert.split_first() {
            Some((own, others)) => (own, others),
            None => return Err("it holds no certificate".into()),
        };
        let verifier = self.verifier(Expected::Member);
        let now = UnixTime::now();
        let mut checked = verifier.client(own, others, now);
        let serves = !self.identity.role().is_person();
        if serves && checked.is_ok() {
            checked = verifier.server(own, others, now);
        }
        checked.map_err(|error| match Refusal::from(&error) {
            Refusal::OtherCa => {
                "it is signed by none of the CAs in tls_ca; give the CA that has signed it".into()
            }
            Refusal::Expired { .. } => format!(
                "it has expired on {}; renew it (`fovea certs renew`), and check this machine's clock",
                self.info.until_text()
            ),
            Refusal::NotYetValid { .. } => format!(
                "it is not valid before {}; check this machine's clock",
                self.info.from_text()
            ),
            Refusal::Purpose => "it lacks the extended key usages server and client authentication; \
                                 `fovea certs issue` sets both"
                .into(),
            other => other.by("it"),
        })
    }

    fn server_config(
        &self,
        clients: Verifier,
        certified: Arc<CertifiedKey>,
        protocols: &[&[u8]],
    ) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(Arc::new(clients))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = owned(protocols);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// The CA that has signed this member's certificate, with the intermediate ones in its file.
    fn signer(&self) -> Option<&CertificateDer<'static>> {
        let (own, others) = self.certified.cert.split_first()?;
        self.cas.iter().find(|ca| {
            let alone = roots(std::slice::from_ref(*ca)).ok();
            let verifier = alone.map(|roots| self.verifier_by(Arc::new(roots), Expected::Member));
            verifier.is_some_and(|v| v.server(own, others, UnixTime::now()).is_ok())
        })
    }

    fn verifier(&self, expected: Expected) -> Verifier {
        self.verifier_by(Arc::clone(&self.roots), expected)
    }

    fn verifier_by(&self, roots: Arc<RootCertStore>, expected: Expected) -> Verifier {
        Verifier::new(
            roots,
            Arc::clone(&self.provider),
            self.identity.cluster(),
            expected,
        )
        .expect("there is a CA: `roots` has checked it")
    }

    fn warn_of_end(&self) {
        let (identity, info) = (&self.identity, &self.info);
        if info.ends_soon(OffsetDateTime::now_utc()) {
            let until = info.until_text();
            warn!(
                %identity,
                until,
                "tls.ends_soon: the certificate of {identity} ends on {until}; renew it (`fovea certs \
                 renew`), a running program takes the new file by itself"
            );
        }
    }
}

/// Who the peer of a completed handshake is, from the certificates that it has shown.
pub fn peer_identity(certificates: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
    identity_of(certificates?.first()?).ok()
}

/// Makes this crate's cryptography that of every library in the process. Call it first in `main`:
/// two providers in one process make libraries panic that expect one.
pub fn install_provider() {
    // An error means that it has been installed before.
    let _ = aws_lc_rs::default_provider().install_default();
}

fn roots(cas: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone())?;
    }
    Ok(roots)
}

fn owned(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|name| name.to_vec()).collect()
}
