//! The object store: a copy of what the stores hold, in a bucket.
//!
//! ```text
//!  run actors, catalogues ──want, remove──> mirror ──one job at a time──> bucket
//!  services, run actors   ──fetch────────> fetcher ──> bucket ──> stores
//!                         <──View──────────┘ what is in the bucket, and what is wrong
//! ```
//!
//! The local disk stays the place where checkpoints are assembled and read. Nobody waits for the bucket but who needs a file
//! that is not here.
//!
//! Invariants:
//! - What has its manifest in the bucket is complete there: objects first, the manifest last, where there is none.
//! - Nothing is removed there that was not removed here: what to remove is written down before ([`state`]). What the bucket
//!   holds beyond what is known here stays.
//! - The prefix is this cluster's ([`identity`]); another's is not touched.
//!
//! - `location`: the configuration; `error`: each failure and its sentence
//! - `objects`: the requests; `s3`: S3; `identity`: whose prefix it is
//! - `item`: what is mirrored under which keys; `plan`: what is done next; `state`: what survives a kill
//! - `upload`, `fetch`: moving it; `task`: the mirror

mod error;
mod fetch;
mod identity;
mod item;
mod location;
mod objects;
mod plan;
mod s3;
mod start;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::BTreeSet;
use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::store::{CheckpointStore, DatasetStore, WeightsStore};

pub use error::RemoteError;
pub(crate) use fetch::Wanted;
pub(crate) use identity::new_id;
pub(crate) use item::Item;
pub(crate) use location::{Location, redact};
pub(crate) use start::{Opened, open};

/// What the journal calls the object store among the stores that it knows.
pub(crate) const REMOTE: &str = "remote";

/// The local stores.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    pub checkpoints: CheckpointStore,
    pub datasets: DatasetStore,
    pub weights: WeightsStore,
}

/// What is to be in the bucket, with what the journal says of checkpoints.
pub(crate) type Listed = Vec<(Item, Option<CheckpointInfo>)>;

/// What is known of the object store at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    /// `s3://bucket/prefix`.
    pub store: String,
    /// It was reached, and nothing has failed since.
    pub connected: bool,
    /// What is wrong, and what to do; None: nothing is known to be.
    pub problem: Option<String>,
    /// What is complete there; the last that was known while it is away.
    pub stored: Arc<BTreeSet<Item>>,
    /// Items that are still to be uploaded.
    pub waiting: usize,
    /// Items that are still to be removed.
    pub removals: Arc<BTreeSet<Item>>,
}

enum Command {
    Want {
        item: Item,
        info: Option<Box<CheckpointInfo>>,
        fresh: bool,
    },
    Remove {
        items: Vec<Item>,
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// The way to the object store. Without one, everything is answered at once. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Remote {
    inner: Option<Inner>,
}

#[derive(Clone)]
struct Inner {
    commands: mpsc::UnboundedSender<Command>,
    requests: mpsc::UnboundedSender<fetch::Request>,
    view: watch::Receiver<Arc<View>>,
    objects: Arc<dyn objects::Objects>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    /// What is known of the object store; None: there is none.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        Some(Arc::clone(&self.inner.as_ref()?.view.borrow()))
    }

    /// It is complete in the object store, as far as is known.
    pub(crate) fn has(&self, item: &Item) -> bool {
        let view = self.inner.as_ref().map(|inner| inner.view.borrow());
        view.is_some_and(|view| view.stored.contains(item))
    }

    /// A checkpoint was stored.
    pub(crate) fn checkpoint_stored(&self, run: &RunId, info: &CheckpointInfo) {
        self.want(Item::checkpoint(run, info), Some(info.clone()), true);
    }

    /// A checkpoint that lay in a store is listed from now on.
    pub(crate) fn checkpoint_adopted(&self, run: &RunId, info: &CheckpointInfo) {
        self.want(Item::checkpoint(run, info), Some(info.clone()), false);
    }

    /// A dataset, weights or a ledger were stored.
    pub(crate) fn stored(&self, item: Item) {
        self.want(item, None, false);
    }

    fn want(&self, item: Item, info: Option<CheckpointInfo>, fresh: bool) {
        if let Some(inner) = &self.inner {
            // The mirror ends only with the coordinator; the next start wants it again.
            let info = info.map(Box::new);
            let _ = inner.commands.send(Command::Want { item, info, fresh });
        }
    }

    /// It should be in the object store and is not: it is uploaded again.
    pub(crate) fn lost(&self, item: Item, info: Option<CheckpointInfo>) {
        self.want(item, info, true);
    }

    /// Looks up what is complete in the bucket now: its manifest is there, and so are its objects.
    ///
    /// # Errors
    /// The object store fails.
    pub(crate) async fn look(&self) -> Result<BTreeSet<Item>, RemoteError> {
        let Some(inner) = &self.inner else {
            return Ok(BTreeSet::new());
        };
        let listed = inner.objects.list().await?;
        let whole = |item: &Item| item.data().is_none_or(|key| listed.contains_key(&key));
        let complete = Item::complete(&listed).into_iter();
        Ok(complete.filter(whole).collect())
    }

    /// All of this run is being removed from the object store.
    pub(crate) fn removes(&self, run: &RunId) -> bool {
        self.view()
            .is_some_and(|view| view.removals.contains(&Item::Run(run.clone())))
    }

    /// These are about to be removed here. When this returns, their removal there is written down, and survives a kill.
    pub(crate) async fn remove(&self, items: Vec<Item>) {
        let Some(inner) = self.inner.as_ref().filter(|_| !items.is_empty()) else {
            return;
        };
        let named: Vec<String> = items.iter().map(ToString::to_string).collect();
        let (reply, answer) = oneshot::channel();
        if inner
            .commands
            .send(Command::Remove { items, reply })
            .is_err()
        {
            return;
        }
        if let Ok(Err(error)) = answer.await {
            tracing::warn!(
                "remote.not_written: the removal of {} could not be written down ({error}); a kill before it is done leaves \
                 it in the object store",
                named.join(", ")
            );
        }
    }

    /// Brings something back.
    ///
    /// # Errors
    /// It is not there, the object store or the local disk fails, or what came is damaged.
    pub(crate) async fn fetch(&self, wanted: Wanted) -> Result<(), RemoteError> {
        let missing = || RemoteError::Local("there is no object store".into());
        let inner = self.inner.as_ref().ok_or_else(missing)?;
        let gone = || RemoteError::Local("the coordinator is shutting down".into());
        let (reply, answer) = oneshot::channel();
        inner.requests.send((wanted, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// What the bucket holds of a run beyond what is `listed`: what a journal from a backup may adopt, and the ledgers that it
    /// needs for that.
    pub(crate) fn unlisted(&self, run: &RunId, listed: &[CheckpointInfo]) -> Vec<Wanted> {
        let Some(view) = self.view() else {
            return Vec::new();
        };
        let listed: BTreeSet<(u64, u64)> = listed
            .iter()
            .map(|info| (info.step, info.generation))
            .collect();
        let (mut checkpoints, mut ledgers) = (Vec::new(), Vec::new());
        for item in view.stored.iter().filter(|item| item.run() == Some(run)) {
            match item.clone() {
                Item::Checkpoint {
                    run,
                    step,
                    generation,
                } => {
                    if !listed.contains(&(step, generation)) {
                        let info = None;
                        checkpoints.push(Wanted::Checkpoint {
                            run,
                            step,
                            generation,
                            info,
                        });
                    }
                }
                Item::Ledger {
                    run,
                    step,
                    generation,
                } => {
                    ledgers.push(Wanted::Ledger {
                        run,
                        step,
                        generation,
                    });
                }
                Item::Weights(_) | Item::Dataset(_) | Item::Run(_) => {}
            }
        }
        if !checkpoints.is_empty() {
            checkpoints.extend(ledgers);
        }
        checkpoints
    }
}

impl Item {
    pub(crate) fn checkpoint(run: &RunId, info: &CheckpointInfo) -> Self {
        Self::Checkpoint {
            run: run.clone(),
            step: info.step,
            generation: info.generation,
        }
    }

    /// What stays of a checkpoint.
    pub(crate) fn ledger(run: &RunId, info: &CheckpointInfo) -> Self {
        Self::Ledger {
            run: run.clone(),
            step: info.step,
            generation: info.generation,
        }
    }
}
