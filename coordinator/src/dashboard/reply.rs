//! Answers to browsers, with the headers that every one of them has.

use std::convert::Infallible;

use fovea_dashboard::{ICON, SCRIPT, STYLE};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, LOCATION, REFRESH, SET_COOKIE,
};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};

/// The body of an answer.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Nothing from elsewhere, no inline script or style, no page around it, and forms come back here.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Pages hold what only this visitor may see.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");
/// The names of style sheet and script change with their content.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub(super) fn html(status: StatusCode, page: String) -> Reply {
    reply(
        status,
        HTML,
        NOT_KEPT,
        Full::new(Bytes::from(page)).boxed_unsync(),
    )
}

/// A page that holds all that it shows, its styles among them, and has a policy for that.
pub(super) fn by_itself(page: String) -> Reply {
    let mut reply = html(StatusCode::OK, page);
    let policy = HeaderValue::from_static(fovea_report::POLICY_FRAMED);
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    reply
}

/// The same as a file to keep. `name` is of plain characters.
pub(super) fn file(name: &str, page: String) -> Reply {
    let mut reply = by_itself(page);
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        reply.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    reply
}

/// Has the browser ask again in a moment.
pub(super) fn again(mut reply: Reply) -> Reply {
    reply
        .headers_mut()
        .insert(REFRESH, HeaderValue::from_static("2"));
    reply
}

/// Events, as they come.
pub(super) fn events(body: UnsyncBoxBody<Bytes, Infallible>) -> Reply {
    let kind = HeaderValue::from_static("text/event-stream");
    reply(StatusCode::OK, kind, NOT_KEPT, body)
}

/// Sends the browser to another page, which it asks for with GET.
pub(super) fn see(path: &str) -> Reply {
    let mut see = html(StatusCode::SEE_OTHER, String::new());
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    see.headers_mut().insert(LOCATION, path);
    see
}

/// For a method that the path does not take.
pub(super) fn only(methods: &'static str) -> Reply {
    let mut refused = html(StatusCode::METHOD_NOT_ALLOWED, format!("Use {methods}."));
    let headers = refused.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    refused
}

/// Sets a cookie that scripts do not see and other sites do not send. Empty: removes it.
pub(super) fn with_cookie(mut reply: Reply, name: &str, value: &str, age_s: u64) -> Reply {
    let secure = if name.starts_with("__Host-") {
        "; Secure"
    } else {
        ""
    };
    let text =
        format!("{name}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&text) {
        reply.headers_mut().insert(SET_COOKIE, cookie);
    }
    reply
}

/// Names of the style sheet and the script.
pub(super) fn style() -> String {
    format!("style-{}.css", tag(STYLE))
}
pub(super) fn script() -> String {
    format!("live-{}.js", tag(SCRIPT))
}

fn tag(content: &str) -> String {
    hex::encode(&Sha256::digest(content.as_bytes())[..6])
}

/// A file that pages load.
pub(super) fn asset(name: &str) -> Option<Reply> {
    let (content, kind) = match name {
        "icon.svg" => (ICON, "image/svg+xml"),
        name if name == style() => (STYLE, "text/css; charset=utf-8"),
        name if name == script() => (SCRIPT, "text/javascript; charset=utf-8"),
        _ => return None,
    };
    let body = Full::new(Bytes::from_static(content.as_bytes())).boxed_unsync();
    let kind = HeaderValue::from_static(kind);
    Some(reply(StatusCode::OK, kind, KEPT, body))
}

fn reply(
    status: StatusCode,
    kind: HeaderValue,
    kept: HeaderValue,
    body: UnsyncBoxBody<Bytes, Infallible>,
) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, kept);
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        let name = HeaderName::from_static(name);
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}
