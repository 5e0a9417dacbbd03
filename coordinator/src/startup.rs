//! Opening the data folder: lock, journal, stores; then starting the actors on what they hold.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fovea_core::ids::RunId;
use fovea_core::run::Run;
use fovea_security::Tls;
use fovea_service::ops::Histogram;
use fovea_traces::Traces;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access::{Registry, Signer};
use crate::audits;
use crate::blocking::blocking;
use crate::catalogue::weights::{self, WeightsCatalogue};
use crate::catalogue::{self, Catalogue};
use crate::clock::Clock;
use crate::cluster::{self, ActorError};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::directory::Directory;
use crate::housekeeping;
use crate::journal::{Journal, JournalError, Recovered};
use crate::metrics;
use crate::net::Limits;
use crate::remote::{self, Item, Listed, REMOTE, Remote, Stores};
use crate::run::{Notes, RunContext};
use crate::selecting;
use crate::serve_error::ServeError;
use crate::services::Context;
use crate::space::DiskSpace;
use crate::store::{
    CheckpointStore, DatasetStore, OpenError, StoreError, StoreOptions, WeightsStore,
};
use crate::tensorboard;
use crate::unjournalled::settle_all;

/// Names of the stores in the journal.
const CHECKPOINTS: &str = "checkpoints";
const DATASETS: &str = "datasets";
const WEIGHTS: &str = "weights";

/// Runs that are read from the journal at a time.
const PAGE: usize = 200;
/// How long the folders of ended runs may be swept for before the coordinator serves.
const SWEEP: Duration = Duration::from_secs(1);
/// Checkpoints that are copied for evaluations at a time. Each is in memory as a whole for a moment.
const COPIES: usize = 2;
/// How long a write to the journal may take before the coordinator serves.
const FIRST_WRITES: Duration = Duration::from_secs(30);

/// An open data folder.
#[derive(Debug)]
pub(crate) struct Opened {
    config: Arc<Config>,
    journal: Journal,
    recovered: Recovered,
    checkpoints: CheckpointStore,
    datasets: DatasetStore,
    catalogue: Catalogue,
    weights: WeightsStore,
    weights_catalogue: WeightsCatalogue,
    /// The object store, and what it is to hold.
    remote: Option<(remote::Opened, Listed)>,
    registry: Registry,
    dir: DataDir,
}

/// The coordinator's certificate, and the CA's key if it may sign with it.
#[derive(Debug, Default)]
pub(crate) struct Certified {
    pub tls: Option<Tls>,
    pub signer: Option<Signer>,
}

/// The actors and what they share.
pub(crate) struct Running {
    pub context: Context,
    /// The metrics for Prometheus.
    pub figures: metrics::Source,
    pub cluster: JoinHandle<Result<(), ActorError>>,
    pub tasks: Vec<JoinHandle<()>>,
    pub journal: Journal,
    /// Locked until everything has ended.
    pub dir: DataDir,
}

/// Locks the data folder, opens the journal (an older one is brought to this version) and the stores.
pub(crate) async fn open(config: Arc<Config>) -> Result<Opened, ServeError> {
    let dir = DataDir::open(&config.data_dir)?;
    dir.check_restored()?;
    let new = !dir.journal().exists();
    let (path, network) = (dir.journal(), config.allow_network_data_dir);
    let (journal, mut recovered) = blocking(move || Journal::open(&path, network))
        .await?
        .map_err(ServeError::Journal)?;
    let refused = |journal: Journal, error: OpenError| async {
        // A journal that this start has made must not be in the way of the one that is to be restored.
        // Nothing of its own was in it, and the refusal is what counts.
        let _ = journal.close().await;
        if new {
            dir.remove_journal();
        }
        Err(ServeError::from(error))
    };
    let options = StoreOptions {
        accept: config.accept_store,
        trash_keep: Duration::from_secs(u64::from(config.trash_keep_days) * 86_400),
        min_free_bytes: config.min_free_mib << 20,
    };
    let known = |kind: &str| recovered.stores.get(kind).cloned();
    let listed = match known(CHECKPOINTS) {
        Some(_) => 0,
        None => listed_checkpoints(&journal)
            .await
            .map_err(ServeError::Journal)?,
    };
    let (folder, id, with) = (dir.checkpoints(), known(CHECKPOINTS), options.clone());
    let opened =
        blocking(move || CheckpointStore::open(&folder, id.as_deref(), listed, with)).await?;
    let (checkpoints, checkpoints_id) = match opened {
        Ok(opened) => opened,
        Err(error) => return refused(journal, error).await,
    };
    let (folder, id, named) = (dir.datasets(), known(DATASETS), recovered.datasets.len());
    let with = options.clone();
    let opened = blocking(move || DatasetStore::open(&folder, id.as_deref(), named, with)).await?;
    let (datasets, datasets_id) = match opened {
        Ok(opened) => opened,
        Err(error) => return refused(journal, error).await,
    };
    let (folder, id) = (dir.weights(), known(WEIGHTS));
    let opened = blocking(move || WeightsStore::open(&folder, id.as_deref(), options)).await?;
    let (weights, weights_id) = match opened {
        Ok(opened) => opened,
        Err(error) => return refused(journal, error).await,
    };
    for (kind, id) in [
        (CHECKPOINTS, checkpoints_id),
        (DATASETS, datasets_id),
        (WEIGHTS, weights_id),
    ] {
        if known(kind).as_ref() != Some(&id) {
            info!(
                kind,
                id, "store.registered: the journal knows the store of {kind} as {id} from now on"
            );
            put_store(&journal, kind, &id).await?;
        }
    }
    let opened = match config.object_store()? {
        None => None,
        Some(location) => {
            let id = match known(REMOTE) {
                Some(id) => id,
                None => {
                    let id = remote::new_id();
                    // Before the store has it: a claim that the journal forgot would be another cluster's.
                    put_store(&journal, REMOTE, &id).await?;
                    id
                }
            };
            match remote::open(location, id, config.accept_store, &dir.remote()).await {
                Ok(opened) => Some(opened),
                Err(error) => {
                    let _ = journal.close().await;
                    if new && !error.may_have_claimed() {
                        dir.remove_journal();
                    }
                    return Err(error.into());
                }
            }
        }
    };
    let (files, named) = (datasets.clone(), std::mem::take(&mut recovered.datasets));
    let complete = opened.as_ref().map(remote::Opened::complete);
    let complete = complete.unwrap_or_default();
    let read = move || Catalogue::read(&files, |item| complete.contains(item), named);
    let catalogue = blocking(read).await?;
    let files = weights.clone();
    let weights_catalogue = blocking(move || WeightsCatalogue::read(&files)).await?;
    settle_all(&journal, &checkpoints).await;
    let store = checkpoints.clone();
    let stored = blocking(move || store.unlisted_runs(&BTreeSet::new())).await?;
    let in_bucket = opened.as_ref().map(remote::Opened::runs);
    let stored = stored.map(|stored| [stored, in_bucket.unwrap_or_default()].concat());
    recovered.next_run = unused_number(recovered.next_run, &stored);
    let registry =
        Registry::new(journal.clone(), &recovered.access).map_err(ServeError::Journal)?;
    sweep_ended(&journal, &checkpoints).await;
    let remote = match opened {
        None => None,
        Some(opened) => {
            let mut wanted = listed_items(&journal).await.map_err(ServeError::Journal)?;
            let digests = catalogue.names().map(|(_, digest)| digest.to_owned());
            wanted.extend(digests.map(|digest| (Item::Dataset(digest), None)));
            let of_weights = weights_catalogue.all();
            wanted.extend(of_weights.map(|(sha256, _)| (Item::Weights(sha256.into()), None)));
            let store = checkpoints.clone();
            // Those that cannot be listed now are uploaded after the next start.
            let ledgers = blocking(move || store.segment_names()).await?;
            let ledgers = ledgers.unwrap_or_default().into_iter();
            wanted.extend(ledgers.map(|(run, step, generation)| {
                (
                    Item::Ledger {
                        run,
                        step,
                        generation,
                    },
                    None,
                )
            }));
            Some((opened, wanted))
        }
    };
    Ok(Opened {
        config,
        journal,
        recovered,
        checkpoints,
        datasets,
        catalogue,
        weights,
        weights_catalogue,
        remote,
        registry,
        dir,
    })
}

async fn put_store(journal: &Journal, kind: &str, id: &str) -> Result<(), ServeError> {
    match tokio::time::timeout(FIRST_WRITES, journal.put_store(kind, id)).await {
        Ok(result) => result.map_err(ServeError::Journal),
        Err(_) => Err(ServeError::Slow),
    }
}

impl Opened {
    /// Starts the actors. Workers of runs that were under way have a while to come back from now on.
    pub(crate) fn start(self, limits: Limits, certified: Certified, traces: Traces) -> Running {
        let Self {
            config,
            journal,
            recovered,
            checkpoints,
            datasets: dataset_files,
            catalogue,
            weights: weight_files,
            weights_catalogue,
            remote,
            registry,
            dir,
        } = self;
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let clock = Clock::start();
        let (remote, remote_tasks) = match remote {
            None => (Remote::default(), Vec::new()),
            Some((opened, wanted)) => {
                let stores = Stores {
                    checkpoints: checkpoints.clone(),
                    datasets: dataset_files.clone(),
                    weights: weight_files.clone(),
                };
                opened
                    .with_traces(traces.clone())
                    .start(stores, wanted, clock, closing.clone())
            }
        };
        let (datasets, catalogue_task) = catalogue::start(
            catalogue,
            dataset_files.clone(),
            journal.clone(),
            remote.clone(),
        );
        let (weights, weights_task) =
            weights::start(weights_catalogue, weight_files.clone(), remote.clone());
        let (space, space_task) = DiskSpace::watch(checkpoints.clone(), closing.clone());
        let (room, housekeeping_task) = housekeeping::start(
            checkpoints.clone(),
            space.clone(),
            config.min_free_mib << 20,
            clock,
            closing.clone(),
        );
        let recovery_seconds = Arc::new(Histogram::new(metrics::RECOVERY_BOUNDS));
        let notes = Notes::default();
        let (at_rest, resting) = mpsc::unbounded_channel();
        let runs = |reports| RunContext {
            config: Arc::clone(&config),
            clock,
            journal: journal.clone(),
            store: checkpoints.clone(),
            remote: remote.clone(),
            reports,
            tasks: tasks.clone(),
            recovery_seconds: Arc::clone(&recovery_seconds),
            at_rest,
            notes: notes.clone(),
            traces: traces.clone(),
        };
        let (cluster, cluster_task) = cluster::start(
            cluster::Start {
                config: Arc::clone(&config),
                next_run: recovered.next_run,
                recovered: recovered.live,
                catalogue: datasets.watch(),
                weights: weights.watch(),
                room,
            },
            runs,
        );
        let Certified { tls, signer } = certified;
        let context = Context {
            config,
            tls,
            registry,
            signer,
            clock,
            runs: Directory {
                cluster,
                journal: journal.clone(),
            },
            datasets,
            dataset_files,
            weights,
            weight_files,
            checking: Arc::new(Semaphore::new(1)),
            copying: Arc::new(Semaphore::new(COPIES)),
            checkpoints,
            space,
            remote,
            limits,
            notes,
            tasks,
            closing,
            traces,
        };
        let (audits, audit_task) = audits::start(
            context.runs.cluster.downgrade(),
            journal.clone(),
            context.datasets.clone(),
            context.closing.clone(),
        );
        let figures = metrics::Source::new(&context, audits, recovery_seconds);
        let selecting = selecting::start(context.runs.clone(), resting, context.closing.clone());
        let mut tasks = vec![
            catalogue_task,
            weights_task,
            space_task,
            housekeeping_task,
            audit_task,
            selecting,
        ];
        tasks.extend(remote_tasks);
        if !context.config.tensorboard_dir.as_os_str().is_empty() {
            tasks.push(tensorboard::start(
                context.config.tensorboard_dir.clone(),
                context.runs.cluster.downgrade(),
                journal.clone(),
                context.closing.clone(),
            ));
        }
        Running {
            context,
            figures,
            cluster: cluster_task,
            tasks,
            journal,
            dir,
        }
    }
}

/// The number of the next run: after those that the journal has given, and those of the runs in the store. A journal
/// that was restored from a backup does not know the latter, and a new run must not find their checkpoints.
fn unused_number(next: u64, stored: &Result<Vec<RunId>, StoreError>) -> u64 {
    let runs = match stored {
        Ok(runs) => runs,
        Err(error) => {
            warn!(%error, "store.unlisted: the runs in the checkpoint store cannot be listed: {error}");
            return next;
        }
    };
    let mut unused = next;
    for (run, number) in runs.iter().filter_map(|run| Some((run, run.number()?))) {
        if number >= next {
            warn!(
                run_id = %run,
                "run.unknown: the checkpoint store has a folder of {run}, which is not in the journal. Was the journal \
                 restored from a backup? Its files stay; move or delete the folder if nobody needs them"
            );
            unused = unused.max(number + 1);
        }
    }
    unused
}

/// How many checkpoints the runs in the journal list.
async fn listed_checkpoints(journal: &Journal) -> Result<usize, JournalError> {
    let (mut listed, mut before) = (0, u64::MAX);
    loop {
        let page = journal.runs_before(before, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(listed);
        };
        before = last.number;
        listed += page.iter().map(|run| run.checkpoints.len()).sum::<usize>();
    }
}

/// The checkpoints that the runs in the journal list.
async fn listed_items(journal: &Journal) -> Result<Listed, JournalError> {
    let (mut listed, mut before) = (Vec::new(), u64::MAX);
    loop {
        let page = journal.runs_before(before, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(listed);
        };
        before = last.number;
        for run in &page {
            let infos = run.checkpoints.iter();
            listed.extend(infos.map(|c| (Item::checkpoint(&run.id, c), Some(c.clone()))));
        }
    }
}

/// Sweeps the folders of ended runs, as far as there is time: a removal may have been cut off by a kill. Nobody else
/// touches them yet.
async fn sweep_ended(journal: &Journal, store: &CheckpointStore) {
    let (begun, mut before) = (Instant::now(), u64::MAX);
    while begun.elapsed() < SWEEP {
        let page = match journal.runs_before(before, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                warn!(%error, "store.unswept: the journal's runs cannot be read: {error}");
                return;
            }
        };
        let Some(last) = page.last() else { return };
        before = last.number;
        let store = store.clone();
        let swept = blocking(move || {
            for run in page.iter().filter(|run| run.is_terminal()) {
                if begun.elapsed() >= SWEEP {
                    return;
                }
                match sweep_run(&store, run) {
                    // The store logs what it moves.
                    Ok(_) => {}
                    Err(error) => {
                        let id = &run.id;
                        warn!(run_id = %id, %error, "store.unswept: the folder of {id} cannot be swept: {error}");
                    }
                }
            }
        })
        .await;
        if swept.is_err() {
            return;
        }
    }
}

/// Moves what an ended run does not list to the trash, but not what is newer than the journal: that may have been restored
/// from a backup, and when the run is resumed it adopts it.
fn sweep_run(store: &CheckpointStore, run: &Run) -> Result<Vec<PathBuf>, StoreError> {
    let found = store.found(&run.id, &run.checkpoints)?;
    let mut keep = run.checkpoints.clone();
    for (info, _) in found {
        if info.generation > run.generation {
            warn!(
                run_id = %run.id,
                step = info.step,
                "checkpoint.newer: {} step {} of generation {} is newer than the journal; it stays, and is adopted when \
                 the run is resumed",
                run.id, info.step, info.generation
            );
            keep.push(info);
        }
    }
    store.sweep(&run.id, &keep)
}
