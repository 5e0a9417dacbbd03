//! The identity of a training state.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identifies the state of a run on a worker: how many steps it includes, and its digest.
///
/// Two workers hold the same state exactly if their ids are equal. In JSON and on the wire the digest is 32 lower-case
/// hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateId {
    /// Committed steps.
    pub step: u64,
    /// XXH3-128 of the whole state.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub digest: u128,
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first 12 digits tell two states apart in a log.
        write!(f, "step {}, digest {:012x}", self.step, self.digest >> 80)
    }
}

/// The digest in the form that it has on the wire: 32 lower-case hexadecimal digits.
pub fn digest_to_hex(digest: u128) -> String {
    format!("{digest:032x}")
}

/// Reads a digest from the wire. None unless `text` is 32 lower-case hexadecimal digits.
pub fn digest_from_hex(text: &str) -> Option<u128> {
    let digits = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 32 || !text.bytes().all(digits) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

fn to_hex<S: Serializer>(digest: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&digest_to_hex(*digest))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    digest_from_hex(&text).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "state digest {text:?} is not 32 lower-case hexadecimal digits"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_hex_in_json_and_on_the_wire() {
        let state = StateId {
            step: 7,
            digest: 0xab << 100,
        };
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(
            json,
            r#"{"step":7,"digest":"00000ab0000000000000000000000000"}"#
        );
        assert_eq!(serde_json::from_str::<StateId>(&json).unwrap(), state);
        assert_eq!(state.to_string(), "step 7, digest 00000ab00000");
        for bad in ["", "AB", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert_eq!(digest_from_hex(bad), None, "{bad:?}");
        }
    }
}
