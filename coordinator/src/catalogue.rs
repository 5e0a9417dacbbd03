//! The datasets that the coordinator holds, and whether they can be read: one task, and a snapshot for everybody.
//!
//! A dataset whose files are missing or cannot be read stays in the catalogue with the reason, and its runs wait. One
//! that cannot be read is tried again every few seconds; one that is corrupt waits for `fovea dataset add`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fovea_core::ids::DatasetName;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::cluster::Reply;
use crate::error::ApiError;
use crate::journal::Journal;
use crate::store::{DatasetStore, HeldDataset, StoreError, Stored, Verified};

/// Commands that may wait for the task.
const INBOX: usize = 64;
/// How often what cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// All datasets at one moment.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    entries: BTreeMap<DatasetName, Entry>,
}

/// A dataset.
#[derive(Debug, Clone)]
struct Entry {
    digest: String,
    /// None while its manifest or index cannot be read.
    held: Option<Arc<HeldDataset>>,
    problems: Problems,
}

/// What is wrong with a dataset's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Problems {
    /// Of the manifest or the index.
    whole: Option<Problem>,
    /// By pack.
    packs: BTreeMap<u32, Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    text: String,
    /// It may go away by itself.
    transient: bool,
}

impl Problem {
    fn of(error: &StoreError) -> Self {
        Self {
            text: error.to_string(),
            transient: error.is_transient(),
        }
    }
}

impl Catalogue {
    /// The datasets that can be used, by name.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Arc<HeldDataset>> {
        self.entries.values().filter_map(|e| e.held.as_ref())
    }

    /// By digest or name.
    ///
    /// # Errors
    /// There is none, or its files cannot be read now.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<HeldDataset>, ApiError> {
        let entry = self
            .entries
            .iter()
            .find(|(name, e)| e.digest == wanted || name.as_str() == wanted);
        match entry {
            None => Err(ApiError::no_dataset(wanted)),
            Some((name, entry)) => entry
                .held
                .clone()
                .ok_or_else(|| ApiError::Unavailable(entry.describe(name).unwrap_or_default())),
        }
    }

    /// The dataset of that name, if its manifest can be read.
    pub(crate) fn named(&self, name: &DatasetName) -> Option<&Arc<HeldDataset>> {
        self.entries.get(name).and_then(|e| e.held.as_ref())
    }

    /// What is wrong with the dataset of that digest, and what to do; None if nothing is known to be.
    pub(crate) fn problem(&self, digest: &str) -> Option<String> {
        match self.entries.iter().find(|(_, e)| e.digest == digest) {
            Some((name, entry)) => entry.describe(name),
            None => Some(format!(
                "the dataset with digest {digest} is not here (it was removed); `fovea dataset add DIR` with the \
                 prepared dataset brings it back"
            )),
        }
    }

    /// Names and digests of all datasets, readable or not.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&DatasetName, &str)> {
        self.entries
            .iter()
            .map(|(name, e)| (name, e.digest.as_str()))
    }
}

impl Entry {
    fn describe(&self, name: &DatasetName) -> Option<String> {
        let Problems { whole, packs } = &self.problems;
        let problem = whole.as_ref().or_else(|| packs.values().next())?;
        let more = match packs.len() {
            0 | 1 => String::new(),
            n => format!(" ({n} packs in all)"),
        };
        let what = match packs.keys().next() {
            Some(pack) if whole.is_none() => format!("dataset {name}, pack {pack}{more}"),
            _ => format!("dataset {name}"),
        };
        let cure = if problem.transient {
            "trying again; if it does not come back, `fovea dataset add DIR` with the prepared dataset repairs it"
        } else {
            "`fovea dataset add DIR` with the prepared dataset repairs it"
        };
        Some(format!("{what}: {}; {cure}", problem.text))
    }
}

/// What was done with an upload.
#[derive(Debug)]
pub(crate) struct Added {
    pub held: Arc<HeldDataset>,
    /// None: it is new. Otherwise the packs that were replaced.
    pub repaired: Option<Vec<u32>>,
}

enum Command {
    Add {
        upload: Box<Verified>,
        reply: Reply<Added>,
    },
    /// All files of a dataset were read and are right.
    Sound { digest: String },
    Remove {
        name: DatasetName,
        reply: Reply<u64>,
    },
    Report {
        digest: String,
        pack: u32,
        problem: Option<Problem>,
    },
    Reopened {
        name: DatasetName,
        digest: String,
        result: Box<Result<HeldDataset, StoreError>>,
        packs: Vec<(u32, Option<Problem>)>,
    },
}

/// The way to the catalogue.
#[derive(Clone)]
pub(crate) struct Datasets {
    commands: mpsc::Sender<Command>,
    now: watch::Receiver<Arc<Catalogue>>,
}

impl std::fmt::Debug for Datasets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datasets").finish_non_exhaustive()
    }
}

impl Datasets {
    /// The catalogue now.
    pub(crate) fn now(&self) -> Arc<Catalogue> {
        Arc::clone(&self.now.borrow())
    }

    /// For those who are to know when it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.now.clone()
    }

    /// Takes a verified upload in: stored (or used to repair the one that is there), journalled, shown.
    pub(crate) async fn add(&self, upload: Verified) -> Result<Added, ApiError> {
        let upload = Box::new(upload);
        self.ask(|reply| Command::Add { upload, reply }).await
    }

    /// Removes a dataset. The caller has seen that no run needs it.
    pub(crate) async fn remove(&self, name: DatasetName) -> Result<u64, ApiError> {
        self.ask(|reply| Command::Remove { name, reply }).await
    }

    /// What reading a pack showed.
    pub(crate) async fn report(&self, digest: &str, pack: u32, result: Result<(), &StoreError>) {
        let problem = result.err().map(Problem::of);
        let digest = digest.to_owned();
        // The task ends only with the coordinator.
        let _ = self
            .commands
            .send(Command::Report {
                digest,
                pack,
                problem,
            })
            .await;
    }

    /// Every file of a dataset was read, and is right.
    pub(crate) async fn sound(&self, digest: &str) {
        let digest = digest.to_owned();
        let _ = self.commands.send(Command::Sound { digest }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| ApiError::ShuttingDown)?;
        answer.await.map_err(|_| ApiError::ShuttingDown)?
    }
}

/// Opens the datasets that the journal names, and starts the task. It ends when nobody can reach it any more.
pub(crate) fn start(
    store: DatasetStore,
    journal: Journal,
    named: Vec<(String, String)>,
) -> (Datasets, tokio::task::JoinHandle<()>) {
    let mut catalogue = Catalogue::default();
    for (name, digest) in named {
        let Ok(name) = DatasetName::new(name.clone()) else {
            warn!(
                dataset = name,
                "dataset.ignored: {name:?} is not a dataset's name"
            );
            continue;
        };
        let mut problems = Problems::default();
        let held = match store.open_dataset(&digest) {
            Ok(held) => {
                let found = store.probe(&held);
                problems.packs = found
                    .iter()
                    .map(|(pack, e)| (*pack, Problem::of(e)))
                    .collect();
                Some(Arc::new(held))
            }
            Err(error) => {
                problems.whole = Some(Problem::of(&error));
                None
            }
        };
        let entry = Entry {
            digest,
            held,
            problems,
        };
        if let Some(problem) = entry.describe(&name) {
            warn!(dataset = %name, "dataset.unusable: {problem}");
        }
        catalogue.entries.insert(name, entry);
    }
    let (shown, now) = watch::channel(Arc::new(catalogue));
    let (commands, inbox) = mpsc::channel(INBOX);
    let task = Task {
        store,
        journal,
        shown,
        me: commands.downgrade(),
        reopening: false,
    };
    let handle = tokio::spawn(task.run(inbox));
    (Datasets { commands, now }, handle)
}

struct Task {
    store: DatasetStore,
    journal: Journal,
    shown: watch::Sender<Arc<Catalogue>>,
    me: mpsc::WeakSender<Command>,
    /// A look at what could not be read is under way.
    reopening: bool,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    None => return,
                    Some(Command::Add { upload, reply }) => drop(reply.send(self.add(*upload).await)),
                    Some(Command::Remove { name, reply }) => drop(reply.send(self.remove(name).await)),
                    Some(Command::Sound { digest }) => self.change(&digest, |e| e.problems = Problems::default()),
                    Some(Command::Report { digest, pack, problem }) => self.pack_state(&digest, pack, problem),
                    Some(Command::Reopened { name, digest, result, packs }) => {
                        self.reopening = false;
                        self.reopened(&name, &digest, *result, packs);
                    }
                },
                _ = again.tick() => self.reopen(),
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
            unreadable,
        } = on_files(move || upload.store()).await??;
        if let Some((pack, error)) = unreadable.first() {
            // Nothing was put over what cannot be read: it may be right.
            let pack = *pack;
            let error = ApiError::from(error);
            return Err(ApiError::Unavailable(format!(
                "dataset {name}, pack {pack}, cannot be read now ({error}), so it was not replaced; correct the cause and try again"
            )));
        }
        let repaired = (!added).then_some(repaired);
        self.journal
            .put_dataset(&name, &digest)
            .await
            .map_err(|e| ApiError::Unavailable(e.to_string()))?;
        match &repaired {
            None => info!(
                dataset = %name,
                digest,
                train = held.patients.len(),
                validation = held.validation,
                "dataset.added: {name}"
            ),
            Some(packs) => {
                info!(dataset = %name, digest, ?packs, "dataset.repaired: {name}: {} packs replaced", packs.len())
            }
        }
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
        let removed = on_files(move || store.remove(&digest)).await?;
        let bytes = match removed {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. }) => 0,
            Err(error) => return Err(ApiError::from(&error)),
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

    /// Tries again what could not be read.
    fn reopen(&mut self) {
        if self.reopening {
            return;
        }
        let catalogue = Arc::clone(&self.shown.borrow());
        let is_transient = |p: &Problem| p.transient;
        let sick = catalogue.entries.iter().find(|(_, e)| {
            let Problems { whole, packs } = &e.problems;
            whole.iter().chain(packs.values()).any(is_transient)
        });
        let Some((name, entry)) = sick else {
            return;
        };
        let (store, me) = (self.store.clone(), self.me.clone());
        let (name, digest, problems) = (name.clone(), entry.digest.clone(), entry.problems.clone());
        self.reopening = true;
        tokio::task::spawn_blocking(move || {
            let result = store.open_dataset(&digest);
            let packs = match &result {
                Ok(held) => {
                    let found: BTreeMap<u32, StoreError> = store.probe(held).into_iter().collect();
                    let was = problems
                        .packs
                        .iter()
                        .filter(|(_, problem)| problem.transient);
                    let known: BTreeSet<u32> = was
                        .map(|(pack, _)| *pack)
                        .chain(found.keys().copied())
                        .collect();
                    let now = |pack: u32| (pack, found.get(&pack).map(Problem::of));
                    known.into_iter().map(now).collect()
                }
                Err(_) => Vec::new(),
            };
            if let Some(me) = me.upgrade() {
                let _ = me.blocking_send(Command::Reopened {
                    name,
                    digest,
                    result: Box::new(result),
                    packs,
                });
            }
        });
    }

    fn reopened(
        &self,
        name: &DatasetName,
        digest: &str,
        result: Result<HeldDataset, StoreError>,
        packs: Vec<(u32, Option<Problem>)>,
    ) {
        self.change(digest, |entry| {
            match result {
                Ok(held) => {
                    entry.held = Some(Arc::new(held));
                    entry.problems.whole = None;
                }
                Err(error) => entry.problems.whole = Some(Problem::of(&error)),
            }
            for (pack, problem) in packs {
                match problem {
                    Some(problem) => drop(entry.problems.packs.insert(pack, problem)),
                    None => drop(entry.problems.packs.remove(&pack)),
                }
            }
            if entry.problems == Problems::default() {
                info!(dataset = %name, "dataset.usable: {name} can be read again");
            }
        });
    }

    fn change(&self, digest: &str, change: impl FnOnce(&mut Entry)) {
        let entry = {
            let catalogue = self.shown.borrow();
            catalogue
                .entries
                .iter()
                .find(|(_, e)| e.digest == digest)
                .map(|(n, e)| (n.clone(), e.clone()))
        };
        let Some((name, mut entry)) = entry else {
            return;
        };
        let before = entry.problems.clone();
        let was_held = entry.held.is_some();
        change(&mut entry);
        if entry.problems != before || entry.held.is_some() != was_held {
            self.edit(|catalogue| drop(catalogue.entries.insert(name, entry)));
        }
    }

    fn edit(&self, edit: impl FnOnce(&mut Catalogue)) {
        let mut next = Catalogue {
            entries: self.shown.borrow().entries.clone(),
        };
        edit(&mut next);
        self.shown.send_replace(Arc::new(next));
    }
}

/// Another dataset has that name.
pub(crate) fn name_taken(name: &DatasetName, digest: &str) -> ApiError {
    ApiError::AlreadyExists(format!(
        "dataset {name} is another one here (digest {digest}); prepare yours under another name, or remove that one (`fovea dataset rm {name}`)"
    ))
}

async fn on_files<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ApiError::Internal(e.to_string()))
}
