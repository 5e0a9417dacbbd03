//! The datasets that the coordinator holds, and whether they can be read: one task, and a snapshot for everybody. `weights`
//! is the same for weights.
//!
//! A dataset whose files are missing or cannot be read stays in the catalogue with the reason, and its runs wait. One
//! that cannot be read is tried again every few seconds; one that is corrupt waits for `fovea dataset add`.

mod problem;
mod task;
pub(crate) mod weights;

use std::collections::BTreeMap;
use std::sync::Arc;

use fovea_core::ids::DatasetName;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::error::ApiError;
use crate::messages::Reply;
use crate::remote::Item;
use crate::store::{DatasetStore, DescribingFile, HeldDataset, StoreError, Verified};

use problem::Problem;
pub(crate) use task::start;

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

impl Catalogue {
    /// Opens the datasets that the journal names, and looks at their packs. `elsewhere`: whether the object store has an item.
    /// Waits for the disk.
    pub(crate) fn read(
        store: &DatasetStore,
        elsewhere: impl Fn(&Item) -> bool,
        named: Vec<(String, String)>,
    ) -> Self {
        let mut catalogue = Self::default();
        let known: Vec<String> = named.iter().map(|(_, digest)| digest.clone()).collect();
        // A store that cannot be listed shows in the datasets themselves.
        for folder in store.unlisted(&known).unwrap_or_default() {
            warn!(
                "dataset.unlisted: {} is not in the journal: its upload or its removal was cut off; \
                 `fovea dataset add` of the same dataset lists it again, or delete the folder",
                folder.display()
            );
        }
        for (name, digest) in named {
            let Ok(name) = DatasetName::new(name.clone()) else {
                warn!(
                    dataset = name,
                    "dataset.ignored: {name:?} is not a dataset's name"
                );
                continue;
            };
            let entry = Entry::read(store, &elsewhere, digest);
            if let Some(problem) = entry.describe(&name) {
                warn!(dataset = %name, "dataset.unusable: {problem}");
            }
            catalogue.entries.insert(name, entry);
        }
        catalogue
    }

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

    /// Width and height of the images of the dataset of that digest, in pixels; None while its manifest cannot be read.
    pub(crate) fn image_size(&self, digest: &str) -> Option<u32> {
        let entry = self.entries.values().find(|e| e.digest == digest)?;
        Some(entry.held.as_ref()?.manifest.image_size)
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
    /// Opens the dataset and looks at its packs. Packs that are only in the object store are fetched when they are needed.
    fn read(store: &DatasetStore, elsewhere: impl Fn(&Item) -> bool, digest: String) -> Self {
        let mut problems = Problems::default();
        let held = match store.open_dataset(&digest) {
            Ok(held) => {
                let mut found = store.probe(&held);
                if elsewhere(&Item::Dataset(digest.clone())) {
                    found.retain(|(_, error)| !matches!(error, StoreError::Missing { .. }));
                }
                let of = |(pack, error): &(u32, StoreError)| (*pack, Problem::of(error));
                problems.packs = found.iter().map(of).collect();
                Some(Arc::new(held))
            }
            Err(error) => {
                problems.whole = Some(Problem::of(&error));
                None
            }
        };
        Self {
            digest,
            held,
            problems,
        }
    }

    /// Something is wrong with it that may go away by itself.
    fn may_recover(&self) -> bool {
        let Problems { whole, packs } = &self.problems;
        whole.iter().chain(packs.values()).any(|p| p.transient)
    }

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
    /// None: it is new. Otherwise what was replaced.
    pub repaired: Option<Repaired>,
}

/// The files of a dataset that were replaced, because they were missing or corrupt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Repaired {
    pub packs: Vec<u32>,
    pub files: Vec<DescribingFile>,
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

/// Another dataset has that name.
pub(crate) fn name_taken(name: &DatasetName, digest: &str) -> ApiError {
    ApiError::AlreadyExists(format!(
        "dataset {name} is another one here (digest {digest}); prepare yours under another name, or remove that one (`fovea dataset rm {name}`)"
    ))
}
