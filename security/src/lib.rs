//! Who is who in a cluster, and how they make sure of it.
//!
//! ```text
//! files ──> Tls (current certificate and CAs) ──> ServerConfig, ClientConfig of rustls
//!   ^         ^ every 10 s                            │ the handshake verifies the peer:
//!   │         │                                       │ signed by a CA, in time, of this
//! authority  reload                                   v cluster, in an expected role
//! (fovea certs)                                    Identity, or a Refusal with a sentence
//! ```
//!
//! Invariants: TLS 1.3 only. A peer is known by the URI in its certificate
//! (`fovea://CLUSTER/ROLE/NAME`), never by a DNS name or an address. Private keys are read only from
//! files that nobody else can read.

pub mod authority;
mod certificate;
mod connect;
mod files;
mod identity;
mod pinned;
mod refusal;
mod reload;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod verify;

pub use certificate::{CertificateError, CertificateInfo};
pub use connect::{Accepted, Begun, FirstBytes, Greeting, Parts, accept, begin, say_goodbye};
pub use files::{FileError, TlsFiles, read_certificates, read_secret, write_private, write_public};
pub use identity::{Identity, IdentityError, Role};
pub use pinned::Pin;
pub use refusal::{Refusal, Rejection, utc};
pub use reload::RELOAD_EVERY;
pub use tls::{Tls, TlsError, install_provider, peer_identity};
pub use token::{NoToken, SecretDigest, Token, TokenKind};
pub use verify::Expected;
