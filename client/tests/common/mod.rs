//! A coordinator that plays a script: what a test needs to see how the client takes it.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use fovea_proto::pb;
use fovea_proto::pb::checkpoints_server::{Checkpoints, CheckpointsServer};
use fovea_proto::pb::datasets_server::{Datasets, DatasetsServer};
use fovea_proto::pb::runs_server::{Runs, RunsServer};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

type Events = Vec<Result<pb::RunEvent, Status>>;
type Reply<T> = Result<Response<T>, Status>;
type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the fake does and what was done to it.
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
    /// Datasets that were created.
    pub created: Vec<Created>,
    /// The specs that were submitted.
    pub submitted: Vec<pb::RunSpec>,
    /// Run ids that were cancelled.
    pub cancelled: Vec<String>,
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
            .add_service(DatasetsServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    }

    fn known(&self, run_id: &str) -> Result<pb::Run, Status> {
        match &self.0.lock().unwrap().run {
            Some(run) if run.id == run_id => Ok(run.clone()),
            _ => Err(Status::not_found(format!("there is no run {run_id:?}"))),
        }
    }
}

#[tonic::async_trait]
impl Runs for Fake {
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
            runs: self.0.lock().unwrap().run.iter().cloned().collect(),
            next_page_token: String::new(),
        }))
    }

    type WatchStream = Out<pb::RunEvent>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Reply<Self::WatchStream> {
        self.known(&request.into_inner().run_id)?;
        let mut state = self.0.lock().unwrap();
        state.watched += 1;
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

    async fn cancel(&self, request: Request<pb::CancelRequest>) -> Reply<pb::Run> {
        let id = request.into_inner().run_id;
        let run = self.known(&id)?;
        self.0.lock().unwrap().cancelled.push(id);
        Ok(Response::new(run))
    }

    async fn resume(&self, request: Request<pb::ResumeRequest>) -> Reply<pb::Run> {
        let id = request.into_inner().run_id;
        self.known(&id)?;
        Err(Status::failed_precondition(format!(
            "run {id} is running; only a failed or cancelled run can be resumed"
        )))
    }
}

#[tonic::async_trait]
impl Checkpoints for Fake {
    async fn list(
        &self,
        request: Request<pb::ListCheckpointsRequest>,
    ) -> Reply<pb::ListCheckpointsResponse> {
        let run = self.known(&request.into_inner().run_id)?;
        Ok(Response::new(pb::ListCheckpointsResponse {
            checkpoints: run.checkpoints,
        }))
    }

    type GetStream = Out<pb::CheckpointChunk>;

    async fn get(&self, request: Request<pb::GetCheckpointRequest>) -> Reply<Self::GetStream> {
        use pb::checkpoint_chunk::Part;
        self.known(&request.into_inner().run_id)?;
        let state = self.0.lock().unwrap();
        let (bytes, digest) = state
            .checkpoint
            .clone()
            .ok_or_else(|| Status::not_found("there is no such checkpoint"))?;
        let mut info = checkpoint(24);
        info.size_bytes = bytes.len() as u64;
        info.sha256 = digest;
        let sent = state.cut_checkpoint_at.unwrap_or(bytes.len());
        let mut parts = vec![Part::Info(info)];
        parts.extend(
            bytes[..sent]
                .chunks(1000)
                .map(|c| Part::Data(c.to_vec().into())),
        );
        let chunks = parts
            .into_iter()
            .map(|part| Ok(pb::CheckpointChunk { part: Some(part) }))
            .collect::<Vec<_>>();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

#[tonic::async_trait]
impl Datasets for Fake {
    async fn create(
        &self,
        request: Request<Streaming<pb::CreateDatasetRequest>>,
    ) -> Reply<pb::Dataset> {
        use pb::create_dataset_request::Part;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(Status::invalid_argument("header: comes first"));
        };
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
        self.0.lock().unwrap().created.push(created);
        Ok(Response::new(dataset))
    }

    async fn list(&self, _: Request<pb::ListDatasetsRequest>) -> Reply<pb::ListDatasetsResponse> {
        let state = self.0.lock().unwrap();
        Ok(Response::new(pb::ListDatasetsResponse {
            datasets: state.created.iter().map(|c| describe(&c.0)).collect(),
        }))
    }

    async fn get(&self, _: Request<pb::GetDatasetRequest>) -> Reply<pb::DatasetFiles> {
        Err(Status::unimplemented("not scripted"))
    }

    type FetchPackStream = Out<pb::PackChunk>;

    async fn fetch_pack(&self, _: Request<pb::FetchPackRequest>) -> Reply<Self::FetchPackStream> {
        Err(Status::unimplemented("not scripted"))
    }
}

fn describe(manifest: &[u8]) -> pb::Dataset {
    let manifest = fovea_dataset::Manifest::parse(manifest).unwrap();
    pb::Dataset {
        name: manifest.name.to_string(),
        digest: manifest.digest.clone(),
        image_size: manifest.image_size,
        train_samples: manifest.counts.train.iter().sum(),
        validation_samples: manifest.counts.validation.iter().sum(),
        train_grades: manifest.counts.train.to_vec(),
        validation_grades: manifest.counts.validation.to_vec(),
        packs: manifest.packs.len() as u32,
        size_bytes: manifest.packs.iter().map(|p| p.bytes).sum(),
    }
}

/// A run of 3 epochs of 12 steps, without results.
pub fn run(id: &str, phase: pb::Phase) -> pb::Run {
    let spec: fovea_core::spec::RunSpec =
        toml::from_str("name = \"dr\"\ndataset = \"d\"\n[train]\nepochs = 3\n").unwrap();
    pb::Run {
        id: id.into(),
        spec: Some((&spec).into()),
        phase: phase as i32,
        generation: 1,
        workers: vec!["a".into(), "b".into()],
        steps_per_epoch: 12,
        total_steps: 36,
        train_samples: 357,
        validation_samples: 119,
        dataset_digest: "00".repeat(32),
        ..Default::default()
    }
}

/// The run with its first `epochs` epochs done and stored.
pub fn run_after(id: &str, phase: pb::Phase, epochs: u32) -> pb::Run {
    pb::Run {
        epochs: (0..epochs).map(epoch).collect(),
        checkpoints: (1..=epochs)
            .map(|e| checkpoint(u64::from(e) * 12))
            .collect(),
        ..run(id, phase)
    }
}

pub fn epoch(epoch: u32) -> pb::EpochResult {
    pb::EpochResult {
        epoch,
        step: u64::from(epoch + 1) * 12,
        train_loss: Some(0.5),
        validation: Some(pb::Evaluation {
            samples: 119,
            positives: 44,
            loss: 0.4,
            accuracy: 0.9,
            auc: Some(0.9 + f64::from(epoch) / 100.0),
            sensitivity: Some(0.8),
            specificity: Some(0.9),
            quadratic_kappa: None,
            confusion: vec![60, 15, 4, 40],
            classes: 2,
        }),
    }
}

pub fn checkpoint(step: u64) -> pb::Checkpoint {
    pb::Checkpoint {
        step,
        generation: 1,
        size_bytes: 1000,
        sha256: format!("{step:064x}"),
        stored_at_ms: 1,
        fingerprint: Some(pb::Fingerprint {
            device: "cpu".into(),
            ..Default::default()
        }),
    }
}

/// Events of a stream.
pub mod event {
    use super::pb;
    use pb::run_event::Event;
    use tonic::Status;

    fn event(event: Event) -> Result<pb::RunEvent, Status> {
        Ok(pb::RunEvent { event: Some(event) })
    }

    pub fn run(run: pb::Run) -> Result<pb::RunEvent, Status> {
        event(Event::Run(run))
    }

    pub fn epoch(number: u32) -> Result<pb::RunEvent, Status> {
        event(Event::Epoch(super::epoch(number)))
    }

    pub fn checkpoint(step: u64) -> Result<pb::RunEvent, Status> {
        event(Event::Checkpoint(super::checkpoint(step)))
    }

    pub fn step(step: u64) -> Result<pb::RunEvent, Status> {
        event(Event::Step(pb::StepReport {
            step,
            loss: 0.4,
            images: 32,
            images_per_s: 40.0,
            learning_rate: 0.001,
            phases: None,
        }))
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Runs the built `fovea` with these arguments, off the async threads.
pub async fn fovea(address: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fovea"));
    command
        .env_remove("FOVEA_COORDINATOR")
        .arg("--coordinator")
        .arg(address)
        .args(args);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A small prepared dataset of drawings, in `dir/set`.
pub fn prepared(dir: &Path) -> std::path::PathBuf {
    use fovea_dataset::synthetic::{SyntheticOptions, generate};
    let drawings = dir.join("drawings");
    let options = SyntheticOptions {
        patients: 12,
        size: 64,
        ..SyntheticOptions::default()
    };
    generate(&drawings, &options, &|_| {}).unwrap();
    let out = dir.join("set");
    let mut options = fovea_dataset::PrepareOptions::new(
        drawings.join("trainLabels.csv"),
        drawings.join("images"),
        out.clone(),
        fovea_core::ids::DatasetName::new("set").unwrap(),
    );
    options.image_size = 32;
    options.pack_records = 4;
    fovea_dataset::prepare(&options, &()).unwrap();
    out
}
