//! Sessions of people who logged in with a token. In memory: after a restart people log in again.
//!
//! A cookie holds a random id and not the token, because browsers send cookies of 127.0.0.1 to every port there. What a session
//! may do is asked of its token at each request, so that a revoked one ends at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use sha2::{Digest, Sha256};

/// The most sessions; one more, and the oldest ends.
const MOST: usize = 1000;
/// How long a session lasts, in seconds.
pub(super) const LASTS_S: u64 = 12 * 3600;

/// The sessions. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<[u8; 32], Session>>>);

struct Session {
    /// The header of requests with the token.
    token: HeaderValue,
    until_ms: u64,
}

/// Without the token.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let until_ms = self.until_ms;
        f.debug_struct("Session")
            .field("until_ms", &until_ms)
            .finish_non_exhaustive()
    }
}

impl Sessions {
    /// Begins a session and gives its id.
    pub(super) fn begin(&self, token: HeaderValue, now_ms: u64) -> String {
        let id = hex::encode(fovea_service::random_bytes::<16>());
        let until_ms = now_ms + LASTS_S * 1000;
        let mut all = self.lock();
        all.retain(|_, session| session.until_ms > now_ms);
        if all.len() >= MOST {
            let oldest = all.iter().min_by_key(|(_, session)| session.until_ms);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                all.remove(&oldest);
            }
        }
        all.insert(digest(&id), Session { token, until_ms });
        id
    }

    /// The token of a session; None if there is no such session.
    pub(super) fn token(&self, id: &str, now_ms: u64) -> Option<HeaderValue> {
        let all = self.lock();
        let session = all.get(&digest(id))?;
        (session.until_ms > now_ms).then(|| session.token.clone())
    }

    pub(super) fn end(&self, id: &str) {
        self.lock().remove(&digest(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ids are compared by their digests, which tell a guesser nothing by the time that takes.
fn digest(id: &str) -> [u8; 32] {
    Sha256::digest(id.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_time_by_logout_and_when_there_are_too_many() {
        let sessions = Sessions::default();
        let token = || HeaderValue::from_static("Bearer x");
        let id = sessions.begin(token(), 0);
        assert_eq!(id.len(), 32);
        assert_eq!(sessions.token(&id, LASTS_S * 1000 - 1), Some(token()));
        assert_eq!(sessions.token(&id, LASTS_S * 1000), None);
        assert_eq!(sessions.token("x", 0), None);
        let other = sessions.begin(token(), 1);
        sessions.end(&other);
        assert_eq!(sessions.token(&other, 1), None);
        for now in 0..MOST as u64 {
            sessions.begin(token(), now + 2);
        }
        assert_eq!(sessions.token(&id, 2), None, "the oldest stayed");
        assert!(!format!("{sessions:?}").contains("Bearer"));
    }
}
