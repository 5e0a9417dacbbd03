//! `Admin`: looking after the stores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::count::count;
use fovea_core::ids::RunId;
use fovea_proto::pb;
use fovea_proto::pb::admin_server::Admin;
use fovea_proto::pb::verify_store_event::Event;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use tracing::info;

use super::transfer::Answers;
use super::{Context, peer};
use crate::blocking::blocking;
use crate::error::ApiError;
use crate::run::{FileReport, RunInput};
use crate::store::{HeldDataset, StoreError};

/// Events ahead of the receiver.
const AHEAD: usize = 16;
/// Between two notices of progress.
const PROGRESS: Duration = Duration::from_millis(200);
/// Runs that are read from the journal at a time.
const PAGE: usize = 100;

/// The service.
#[derive(Debug)]
pub(crate) struct AdminService(pub Context);

#[tonic::async_trait]
impl Admin for AdminService {
    type VerifyStream = Answers<pb::VerifyStoreEvent>;

    async fn verify(
        &self,
        request: Request<pb::VerifyStoreRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        let pb::VerifyStoreRequest {
            skip_checkpoints,
            skip_datasets,
        } = request.into_inner();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let context = self.0.clone();
        self.0.tasks.spawn(async move {
            let _permit = permit;
            let closing = context.closing.clone();
            let verification = Verification {
                context,
                sender: sender.clone(),
                summary: pb::VerifySummary::default(),
                total: 0,
            };
            tokio::select! {
                () = closing.cancelled() => drop(sender.try_send(Err(ApiError::ShuttingDown.into()))),
                // The file that is being read is read to its end; no other is begun.
                () = sender.closed() => {}
                result = verification.run(!skip_checkpoints, !skip_datasets) => {
                    if let Err(error) = result {
                        let _ = sender.send(Err(error.into())).await;
                    }
                }
            }
        });
        Ok(Response::new(Answers::new(receiver)))
    }
}

/// What a file turned out to be, on the wire.
pub(super) fn file_state(result: &Result<(), StoreError>) -> pb::FileState {
    match result {
        Ok(()) => pb::FileState::Ok,
        Err(StoreError::Corrupt { .. }) => pb::FileState::Corrupt,
        Err(StoreError::Missing { .. }) => pb::FileState::Missing,
        Err(
            StoreError::Unavailable { .. }
            | StoreError::Unreadable { .. }
            | StoreError::TooNew { .. }
            | StoreError::Full { .. }
            | StoreError::Write { .. },
        ) => pb::FileState::Unreadable,
    }
}

/// One verification under way.
struct Verification {
    context: Context,
    sender: mpsc::Sender<Result<pb::VerifyStoreEvent, Status>>,
    summary: pb::VerifySummary,
    total: u64,
}

impl Verification {
    async fn run(mut self, checkpoints: bool, datasets: bool) -> Result<(), ApiError> {
        let catalogue = self.context.datasets.now();
        let held: Vec<Arc<HeldDataset>> = match datasets {
            true => catalogue.held().cloned().collect(),
            false => Vec::new(),
        };
        let files = match checkpoints {
            true => self.listed().await?,
            false => Vec::new(),
        };
        self.total = held
            .iter()
            .flat_map(|d| d.manifest.packs.iter().map(|p| p.bytes))
            .chain(files.iter().map(|(_, info)| info.bytes))
            .sum();
        for (run, info) in files {
            self.checkpoint(run, info).await?;
        }
        if datasets {
            for (name, digest) in catalogue.names() {
                if held.iter().all(|d| d.manifest.digest != digest) {
                    let problem = catalogue.problem(digest).unwrap_or_default();
                    self.problem(pb::VerifyProblem {
                        what: format!("dataset {name}"),
                        state: pb::FileState::Unreadable.into(),
                        problem,
                        action: repair(),
                    })
                    .await?;
                }
            }
        }
        for dataset in held {
            self.dataset(dataset).await?;
        }
        info!(
            checkpoints = self.summary.checkpoints,
            packs = self.summary.packs,
            problems = self.summary.problems,
            "store.verified: {}, {} with a problem",
            count(
                self.summary.checkpoints + self.summary.packs,
                "file",
                "files"
            ),
            self.summary.problems
        );
        let summary = std::mem::take(&mut self.summary);
        self.send(Event::Summary(summary)).await
    }

    /// Every listed checkpoint of every run.
    async fn listed(&self) -> Result<Vec<(RunId, CheckpointInfo)>, ApiError> {
        let (mut files, mut before) = (Vec::new(), u64::MAX);
        loop {
            let page = self.context.runs.list(before, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(files);
            };
            before = last.run.number;
            for shown in &page {
                let of_run = shown.run.checkpoints.iter().cloned();
                files.extend(of_run.map(|info| (shown.run.id.clone(), info)));
            }
        }
    }

    async fn checkpoint(&mut self, run: RunId, info: CheckpointInfo) -> Result<(), ApiError> {
        let what = format!("run {run}, checkpoint {}", info.step);
        let store = self.context.checkpoints.clone();
        let (id, wanted) = (run.clone(), info.clone());
        let result = self
            .read(&what, move |progress| store.verify(&id, &wanted, progress))
            .await?;
        if matches!(result, Err(StoreError::Missing { .. })) && !self.is_listed(&run, &info).await?
        {
            // Retention or a person removed it since the verification began.
            return Ok(());
        }
        self.summary.checkpoints += 1;
        let state = file_state(&result);
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
                what,
                state: state.into(),
                problem: error.to_string(),
                action,
            };
            self.problem(problem).await?;
        }
        report_file(&self.context, &run, info, result).await;
        Ok(())
    }

    async fn is_listed(&self, run: &RunId, info: &CheckpointInfo) -> Result<bool, ApiError> {
        match self.context.runs.shown(run).await {
            Ok(shown) => Ok(shown.run.checkpoints.contains(info)),
            Err(ApiError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn dataset(&mut self, dataset: Arc<HeldDataset>) -> Result<(), ApiError> {
        let name = dataset.manifest.name.clone();
        let digest = dataset.manifest.digest.clone();
        let what = format!("dataset {name}");
        let store = self.context.dataset_files.clone();
        let reading = Arc::clone(&dataset);
        let problems = self
            .read(&what, move |progress| store.verify(&reading, progress))
            .await?;
        self.summary.packs += dataset.manifest.packs.len() as u32;
        if problems.is_empty() {
            self.context.datasets.sound(&digest).await;
        }
        for (pack, error) in problems {
            self.context
                .datasets
                .report(&digest, pack, Err(&error))
                .await;
            let problem = pb::VerifyProblem {
                what: format!("dataset {name}, pack {pack}"),
                problem: error.to_string(),
                state: file_state(&Err(error)).into(),
                action: repair(),
            };
            self.problem(problem).await?;
        }
        Ok(())
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

fn repair() -> String {
    "`fovea dataset add DIR` with the prepared dataset repairs it".into()
}

/// Tells a run's actor what reading one of its checkpoints showed, where that changes anything.
pub(super) async fn report_file(
    context: &Context,
    run: &RunId,
    info: CheckpointInfo,
    result: Result<(), StoreError>,
) {
    // An ended run waits for nothing: only corruption is worth waking it for.
    let actor = match &result {
        Err(StoreError::Corrupt { .. }) => context.runs.actor(run).await.ok(),
        _ => context.runs.cluster.find(run).await.ok().flatten(),
    };
    if let Some(actor) = actor {
        actor.send(RunInput::File(FileReport {
            info,
            result,
            asked: false,
        }));
        // Who asks next sees what follows from it. None: the actor has closed. Then whoever reads the file next reports
        // it again.
        let flush = actor.query(|reply| RunInput::Flush { reply });
        let _ = context.runs.unless_blocked(flush).await;
    }
}
