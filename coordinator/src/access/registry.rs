//! Tokens and denied workers, as the journal has them and every request needs them.
//!
//! ```text
//! changes (one at a time) ──> journal, fsync ──> State ──> requests, sessions
//! ```
//!
//! Invariants: what is answered is in the journal. A secret is nowhere, only its digest.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fovea_core::count::count;
use fovea_security::{Identity, Role, Token, TokenKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::joined::{JoinedWorker, JoinedWorkers};
use super::lookup::{Holder, joining, person};
use super::stored::{Denied, StoredToken, worker_name};
use crate::error::ApiError;
use crate::journal::{Journal, JournalError};
use fovea_service::Repeated;

/// Kinds of entries in the journal.
const TOKEN: &str = "token";
const DENIED: &str = "denied";
const JOINED: &str = "joined";

/// The most tokens. One for each person and pool is a small part of it.
const MOST: usize = 10_000;
/// The most workers that joined with a token and whose certificates have not ended long ago.
const MOST_JOINED: usize = 100_000;

/// The handle. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    /// One change at a time, from its decision to the journal's answer.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// By the worker's name. Sessions wait for changes.
    denied: watch::Sender<BTreeMap<String, Denied>>,
}

#[derive(Debug, Default)]
struct State {
    tokens: BTreeMap<String, StoredToken>,
    joined: JoinedWorkers,
    /// When tokens were used last, since this start.
    used_at_ms: HashMap<String, u64>,
    refused: Repeated,
}

/// A token that was made, or is shown.
#[derive(Debug, Clone)]
pub(crate) struct ShownToken {
    pub token: StoredToken,
    /// When it was used last, since this start.
    pub used_at_ms: Option<u64>,
}

/// What somebody asks of a new token.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    pub role: Role,
    pub name: String,
    pub valid_ms: u64,
    pub uses: u32,
    pub created_by: Option<String>,
}

/// What a worker asks for that joins.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub token: Token,
    /// SHA-256 of its public key, hexadecimal.
    pub key_sha256: String,
    pub host: String,
    /// Where it is.
    pub peer: Option<SocketAddr>,
    /// How long its certificate will be valid.
    pub valid_ms: u64,
}

impl Registry {
    /// With what the journal had, as kind and JSON.
    ///
    /// # Errors
    /// An entry cannot be read.
    pub(crate) fn new(journal: Journal, access: &[(String, String)]) -> Result<Self, JournalError> {
        let tokens = parse(access, TOKEN)?.map(|token: StoredToken| (token.id.clone(), token));
        let denied = parse(access, DENIED)?.map(|denied: Denied| (denied.name.clone(), denied));
        let state = State {
            tokens: tokens.collect(),
            joined: JoinedWorkers::new(parse(access, JOINED)?),
            ..State::default()
        };
        Ok(Self(Arc::new(Inner {
            journal,
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            denied: watch::Sender::new(denied.collect()),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom the text of a token stands for.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence. It is logged, too, with where it came from, but not each of a flood.
    pub(crate) fn holder(
        &self,
        text: &str,
        peer: Option<SocketAddr>,
        now_ms: u64,
    ) -> Result<Holder, String> {
        let mut state = self.state();
        let found = match text.parse::<Token>() {
            Ok(token) => person(&state.tokens, &token, now_ms).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(holder) => {
                state.used_at_ms.insert(holder.token_id.clone(), now_ms);
                Ok(holder)
            }
            Err(reason) => {
                state.refuse(peer, &reason);
                Err(reason)
            }
        }
    }

    /// All tokens, oldest first.
    pub(crate) fn tokens(&self, now_ms: u64) -> Vec<ShownToken> {
        let state = self.state();
        let mut shown: Vec<ShownToken> = state
            .tokens
            .values()
            .filter(|token| !token.is_stale(now_ms))
            .map(|token| ShownToken {
                token: token.clone(),
                used_at_ms: state.used_at_ms.get(&token.id).copied(),
            })
            .collect();
        shown.sort_by_key(|shown| (shown.token.created_at_ms, shown.token.id.clone()));
        shown
    }

    /// Makes a token that names the CA by this digest.
    ///
    /// # Errors
    /// There are too many, or the journal cannot take it.
    pub(crate) async fn create(
        &self,
        new: NewToken,
        ca_sha256: &str,
        now_ms: u64,
    ) -> Result<(Token, StoredToken), ApiError> {
        let _turn = self.0.turn.lock().await;
        self.forget_stale(now_ms).await?;
        if self.state().tokens.len() >= MOST {
            return Err(ApiError::Exhausted(format!(
                "there are {MOST} tokens; revoke some that nobody uses (`fovea token list`, `fovea token revoke`)"
            )));
        }
        let kind = match new.role {
            Role::Worker => TokenKind::Join,
            _ => TokenKind::Person,
        };
        let token = Token::create(kind, ca_sha256)
            .map_err(|error| ApiError::Internal(format!("no random numbers: {error}")))?;
        let stored = StoredToken {
            id: token.id().to_owned(),
            role: new.role,
            name: new.name,
            secret_sha256: token.digest().to_hex(),
            created_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(new.valid_ms),
            created_by: new.created_by,
            uses: new.uses,
            used: 0,
            joined: Vec::new(),
        };
        self.put(&stored).await?;
        Ok((token, stored))
    }

    /// Makes a token useless.
    ///
    /// # Errors
    /// There is none, or the journal cannot take it.
    pub(crate) async fn revoke(&self, id: &str) -> Result<StoredToken, ApiError> {
        let _turn = self.0.turn.lock().await;
        let Some(token) = self.state().tokens.get(id).cloned() else {
            return Err(ApiError::NotFound(format!(
                "there is no token {id}; `fovea token list` shows those there are"
            )));
        };
        let removed = self.0.journal.remove_access(TOKEN, id).await;
        removed.map_err(not_written)?;
        self.state().tokens.remove(id);
        Ok(token)
    }

    /// The name of a worker that joins with a token. A key that has joined before gets its name again, and none while that
    /// is denied.
    ///
    /// # Errors
    /// The token is refused, the worker is denied, or the journal cannot take it.
    pub(crate) async fn join(&self, request: JoinRequest, now_ms: u64) -> Result<String, ApiError> {
        let JoinRequest {
            token,
            key_sha256,
            host,
            peer,
            valid_ms,
        } = request;
        let _turn = self.0.turn.lock().await;
        self.forget_stale(now_ms).await?;
        let known = self.state().joined.by_key(&key_sha256).cloned();
        let proposed = match &known {
            Some(known) => known.name.clone(),
            None => worker_name(&host, random()?),
        };
        let found = {
            let mut state = self.state();
            let found = joining(&state.tokens, &token, now_ms);
            let found = found.and_then(|stored| Ok((stored, stored.join(&key_sha256, proposed)?)));
            match found {
                Ok((stored, joined)) => Ok((stored.clone(), joined)),
                Err(refusal) => {
                    state.refuse(peer, &refusal.to_string());
                    Err(refusal)
                }
            }
        };
        let (before, (after, name)) = found.map_err(|e| ApiError::Denied(e.to_string()))?;
        for name in known.iter().map(|known| &known.name).chain([&name]) {
            if let Some(denied) = self.0.denied.borrow().get(name) {
                return Err(ApiError::Denied(sentence(denied)));
            }
        }
        if known.is_none() && self.state().joined.len() >= MOST_JOINED {
            return Err(ApiError::Exhausted(format!(
                "{MOST_JOINED} workers have joined within the last days; let machines keep their data_dir, with the identity \
                 in it"
            )));
        }
        if after != before {
            self.put(&after).await?;
        }
        let worker = JoinedWorker {
            name: name.clone(),
            key_sha256,
            token: after.id.clone(),
            joined_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(valid_ms),
        };
        self.put_joined(worker).await?;
        self.state().used_at_ms.insert(after.id.clone(), now_ms);
        info!(
            worker = name,
            token = after.id,
            used = after.used,
            "worker.certified: {name} joins with token {}",
            after.id
        );
        Ok(name)
    }

    /// A worker has renewed its certificate, for this key.
    ///
    /// # Errors
    /// The journal cannot take it.
    pub(crate) async fn renewed(
        &self,
        name: &str,
        key_sha256: &str,
        expires_at_ms: u64,
    ) -> Result<(), ApiError> {
        let _turn = self.0.turn.lock().await;
        // One that has joined before such workers were kept, or not with a token.
        let Some(before) = self.state().joined.get(name).cloned() else {
            return Ok(());
        };
        self.put_joined(JoinedWorker {
            key_sha256: key_sha256.to_owned(),
            expires_at_ms,
            ..before
        })
        .await
    }

    /// Id of the token with which the worker of this process has joined.
    pub(crate) fn joined_with(&self, process: &str) -> Option<String> {
        let state = self.state();
        let worker = state.joined.of_process(process);
        worker.map(|worker| worker.token.clone())
    }

    /// Shuts a worker out. Its sessions end by themselves. One that is out already keeps its reason unless a new one is given.
    ///
    /// # Errors
    /// The journal cannot take it.
    pub(crate) async fn deny(&self, mut denied: Denied) -> Result<(), ApiError> {
        let _turn = self.0.turn.lock().await;
        if denied.reason.is_empty()
            && let Some(before) = self.0.denied.borrow().get(&denied.name)
        {
            denied.reason.clone_from(&before.reason);
        }
        let entry = json(&denied)?;
        let written = self.0.journal.put_access(DENIED, &denied.name, entry).await;
        written.map_err(not_written)?;
        self.0.denied.send_modify(|all| {
            all.insert(denied.name.clone(), denied);
        });
        Ok(())
    }

    /// Lets a worker in again.
    ///
    /// # Errors
    /// It is not denied, or the journal cannot take it.
    pub(crate) async fn allow(&self, name: &str) -> Result<(), ApiError> {
        let _turn = self.0.turn.lock().await;
        if !self.0.denied.borrow().contains_key(name) {
            return Err(ApiError::NotFound(format!(
                "{name} is not denied; `fovea worker denied` lists those that are"
            )));
        }
        let removed = self.0.journal.remove_access(DENIED, name).await;
        removed.map_err(not_written)?;
        self.0.denied.send_modify(|all| {
            all.remove(name);
        });
        Ok(())
    }

    /// All workers that are denied, by name.
    pub(crate) fn denied(&self) -> Vec<Denied> {
        self.0.denied.borrow().values().cloned().collect()
    }

    /// Why this member is shut out, if it is.
    pub(crate) fn denial(&self, identity: &Identity) -> Option<String> {
        if identity.role() != Role::Worker {
            return None;
        }
        let denied = self.0.denied.borrow();
        denied.get(identity.name()).map(sentence)
    }

    /// Waits until this member is shut out, for ever if it is not a worker with a name.
    pub(crate) async fn until_denied(&self, identity: Option<&Identity>) -> String {
        let name = match identity {
            Some(identity) if identity.role() == Role::Worker => identity.name(),
            _ => return std::future::pending().await,
        };
        let mut changes = self.0.denied.subscribe();
        let found = changes.wait_for(|all| all.contains_key(name)).await;
        match found.ok().and_then(|all| all.get(name).map(sentence)) {
            Some(sentence) => sentence,
            // The registry is gone, and the coordinator with it.
            None => std::future::pending().await,
        }
    }

    async fn put(&self, token: &StoredToken) -> Result<(), ApiError> {
        let entry = json(token)?;
        let written = self.0.journal.put_access(TOKEN, &token.id, entry).await;
        written.map_err(not_written)?;
        let mut state = self.state();
        state.tokens.insert(token.id.clone(), token.clone());
        Ok(())
    }

    async fn put_joined(&self, worker: JoinedWorker) -> Result<(), ApiError> {
        let entry = json(&worker)?;
        let written = self.0.journal.put_access(JOINED, &worker.name, entry).await;
        written.map_err(not_written)?;
        self.state().joined.put(worker);
        Ok(())
    }

    async fn forget_stale(&self, now_ms: u64) -> Result<(), ApiError> {
        let stale: Vec<String> = {
            let state = self.state();
            let stale = state.tokens.values().filter(|token| token.is_stale(now_ms));
            stale.map(|token| token.id.clone()).collect()
        };
        for id in stale {
            let removed = self.0.journal.remove_access(TOKEN, &id).await;
            removed.map_err(not_written)?;
            self.state().tokens.remove(&id);
        }
        let gone = {
            let denied = self.0.denied.borrow();
            let is_denied = |name: &str| denied.contains_key(name);
            self.state().joined.stale(now_ms, is_denied)
        };
        for name in gone {
            let removed = self.0.journal.remove_access(JOINED, &name).await;
            removed.map_err(not_written)?;
            self.state().joined.remove(&name);
        }
        Ok(())
    }
}

impl State {
    /// Logs a refusal, but not each of a flood.
    fn refuse(&mut self, peer: Option<SocketAddr>, reason: &str) {
        if let Some(refused) = self.refused.on_event(Instant::now()) {
            let from = peer.map_or_else(String::new, |peer| format!(" from {}", peer.ip()));
            let peer = peer.map(|peer| peer.to_string());
            warn!(
                count = refused,
                peer,
                "token.refused: refused {}, the last{from} because {reason}",
                count(refused, "token", "tokens")
            );
        }
    }
}

fn sentence(denied: &Denied) -> String {
    let Denied { name, reason, .. } = denied;
    let why = match reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    format!(
        "the worker {name} is denied{why}; an admin can let it in again (`fovea worker allow {name}`)"
    )
}

fn parse<T: DeserializeOwned>(
    access: &[(String, String)],
    kind: &str,
) -> Result<impl Iterator<Item = T> + use<T>, JournalError> {
    let found: Vec<T> = access
        .iter()
        .filter(|(of, _)| of == kind)
        .map(|(_, entry)| serde_json::from_str(entry).map_err(|e| JournalError::access(kind, e)))
        .collect::<Result<_, _>>()?;
    Ok(found.into_iter())
}

fn json(entry: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(entry).map_err(|error| ApiError::Internal(error.to_string()))
}

fn not_written(error: JournalError) -> ApiError {
    ApiError::Unavailable(error.to_string())
}

fn random() -> Result<u32, ApiError> {
    getrandom::u32().map_err(|error| ApiError::Internal(format!("no random numbers: {error}")))
}
