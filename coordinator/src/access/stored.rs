//! What is kept of tokens and of denied workers, and what follows from it. Pure: times are given.

use fovea_core::count::count;
use fovea_security::{Role, SecretDigest, utc};
use serde::{Deserialize, Serialize};

/// How long a token that has ended is kept, so that whoever uses it learns why it is refused.
const KEPT_MS: u64 = 30 * 24 * 3600 * 1000;

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredToken {
    pub id: String,
    /// [`Role::Worker`]: to join.
    #[serde(with = "role_text")]
    pub role: Role,
    /// The person's name; empty for a worker's.
    pub name: String,
    /// SHA-256 of the secret, hexadecimal.
    pub secret_sha256: String,
    pub created_at_ms: u64,
    pub expires_at_ms: u64,
    /// Who made it, if that was known.
    pub created_by: Option<String>,
    /// How many workers may join with it; 0 is no limit.
    pub uses: u32,
    /// How many have joined.
    pub used: u32,
    /// The workers that have joined, where their number is limited: one that asks again, because the answer was lost,
    /// gets its name again.
    pub joined: Vec<Joined>,
}

/// A worker that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// SHA-256 of its public key, hexadecimal.
    pub key_sha256: String,
    pub name: String,
}

/// A worker that is shut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Denied {
    /// The name in its certificate.
    pub name: String,
    pub reason: String,
    pub since_ms: u64,
    /// Who has done it, if that was known.
    pub by: Option<String>,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefusal {
    #[error(
        "this coordinator knows no token {id}: it was revoked, or is another cluster's; ask an admin for a new one"
    )]
    Unknown { id: String },
    #[error("the secret of token {id} is wrong; copy the whole line again")]
    Secret { id: String },
    #[error("token {id} has expired on {on}; ask an admin for a new one (`fovea token create`)")]
    Expired { id: String, on: String },
    #[error(
        "token {id} is for workers that join, and does not stand for a person; use one of a person (`fovea token create \
         --role viewer --name NAME`)"
    )]
    NotAPersons { id: String },
    #[error(
        "token {id} stands for a person, and no worker can join with it; use one for workers (`fovea token create \
         --role worker`)"
    )]
    NotForJoining { id: String },
    #[error(
        "token {id} is used up: {} joined with it; ask an admin for a new one (`fovea token create --role worker`)",
        count(*.uses, "worker has", "workers have")
    )]
    UsedUp { id: String, uses: u32 },
}

impl StoredToken {
    /// Whether the secret is right, and its time has not ended.
    pub(crate) fn check(&self, secret: SecretDigest, now_ms: u64) -> Result<(), TokenRefusal> {
        let id = || self.id.clone();
        if SecretDigest::from_hex(&self.secret_sha256) != Some(secret) {
            return Err(TokenRefusal::Secret { id: id() });
        }
        if now_ms >= self.expires_at_ms {
            let on = utc(self.expires_at_ms);
            return Err(TokenRefusal::Expired { id: id(), on });
        }
        Ok(())
    }

    /// The token after the worker with this key has joined, and the worker's name: `proposed`, or what it got before.
    pub(crate) fn join(
        &self,
        key_sha256: &str,
        proposed: String,
    ) -> Result<(Self, String), TokenRefusal> {
        let known = self.joined.iter().find(|j| j.key_sha256 == key_sha256);
        if let Some(known) = known {
            return Ok((self.clone(), known.name.clone()));
        }
        if self.uses > 0 && self.used >= self.uses {
            return Err(TokenRefusal::UsedUp {
                id: self.id.clone(),
                uses: self.uses,
            });
        }
        let mut after = self.clone();
        after.used = after.used.saturating_add(1);
        if self.uses > 0 {
            after.joined.push(Joined {
                key_sha256: key_sha256.to_owned(),
                name: proposed.clone(),
            });
        }
        Ok((after, proposed))
    }

    /// Whether nobody needs to know of it any more.
    pub(crate) fn is_stale(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_at_ms.saturating_add(KEPT_MS)
    }
}

/// The name of a worker that joins: its machine's, as far as that can be one, with a random part behind it.
pub(crate) fn worker_name(host: &str, random: u32) -> String {
    let part = |c: char| match c {
        _ if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') => c,
        _ => '-',
    };
    let host: String = host.chars().take(31).map(part).collect();
    let host = host.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    match host {
        "" => format!("worker-{random:08x}"),
        host => format!("{host}-{random:08x}"),
    }
}

/// A role as its word.
mod role_text {
    use fovea_security::Role;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(role.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(text: D) -> Result<Role, D::Error> {
        String::deserialize(text)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use fovea_security::{Identity, Token, TokenKind};

    use super::*;

    fn stored(token: &Token, uses: u32) -> StoredToken {
        StoredToken {
            id: token.id().into(),
            role: Role::Worker,
            name: String::new(),
            secret_sha256: token.digest().to_hex(),
            created_at_ms: 0,
            expires_at_ms: 1_000,
            created_by: None,
            uses,
            used: 0,
            joined: Vec::new(),
        }
    }

    #[test]
    fn a_token_holds_with_its_secret_until_it_ends() {
        let [token, other] = [0; 2].map(|_| Token::create(TokenKind::Join, "aa").unwrap());
        let kept = stored(&token, 0);
        assert_eq!(kept.check(token.digest(), 999), Ok(()));
        let expired = kept.check(token.digest(), 1_000).unwrap_err().to_string();
        assert!(
            expired.contains("has expired on 1970-01-01 00:00 UTC"),
            "{expired}"
        );
        // Who does not know the secret does not learn whether it has ended.
        for now in [0, 1_000] {
            let wrong = kept.check(other.digest(), now).unwrap_err();
            assert!(matches!(wrong, TokenRefusal::Secret { .. }), "{wrong}");
        }
        assert!(!kept.is_stale(1_000 + KEPT_MS - 1));
        assert!(kept.is_stale(1_000 + KEPT_MS));
    }

    #[test]
    fn a_lost_answer_costs_no_use_and_the_last_use_is_the_last() {
        let token = Token::create(TokenKind::Join, "aa").unwrap();
        let (once, name) = stored(&token, 2).join("k1", "a".into()).unwrap();
        assert_eq!((name.as_str(), once.used), ("a", 1));
        let (again, name) = once.join("k1", "b".into()).unwrap();
        assert_eq!((name.as_str(), again.used), ("a", 1));
        let (twice, _) = again.join("k2", "b".into()).unwrap();
        let refused = twice.join("k3", "c".into()).unwrap_err().to_string();
        assert!(
            refused.contains("used up: 2 workers have joined"),
            "{refused}"
        );
        assert_eq!(twice.join("k2", "c".into()).unwrap().1, "b");
        // Without a limit nothing grows.
        let (mut free, _) = stored(&token, 0).join("k1", "a".into()).unwrap();
        for _ in 0..3 {
            free = free.join("k1", "a".into()).unwrap().0;
        }
        assert_eq!((free.used, free.joined.len()), (4, 0));
    }

    #[test]
    fn every_machine_gives_a_name_that_can_be_one() {
        for (host, expected) in [
            ("node-3", "node-3-000000ff"),
            ("", "worker-000000ff"),
            ("--", "worker-000000ff"),
            ("-Röntgen 1", "R-ntgen-1-000000ff"),
            ("a/../b", "a-..-b-000000ff"),
            (&"x".repeat(90), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-000000ff"),
        ] {
            let name = worker_name(host, 255);
            assert_eq!(name, expected);
            assert!(Identity::new("c", Role::Worker, &name).is_ok(), "{name}");
        }
    }

    #[test]
    fn it_is_kept_as_json() {
        let token = Token::create(TokenKind::Join, "aa").unwrap();
        let (kept, _) = stored(&token, 2).join("k", "n".into()).unwrap();
        let json = serde_json::to_string(&kept).unwrap();
        assert!(json.contains("\"role\":\"worker\""), "{json}");
        assert_eq!(serde_json::from_str::<StoredToken>(&json).unwrap(), kept);
        let text = token.reveal();
        assert!(!json.contains(text.rsplit('.').next().unwrap()), "{json}");
    }
}
