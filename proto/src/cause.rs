//! What broke a connection, in people's words.
//!
//! tonic's own text is only "transport error"; the cause is at the end of its chain of sources. Two of
//! these causes are written for programmers: a gRPC status, and the HTTP/2 GOAWAY with which a
//! coordinator at its limit of connections refuses one. h2 shows the data of a GOAWAY only in its
//! text, so that is parsed, here and nowhere else.

use std::error::Error;

use fovea_security::Refusal;

/// hyper's texts for a connection that ended before the request was sent. The GOAWAY of a coordinator at its limit may
/// have come in between and is lost then.
const CLOSED: [&str; 2] = ["connection closed", "connection was not ready"];

/// Begins rustls' text, which ends with an address of its documentation, for an end that is gone.
const TLS_CLOSED: &str = "peer closed connection without sending TLS close_notify";

/// Begins the coordinator's reason in a GOAWAY.
const REFUSED: &str = "connection refused: ";

/// Begins what a coordinator with TLS tells a client that speaks plain text, in a GOAWAY.
pub const TLS_ONLY: &str = "TLS only: ";

/// Why a connection broke, or why there is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The coordinator refused it because a limit is reached; its reason.
    #[error("the coordinator is at a limit: {0}")]
    Limit(String),
    /// The two ends do not accept each other's certificates, or one of them speaks plain text.
    #[error("{0}")]
    Tls(String),
    /// Anything else.
    #[error("{0}")]
    Broken(String),
}

/// The cause at the end of the chain that begins with `error`.
pub fn cause(error: &(dyn Error + 'static)) -> Cause {
    if let Some(refusal) = Refusal::find(error) {
        let text = refusal.by("the coordinator");
        return match refusal.is_final() {
            true => Cause::Tls(text),
            false => Cause::Broken(text),
        };
    }
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    cause_in(&last.to_string())
}

/// What a status says, for people: the coordinator's own text, or the cause if this end made the status of an error of
/// the connection.
pub fn describe(status: &tonic::Status) -> String {
    match status.source() {
        Some(source) => cause(source).to_string(),
        None => status.message().to_owned(),
    }
}

/// Why the two ends of a connection do not accept each other, if that is what a status of this end says.
pub fn tls_refusal(status: &tonic::Status) -> Option<String> {
    match cause(status.source()?) {
        Cause::Tls(reason) => Some(reason),
        Cause::Limit(_) | Cause::Broken(_) => None,
    }
}

/// The cause that the text of an innermost error names.
fn cause_in(text: &str) -> Cause {
    if let Some(cause) = goaway(text).and_then(|data| goodbye(&data)) {
        return cause;
    }
    if CLOSED.contains(&text) {
        return Cause::Broken(
            "it was closed before the request was sent; the coordinator may be at its limit of connections \
             (max_connections), or speak TLS only"
                .into(),
        );
    }
    if text.starts_with(TLS_CLOSED) {
        return Cause::Broken(
            "the other end closed it and said nothing, as a killed process does".into(),
        );
    }
    Cause::Broken(status(text).unwrap_or_else(|| text.to_owned()))
}

/// What the data of a coordinator's GOAWAY say, if it refuses the connection.
pub(crate) fn goodbye(data: &str) -> Option<Cause> {
    let tls_only = || Some(Cause::Tls(sentence(data.strip_prefix(TLS_ONLY)?)));
    limit(data).map(Cause::Limit).or_else(tls_only)
}

/// The reason of a coordinator that refuses a connection because a limit is reached.
pub(crate) fn limit(goodbye: &str) -> Option<String> {
    goodbye.strip_prefix(REFUSED).map(sentence)
}

/// The data of a GOAWAY that was received, from the text of h2's error.
fn goaway(text: &str) -> Option<String> {
    let text = &text[text.find("connection error received: ")?..];
    let (_, data) = text.split_once(" (b\"")?;
    unescaped(data)
}

/// The message of a gRPC status, from its text: `code: 'CODE', message: "MESSAGE"`.
fn status(text: &str) -> Option<String> {
    let text = text.strip_prefix("code: '")?;
    let (code, rest) = text.split_once('\'')?;
    let message = rest.strip_prefix(", message: \"").and_then(unescaped);
    Some(sentence(&message.unwrap_or_else(|| code.to_owned())))
}

fn sentence(text: &str) -> String {
    text.trim().trim_end_matches('.').to_owned()
}

/// What stands before the closing quote, without the escapes of Rust's debug format. None if there is
/// no closing quote.
fn unescaped(quoted: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = quoted.chars();
    loop {
        let c = match rest.next()? {
            '"' => return Some(String::from_utf8_lossy(&bytes).into_owned()),
            '\\' => match rest.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).ok()?);
                    continue;
                }
                other => other,
            },
            c => c,
        };
        bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_a_limit_with_the_coordinators_sentence() {
        let limit = |text: &str| Cause::Limit(text.into());
        for (text, expected) in [
            (
                r#"connection error received: detected excessive load generating behavior (b"connection refused: the limit of 512 connections is reached")"#,
                limit("the limit of 512 connections is reached"),
            ),
            (
                r#"http2 error: connection error received: x (b"connection refused: \"a\\b\" \xc3\xa4.")"#,
                limit("\"a\\b\" \u{e4}"),
            ),
        ] {
            assert_eq!(cause_in(text), expected);
        }
        let tls =
            r#"connection error received: not a result of an error (b"TLS only: write https://.")"#;
        assert_eq!(cause_in(tls), Cause::Tls("write https://".into()));
        // A GOAWAY of another kind, one that this side sent, and one that is cut off.
        for text in [
            r#"connection error received: not a result of an error (b"max_age")"#,
            r#"connection error sent by user: x (b"connection refused: the limit")"#,
            r#"connection error received: x (b"connection refused: the limit"#,
            "connection refused: os error 111",
        ] {
            assert_eq!(cause_in(text), Cause::Broken(text.into()));
        }
    }

    #[test]
    fn an_end_of_tls_that_is_gone_is_named_without_an_address_for_programmers() {
        let text = format!("{TLS_CLOSED}: https://docs.rs/rustls/latest/rustls/manual");
        let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text);
        let said = cause(&error).to_string();
        assert!(said.contains("killed") && !said.contains("http"), "{said}");
    }

    #[test]
    fn a_status_is_shown_by_its_message() {
        let shown = |status: &tonic::Status| cause(status);
        let broken = |text: &str| Cause::Broken(text.into());
        let timed_out = tonic::Status::deadline_exceeded("keep-alive \"ping\" timed out.");
        assert_eq!(shown(&timed_out), broken("keep-alive \"ping\" timed out"));
        assert_eq!(
            shown(&tonic::Status::deadline_exceeded("")),
            broken("Deadline expired before operation could complete")
        );
        // The same below another error, which shows it as its own text.
        let below = std::io::Error::other(timed_out);
        assert_eq!(cause(&below), broken("keep-alive \"ping\" timed out"));
    }
}
