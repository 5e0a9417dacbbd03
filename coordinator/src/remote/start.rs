//! Opening the object store, and starting its tasks.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fovea_core::ids::RunId;
use fovea_traces::Traces;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::error::RemoteError;
use super::fetch::Fetcher;
use super::item::Item;
use super::location::Location;
use super::objects::Objects;
use super::plan::{Pauses, Plan};
use super::state::State;
use super::task::{Connected, Start, Task, connect};
use super::upload::{PART, Recorder, Uploader};
use super::{Inner, Listed, Remote, Stores, View, s3};
use crate::clock::Clock;

/// How long a start waits for the object store: the first, and one that can do without.
const FIRST: Duration = Duration::from_secs(30);
const LATER: Duration = Duration::from_secs(5);

/// An object store that is this cluster's, or was when it was last reached.
#[derive(Debug)]
pub(crate) struct Opened {
    location: Location,
    id: String,
    objects: Arc<dyn Objects>,
    state: State,
    connected: Result<Connected, RemoteError>,
    traces: Traces,
}

/// Opens the object store. `id`: the identity that the journal has written down for it.
///
/// # Errors
/// It is another cluster's. Or it cannot be used, and was never used from this data folder: then nobody knows whose it is,
/// and which runs it holds.
pub(crate) async fn open(
    location: Location,
    id: String,
    accept: bool,
    state: &Path,
) -> Result<Opened, RemoteError> {
    let objects: Arc<dyn Objects> = Arc::new(s3::bucket(&location)?);
    open_at(objects, location, id, accept, state).await
}

pub(super) async fn open_at(
    objects: Arc<dyn Objects>,
    location: Location,
    id: String,
    accept: bool,
    state: &Path,
) -> Result<Opened, RemoteError> {
    let mut state = State::open(state, &location.key());
    let patience = match state.claimed() {
        true => LATER,
        false => FIRST,
    };
    let connecting = connect(&*objects, &location, &id, accept);
    let connected = match tokio::time::timeout(patience, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(RemoteError::Away {
            store: location.key(),
            problem: format!("no answer within {patience:?}"),
        }),
    };
    match &connected {
        Ok(_) => {
            let written = state.set_claimed().await;
            written.map_err(|error| {
                RemoteError::Local(format!(
                    "data_dir: the state of the object store cannot be written: {error}"
                ))
            })?;
        }
        Err(error) if error.forbids_start() => return Err(error.clone()),
        Err(RemoteError::Away { store, problem }) if !state.claimed() => {
            return Err(RemoteError::Needed {
                store: store.clone(),
                problem: problem.clone(),
            });
        }
        Err(error) if !state.claimed() => return Err(error.clone()),
        Err(error) => warn!("remote.unavailable: {error}"),
    }
    Ok(Opened {
        location,
        id,
        objects,
        state,
        connected,
        traces: Traces::default(),
    })
}

impl Opened {
    /// Uploads of checkpoints are traced there.
    #[must_use]
    pub(crate) fn with_traces(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// What is in the bucket; empty while it is away.
    pub(crate) fn complete(&self) -> BTreeSet<Item> {
        match &self.connected {
            Ok(connected) => Item::complete(&connected.objects),
            Err(_) => Default::default(),
        }
    }

    /// The runs that the bucket knows.
    pub(crate) fn runs(&self) -> Vec<RunId> {
        let complete = self.complete();
        let runs = complete.iter().filter_map(Item::run).cloned();
        let runs: BTreeSet<_> = runs.collect();
        runs.into_iter().collect()
    }

    /// Starts the tasks; they end with `closing`. `wanted`: what the journal and the stores list.
    pub(crate) fn start(
        self,
        stores: Stores,
        wanted: Listed,
        clock: Clock,
        closing: CancellationToken,
    ) -> (Remote, Vec<JoinHandle<()>>) {
        self.start_with(stores, wanted, clock, closing, PART, Pauses::default())
    }

    pub(super) fn start_with(
        self,
        stores: Stores,
        wanted: Listed,
        clock: Clock,
        closing: CancellationToken,
        part_bytes: u64,
        pauses: Pauses,
    ) -> (Remote, Vec<JoinHandle<()>>) {
        let complete = self.complete();
        let Self {
            location,
            id,
            objects,
            state,
            connected,
            traces,
        } = self;
        let mut plan = Plan::new(pauses);
        for item in state.removals() {
            plan.remove(item.clone());
        }
        plan.found(complete);
        for (item, info) in wanted {
            // What is listed is not removed, whatever was written down.
            plan.want(item, info, false);
        }
        let problem = connected.as_ref().err().map(ToString::to_string);
        let (shown, view) = watch::channel(Arc::new(View {
            store: location.to_string(),
            connected: connected.is_ok(),
            problem,
            stored: plan.stored(),
            waiting: plan.waiting(),
            removals: Arc::new(plan.removals().clone()),
        }));
        let (commands, inbox) = mpsc::unbounded_channel();
        let (requests, asked) = mpsc::unbounded_channel();
        let (notes, noted) = mpsc::channel(1);
        let looking = Arc::clone(&objects);
        let fetcher = Fetcher {
            objects: Arc::clone(&objects),
            stores: stores.clone(),
            view: view.clone(),
        };
        let task = Task::new(Start {
            location,
            id,
            uploader: Uploader {
                objects,
                stores,
                recorder: Recorder(notes),
                part_bytes,
                traces,
            },
            state,
            plan,
            connected: connected.ok(),
            view: shown,
            clock,
            pauses,
        });
        let mirror = tokio::spawn(task.run(inbox, noted, closing.clone()));
        let fetcher = tokio::spawn(fetcher.run(asked, closing));
        let inner = Inner {
            commands,
            requests,
            view,
            objects: looking,
        };
        let remote = Remote { inner: Some(inner) };
        (remote, vec![mirror, fetcher])
    }
}
