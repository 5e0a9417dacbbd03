//! Which of the stored tokens a secret is, and whom it stands for. Pure.

use std::collections::BTreeMap;

use fovea_security::{Role, Token, TokenKind};

use super::stored::{StoredToken, TokenRefusal};

/// Whom a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub role: Role,
    pub name: String,
    pub token_id: String,
    pub expires_at_ms: u64,
}

/// The token with this id, if its secret is right and its time has not ended.
fn find<'a>(
    tokens: &'a BTreeMap<String, StoredToken>,
    token: &Token,
    now_ms: u64,
) -> Result<&'a StoredToken, TokenRefusal> {
    let found = tokens
        .get(token.id())
        .ok_or_else(|| TokenRefusal::Unknown {
            id: token.id().to_owned(),
        })?;
    found.check(token.digest(), now_ms)?;
    Ok(found)
}

/// The person that a token stands for.
pub(super) fn person(
    tokens: &BTreeMap<String, StoredToken>,
    token: &Token,
    now_ms: u64,
) -> Result<Holder, TokenRefusal> {
    let id = || token.id().to_owned();
    if token.kind() == TokenKind::Join {
        return Err(TokenRefusal::NotAPersons { id: id() });
    }
    let stored = find(tokens, token, now_ms)?;
    if !stored.role.is_person() {
        return Err(TokenRefusal::NotAPersons { id: id() });
    }
    Ok(Holder {
        role: stored.role,
        name: stored.name.clone(),
        token_id: id(),
        expires_at_ms: stored.expires_at_ms,
    })
}

/// The token with which a worker joins.
pub(super) fn joining<'a>(
    tokens: &'a BTreeMap<String, StoredToken>,
    token: &Token,
    now_ms: u64,
) -> Result<&'a StoredToken, TokenRefusal> {
    let not_for_joining = || TokenRefusal::NotForJoining {
        id: token.id().to_owned(),
    };
    if token.kind() == TokenKind::Person {
        return Err(not_for_joining());
    }
    let stored = find(tokens, token, now_ms)?;
    match stored.role {
        Role::Worker => Ok(stored),
        _ => Err(not_for_joining()),
    }
}
