//! Tokens: secrets that stand for a person, or for the right to join a cluster as a worker.
//!
//! ```text
//! fvt1.<SHA-256 of the CA's public key>.<id>.<secret>     a person
//! fvj1.<SHA-256 of the CA's public key>.<id>.<secret>     a worker that joins
//! ```
//!
//! All parts are lowercase hexadecimal. By the digest the holder knows the coordinator, without any file; the id is
//! public; of the secret the coordinator keeps only a digest.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Characters of each part.
const DIGEST: usize = 64;
const ID: usize = 12;
const SECRET: usize = 32;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// To join as a worker.
    Join,
    /// To make requests as a person.
    Person,
}

/// A token. Its secret is in no `Debug` text; [`Token::reveal`] gives it all.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    kind: TokenKind,
    ca_sha256: String,
    id: String,
    secret: String,
}

/// SHA-256 of a token's secret.
#[derive(Debug, Clone, Copy)]
pub struct SecretDigest([u8; 32]);

/// A text that is no token. It is not repeated: it may be a secret, misspelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a token of Fovea; a token has one line, fvt1.… for a person or fvj1.… for a worker that joins (an \
     admin makes them with `fovea token create`)"
)]
pub struct NoToken;

impl TokenKind {
    /// The first part of a token's text.
    fn prefix(self) -> &'static str {
        match self {
            Self::Join => "fvj1",
            Self::Person => "fvt1",
        }
    }
}

impl Token {
    /// A new token of a cluster whose CA's key has this SHA-256, hexadecimal.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn create(kind: TokenKind, ca_sha256: &str) -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; ID / 2], [0; SECRET / 2]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self {
            kind,
            ca_sha256: ca_sha256.to_owned(),
            id: hex::encode(id),
            secret: hex::encode(secret),
        })
    }

    /// What it is for.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// SHA-256 of the public key of the cluster's CA, hexadecimal.
    pub fn ca_sha256(&self) -> &str {
        &self.ca_sha256
    }

    /// Its name in lists and in the log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the coordinator keeps of the secret.
    pub fn digest(&self) -> SecretDigest {
        SecretDigest(Sha256::digest(&self.secret).into())
    }

    /// The whole text, with the secret.
    pub fn reveal(&self) -> String {
        let Self {
            kind,
            ca_sha256,
            id,
            secret,
        } = self;
        format!("{}.{ca_sha256}.{id}.{secret}", kind.prefix())
    }
}

impl SecretDigest {
    /// Reads what [`SecretDigest::to_hex`] has written.
    pub fn from_hex(text: &str) -> Option<Self> {
        if !is_hex(text, DIGEST) {
            return None;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Lowercase hexadecimal.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// In a time that does not depend on where they differ.
impl PartialEq for SecretDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretDigest {}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let mut parts = text.trim().split('.');
        let kind = match parts.next() {
            Some("fvt1") => TokenKind::Person,
            Some("fvj1") => TokenKind::Join,
            _ => return Err(NoToken),
        };
        let mut part = |length| match parts.next() {
            Some(part) if is_hex(part, length) => Ok(part.to_owned()),
            _ => Err(NoToken),
        };
        let token = Self {
            kind,
            ca_sha256: part(DIGEST)?,
            id: part(ID)?,
            secret: part(SECRET)?,
        };
        match parts.next() {
            None => Ok(token),
            Some(_) => Err(NoToken),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {})", self.kind.prefix(), self.id)
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written_and_never_printed_by_accident() {
        for kind in [TokenKind::Join, TokenKind::Person] {
            let token = Token::create(kind, &"ab".repeat(32)).unwrap();
            let text = token.reveal();
            assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token);
            let secret = text.rsplit('.').next().unwrap();
            assert!(!format!("{token:?}").contains(secret), "{token:?}");
            let digest = SecretDigest::from_hex(&token.digest().to_hex()).unwrap();
            assert_eq!(digest, token.digest());
            let other = Token::create(kind, &"ab".repeat(32)).unwrap();
            assert_ne!(other.digest(), digest);
            assert_ne!(other.id(), token.id());
        }
    }

    #[test]
    fn other_texts_are_refused_without_repeating_them() {
        let good = Token::create(TokenKind::Join, &"0".repeat(64))
            .unwrap()
            .reveal();
        for bad in [
            String::new(),
            "password".into(),
            good.replacen("fvj1", "fvj2", 1),
            good.to_uppercase(),
            good[..good.len() - 1].to_owned(),
            format!("{good}0"),
            format!("{good}.00"),
            good.replacen('.', "", 1),
        ] {
            let error = bad.parse::<Token>().unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(&bad), "{error}");
        }
    }
}
