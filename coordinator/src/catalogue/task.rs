//! The task that changes the catalogue.

use std::sync::Arc;
use std::time::Duration;

use fovea_core::count::count;
use fovea_core::ids::DatasetName;
use fovea_core::spec::Part;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::problem::{Problem, next_in_turn};
use super::{Added, Catalogue, Command, Datasets, Entry, Problems, Repaired, name_taken};
use crate::blocking::blocking;
use crate::error::ApiError;
use crate::journal::Journal;
use crate::remote::{Item, Remote, Wanted};
use crate::store::{DatasetStore, StoreError, Stored, Verified};

/// Commands that may wait for the task.
const INBOX: usize = 64;
/// How often what cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Starts the task. It ends when nobody can reach it any more.
pub(crate) fn start(
    catalogue: Catalogue,
    store: DatasetStore,
    journal: Journal,
    remote: Remote,
) -> (Datasets, tokio::task::JoinHandle<()>) {
    let (shown, now) = watch::channel(Arc::new(catalogue));
    let (commands, inbox) = mpsc::channel(INBOX);
    let task = Task {
        store,
        journal,
        remote,
        shown,
        retried: String::new(),
    };
    (Datasets { commands, now }, tokio::spawn(task.run(inbox)))
}

struct Task {
    store: DatasetStore,
    journal: Journal,
    remote: Remote,
    shown: watch::Sender<Arc<Catalogue>>,
    /// Digest of the dataset that was read again last.
    retried: String,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // At most one: a dataset that is being read again.
        let mut reading = JoinSet::new();
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    None => return,
                    Some(Command::Add { upload, reply }) => drop(reply.send(self.add(*upload).await)),
                    Some(Command::Remove { name, reply }) => drop(reply.send(self.remove(name).await)),
                    Some(Command::Sound { digest }) => drop(self.change(&digest, |e| e.problems = Problems::default())),
                    Some(Command::Report { digest, pack, problem }) => self.pack_state(&digest, pack, problem),
                },
                Some(read) = reading.join_next() => match read {
                    Ok(entry) => self.read_again(entry),
                    Err(error) => error!("dataset.not_read: reading a dataset again panicked: {error}"),
                },
                _ = again.tick(), if reading.is_empty() => {
                    if let Some(digest) = self.may_recover() {
                        self.retried.clone_from(&digest);
                        reading.spawn(read(self.store.clone(), self.remote.clone(), digest));
                    }
                }
            }
        }
    }

    async fn add(&mut self, upload: Verified) -> Result<Added, ApiError> {
        let (name, digest) = upload.name_and_digest();
        self.may_add(&name, &digest)?;
        let Stored {
            held,
            added,
            repaired,
            repaired_files,
            unreadable,
        } = blocking(move || upload.store()).await??;
        if let Some((pack, error)) = unreadable.first() {
            // Nothing was put over what cannot be read: it may be right.
            let pack = *pack;
            let error = ApiError::from(error);
            return Err(ApiError::Unavailable(format!(
                "dataset {name}, pack {pack}, could not be compared, so it was not replaced: {error}"
            )));
        }
        let repaired = (!added).then_some(Repaired {
            packs: repaired,
            files: repaired_files,
        });
        self.journal
            .put_dataset(&name, &digest)
            .await
            .map_err(|e| ApiError::Unavailable(e.to_string()))?;
        match &repaired {
            None => info!(
                dataset = %name,
                digest,
                train = held.samples(Part::Train),
                validation = held.samples(Part::Validation),
                "dataset.added: {name}"
            ),
            Some(Repaired { packs, files }) => {
                let replaced = packs.len() + files.len();
                info!(
                    dataset = %name,
                    digest,
                    ?packs,
                    ?files,
                    "dataset.repaired: {name}: {} replaced",
                    count(replaced, "file", "files")
                );
            }
        }
        self.remote.stored(Item::Dataset(digest.clone()));
        let held = Arc::new(held);
        let entry = Entry {
            digest,
            held: Some(Arc::clone(&held)),
            problems: Problems::default(),
        };
        self.edit(|catalogue| {
            catalogue.entries.insert(name, entry);
        });
        Ok(Added { held, repaired })
    }

    fn may_add(&self, name: &DatasetName, digest: &str) -> Result<(), ApiError> {
        match self.shown.borrow().entries.get(name) {
            Some(entry) if entry.digest != digest => Err(name_taken(name, &entry.digest)),
            Some(_) | None => Ok(()),
        }
    }

    async fn remove(&mut self, name: DatasetName) -> Result<u64, ApiError> {
        let entry = self.shown.borrow().entries.get(&name).cloned();
        let entry = entry.ok_or_else(|| ApiError::no_dataset(&name))?;
        let (store, digest) = (self.store.clone(), entry.digest.clone());
        if let Err(error) = blocking(move || store.check_removable(&digest)).await? {
            return Err(ApiError::kept(
                &format!("dataset {name} was not removed and stays listed"),
                &error,
                &format!("fovea dataset rm {name}"),
            ));
        }
        self.journal
            .remove_dataset(&name)
            .await
            .map_err(|e| ApiError::Unavailable(e.to_string()))?;
        self.edit(|catalogue| {
            catalogue.entries.remove(&name);
        });
        let shared = self
            .shown
            .borrow()
            .entries
            .values()
            .any(|e| e.digest == entry.digest);
        if shared {
            return Ok(0);
        }
        let (store, digest) = (self.store.clone(), entry.digest);
        self.remote
            .remove(vec![Item::Dataset(digest.clone())])
            .await;
        let removed = blocking(move || store.remove(&digest)).await?;
        let bytes = match removed {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. }) => 0,
            Err(error) => {
                warn!(dataset = %name, %error, "dataset.not_removed: {name}: {error}");
                return Err(ApiError::Incomplete(format!(
                    "dataset {name} is not listed any more, but its files could not all be removed: {error}. Correct the \
                     cause; the next start of the coordinator removes what is left, or names it (dataset.unlisted)"
                )));
            }
        };
        info!(dataset = %name, bytes, "dataset.deleted: {name}: on request");
        Ok(bytes)
    }

    fn pack_state(&self, digest: &str, pack: u32, problem: Option<Problem>) {
        if let Some(problem) = &problem {
            let text = &problem.text;
            warn!(
                digest,
                pack, "pack.unusable: dataset {digest}, pack {pack}: {text}"
            );
        }
        self.change(digest, |entry| match problem {
            Some(problem) => drop(entry.problems.packs.insert(pack, problem)),
            None => drop(entry.problems.packs.remove(&pack)),
        });
    }

    /// The digest of a dataset that could not be read and may be readable now.
    fn may_recover(&self) -> Option<String> {
        let catalogue = self.shown.borrow();
        let entries = catalogue.entries.values().filter(|e| e.may_recover());
        next_in_turn(entries.map(|entry| &entry.digest), &self.retried)
    }

    fn read_again(&self, read: Entry) {
        let digest = read.digest.clone();
        let name = self.change(&digest, |entry| {
            entry.problems.whole = read.problems.whole;
            if read.held.is_some() {
                entry.held = read.held;
                // What a complete read found corrupt may still have the right size.
                entry.problems.packs.retain(|_, problem| !problem.transient);
                entry.problems.packs.extend(read.problems.packs);
            }
        });
        if let Some(name) = name
            && self.shown.borrow().problem(&digest).is_none()
        {
            info!(dataset = %name, "dataset.usable: {name} can be read again");
        }
    }

    /// Returns the dataset's name if that made a difference.
    fn change(&self, digest: &str, change: impl FnOnce(&mut Entry)) -> Option<DatasetName> {
        let entry = {
            let catalogue = self.shown.borrow();
            catalogue
                .entries
                .iter()
                .find(|(_, e)| e.digest == digest)
                .map(|(n, e)| (n.clone(), e.clone()))
        };
        let (name, mut entry) = entry?;
        let before = entry.problems.clone();
        let was_held = entry.held.is_some();
        change(&mut entry);
        if entry.problems == before && entry.held.is_some() == was_held {
            return None;
        }
        self.edit(|catalogue| drop(catalogue.entries.insert(name.clone(), entry)));
        Some(name)
    }

    fn edit(&self, edit: impl FnOnce(&mut Catalogue)) {
        let mut next = Catalogue {
            entries: self.shown.borrow().entries.clone(),
        };
        edit(&mut next);
        self.shown.send_replace(Arc::new(next));
    }
}

/// Reads a dataset again. What describes it is fetched from the object store, if it is missing here and is there.
async fn read(store: DatasetStore, remote: Remote, digest: String) -> Entry {
    let look = || {
        let (store, remote, digest) = (store.clone(), remote.clone(), digest.clone());
        async move {
            match tokio::task::spawn_blocking(move || {
                Entry::read(&store, |item| remote.has(item), digest)
            })
            .await
            {
                Ok(entry) => entry,
                // The caller's task fails as this one did.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    };
    let entry = look().await;
    let lost = matches!(&entry.problems.whole, Some(problem) if problem.missing);
    if !lost || !remote.has(&Item::Dataset(digest.clone())) {
        return entry;
    }
    // The fetcher logs why not.
    match remote.fetch(Wanted::Description(digest.clone())).await {
        Ok(()) => look().await,
        Err(_) => entry,
    }
}
