//! The task that changes the weights' catalogue.

use std::sync::Arc;
use std::time::Duration;

use fovea_core::count::count;
use fovea_core::ids::WeightsName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::{AddedWeights, Command, Entry, Weights, WeightsCatalogue};
use crate::blocking::blocking;
use crate::catalogue::problem::{Problem, next_in_turn};
use crate::clock::unix_ms;
use crate::error::ApiError;
use crate::remote::{Item, Remote, Wanted};
use crate::store::{StoredWeights, VerifiedWeights, WeightsStore};

/// Commands that may wait for the task.
const INBOX: usize = 64;
/// How often what cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Starts the task. It ends when nobody can reach it any more.
pub(crate) fn start(
    catalogue: WeightsCatalogue,
    store: WeightsStore,
    remote: Remote,
) -> (Weights, tokio::task::JoinHandle<()>) {
    let (shown, now) = watch::channel(Arc::new(catalogue));
    let (commands, inbox) = mpsc::channel(INBOX);
    let task = Task {
        store,
        remote,
        shown,
        retried: String::new(),
    };
    (Weights { commands, now }, tokio::spawn(task.run(inbox)))
}

struct Task {
    store: WeightsStore,
    remote: Remote,
    shown: watch::Sender<Arc<WeightsCatalogue>>,
    /// Digest of the weights that were read again last.
    retried: String,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // At most one: weights that are being read again.
        let mut reading = JoinSet::new();
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    None => return,
                    Some(Command::Add { upload, name, file_name, reply }) => {
                        drop(reply.send(self.add(*upload, name, &file_name).await));
                    }
                    Some(Command::Remove { sha256, reply }) => drop(reply.send(self.remove(sha256).await)),
                    Some(Command::Report { sha256, problem }) => self.report(&sha256, problem),
                },
                Some(read) = reading.join_next() => match read {
                    Ok((sha256, entry)) => self.read_again(sha256, entry),
                    Err(error) => error!("weights.not_read: reading weights again panicked: {error}"),
                },
                _ = again.tick(), if reading.is_empty() => {
                    if let Some(sha256) = self.may_recover() {
                        self.retried.clone_from(&sha256);
                        reading.spawn(read(self.store.clone(), self.remote.clone(), sha256));
                    }
                }
            }
        }
    }

    async fn add(
        &mut self,
        upload: VerifiedWeights,
        name: Option<WeightsName>,
        file_name: &str,
    ) -> Result<AddedWeights, ApiError> {
        let sha256 = upload.sha256().to_owned();
        let name = self
            .shown
            .borrow()
            .name_for(&sha256, name.as_ref(), file_name)?;
        let now = unix_ms();
        let StoredWeights {
            held,
            added,
            repaired,
        } = blocking(move || upload.store(name, now)).await??;
        let name = &held.name;
        if added {
            info!(weights = %name, sha256, bytes = held.bytes, "weights.added: {name}, the weights of {}", count(held.checked.layers.len(), "layer", "layers"));
        } else if repaired {
            info!(weights = %name, sha256, "weights.repaired: {name}: what was missing or corrupt was replaced");
        }
        let held = Arc::new(held);
        let entry = Entry {
            held: Some(Arc::clone(&held)),
            problem: None,
        };
        self.remote.stored(Item::Weights(sha256.clone()));
        self.edit(|catalogue| drop(catalogue.entries.insert(sha256, entry)));
        Ok(AddedWeights {
            held,
            added,
            repaired,
        })
    }

    async fn remove(&mut self, sha256: String) -> Result<u64, ApiError> {
        let entry = self.shown.borrow().entries.get(&sha256).cloned();
        let name = match entry.and_then(|entry| entry.held) {
            Some(held) => held.name.to_string(),
            None => sha256.clone(),
        };
        self.remote
            .remove(vec![Item::Weights(sha256.clone())])
            .await;
        let (store, digest) = (self.store.clone(), sha256.clone());
        let removed = blocking(move || store.remove(&digest)).await?;
        let bytes = match removed {
            Ok(bytes) => bytes,
            Err(error) => {
                warn!(weights = name, %error, "weights.not_removed: {name}: {error}");
                // Before they were renamed nothing has changed; afterwards the next start removes the rest.
                let (store, digest) = (self.store.clone(), sha256.clone());
                let left = blocking(move || store.digests()).await?;
                if left.is_ok_and(|left| !left.contains(&digest)) {
                    self.edit(|catalogue| drop(catalogue.entries.remove(&sha256)));
                    return Err(ApiError::Incomplete(format!(
                        "weights {name} are not listed any more, but their files could not all be removed: {error}. Correct \
                         the cause; the next start of the coordinator removes what is left"
                    )));
                }
                self.remote.stored(Item::Weights(sha256));
                return Err(ApiError::kept(
                    &format!("weights {name} were not removed and stay listed"),
                    &error,
                    &format!("fovea weights rm {name}"),
                ));
            }
        };
        self.edit(|catalogue| drop(catalogue.entries.remove(&sha256)));
        info!(weights = name, bytes, "weights.deleted: {name}: on request");
        Ok(bytes)
    }

    fn report(&self, sha256: &str, problem: Option<Problem>) {
        let entry = self.shown.borrow().entries.get(sha256).cloned();
        let Some(mut entry) = entry else { return };
        if entry.problem == problem || entry.held.is_none() && problem.is_none() {
            return;
        }
        entry.problem = problem;
        self.show(sha256, entry);
    }

    /// Digest of weights that could not be read and may be readable now, or that are only in the object store: the journal
    /// does not list weights.
    fn may_recover(&self) -> Option<String> {
        let catalogue = self.shown.borrow();
        let transient = |entry: &Entry| entry.problem.as_ref().is_some_and(|p| p.transient);
        let entries = catalogue.entries.iter().filter(|(_, e)| transient(e));
        let view = self.remote.view();
        let stored = view.iter().flat_map(|view| view.stored.iter());
        let elsewhere = stored.filter_map(|item| match item {
            Item::Weights(sha256) if !catalogue.entries.contains_key(sha256) => Some(sha256),
            _ => None,
        });
        let all = entries.map(|(sha256, _)| sha256).chain(elsewhere);
        next_in_turn(all, &self.retried)
    }

    fn read_again(&self, sha256: String, read: Entry) {
        let before = self.shown.borrow().entries.get(&sha256).cloned();
        if before.is_none()
            && read.held.is_some()
            && self.remote.has(&Item::Weights(sha256.clone()))
        {
            // They came from the object store.
            self.edit(|catalogue| drop(catalogue.entries.insert(sha256, read)));
            return;
        }
        // Removed, repaired or found corrupt meanwhile.
        let waited = before.and_then(|entry| entry.problem);
        if waited.is_none_or(|problem| !problem.transient) {
            return;
        }
        self.show(&sha256, read);
    }

    /// Shows an entry, and logs what changed.
    fn show(&self, sha256: &str, entry: Entry) {
        let name = match &entry.held {
            Some(held) => held.name.to_string(),
            None => sha256.to_owned(),
        };
        let before = self.shown.borrow().problem(sha256);
        let after = entry.describe(sha256);
        if before != after {
            match &after {
                Some(problem) => warn!(sha256, "weights.unusable: {problem}"),
                None => info!(sha256, "weights.usable: weights {name} can be read again"),
            }
            self.edit(|catalogue| drop(catalogue.entries.insert(sha256.to_owned(), entry)));
        }
    }

    fn edit(&self, edit: impl FnOnce(&mut WeightsCatalogue)) {
        let mut next = WeightsCatalogue {
            entries: self.shown.borrow().entries.clone(),
        };
        edit(&mut next);
        self.shown.send_replace(Arc::new(next));
    }
}

/// Reads weights again. They are fetched from the object store, if they are missing here and are there.
async fn read(store: WeightsStore, remote: Remote, sha256: String) -> (String, Entry) {
    let look = || {
        let (store, sha256) = (store.clone(), sha256.clone());
        async move {
            match tokio::task::spawn_blocking(move || Entry::read(&store, &sha256)).await {
                Ok(entry) => entry,
                // The caller's task fails as this one did.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    };
    let entry = look().await;
    let lost = matches!(&entry.problem, Some(problem) if problem.missing);
    if !lost || !remote.has(&Item::Weights(sha256.clone())) {
        return (sha256, entry);
    }
    // The fetcher logs why not.
    let entry = match remote.fetch(Wanted::Weights(sha256.clone())).await {
        Ok(()) => look().await,
        Err(_) => entry,
    };
    (sha256, entry)
}
