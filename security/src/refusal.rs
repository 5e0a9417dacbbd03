//! Why two ends did not come to an agreement: one sentence for each reason, with what to do.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, OtherError, PeerIncompatible};
use time::OffsetDateTime;

use crate::identity::Identity;
use crate::verify::Expected;

/// Why a handshake failed. Its text calls the other end "the peer"; [`Refusal::by`] gives it a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The peer's certificate is signed by none of our CAs.
    OtherCa,
    /// The peer's certificate is not signed by the CA that our token names.
    OtherPin,
    /// The peer's certificate was valid until then.
    Expired {
        /// End of its validity; None if it is not known.
        until: Option<OffsetDateTime>,
    },
    /// The peer's certificate is valid only from then on.
    NotYetValid {
        /// Begin of its validity; None if it is not known.
        from: Option<OffsetDateTime>,
    },
    /// The peer is a member of another cluster.
    OtherCluster {
        /// Who it is.
        found: Identity,
        /// Our cluster.
        ours: String,
    },
    /// The peer is somebody else than was expected.
    Unexpected {
        /// Who it is.
        found: Identity,
        /// Who was expected.
        expected: Expected,
    },
    /// The peer's certificate names no identity of Fovea.
    NoIdentity {
        /// What is wrong.
        problem: String,
    },
    /// The peer's certificate is not made for this use.
    Purpose,
    /// The peer's certificate cannot be used for another reason.
    Certificate(String),
    /// The peer showed no certificate.
    NoCertificate,
    /// The peer does not speak TLS 1.3.
    OldTls,
    /// The peer does not speak TLS.
    PlainText {
        /// What it says instead, if it says why.
        reason: Option<String>,
    },
    /// The peer refuses our certificate, or what we speak.
    Refused(Rejection),
    /// The peer did not complete the handshake in time.
    Slow,
    /// The connection broke, or what came makes no sense.
    Broken(String),
}

/// What the peer's alert says about us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It does not know our CA.
    OtherCa,
    /// Our certificate is out of date, by its clock.
    Expired,
    /// It demands a certificate.
    NoCertificate,
    /// It does not accept who we are, or the certificate as it is.
    Certificate,
    /// It speaks another version of TLS.
    Version,
    /// It speaks another protocol above TLS.
    Protocol,
}

impl Refusal {
    /// The sentence, with the peer called `peer`, such as "the coordinator".
    pub fn by(&self, peer: &str) -> String {
        match self {
            Self::OtherCa => format!(
                "{peer}'s certificate is signed by another CA than those in tls_ca; use a certificate \
                 of this cluster's CA (`fovea certs issue`), or add the other CA to tls_ca"
            ),
            Self::OtherPin => format!(
                "{peer} belongs to another cluster than the token: its CA is another; correct the address, or take a \
                 token of that cluster (`fovea token create`). If the address is right, somebody else answers there"
            ),
            Self::Expired { until } => format!(
                "{peer}'s certificate has expired{}; renew it (`fovea certs renew`), and check the \
                 clocks of both machines",
                at(" on ", until)
            ),
            Self::NotYetValid { from } => format!(
                "{peer}'s certificate is not valid yet{}; check the clocks of both machines",
                at(", but from ", from)
            ),
            Self::OtherCluster { found, ours } => format!(
                "{peer} is {found}, of another cluster than this one ({ours}); correct the address, or \
                 use certificates of one cluster"
            ),
            Self::Unexpected { found, expected } => format!(
                "{peer} is {found}, and {expected} was expected; give it a certificate in that role \
                 and name (`fovea certs issue`), or correct the address"
            ),
            Self::NoIdentity { problem } => format!(
                "{peer}'s certificate does not say who it is: {problem}; it needs one URI \
                 fovea://CLUSTER/ROLE/NAME as subject alternative name (`fovea certs issue` makes such)"
            ),
            Self::Purpose => format!(
                "{peer}'s certificate is not made for this use; it needs the extended key usages server \
                 and client authentication (`fovea certs issue` sets both)"
            ),
            Self::Certificate(problem) => format!(
                "{peer}'s certificate cannot be used: {problem}; make a new one (`fovea certs issue`)"
            ),
            Self::NoCertificate => format!(
                "{peer} showed no certificate; set its tls_certificate, tls_key and tls_ca (`fovea \
                 certs issue` makes them)"
            ),
            Self::OldTls => format!(
                "{peer} does not speak TLS 1.3, and nothing older is accepted; use a newer TLS library there"
            ),
            Self::PlainText { reason: Some(text) } => {
                format!("{peer} answered in plain text: {text}")
            }
            Self::PlainText { reason: None } => format!(
                "{peer} speaks plain text, and TLS was expected; give both ends tls_certificate, tls_key \
                 and tls_ca, or neither"
            ),
            Self::Refused(rejection) => rejection.by(peer),
            Self::Slow => format!("{peer} did not complete the TLS handshake in time; try again"),
            Self::Broken(problem) => format!("the TLS handshake with {peer} failed: {problem}"),
        }
    }

    /// Whether another attempt with the same files would meet the same.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Slow | Self::Broken(_))
    }

    /// The refusal in an error of a connection; None if TLS is not its subject.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refusal) = error.downcast_ref::<Self>() {
                return Some(refusal.clone());
            }
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Some(Self::from(error));
            }
            // An io::Error shows what it wraps only here.
            let wrapped = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            next = match wrapped {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    /// As an error of a verifier.
    pub(crate) fn into_certificate_error(self) -> CertificateError {
        CertificateError::Other(OtherError(std::sync::Arc::new(self)))
    }
}

impl Rejection {
    fn by(self, peer: &str) -> String {
        match self {
            Self::OtherCa => format!(
                "{peer} does not know the CA of this certificate; use a certificate of its cluster's \
                 CA (`fovea certs issue`), or add this CA to its tls_ca"
            ),
            Self::Expired => format!(
                "{peer} says that this certificate is out of date; renew it (`fovea certs renew`), and \
                 check the clocks of both machines"
            ),
            Self::NoCertificate => format!(
                "{peer} demands a certificate; set tls_certificate, tls_key and tls_ca (`fovea certs \
                 issue` makes them)"
            ),
            Self::Certificate => format!(
                "{peer} does not accept this certificate; its log says why (`fovea certs show` prints \
                 what the certificate says)"
            ),
            Self::Version => {
                format!("{peer} does not speak TLS 1.3, and nothing older is accepted")
            }
            Self::Protocol => format!(
                "{peer} speaks another protocol; correct the address, or run the same release of both"
            ),
        }
    }
}

fn at(before: &str, time: &Option<OffsetDateTime>) -> String {
    match time {
        Some(time) => format!("{before}{}", date(*time)),
        None => String::new(),
    }
}

/// A time for people, in UTC: milliseconds since the Unix epoch, to the minute.
pub fn utc(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).ok();
    match seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()) {
        Some(time) => date(time),
        None => format!("{ms} ms after the Unix epoch"),
    }
}

/// A time for people, in UTC.
pub(crate) fn date(time: OffsetDateTime) -> String {
    let (day, clock) = (time.date(), time.time());
    format!("{day} {:02}:{:02} UTC", clock.hour(), clock.minute())
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.by("the peer"))
    }
}

impl Error for Refusal {}

impl From<&io::Error> for Refusal {
    fn from(error: &io::Error) -> Self {
        Self::find(error).unwrap_or_else(|| match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Broken("the connection was closed".into()),
            _ => Self::Broken(error.to_string()),
        })
    }
}

impl From<&rustls::Error> for Refusal {
    fn from(error: &rustls::Error) -> Self {
        use PeerIncompatible as Old;
        match error {
            rustls::Error::InvalidCertificate(error) => Self::from(error),
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::PeerIncompatible(
                Old::SupportedVersionsExtensionRequired
                | Old::ServerDoesNotSupportTls12Or13
                | Old::ServerTlsVersionIsDisabledByOurConfig
                | Old::Tls12NotOffered
                | Old::Tls12NotOfferedOrEnabled,
            ) => Self::OldTls,
            rustls::Error::NoApplicationProtocol => Self::Refused(Rejection::Protocol),
            rustls::Error::AlertReceived(alert) => match alert {
                AlertDescription::UnknownCA => Self::Refused(Rejection::OtherCa),
                AlertDescription::CertificateExpired => Self::Refused(Rejection::Expired),
                AlertDescription::CertificateRequired => Self::Refused(Rejection::NoCertificate),
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::AccessDenied
                | AlertDescription::DecryptError => Self::Refused(Rejection::Certificate),
                AlertDescription::ProtocolVersion => Self::Refused(Rejection::Version),
                AlertDescription::NoApplicationProtocol => Self::Refused(Rejection::Protocol),
                other => Self::Broken(format!("the peer sent the alert {other:?}")),
            },
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<&CertificateError> for Refusal {
    fn from(error: &CertificateError) -> Self {
        let time = |t: &rustls::pki_types::UnixTime| {
            OffsetDateTime::from_unix_timestamp(i64::try_from(t.as_secs()).ok()?).ok()
        };
        match error {
            CertificateError::Expired => Self::Expired { until: None },
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired {
                until: time(not_after),
            },
            CertificateError::NotValidYet => Self::NotYetValid { from: None },
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYetValid {
                from: time(not_before),
            },
            // A CA of the same name with another key is another CA, too.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherCa,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Purpose
            }
            CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<Self>() {
                Some(refusal) => refusal.clone(),
                None => Self::Certificate(inner.to_string()),
            },
            other => Self::Certificate(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_sentence_and_says_what_to_do() {
        let found: Identity = "fovea://c/viewer/ann".parse().unwrap();
        let all = [
            Refusal::OtherCa,
            Refusal::OtherPin,
            Refusal::Expired { until: None },
            Refusal::NotYetValid { from: None },
            Refusal::OtherCluster {
                found: found.clone(),
                ours: "d".into(),
            },
            Refusal::Unexpected {
                found,
                expected: Expected::coordinator(),
            },
            Refusal::NoIdentity {
                problem: "no URI".into(),
            },
            Refusal::Purpose,
            Refusal::Certificate("x".into()),
            Refusal::NoCertificate,
            Refusal::OldTls,
            Refusal::PlainText { reason: None },
            Refusal::Refused(Rejection::OtherCa),
            Refusal::Refused(Rejection::Expired),
            Refusal::Refused(Rejection::NoCertificate),
            Refusal::Refused(Rejection::Certificate),
            Refusal::Refused(Rejection::Version),
            Refusal::Refused(Rejection::Protocol),
            Refusal::Slow,
        ];
        let texts: Vec<String> = all.iter().map(|refusal| refusal.by("the client")).collect();
        for (i, text) in texts.iter().enumerate() {
            assert!(text.contains("the client"), "{text}");
            assert!(!texts[..i].contains(text), "{text}");
        }
    }

    #[test]
    fn a_refusal_is_found_below_other_errors() {
        let refusal = Refusal::OtherCluster {
            found: "fovea://a/worker/w".parse().unwrap(),
            ours: "b".into(),
        };
        let inner = rustls::Error::InvalidCertificate(refusal.clone().into_certificate_error());
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, inner));
        assert_eq!(Refusal::find(&error), Some(refusal));
        assert_eq!(Refusal::find(&io::Error::other("x")), None);
    }

    #[test]
    fn dates_are_in_utc() {
        let time = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        assert_eq!(date(time), "2027-01-15 08:00 UTC");
    }
}
