//! Workers that have joined with a token: which worker has which name, by which key and token. Pure: times are given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long a worker is kept whose certificate has ended: one that is denied in that time is known by its key.
const KEPT_MS: u64 = 7 * 24 * 3600 * 1000;

/// A worker whose certificate is by a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinedWorker {
    /// The name in its certificate.
    pub name: String,
    /// SHA-256 of its public key, hexadecimal.
    pub key_sha256: String,
    /// Id of the token with which it has joined last.
    pub token: String,
    pub joined_at_ms: u64,
    /// When its newest certificate ends.
    pub expires_at_ms: u64,
}

/// These workers, by name.
#[derive(Debug, Default)]
pub(crate) struct JoinedWorkers(BTreeMap<String, JoinedWorker>);

impl JoinedWorkers {
    pub(crate) fn new(all: impl Iterator<Item = JoinedWorker>) -> Self {
        Self(all.map(|worker| (worker.name.clone(), worker)).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&JoinedWorker> {
        self.0.get(name)
    }

    /// The worker with this key. Of several the one that joined last.
    pub(crate) fn by_key(&self, key_sha256: &str) -> Option<&JoinedWorker> {
        let with_it = self.0.values().filter(|w| w.key_sha256 == key_sha256);
        with_it.max_by_key(|worker| worker.joined_at_ms)
    }

    /// The worker with a process of this id: NAME-PROCESS-RANDOM.
    pub(crate) fn of_process(&self, id: &str) -> Option<&JoinedWorker> {
        self.get(id.rsplitn(3, '-').nth(2)?)
    }

    pub(crate) fn put(&mut self, worker: JoinedWorker) {
        self.0.insert(worker.name.clone(), worker);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The names of those of whom nobody needs to know any more.
    pub(crate) fn stale(&self, now_ms: u64, is_denied: impl Fn(&str) -> bool) -> Vec<String> {
        let stale = |worker: &&JoinedWorker| {
            now_ms >= worker.expires_at_ms.saturating_add(KEPT_MS) && !is_denied(&worker.name)
        };
        let stale = self.0.values().filter(stale);
        stale.map(|worker| worker.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str, key: &str, joined_at_ms: u64) -> JoinedWorker {
        JoinedWorker {
            name: name.into(),
            key_sha256: key.into(),
            token: format!("token-of-{name}"),
            joined_at_ms,
            expires_at_ms: joined_at_ms + 1_000,
        }
    }

    #[test]
    fn a_worker_is_known_by_its_key_and_by_its_processes() {
        let all = [
            worker("node-1", "k", 1),
            worker("node-2", "k", 2),
            worker("w", "x", 3),
        ];
        let all = JoinedWorkers::new(all.into_iter());
        assert_eq!(all.by_key("k").unwrap().name, "node-2");
        assert!(all.by_key("y").is_none());
        assert_eq!(all.of_process("node-1-77-0a0b").unwrap().name, "node-1");
        for id in ["node-1", "node-3-77-0a0b", "w", ""] {
            assert!(all.of_process(id).is_none(), "{id}");
        }
    }

    #[test]
    fn it_is_forgotten_after_its_certificate_unless_it_is_denied() {
        let mut all = JoinedWorkers::new([worker("a", "k", 0), worker("b", "l", 0)].into_iter());
        let end = 1_000 + KEPT_MS;
        assert!(all.stale(end - 1, |_| false).is_empty());
        assert_eq!(all.stale(end, |name| name == "b"), ["a"]);
        all.remove("a");
        assert_eq!(all.len(), 1);
    }
}
