//! Who asks for a page: by the connection's certificate, by a session, or anybody where nobody has a name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fovea_dashboard::Viewer;
use fovea_security::Identity;
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use super::Dashboard;
use crate::access::Caller;
use crate::clock::unix_ms;

/// The method that shows whether somebody may look at all, and the one that shows whether it may submit.
pub(super) const LOOK: &str = "/fovea.v1.Runs/List";
const SUBMIT: &str = "/fovea.v1.Runs/Submit";

/// A connection to a browser.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub address: SocketAddr,
    /// By its certificate.
    pub identity: Option<Arc<Identity>>,
    /// Whether it speaks TLS.
    pub is_private: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// What the connection says.
    pub origin: Caller,
    /// The header with its token, if it logged in with one.
    pub token: Option<HeaderValue>,
    /// Id of its session.
    pub session: Option<String>,
    /// What the API would know it as; None if it is to log in.
    pub caller: Option<Caller>,
    /// Why it is not let in.
    pub refused: Option<String>,
    pub csrf: String,
}

impl Dashboard {
    /// Who sent a request with these headers.
    pub(super) fn visitor(&self, peer: &Peer, headers: &HeaderMap) -> Visitor {
        let origin = Caller {
            identity: peer.identity.clone(),
            token: None,
            address: Some(peer.address),
        };
        let id = cookie(headers, &self.cookie(peer.is_private));
        let session = id.filter(|_| origin.identity.is_none() && self.0.access.is_strict());
        let token = session.and_then(|id| self.0.sessions.token(id, unix_ms()));
        let session = session.filter(|_| token.is_some()).map(str::to_owned);
        let csrf = match (&origin.identity, &session) {
            (Some(identity), _) => self.csrf("certificate", identity.name()),
            (None, Some(session)) => self.csrf("session", session),
            (None, None) => self.csrf("nobody", ""),
        };
        let mut visitor = Visitor {
            origin,
            token,
            session,
            caller: None,
            refused: None,
            csrf,
        };
        match self.admit(&visitor, LOOK) {
            Ok(caller) => visitor.caller = Some(caller),
            Err(status) if status.code() == Code::Unauthenticated && visitor.token.is_none() => {}
            Err(status) => visitor.refused = Some(status.message().to_owned()),
        }
        visitor
    }

    /// The visitor as the API knows it, if it may call the method.
    pub(super) fn admit(&self, visitor: &Visitor, method: &str) -> Result<Caller, Status> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &visitor.token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        self.0
            .access
            .admit(visitor.origin.clone(), &headers, method)
    }

    /// What pages say of the visitor; None if it is not let in.
    pub(super) fn viewer(&self, visitor: &Visitor) -> Option<Viewer> {
        let caller = visitor.caller.as_ref()?;
        let named = caller.identity.as_ref();
        Some(Viewer {
            named: named.map(|i| (i.name().to_owned(), i.role().to_string())),
            can_leave: visitor.session.is_some(),
            may_submit: self.admit(visitor, SUBMIT).is_ok(),
            csrf: visitor.csrf.clone(),
        })
    }

    /// What a form must send back: nobody can make it who does not see this visitor's pages.
    fn csrf(&self, known_by: &str, as_: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(self.0.secret);
        digest.update(format!("{known_by}:{as_}"));
        hex::encode(&digest.finalize()[..16])
    }

    /// Name of the cookie. Cookies do not tell ports apart, so that two coordinators behind one ssh host have two names.
    pub(super) fn cookie(&self, is_private: bool) -> String {
        let ca = self.tls().and_then(fovea_security::Tls::ca_sha256);
        let ca: String = ca.unwrap_or_default().chars().take(12).collect();
        let prefix = if is_private { "__Host-" } else { "" };
        format!("{prefix}fovea-{ca}")
    }
}

/// Whether two tokens are the same, without telling by the time how much of them is.
pub(super) fn same_csrf(given: &str, expected: &str) -> bool {
    Sha256::digest(given.as_bytes()) == Sha256::digest(expected.as_bytes())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter();
    let pairs = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// Refuses a request whose name of this server could be a stranger's: a page of theirs whose name leads here would be taken
/// for ours by a browser (DNS rebinding). Addresses and names that no stranger can own pass, and the one that is configured.
pub(super) fn check_host(headers: &HeaderMap, configured: &str) -> Result<(), String> {
    let text = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let host = without_port(text).to_ascii_lowercase();
    let is_local = |host: &str| {
        let reserved = [
            ".localhost",
            ".local",
            ".internal",
            ".lan",
            ".home.arpa",
            ".svc",
        ];
        !host.is_empty() && !host.contains('.')
            || host.parse::<IpAddr>().is_ok()
            || reserved.iter().any(|end| host.ends_with(end))
    };
    if is_local(&host) || host == without_port(configured).to_ascii_lowercase() {
        return Ok(());
    }
    Err(format!(
        "The address names this server {host:?}. Without TLS it answers only to addresses, localhost, names without a dot and the \
         name in http_listen, so that no page of a stranger can speak for you. Use one of these."
    ))
}

/// Refuses a change, or a stream, that another site's page asks for.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let refused = || Err("Another site asked for this. Use this dashboard’s own pages.".to_owned());
    if !matches!(text("sec-fetch-site"), None | Some("same-origin" | "none")) {
        return refused();
    }
    match (text("origin"), text("host")) {
        (None, _) => Ok(()),
        (Some(origin), Some(host)) => match origin.split_once("://") {
            Some((_, from)) if from.eq_ignore_ascii_case(host) => Ok(()),
            _ => refused(),
        },
        (Some(_), None) => refused(),
    }
}

/// `[::1]:7080` is `::1`, `node:7080` is `node`.
fn without_port(text: &str) -> &str {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    text.rsplit_once(':').map_or(text, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                header::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_name_that_a_stranger_can_own_is_refused() {
        for (host, passes) in [
            ("127.0.0.1:7080", true),
            ("[::1]:7080", true),
            ("localhost:9", true),
            ("fovea-coordinator", true),
            ("gpu.internal:7080", true),
            ("fovea.example.org:7080", true),
            ("evil.example:7080", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let checked = check_host(&headers(&[("host", host)]), "fovea.example.org:7080");
            assert_eq!(checked.is_ok(), passes, "{host}");
        }
        assert!(check_host(&HeaderMap::new(), "0.0.0.0:7080").is_err());
    }

    #[test]
    fn a_change_comes_from_our_own_page() {
        for (pairs, passes) in [
            (&[][..], true),
            (&[("origin", "http://h:1"), ("host", "h:1")], true),
            (&[("origin", "http://h:2"), ("host", "h:1")], false),
            (&[("origin", "null"), ("host", "h:1")], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
        ] {
            assert_eq!(check_origin(&headers(pairs)).is_ok(), passes, "{pairs:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let all = headers(&[("cookie", "a=1; fovea-0=abc;b=2")]);
        assert_eq!(cookie(&all, "fovea-0"), Some("abc"));
        assert_eq!(cookie(&all, "fovea-"), None);
    }
}
