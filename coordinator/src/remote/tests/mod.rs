//! The mirror over real stores and an object store in memory, in which requests fail.

mod faulty;
mod fetching;
mod mirroring;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fovea_core::checkpoint::CheckpointInfo;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::item::Item;
use super::plan::Pauses;
use super::start::open_at;
use super::{Remote, RemoteError, Stores, View};
use crate::clock::Clock;
use crate::store::test_support::{
    add_weights, dataset, memory_folder, options, run_id, store_one, upload,
};
use crate::store::{CheckpointStore, DatasetStore, WeightsStore};
use faulty::{Faulty, location};

/// Bytes of a part: a checkpoint of these tests has three.
const PART: u64 = 5_000;

/// A machine with its stores.
struct Machine {
    root: TempDir,
    stores: Stores,
}

/// The mirror of a machine.
struct Running {
    remote: Remote,
    tasks: Vec<JoinHandle<()>>,
    closing: CancellationToken,
}

impl Machine {
    /// One with empty stores.
    fn new() -> Self {
        let root = memory_folder();
        let stores = Stores {
            checkpoints: CheckpointStore::open(
                &root.path().join("checkpoints"),
                None,
                0,
                options(),
            )
            .unwrap()
            .0,
            datasets: DatasetStore::open(&root.path().join("datasets"), None, 0, options())
                .unwrap()
                .0,
            weights: WeightsStore::open(&root.path().join("weights"), None, options())
                .unwrap()
                .0,
        };
        Self { root, stores }
    }

    fn state(&self) -> std::path::PathBuf {
        self.root.path().join("remote.json")
    }

    fn checkpoint(&self, step: u64) -> CheckpointInfo {
        store_one(&self.stores.checkpoints, &run_id(), step, 1)
    }

    /// Adds the dataset and the weights; what is to be mirrored of them.
    fn fill(&self) -> Vec<(Item, Option<CheckpointInfo>)> {
        upload(&self.stores.datasets, dataset())
            .unwrap()
            .store()
            .unwrap();
        let weights = add_weights(&self.stores.weights).unwrap().held.sha256;
        let digest = dataset().manifest.digest.clone();
        vec![
            (Item::Dataset(digest), None),
            (Item::Weights(weights), None),
        ]
    }

    async fn open(&self, store: &Arc<Faulty>, id: &str) -> Result<super::Opened, RemoteError> {
        open_at(store.clone(), location(), id.into(), false, &self.state()).await
    }

    /// Starts the mirror, trying again while the store fails.
    async fn start(
        &self,
        store: &Arc<Faulty>,
        wanted: Vec<(Item, Option<CheckpointInfo>)>,
    ) -> Running {
        let opened = loop {
            match self.open(store, "us").await {
                Ok(opened) => break opened,
                Err(error) => assert_eq!(error, Faulty::needed()),
            }
        };
        let closing = CancellationToken::new();
        let pauses = Pauses {
            first_ms: 1,
            longest_ms: 20,
        };
        let (remote, tasks) = opened.start_with(
            self.stores.clone(),
            wanted,
            Clock::start(),
            closing.clone(),
            PART,
            pauses,
        );
        Running {
            remote,
            tasks,
            closing,
        }
    }
}

impl Running {
    /// Waits for a state of the mirror.
    async fn until(&self, what: &str, holds: impl Fn(&View) -> bool) {
        let mut view = self.remote.inner.as_ref().unwrap().view.clone();
        let seen = view.wait_for(|view| holds(view));
        match tokio::time::timeout(Duration::from_secs(30), seen).await {
            Ok(seen) => drop(seen.unwrap()),
            Err(_) => panic!("waited for {what}: {:?}", self.remote.view()),
        }
    }

    async fn settled(&self) {
        let idle = |view: &View| view.connected && view.waiting == 0 && view.removals.is_empty();
        self.until("everything to be done", idle).await;
    }

    /// Ends it as a kill would.
    async fn kill(self) {
        self.closing.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn of(info: &CheckpointInfo) -> (Item, Option<CheckpointInfo>) {
    (Item::checkpoint(&run_id(), info), Some(info.clone()))
}

fn files(folder: &Path) -> Vec<String> {
    crate::store::test_support::files(folder)
        .into_iter()
        .collect()
}
