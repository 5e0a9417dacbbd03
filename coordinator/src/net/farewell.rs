//! What a client reads that is turned away before it is served.

use std::fmt::Display;

use fovea_proto::TLS_ONLY;

/// HTTP/2 error codes.
const ENHANCE_YOUR_CALM: u32 = 0xb;
const INADEQUATE_SECURITY: u32 = 0xc;

/// For a client beyond a limit.
pub(super) fn beyond_limit(reason: &impl Display) -> Vec<u8> {
    goaway(ENHANCE_YOUR_CALM, &format!("connection refused: {reason}"))
}

/// For a client that speaks plain text where TLS is spoken.
pub(super) fn tls_only() -> Vec<u8> {
    let text = format!(
        "{TLS_ONLY}it speaks TLS; write https:// in the address, and set tls_certificate, tls_key and tls_ca \
         (`fovea certs issue` makes the files) or use a token (`fovea login`)"
    );
    goaway(INADEQUATE_SECURITY, &text)
}

/// An HTTP/2 GOAWAY with the reason, after the empty SETTINGS that every server sends first.
fn goaway(code: u32, text: &str) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let length = 8 + text.len() as u32;
    let mut bytes = SETTINGS.to_vec();
    bytes.extend(&length.to_be_bytes()[1..]);
    // Its type, no flags, and the stream 0: the connection as a whole.
    bytes.extend([7, 0, 0, 0, 0, 0]);
    // No stream was worked on.
    bytes.extend(0u32.to_be_bytes());
    bytes.extend(code.to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}
