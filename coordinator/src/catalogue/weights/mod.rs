//! The weights that the coordinator stores, and whether they can be read: one task, and a snapshot for everybody.

mod task;

use std::collections::BTreeMap;
use std::sync::Arc;

use fovea_core::ids::WeightsName;
use fovea_core::spec::ModelSpec;
use fovea_core::weights::{WeightsRef, is_sha256, name_of_file};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::problem::Problem;
use crate::error::ApiError;
use crate::messages::Reply;
use crate::store::{HeldWeights, StoreError, VerifiedWeights, WeightsStore};

pub(crate) use task::start;

/// All weights at one moment, by digest.
#[derive(Debug, Default)]
pub(crate) struct WeightsCatalogue {
    entries: BTreeMap<String, Entry>,
}

/// Weights in the store.
#[derive(Debug, Clone)]
struct Entry {
    /// None while the manifest cannot be read.
    held: Option<Arc<HeldWeights>>,
    problem: Option<Problem>,
}

impl Entry {
    /// Reads the manifest, and opens the file.
    fn read(store: &WeightsStore, sha256: &str) -> Self {
        match store.describe(sha256) {
            Ok(held) => {
                let opened = store.open_file(&held);
                Self {
                    held: Some(Arc::new(held)),
                    problem: opened.err().as_ref().map(Problem::of),
                }
            }
            Err(error) => Self {
                held: None,
                problem: Some(Problem::of(&error)),
            },
        }
    }

    fn describe(&self, sha256: &str) -> Option<String> {
        let problem = self.problem.as_ref()?;
        let name = match &self.held {
            Some(held) => held.name.as_str(),
            None => sha256,
        };
        let again = match problem.transient {
            true => "trying again; if it does not come back, ",
            false => "",
        };
        Some(format!(
            "weights {name}: {}; {again}`fovea weights add FILE` with the same file repairs it",
            problem.text
        ))
    }
}

impl WeightsCatalogue {
    /// Looks at all weights in the store. Waits for the disk.
    pub(crate) fn read(store: &WeightsStore) -> Self {
        let digests = match store.digests() {
            Ok(digests) => digests,
            Err(error) => {
                warn!(%error, "weights.unlisted: the weights cannot be listed, so none is known until the next start: {error}");
                Vec::new()
            }
        };
        let mut entries = BTreeMap::new();
        for sha256 in digests {
            let entry = Entry::read(store, &sha256);
            if let Some(problem) = entry.describe(&sha256) {
                warn!(sha256, "weights.unusable: {problem}");
            }
            entries.insert(sha256, entry);
        }
        Self { entries }
    }

    /// By name, by digest, or as `sha256:` and a digest.
    ///
    /// # Errors
    /// There are none, or their manifest cannot be read now.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<HeldWeights>, ApiError> {
        let sha256 = self.digest_of(wanted)?;
        let entry = self.entries.get(&sha256);
        match entry.and_then(|entry| entry.held.clone()) {
            Some(held) => Ok(held),
            None => Err(ApiError::Unavailable(
                self.problem(&sha256).unwrap_or_default(),
            )),
        }
    }

    /// The digest of weights that are given by name, by digest, or as `sha256:` and a digest.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn digest_of(&self, wanted: &str) -> Result<String, ApiError> {
        let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let digits = digits.to_ascii_lowercase();
        if self.entries.contains_key(&digits) {
            return Ok(digits);
        }
        let named = self.held().find(|held| held.name.as_str() == wanted);
        match named {
            Some(held) => Ok(held.sha256.clone()),
            None => Err(ApiError::NotFound(format!(
                "there are no weights {wanted}; `fovea weights list` shows those there are, `fovea weights add FILE` adds some"
            ))),
        }
    }

    /// Weights whose manifest can be read.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Arc<HeldWeights>> {
        self.entries.values().filter_map(|e| e.held.as_ref())
    }

    /// Digests of all weights, with the manifest where it can be read.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, Option<&Arc<HeldWeights>>)> {
        self.entries
            .iter()
            .map(|(sha256, entry)| (sha256.as_str(), entry.held.as_ref()))
    }

    /// What is wrong with the weights of that digest, and what to do; None if nothing is known to be.
    pub(crate) fn problem(&self, sha256: &str) -> Option<String> {
        match self.entries.get(sha256) {
            Some(entry) => entry.describe(sha256),
            None => Some(format!(
                "the weights with SHA-256 {sha256} are not stored here; `fovea weights add FILE` with that file adds them"
            )),
        }
    }

    /// Why a run cannot read its first weights, and what to do; None if nothing is known to be wrong.
    pub(crate) fn problem_of_run(&self, model: &ModelSpec) -> Option<String> {
        let (text, sha256) = (&model.weights, &model.weights_sha256);
        if text.is_empty() {
            return None;
        }
        if sha256.is_empty() {
            // Of an older version, which had workers open the path.
            return Some(format!(
                "the run names the weights file {text} on its workers, and no SHA-256; weights are stored at the coordinator \
                 now: `fovea weights add {text}`, cancel this run, and submit it again"
            ));
        }
        if self.entries.contains_key(sha256) {
            return self.problem(sha256);
        }
        Some(match WeightsRef::parse(text) {
            Ok(WeightsRef::Path(path)) => format!(
                "the run starts from the weights {path} (SHA-256 {sha256}), which are not stored here; `fovea weights add \
                 {path}` on a machine that has the file adds them, and the run goes on"
            ),
            _ => format!(
                "the run starts from the weights {text} (SHA-256 {sha256}), which are not here (they were removed); `fovea \
                 weights add FILE` with that file brings them back"
            ),
        })
    }

    /// The name that an upload gets: that of the same weights if they are here, otherwise `given`, or one made of the
    /// file's name.
    ///
    /// # Errors
    /// `given` is the name of other weights, or these weights are here under another name.
    pub(crate) fn name_for(
        &self,
        sha256: &str,
        given: Option<&WeightsName>,
        file_name: &str,
    ) -> Result<WeightsName, ApiError> {
        let here = self.entries.get(sha256).and_then(|e| e.held.as_ref());
        let owner = |name: &WeightsName| {
            let other = |held: &&Arc<HeldWeights>| held.name == *name && held.sha256 != sha256;
            self.held().find(other)
        };
        match (here, given) {
            (Some(here), Some(given)) if here.name != *given => {
                let name = &here.name;
                Err(ApiError::AlreadyExists(format!(
                    "these weights are here already, as {name}; use that name, or remove them first (`fovea weights rm {name}`)"
                )))
            }
            (Some(here), _) => Ok(here.name.clone()),
            (None, Some(given)) => match owner(given) {
                None => Ok(given.clone()),
                Some(other) => Err(ApiError::AlreadyExists(format!(
                    "weights {given} are another file here (SHA-256 {}); give yours another name (--name), or remove \
                     those (`fovea weights rm {given}`)",
                    other.sha256
                ))),
            },
            (None, None) => {
                let plain = name_of_file(file_name);
                if owner(&plain).is_none() {
                    return Ok(plain);
                }
                let start = sha256.get(..8).unwrap_or(sha256);
                WeightsName::new(format!("{plain}-{start}"))
                    .map_err(|error| ApiError::invalid("header.file_name", error))
            }
        }
    }

    /// Fills in what a submitted run says of its weights: the digest, and the name that they have here.
    ///
    /// # Errors
    /// There are none, they cannot be read, or name and digest disagree.
    pub(crate) fn pin(&self, model: &mut ModelSpec) -> Result<(), ApiError> {
        let parsed = WeightsRef::parse(&model.weights)
            .map_err(|error| ApiError::invalid("spec.model.weights", error))?;
        let given = model.weights_sha256.to_ascii_lowercase();
        let held = match parsed {
            WeightsRef::None => {
                model.weights_sha256.clear();
                return Ok(());
            }
            WeightsRef::Name(name) => self.find(name.as_str())?,
            WeightsRef::Digest(sha256) => self.find(&sha256)?,
            WeightsRef::Path(path) if is_sha256(&given) && self.entries.contains_key(&given) => {
                drop(path);
                self.find(&given)?
            }
            WeightsRef::Path(path) => {
                return Err(ApiError::Precondition(format!(
                    "spec.model.weights: workers open no path that a run names, and the file {path} is not stored here; \
                     `fovea weights add {path}` adds it, and the run names it by its name there"
                )));
            }
        };
        if !given.is_empty() && given != held.sha256 {
            return Err(ApiError::invalid(
                "spec.model.weights_sha256",
                format!(
                    "is {given}, but weights {} have {}; leave it out, or name the right weights",
                    held.name, held.sha256
                ),
            ));
        }
        if let Some(problem) = self.problem(&held.sha256) {
            return Err(ApiError::Unavailable(problem));
        }
        model.weights = held.name.to_string();
        model.weights_sha256.clone_from(&held.sha256);
        Ok(())
    }
}

/// What was done with an upload.
#[derive(Debug)]
pub(crate) struct AddedWeights {
    pub held: Arc<HeldWeights>,
    /// They were not there before.
    pub added: bool,
    /// The file or its manifest was missing or corrupt, and was replaced.
    pub repaired: bool,
}

enum Command {
    Add {
        upload: Box<VerifiedWeights>,
        name: Option<WeightsName>,
        file_name: String,
        reply: Reply<AddedWeights>,
    },
    Remove {
        sha256: String,
        reply: Reply<u64>,
    },
    /// What a reading showed.
    Report {
        sha256: String,
        problem: Option<Problem>,
    },
}

/// The way to the weights' catalogue.
#[derive(Clone)]
pub(crate) struct Weights {
    commands: mpsc::Sender<Command>,
    now: watch::Receiver<Arc<WeightsCatalogue>>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").finish_non_exhaustive()
    }
}

impl Weights {
    /// The catalogue now.
    pub(crate) fn now(&self) -> Arc<WeightsCatalogue> {
        Arc::clone(&self.now.borrow())
    }

    /// For those who are to know when it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<WeightsCatalogue>> {
        self.now.clone()
    }

    /// Takes a verified upload in: stored (or used to repair what is there), shown.
    pub(crate) async fn add(
        &self,
        upload: VerifiedWeights,
        name: Option<WeightsName>,
        file_name: String,
    ) -> Result<AddedWeights, ApiError> {
        let upload = Box::new(upload);
        self.ask(|reply| Command::Add {
            upload,
            name,
            file_name,
            reply,
        })
        .await
    }

    /// Removes weights. The caller has seen that no run needs them.
    pub(crate) async fn remove(&self, sha256: String) -> Result<u64, ApiError> {
        self.ask(|reply| Command::Remove { sha256, reply }).await
    }

    /// What reading the file to its end showed, or why it was not read.
    pub(crate) async fn report(&self, sha256: &str, result: Result<(), &StoreError>) {
        let command = Command::Report {
            sha256: sha256.to_owned(),
            problem: result.err().map(Problem::of),
        };
        // The task ends only with the coordinator.
        let _ = self.commands.send(command).await;
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
