//! A scripted coordinator, to test the client's reactions.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use fovea_proto::pb;
use fovea_proto::pb::admin_server::{Admin, AdminServer};
use fovea_proto::pb::checkpoints_server::{Checkpoints, CheckpointsServer};
use fovea_proto::pb::datasets_server::{Datasets, DatasetsServer};
use fovea_proto::pb::runs_server::{Runs, RunsServer};
use fovea_proto::pb::weights_server::WeightsServer;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

mod checkpoints;
mod messages;
pub use messages::*;
mod datasets;
#[allow(unused_imports)] // Not every test program needs a dataset.
pub use datasets::*;
mod weights;

type Events = Vec<Result<pb::RunEvent, Status>>;
type Reply<T> = Result<Response<T>, Status>;
type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The script, and the requests that were received.
#[derive(Default)]
pub struct State {
    /// The run that exists, if any.
    pub run: Option<pb::Run>,
    /// One script for each Watch call, in order; a call without a script gets UNAVAILABLE.
    pub watches: VecDeque<Events>,
    /// Whether a watch stays open after its script.
    pub hang: bool,
    /// Number of Watch calls so far.
    pub watched: usize,
    /// The checkpoint's bytes, and the digest that is announced for them.
    pub checkpoint: Option<(Vec<u8>, String)>,
    /// Bytes of it that are really sent.
    pub cut_checkpoint_at: Option<usize>,
    /// The status at the end of a fetch. After DATA_LOSS the checkpoint is no longer listed.
    pub checkpoint_lost: Option<Status>,
    /// Whether that status comes before anything of the checkpoint is sent.
    pub lost_at_once: bool,
    /// What an audit reports of the run.
    pub audit: pb::AuditReport,
    /// State and problem of stored checkpoints, by step; the others are whole.
    pub damaged: BTreeMap<u64, (pb::FileState, String)>,
    /// The manifests that a verification finds wrong, by step.
    pub damaged_manifests: BTreeMap<u64, (pb::FileState, String)>,
    /// Statuses of Watch calls, in order, before `watches` is used.
    pub watch_refusals: VecDeque<Status>,
    /// Statuses of removals, by `run`, `run/step` or dataset; others succeed.
    pub delete_refusals: BTreeMap<String, Status>,
    /// The status of all removals.
    pub no_delete: Option<Status>,
    /// Removals that succeeded; of runs with ` with checkpoints` if so.
    pub deleted: Vec<String>,
    /// The result of an upload after which the rest of the stream is not read.
    pub early_reply: Option<Result<pb::CreateDatasetResponse, Status>>,
    /// What is wrong with the datasets.
    pub dataset_problem: String,
    /// Events of a verification of the store.
    pub store: Vec<Result<pb::VerifyStoreEvent, Status>>,
    /// Parts of a backup.
    pub backup: Vec<Result<pb::BackupPart, Status>>,
    /// What verifications of the store were asked for.
    pub store_requests: Vec<pb::VerifyStoreRequest>,
    /// Datasets that were created.
    pub created: Vec<Created>,
    /// Whether what was sent is stored, and never answered.
    pub silent_about_uploads: bool,
    /// The id of the run that scores a prediction; without one predictions are refused.
    pub predicts: Option<String>,
    /// Holds the answer to a prediction back until it is notified.
    pub answers_prediction: Option<Arc<Notify>>,
    /// The run that scores a prediction.
    pub scoring: Option<pb::Run>,
    /// The weights that there are.
    pub weights: Vec<pb::StoredWeights>,
    /// Uploads of weights: the header, and the bytes that were sent.
    pub sent_weights: Vec<(pb::WeightsHeader, usize)>,
    /// The specs that were submitted.
    pub submitted: Vec<pb::RunSpec>,
    /// The answer to a request for scores; empty: there are none.
    pub scores: Vec<pb::ScoresPart>,
    /// Run ids that were cancelled.
    pub cancelled: Vec<String>,
    /// Run ids that were paused.
    pub paused: Vec<String>,
}

/// A dataset as it was sent: manifest, index, packs.
pub type Created = (Vec<u8>, Vec<u8>, Vec<Vec<u8>>);

#[derive(Clone, Default)]
pub struct Fake(pub Arc<Mutex<State>>);

impl Fake {
    pub fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Serves on a free port of the loopback until the runtime ends; returns its address.
    pub async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(self.clone().serve_on(listener));
        address
    }

    pub async fn serve_on(self, listener: TcpListener) {
        tonic::transport::Server::builder()
            .add_service(RunsServer::new(self.clone()))
            .add_service(CheckpointsServer::new(self.clone()))
            .add_service(DatasetsServer::new(self.clone()))
            .add_service(WeightsServer::new(self.clone()))
            .add_service(AdminServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    }

    fn known(&self, run_id: &str) -> Result<pb::Run, Status> {
        let state = self.0.lock().unwrap();
        let found = state.run.iter().chain(&state.scoring);
        found
            .into_iter()
            .find(|run| run.id == run_id)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("there is no run {run_id:?}")))
    }

    /// Refuses the removal of `name` as scripted, or notes it.
    fn delete(&self, name: &str, note: &str) -> Result<(), Status> {
        let mut state = self.0.lock().unwrap();
        let refused = state.no_delete.as_ref();
        if let Some(status) = refused.or(state.delete_refusals.get(name)) {
            return Err(status.clone());
        }
        state.deleted.push(format!("{name}{note}"));
        Ok(())
    }
}

#[tonic::async_trait]
impl Admin for Fake {
    type VerifyStream = Out<pb::VerifyStoreEvent>;
    type BackupStream = Out<pb::BackupPart>;

    async fn backup(&self, _: Request<pb::BackupRequest>) -> Reply<Self::BackupStream> {
        let state = self.0.lock().unwrap();
        Ok(Response::new(Box::pin(tokio_stream::iter(
            state.backup.clone(),
        ))))
    }

    async fn verify(&self, request: Request<pb::VerifyStoreRequest>) -> Reply<Self::VerifyStream> {
        let mut state = self.0.lock().unwrap();
        state.store_requests.push(request.into_inner());
        Ok(Response::new(Box::pin(tokio_stream::iter(
            state.store.clone(),
        ))))
    }
}

#[tonic::async_trait]
impl Runs for Fake {
    async fn delete(&self, request: Request<pb::DeleteRunRequest>) -> Reply<pb::DeleteRunResponse> {
        let request = request.into_inner();
        let note = if request.with_checkpoints {
            " with checkpoints"
        } else {
            ""
        };
        Fake::delete(self, &request.run_id, note)?;
        let checkpoints = if request.with_checkpoints { 3 } else { 0 };
        Ok(Response::new(pb::DeleteRunResponse {
            checkpoints,
            freed_bytes: u64::from(checkpoints) * 47_000_000,
        }))
    }

    async fn submit(&self, request: Request<pb::SubmitRequest>) -> Reply<pb::SubmitResponse> {
        let spec = request.into_inner().spec.unwrap_or_default();
        let mut state = self.0.lock().unwrap();
        state.submitted.push(spec.clone());
        let mut accepted = run(&format!("{}-1", spec.name), pb::Phase::Queued);
        accepted.spec = Some(spec);
        state.run = Some(accepted.clone());
        Ok(Response::new(pb::SubmitResponse {
            run: Some(accepted),
        }))
    }

    async fn get(&self, request: Request<pb::GetRunRequest>) -> Reply<pb::Run> {
        Ok(Response::new(self.known(&request.into_inner().run_id)?))
    }

    async fn list(&self, _: Request<pb::ListRunsRequest>) -> Reply<pb::ListRunsResponse> {
        Ok(Response::new(pb::ListRunsResponse {
            runs: {
                let state = self.0.lock().unwrap();
                state.run.iter().chain(&state.scoring).cloned().collect()
            },
            next_page_token: String::new(),
            ..Default::default()
        }))
    }

    type WatchStream = Out<pb::RunEvent>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Reply<Self::WatchStream> {
        self.known(&request.into_inner().run_id)?;
        let mut state = self.0.lock().unwrap();
        state.watched += 1;
        if let Some(status) = state.watch_refusals.pop_front() {
            return Err(status);
        }
        let script = state
            .watches
            .pop_front()
            .ok_or_else(|| Status::unavailable("the script is over"))?;
        let events = tokio_stream::iter(script);
        Ok(Response::new(if state.hang {
            Box::pin(events.chain(tokio_stream::pending()))
        } else {
            Box::pin(events)
        }))
    }

    async fn evaluate(&self, request: Request<pb::EvaluateRequest>) -> Reply<pb::EvaluateResponse> {
        let dataset = request.into_inner().dataset;
        let (scoring, held) = {
            let mut state = self.0.lock().unwrap();
            let Some(id) = &state.predicts else {
                return Err(Status::unavailable("no workers here"));
            };
            let mut scoring = run(id, pb::Phase::Queued);
            if let Some(spec) = &mut scoring.spec {
                spec.dataset = dataset;
            }
            state.scoring = Some(scoring.clone());
            (scoring, state.answers_prediction.clone())
        };
        if let Some(held) = held {
            held.notified().await;
        }
        Ok(Response::new(pb::EvaluateResponse {
            run: Some(scoring),
            ..Default::default()
        }))
    }

    type ScoresStream = Out<pb::ScoresPart>;

    async fn scores(&self, request: Request<pb::ScoresRequest>) -> Reply<Self::ScoresStream> {
        self.known(&request.into_inner().run_id)?;
        let parts = self.0.lock().unwrap().scores.clone();
        match parts.is_empty() {
            true => Err(Status::not_found("there are no scores")),
            false => Ok(Response::new(Box::pin(tokio_stream::iter(
                parts.into_iter().map(Ok),
            )))),
        }
    }

    type LossesStream = Out<pb::LossesPart>;

    async fn losses(&self, _: Request<pb::LossesRequest>) -> Reply<Self::LossesStream> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn cancel(&self, request: Request<pb::CancelRequest>) -> Reply<pb::Run> {
        let id = request.into_inner().run_id;
        let run = self.known(&id)?;
        let mut state = self.0.lock().unwrap();
        // It has no step to finish.
        if let Some(scoring) = state.scoring.as_mut().filter(|scoring| scoring.id == id) {
            scoring.set_phase(pb::Phase::Cancelled);
        }
        state.cancelled.push(id);
        Ok(Response::new(run))
    }

    async fn pause(&self, request: Request<pb::PauseRequest>) -> Reply<pb::Run> {
        let id = request.into_inner().run_id;
        let mut run = self.known(&id)?;
        match run.phase() {
            // As the real one: a waiting run is paused at once, another one at its next step.
            pb::Phase::Queued => run.set_phase(pb::Phase::Paused),
            pb::Phase::Running => run.reason = "is being paused".into(),
            phase => {
                return Err(Status::failed_precondition(format!(
                    "run {id} is {}; only a run that is queued or under way can be paused",
                    phase.as_str_name()
                )));
            }
        }
        let mut state = self.0.lock().unwrap();
        state.paused.push(id);
        state.run = Some(run.clone());
        Ok(Response::new(run))
    }

    async fn resume(&self, request: Request<pb::ResumeRequest>) -> Reply<pb::Run> {
        let id = request.into_inner().run_id;
        let mut run = self.known(&id)?;
        if run.phase() != pb::Phase::Paused {
            return Err(Status::failed_precondition(format!(
                "run {id} is running; only a paused, failed or cancelled run can be resumed"
            )));
        }
        run.set_phase(pb::Phase::Queued);
        self.0.lock().unwrap().run = Some(run.clone());
        Ok(Response::new(run))
    }

    async fn set_priority(&self, request: Request<pb::SetPriorityRequest>) -> Reply<pb::Run> {
        let request = request.into_inner();
        let mut run = self.known(&request.run_id)?;
        if run.phase() == pb::Phase::Completed {
            let problem = "the priority of a run that has ended cannot be changed";
            return Err(Status::failed_precondition(problem));
        }
        run.set_priority(request.priority());
        self.0.lock().unwrap().run = Some(run.clone());
        Ok(Response::new(run))
    }

    async fn audit(&self, request: Request<pb::AuditRequest>) -> Reply<pb::AuditReport> {
        let run = self.known(&request.into_inner().run_id)?;
        Ok(Response::new(pb::AuditReport {
            run_id: run.id,
            ..self.0.lock().unwrap().audit.clone()
        }))
    }
}

#[tonic::async_trait]
impl Datasets for Fake {
    async fn create(
        &self,
        request: Request<Streaming<pb::CreateDatasetRequest>>,
    ) -> Reply<pb::CreateDatasetResponse> {
        use pb::create_dataset_request::Part;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(Status::invalid_argument("header: comes first"));
        };
        let early = self.0.lock().unwrap().early_reply.clone();
        if let Some(reply) = early {
            return reply.map(Response::new);
        }
        let mut packs: Vec<Vec<u8>> = Vec::new();
        while let Some(message) = parts.message().await? {
            let Some(Part::Piece(piece)) = message.part else {
                return Err(Status::invalid_argument("header: comes once"));
            };
            assert!(piece.data.len() <= fovea_proto::CHUNK_BYTES);
            packs.resize(piece.pack as usize + 1, Vec::new());
            packs[piece.pack as usize].extend_from_slice(&piece.data);
        }
        let created = (header.manifest.to_vec(), header.index.to_vec(), packs);
        let dataset = describe(&created.0);
        let is_silent = {
            let mut state = self.0.lock().unwrap();
            state.created.push(created);
            state.silent_about_uploads
        };
        if is_silent {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(pb::CreateDatasetResponse {
            dataset: Some(dataset),
            outcome: pb::create_dataset_response::Outcome::Added.into(),
            repaired_packs: Vec::new(),
            repaired_files: Vec::new(),
        }))
    }

    async fn list(&self, _: Request<pb::ListDatasetsRequest>) -> Reply<pb::ListDatasetsResponse> {
        let state = self.0.lock().unwrap();
        Ok(Response::new(pb::ListDatasetsResponse {
            datasets: state
                .created
                .iter()
                .map(|c| pb::Dataset {
                    problem: state.dataset_problem.clone(),
                    ..describe(&c.0)
                })
                .collect(),
        }))
    }

    async fn get(&self, _: Request<pb::GetDatasetRequest>) -> Reply<pb::DatasetFiles> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteDatasetRequest>,
    ) -> Reply<pb::DeleteDatasetResponse> {
        Fake::delete(self, &request.into_inner().dataset, "")?;
        Ok(Response::new(pb::DeleteDatasetResponse {
            freed_bytes: 1_500_000_000,
        }))
    }

    type FetchPackStream = Out<pb::PackChunk>;

    async fn fetch_pack(&self, _: Request<pb::FetchPackRequest>) -> Reply<Self::FetchPackStream> {
        Err(Status::unimplemented("not scripted"))
    }
}

pub fn describe(manifest: &[u8]) -> pb::Dataset {
    let manifest = fovea_dataset::Manifest::parse(manifest).unwrap();
    pb::Dataset {
        name: manifest.name.to_string(),
        digest: manifest.digest.clone(),
        image_size: manifest.image_size,
        train_samples: manifest.counts.train.iter().sum(),
        validation_samples: manifest.counts.validation.iter().sum(),
        test_samples: manifest.counts.test.iter().sum(),
        test_grades: manifest.counts.test.to_vec(),
        train_grades: manifest.counts.train.to_vec(),
        validation_grades: manifest.counts.validation.to_vec(),
        packs: manifest.packs.len() as u32,
        size_bytes: manifest.packs.iter().map(|p| p.bytes).sum(),
        ..pb::Dataset::default()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The built `fovea` with these arguments, by `launcher` if given.
pub fn command(launcher: &[&str], address: &str, args: &[&str]) -> Command {
    let fovea = env!("CARGO_BIN_EXE_fovea");
    let mut whole = launcher.iter().copied().chain([fovea]);
    let mut command = Command::new(whole.next().unwrap());
    command
        .args(whole)
        .env_remove("FOVEA_COORDINATOR")
        .arg("--coordinator")
        .arg(address)
        .args(args);
    command
}

/// Runs the built `fovea` with these arguments, off the async threads.
pub async fn fovea(address: &str, args: &[&str]) -> Output {
    fovea_by(&[], address, args).await
}

/// The same under a umask, such as `077`.
pub async fn fovea_under(umask: &str, address: &str, args: &[&str]) -> Output {
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    fovea_by(&["sh", "-c", &script], address, args).await
}

async fn fovea_by(launcher: &[&str], address: &str, args: &[&str]) -> Output {
    let mut command = command(launcher, address, args);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// The permissions of a file or folder.
pub fn mode(path: &std::path::Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o777
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
