//! Bringing back what is missing here: verified, atomically, and each file once, however many ask for it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_dataset::PackEntry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::error::RemoteError;
use super::item::Item;
use super::objects::Objects;
use super::upload::{PART, local};
use super::{Stores, View};
use crate::blocking::blocking;
use crate::store::{CheckpointStore, Placed, Receiving, StoreError};

/// Files that are fetched at the same time.
const AT_ONCE: usize = 4;

/// What is to be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A checkpoint with its manifest. `info`: what the journal says of it, if it lists it.
    Checkpoint {
        run: RunId,
        step: u64,
        generation: u64,
        info: Option<CheckpointInfo>,
    },
    /// The ledger of a removed checkpoint.
    Ledger {
        run: RunId,
        step: u64,
        generation: u64,
    },
    /// Manifest and index of a dataset.
    Description(String),
    /// A pack of a dataset.
    Pack { digest: String, entry: PackEntry },
    /// Weights with their manifest.
    Weights(String),
}

impl Wanted {
    /// What it is a part of.
    pub(super) fn item(&self) -> Item {
        match self.clone() {
            Self::Checkpoint {
                run,
                step,
                generation,
                ..
            } => Item::Checkpoint {
                run,
                step,
                generation,
            },
            Self::Ledger {
                run,
                step,
                generation,
            } => Item::Ledger {
                run,
                step,
                generation,
            },
            Self::Description(digest) | Self::Pack { digest, .. } => Item::Dataset(digest),
            Self::Weights(sha256) => Item::Weights(sha256),
        }
    }

    /// Names it among others that are being fetched, and for people.
    fn name(&self) -> String {
        match self {
            Self::Pack { digest, entry } => format!("dataset {digest}, {}", entry.file),
            Self::Description(digest) => format!("dataset {digest}, manifest and index"),
            Self::Checkpoint { generation, .. } | Self::Ledger { generation, .. } => {
                format!("{} (generation {generation})", self.item())
            }
            Self::Weights(_) => self.item().to_string(),
        }
    }
}

/// A request, and who waits for it.
pub(super) type Request = (Wanted, oneshot::Sender<Result<(), RemoteError>>);

pub(super) struct Fetcher {
    pub objects: Arc<dyn Objects>,
    pub stores: Stores,
    pub view: watch::Receiver<Arc<View>>,
}

impl Fetcher {
    pub(super) async fn run(
        self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        closing: CancellationToken,
    ) {
        let mut waiting: HashMap<String, Vec<oneshot::Sender<Result<(), RemoteError>>>> =
            HashMap::new();
        let mut queue: Vec<Wanted> = Vec::new();
        let mut jobs = JoinSet::new();
        loop {
            while jobs.len() < AT_ONCE && !queue.is_empty() {
                let wanted = queue.remove(0);
                let (objects, stores) = (Arc::clone(&self.objects), self.stores.clone());
                jobs.spawn(async move {
                    let result = fetch(&*objects, &stores, &wanted).await;
                    (wanted.name(), result)
                });
            }
            tokio::select! {
                () = closing.cancelled() => return,
                request = requests.recv() => {
                    let Some((wanted, reply)) = request else { return };
                    let view = self.view.borrow();
                    if !view.stored.contains(&wanted.item()) {
                        drop(reply.send(Err(RemoteError::Missing {
                            store: view.store.clone(),
                            object: wanted.name(),
                        })));
                        continue;
                    }
                    let others = waiting.entry(wanted.name()).or_default();
                    if others.is_empty() {
                        queue.push(wanted);
                    }
                    others.push(reply);
                }
                Some(ended) = jobs.join_next() => match ended {
                    Ok((name, result)) => {
                        match &result {
                            Ok(()) => info!("remote.fetched: {name} was missing here and came from the object store"),
                            Err(error) => error!("remote.not_fetched: {name}: {error}"),
                        }
                        for reply in waiting.remove(&name).into_iter().flatten() {
                            drop(reply.send(result.clone()));
                        }
                    }
                    // Who waits hears that the reply is gone; which it was is not known.
                    Err(error) => {
                        error!("remote.panicked: {error}; it is tried again");
                        waiting.clear();
                    }
                },
            }
        }
    }
}

async fn fetch(objects: &dyn Objects, stores: &Stores, wanted: &Wanted) -> Result<(), RemoteError> {
    let item = wanted.item();
    let manifest_key = item.manifest().unwrap_or_default();
    let data_key = item.data().unwrap_or_default();
    let manifest = match wanted {
        Wanted::Pack { .. } => Vec::new(),
        _ => objects.get(&manifest_key).await?.to_vec(),
    };
    match wanted.clone() {
        Wanted::Checkpoint {
            run,
            step,
            generation,
            info,
        } => {
            let (bytes, sha256) = CheckpointStore::described(&manifest, &manifest_key)
                .map_err(|error| RemoteError::Local(error.to_string()))?;
            if let Some(info) = info
                && (info.bytes, &info.sha256) != (bytes, &sha256)
            {
                return Err(RemoteError::Local(format!(
                    "{manifest_key} in the object store describes another checkpoint (SHA-256 {sha256}) than the journal \
                     lists ({}); it is not used",
                    info.sha256
                )));
            }
            let (store, of) = (stores.checkpoints.clone(), run.clone());
            let receiving =
                local(move || store.receive(&of, (step, generation), bytes, &sha256)).await?;
            let placed = download(objects, &data_key, receiving).await?;
            let store = stores.checkpoints.clone();
            let key = (step, generation);
            local(move || store.receive_manifest(&run, key, placed, &manifest)).await
        }
        Wanted::Ledger {
            run,
            step,
            generation,
        } => {
            let store = stores.checkpoints.clone();
            local(move || store.receive_segment(&run, (step, generation), &manifest)).await
        }
        Wanted::Description(digest) => {
            let key = format!("datasets/{digest}/{}", fovea_dataset::INDEX_FILE);
            let index = objects.get(&key).await?;
            let store = stores.datasets.clone();
            local(move || store.receive_description(&digest, &manifest, &index)).await
        }
        Wanted::Pack { digest, entry } => {
            let key = format!("datasets/{digest}/{}", entry.file);
            let store = stores.datasets.clone();
            let receiving = local(move || store.receive_pack(&digest, &entry)).await?;
            download(objects, &key, receiving).await.map(drop)
        }
        Wanted::Weights(sha256) => {
            let store = stores.weights.clone();
            let (digest, text) = (sha256.clone(), manifest.clone());
            let begin = move || {
                let held = store.parse_manifest(&digest, &text)?;
                store.receive(&digest, held.bytes)
            };
            let receiving = local(begin).await?;
            download(objects, &data_key, receiving).await?;
            let store = stores.weights.clone();
            local(move || store.receive_manifest(&sha256, &manifest)).await
        }
    }
}

/// Reads an object in pieces, each of which may take its time, and stores it.
async fn download(
    objects: &dyn Objects,
    key: &str,
    mut receiving: Receiving,
) -> Result<Placed, RemoteError> {
    let (mut at, bytes) = (0, receiving.bytes());
    while at < bytes {
        let range: Range<u64> = at..bytes.min(at + PART);
        let piece = objects.get_range(key, range).await?;
        if piece.is_empty() {
            break;
        }
        at += piece.len() as u64;
        receiving = local(move || receiving.piece(&piece).map(|()| receiving)).await?;
    }
    match blocking(move || receiving.finish()).await {
        Ok(Ok(placed)) => Ok(placed),
        Ok(Err(StoreError::Corrupt { problem, .. })) => Err(RemoteError::Local(format!(
            "{key} in the object store is damaged: {problem}; nothing was stored"
        ))),
        Ok(Err(error)) => Err(RemoteError::Local(error.to_string())),
        Err(panicked) => Err(RemoteError::Local(panicked.to_string())),
    }
}
