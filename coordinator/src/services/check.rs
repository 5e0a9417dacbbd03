//! Checks of single wire fields. Each error names the field and what would be right.

use fovea_core::checkpoint::Fingerprint;
use fovea_core::ids::{GroupId, RunId, WorkerId};
use fovea_core::priority::Priority;
use fovea_proto::{pb, priority_from_wire};

use crate::error::ApiError;

/// The longest text that a stranger may give where no rule is stricter, in bytes.
const TEXT: usize = 256;
/// The longest reason that a worker may give, in bytes; longer ones are cut.
const REASON: usize = 4096;

pub(super) fn run_id(field: &str, text: &str) -> Result<RunId, ApiError> {
    RunId::new(text).map_err(|e| ApiError::invalid(field, e))
}

pub(super) fn group_id(field: &str, text: &str) -> Result<GroupId, ApiError> {
    GroupId::new(text).map_err(|e| ApiError::invalid(field, e))
}

/// A priority, which must be set.
pub(super) fn priority(field: &str, wire: i32) -> Result<Priority, ApiError> {
    priority_from_wire(wire)
        .ok_or_else(|| ApiError::invalid(field, "must be one of low, normal and high"))
}

pub(super) fn worker_id(field: &str, text: &str) -> Result<WorkerId, ApiError> {
    WorkerId::new(text).map_err(|e| ApiError::invalid(field, e))
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// Most entries.
    pub limit: usize,
    /// Only those with a lower number.
    pub before: u64,
}

/// The page that a list's `page_size` and `page_token` ask for. `(most, default)` are the most entries of a page, and how many
/// there are unless the client says.
pub(super) fn page(size: u32, token: &str, (most, default): (u32, u32)) -> Result<Page, ApiError> {
    let limit = match size {
        0 => default,
        size if size <= most => size,
        size => {
            let problem = format!("{size} is more than {most}");
            return Err(ApiError::invalid("page_size", problem));
        }
    };
    let before = match token {
        "" => u64::MAX,
        token => token
            .parse()
            .map_err(|_| ApiError::invalid("page_token", "was not given by this coordinator"))?,
    };
    Ok(Page {
        limit: limit as usize,
        before,
    })
}

/// `host:port`, where peers can connect.
pub(super) fn address(field: &str, text: &str) -> Result<String, ApiError> {
    let good = text.len() <= TEXT
        && text.rsplit_once(':').is_some_and(|(host, port)| {
            let v6 = host.starts_with('[')
                && host.ends_with(']')
                && host[1..host.len() - 1]
                    .parse::<std::net::Ipv6Addr>()
                    .is_ok();
            let name = !host.is_empty()
                && host
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            (v6 || name) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
    if good {
        return Ok(text.to_owned());
    }
    Err(ApiError::invalid(
        field,
        format!("{:?} is not host:port with a port above 0", cut(text, 80)),
    ))
}

/// Text for people: of bounded length, without control characters.
pub(super) fn label(field: &str, text: &str) -> Result<String, ApiError> {
    if text.len() <= TEXT && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(ApiError::invalid(
        field,
        format!("must have at most {TEXT} bytes and no control characters"),
    ))
}

/// A reason given by a worker: cut rather than refused, because it should not be lost.
pub(super) fn reason(text: &str) -> String {
    let text: String = cut(text, REASON)
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect();
    if text.is_empty() {
        "no reason was given".into()
    } else {
        text
    }
}

pub(super) fn sha256(field: &str, text: &str) -> Result<String, ApiError> {
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(text.to_owned());
    }
    Err(ApiError::invalid(
        field,
        "is not a SHA-256 in 64 lower-case hexadecimal digits",
    ))
}

/// An XXH3-128 in hexadecimal.
pub(super) fn xxh3(field: &str, text: &str) -> Result<String, ApiError> {
    if text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(text.to_owned());
    }
    Err(ApiError::invalid(
        field,
        "is not a digest of 32 lower-case hexadecimal digits",
    ))
}

/// The digest of a state on the wire.
pub(super) fn state_digest(field: &str, text: &str) -> Result<u128, ApiError> {
    fovea_core::state::digest_from_hex(text).ok_or_else(|| {
        ApiError::invalid(field, "is not a digest of 32 lower-case hexadecimal digits")
    })
}

pub(super) fn finite(field: &str, value: f64) -> Result<(), ApiError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(ApiError::invalid(field, format!("{value} is not a number")))
}

pub(super) fn generation(field: &str, value: u64) -> Result<u64, ApiError> {
    if (1..=u64::from(u32::MAX)).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::invalid(
        field,
        format!("{value} is not a generation; they count from 1"),
    ))
}

pub(super) fn fingerprint(
    field: &str,
    wire: Option<pb::Fingerprint>,
) -> Result<Fingerprint, ApiError> {
    let fingerprint: Fingerprint = wire
        .ok_or_else(|| ApiError::invalid(field, "is missing"))?
        .into();
    for (name, text) in [
        ("device", &fingerprint.device),
        ("cpu", &fingerprint.cpu),
        ("libtorch", &fingerprint.libtorch),
        ("precision", &fingerprint.precision),
        ("fovea", &fingerprint.fovea),
        ("kernels", &fingerprint.kernels),
        ("path", &fingerprint.path),
    ] {
        label(&format!("{field}.{name}"), text)?;
    }
    Ok(fingerprint)
}

/// At most the first `most` bytes, at a character's boundary.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:1", "node-3.cluster_a:65535", "[::1]:7070"] {
            assert_eq!(address("a", good).unwrap(), good);
        }
        for bad in [
            "",
            "host",
            "host:",
            ":1",
            "host:0",
            "host:65536",
            "a b:1",
            "[x]:1",
            "http://h:1",
            "h/../:1",
            &format!("{}:1", "h".repeat(300)),
        ] {
            assert!(address("a", bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_page_is_within_its_limits() {
        let asked = |size, token| page(size, token, (100, 20));
        let [first, next] = [asked(0, ""), asked(100, "7")].map(|page| page.unwrap());
        assert_eq!((first.limit, first.before), (20, u64::MAX));
        assert_eq!((next.limit, next.before), (100, 7));
        for (size, token) in [(101, ""), (5, "x"), (5, "-1")] {
            assert!(asked(size, token).is_err(), "{size} {token:?}");
        }
    }

    #[test]
    fn reasons_are_cut_at_a_character() {
        let long = "é".repeat(5000);
        assert_eq!(reason(&long).len(), REASON);
        assert_eq!(reason(""), "no reason was given");
        assert_eq!(reason("a\x1bb"), "a b");
    }
}
