//! Verifying everything that the stores hold: what is read, in which order, and what is reported about it.
//!
//! A store that is away is one problem, not one for each of its files.

mod objects;
mod weights;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::count::count;
use fovea_core::ids::{DatasetName, RunId};
use fovea_proto::pb;
use fovea_proto::pb::verify_store_event::Event;
use tokio::sync::mpsc;
use tonic::Status;
use tracing::info;

use super::Context;
use super::file_state::{file_state, is_listed, manifest_cure, report_file};
use crate::blocking::blocking;
use crate::error::ApiError;
use crate::remote::Item;
use crate::run::opened;
use crate::store::{HeldDataset, StoreError};

/// Events ahead of the receiver.
pub(super) const AHEAD: usize = 16;
/// Between two notices of progress.
const PROGRESS: Duration = Duration::from_millis(200);
/// Runs that are read from the journal at a time.
const PAGE: usize = 100;

/// One verification under way.
pub(super) struct Verification {
    context: Context,
    sender: mpsc::Sender<Result<pb::VerifyStoreEvent, Status>>,
    summary: pb::VerifySummary,
    total: u64,
}

/// What is read.
pub(super) struct Wanted {
    pub checkpoints: bool,
    pub datasets: bool,
    pub weights: bool,
}

/// The store went away: what is left of it is not read.
struct Away;

/// Every run in the journal.
#[derive(Clone, Default)]
struct Listed {
    runs: BTreeSet<RunId>,
    checkpoints: Vec<(RunId, CheckpointInfo)>,
}

impl Verification {
    pub(super) fn new(
        context: Context,
        sender: mpsc::Sender<Result<pb::VerifyStoreEvent, Status>>,
    ) -> Self {
        Self {
            context,
            sender,
            summary: pb::VerifySummary::default(),
            total: 0,
        }
    }

    pub(super) async fn run(mut self, wanted: Wanted) -> Result<(), ApiError> {
        let Wanted {
            checkpoints,
            datasets,
            weights,
        } = wanted;
        let catalogue = self.context.datasets.now();
        let store = self.context.checkpoints.clone();
        let checkpoints = checkpoints
            && self
                .is_there("checkpoint store", move || store.check())
                .await?;
        let store = self.context.dataset_files.clone();
        let datasets = datasets
            && self
                .is_there("dataset store", move || store.check())
                .await?;
        let store = self.context.weight_files.clone();
        let weights = weights
            && self
                .is_there("weights store", move || store.check())
                .await?;

        let listed = match checkpoints {
            true => self.listed().await?,
            false => Listed::default(),
        };
        let stored = listed.checkpoints.iter().map(|(_, info)| info.bytes);
        let packs = catalogue
            .held()
            .filter(|_| datasets)
            .flat_map(|d| d.manifest.packs.iter().map(|p| p.bytes));
        let kept = self.context.weights.now();
        let kept = kept.held().filter(|_| weights).map(|held| held.bytes);
        let in_bucket = (checkpoints.then(|| listed.clone()), datasets, weights);
        self.total = stored.chain(packs).chain(kept).sum();
        if checkpoints {
            // None: it went away meanwhile, which was sent.
            let _: Option<Away> = self.checkpoints(listed).await?;
        }
        if datasets {
            for (name, digest) in catalogue.names() {
                if let Some(Away) = self.dataset(name, digest).await? {
                    break;
                }
            }
        }
        if weights {
            let _: Option<Away> = self.all_weights().await?;
        }
        let (listed, datasets, weights) = in_bucket;
        self.objects(listed, datasets, weights).await?;
        info!(
            checkpoints = self.summary.checkpoints,
            packs = self.summary.packs,
            weights = self.summary.weights,
            problems = self.summary.problems,
            "store.verified: {}, {}",
            count(
                self.summary.checkpoints + self.summary.packs + self.summary.weights,
                "file",
                "files"
            ),
            count(self.summary.problems, "problem", "problems")
        );
        let summary = std::mem::take(&mut self.summary);
        self.send(Event::Summary(summary)).await
    }

    /// Whether a store can be read now. Says so if it cannot.
    async fn is_there(
        &mut self,
        what: &str,
        check: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) -> Result<bool, ApiError> {
        match blocking(check).await? {
            Ok(()) => Ok(true),
            Err(error) => {
                self.away(what, &error).await?;
                Ok(false)
            }
        }
    }

    async fn away(&mut self, what: &str, error: &StoreError) -> Result<Away, ApiError> {
        let problem = pb::VerifyProblem {
            what: what.to_owned(),
            state: pb::FileState::Unreadable.into(),
            problem: error.finding(),
            action: "mount it, or correct what the text names, then verify again; no other file of it was read".into(),
        };
        self.problem(problem).await?;
        Ok(Away)
    }

    async fn listed(&self) -> Result<Listed, ApiError> {
        let (mut listed, mut before) = (Listed::default(), u64::MAX);
        loop {
            let page = self.context.runs.list(before, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(listed);
            };
            before = last.run.number;
            for shown in &page {
                let (id, of_run) = (&shown.run.id, shown.run.checkpoints.iter().cloned());
                let of_run = of_run.map(|info| (id.clone(), info));
                listed.checkpoints.extend(of_run);
                listed.runs.insert(id.clone());
            }
        }
    }

    /// Every listed checkpoint, then the folders that belong to no run.
    async fn checkpoints(&mut self, listed: Listed) -> Result<Option<Away>, ApiError> {
        let Listed { runs, checkpoints } = listed;
        for (run, info) in checkpoints {
            if let Some(away) = self.checkpoint(run, info).await? {
                return Ok(Some(away));
            }
        }
        let store = self.context.checkpoints.clone();
        let unlisted = match blocking(move || store.unlisted_runs(&runs)).await? {
            Ok(unlisted) => unlisted,
            Err(error) => return self.away("checkpoint store", &error).await.map(Some),
        };
        for run in unlisted {
            // It may have been submitted since the runs were listed.
            if !matches!(
                self.context.runs.shown(&run).await,
                Err(ApiError::NotFound(_))
            ) {
                continue;
            }
            let folder = self.context.checkpoints.folder(&run);
            let problem = pb::VerifyProblem {
                what: format!("checkpoints of {run}"),
                state: pb::FileState::Unlisted.into(),
                problem: format!(
                    "{} holds checkpoints, but the journal knows no run {run}",
                    folder.display()
                ),
                action: "restore a newer journal, or move the folder out of the store if you want to keep it, else delete it; \
                         no run uses it"
                    .into(),
            };
            self.problem(problem).await?;
        }
        Ok(None)
    }

    async fn checkpoint(
        &mut self,
        run: RunId,
        info: CheckpointInfo,
    ) -> Result<Option<Away>, ApiError> {
        let what = format!("run {run}, checkpoint {}", info.step);
        // What is missing here comes from the object store, if it is there, and is read then.
        let context = &self.context;
        let _ = opened(&context.checkpoints, &context.remote, &run, &info).await?;
        let store = self.context.checkpoints.clone();
        let (id, wanted) = (run.clone(), info.clone());
        let (result, manifest) = self
            .read(&what, move |progress| {
                let result = store.verify(&id, &wanted, progress);
                let manifest = match result.is_ok() {
                    true => store.verify_manifest(&id, &wanted),
                    // Of no use without its file, and put aside with it.
                    false => Ok(()),
                };
                (result, manifest)
            })
            .await?;
        let missing = [&result, &manifest]
            .into_iter()
            .any(|result| matches!(result, Err(StoreError::Missing { .. })));
        if missing && !is_listed(&self.context, &run, &info).await? {
            // Retention or a person removed it since the verification began.
            return Ok(None);
        }
        if let Err(error @ StoreError::Unavailable { .. }) = result.as_ref().and(manifest.as_ref())
        {
            let away = self.away("checkpoint store", error).await?;
            report_file(&self.context, &run, info, result).await;
            return Ok(Some(away));
        }
        self.summary.checkpoints += 1;
        if let Err(error) = &result {
            let action = match error {
                StoreError::Corrupt { .. } => {
                    format!("it was put aside; `fovea checkpoints {run}` lists those that are left")
                }
                StoreError::Missing { .. } => format!(
                    "put the file back, or remove it from the list with `fovea checkpoint rm {run} {}`",
                    info.step
                ),
                _ => "correct the cause; it stays listed and nothing was deleted".into(),
            };
            let problem = pb::VerifyProblem {
                what: what.clone(),
                state: file_state(&result).into(),
                problem: error.finding(),
                action,
            };
            self.problem(problem).await?;
        }
        if let Err(error) = &manifest {
            let problem = pb::VerifyProblem {
                what: format!("{what}, manifest"),
                state: file_state(&manifest).into(),
                problem: error.finding(),
                action: manifest_cure(&run, error),
            };
            self.problem(problem).await?;
        }
        report_file(&self.context, &run, info, result).await;
        Ok(None)
    }

    async fn dataset(
        &mut self,
        name: &DatasetName,
        digest: &str,
    ) -> Result<Option<Away>, ApiError> {
        let what = format!("dataset {name}");
        let store = self.context.dataset_files.clone();
        let of_name = self.context.datasets.now().named(name).cloned();
        let held = of_name.filter(|held| held.manifest.digest == digest);
        let wanted = digest.to_owned();
        let read = self
            .read(&what, move |progress| {
                let (held, described) = match held {
                    Some(held) => {
                        let described = store.verify_description(&held);
                        (held, described)
                    }
                    None => (Arc::new(store.open_dataset(&wanted)?), Vec::new()),
                };
                let packs = store.verify(&held, progress);
                Ok::<_, StoreError>((held, described, packs))
            })
            .await?;
        if !self
            .context
            .datasets
            .now()
            .names()
            .any(|(_, d)| d == digest)
        {
            // Removed since the verification began.
            return Ok(None);
        }
        let (held, described, packs): (Arc<HeldDataset>, _, _) = match read {
            Ok(read) => read,
            Err(error @ StoreError::Unavailable { .. }) => {
                return self.away("dataset store", &error).await.map(Some);
            }
            Err(error) => {
                self.of_dataset(what, error).await?;
                return Ok(None);
            }
        };
        self.summary.packs += held.manifest.packs.len() as u32;
        if described.is_empty() && packs.is_empty() {
            self.context.datasets.sound(digest).await;
        }
        let elsewhere = self.context.remote.has(&Item::Dataset(digest.to_owned()));
        let described = described
            .into_iter()
            .map(|(file, error)| (None, file.name().to_owned(), error));
        let packs = packs
            .into_iter()
            // Those that are only in the object store are fetched when a worker needs them.
            .filter(|(_, error)| !(elsewhere && matches!(error, StoreError::Missing { .. })))
            .map(|(pack, error)| (Some(pack), format!("pack {pack}"), error));
        for (pack, file, error) in described.chain(packs) {
            if let StoreError::Unavailable { .. } = error {
                return self.away("dataset store", &error).await.map(Some);
            }
            if let Some(pack) = pack {
                let datasets = &self.context.datasets;
                datasets.report(digest, pack, Err(&error)).await;
            }
            self.of_dataset(format!("{what}, {file}"), error).await?;
        }
        Ok(None)
    }

    /// A problem of a dataset that sending it again repairs.
    async fn of_dataset(&mut self, what: String, error: StoreError) -> Result<(), ApiError> {
        let action = match &error {
            StoreError::Missing { .. } | StoreError::Corrupt { .. } => {
                "`fovea dataset add DIR` with the prepared dataset repairs it"
            }
            // An upload does not replace what it cannot compare.
            _ => "correct the cause, then verify again; nothing was deleted",
        };
        let problem = pb::VerifyProblem {
            what,
            problem: error.finding(),
            state: file_state(&Err(error)).into(),
            action: action.into(),
        };
        self.problem(problem).await
    }

    /// Reads on a thread for files, and sends the progress of it.
    async fn read<T: Send + 'static>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut dyn FnMut(u64)) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        // The store reports the bytes read so far, not those of a piece.
        let (sender, before, total) = (self.sender.clone(), self.summary.read_bytes, self.total);
        let what = what.to_owned();
        let (result, read) = blocking(move || {
            let (mut read, mut sent) = (0, None::<Instant>);
            let mut progress = |bytes: u64| {
                read = bytes;
                if sent.is_none_or(|at| at.elapsed() >= PROGRESS) {
                    sent = Some(Instant::now());
                    let event = Event::Progress(pb::VerifyProgress {
                        read_bytes: before + read,
                        total_bytes: total,
                        what: what.clone(),
                    });
                    // Who does not read fast enough misses notices of progress only.
                    let _ = sender.try_send(Ok(pb::VerifyStoreEvent { event: Some(event) }));
                }
            };
            let result = work(&mut progress);
            (result, read)
        })
        .await?;
        self.summary.read_bytes += read;
        Ok(result)
    }

    async fn problem(&mut self, problem: pb::VerifyProblem) -> Result<(), ApiError> {
        self.summary.problems += 1;
        self.send(Event::Problem(problem)).await
    }

    async fn send(&self, event: Event) -> Result<(), ApiError> {
        self.sender
            .send(Ok(pb::VerifyStoreEvent { event: Some(event) }))
            .await
            .map_err(|_| ApiError::BrokenOff("the client is gone".into()))
    }
}
