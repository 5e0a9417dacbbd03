//! What the integration tests share: a coordinator in this process, a tiny dataset, fake workers.
//!
//! Each test file uses its own part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use fovea_coordinator::{Config, ServeError, serve};
use fovea_core::googlenet::{FlatLayout, HEAD, weight_layer_names};
use fovea_core::ids::DatasetName;
use fovea_core::roster::slice_of;
use fovea_dataset::{PrepareOptions, prepare};
use fovea_proto::pb::checkpoints_client::CheckpointsClient;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::datasets_client::DatasetsClient;
use fovea_proto::pb::runs_client::RunsClient;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::pb::workers_client::WorkersClient;
use fovea_proto::{CHUNK_BYTES, MESSAGE_BYTES, connect, pb};
use fovea_service::Shutdown;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Nothing in these tests takes nearly so long; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Waits for something that is seen only by looking, such as a file.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let look = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    soon(what, look).await;
}

/// A coordinator in this process.
pub struct Server {
    pub address: String,
    pub channel: Channel,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    /// Starts one on `data_dir` and any port.
    pub async fn start(data_dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            data_dir: data_dir.to_owned(),
            listen: "127.0.0.1:0".into(),
            forming_grace_ms: 0,
            // On a busy machine a late heartbeat is not a lost worker.
            timeout_ms: 20_000,
            ..Config::default()
        };
        change(&mut config);
        config.validate().unwrap();
        let listener = TcpListener::bind(&config.listen).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = Shutdown::default();
        let task = tokio::spawn(serve(config, listener, shutdown.clone()));
        let channel = connect(&address, PATIENCE).await.unwrap();
        Self {
            address,
            channel,
            shutdown,
            task,
        }
    }

    pub fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone())
    }

    pub fn datasets(&self) -> DatasetsClient<Channel> {
        DatasetsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub fn workers(&self) -> WorkersClient<Channel> {
        WorkersClient::new(self.channel.clone())
    }

    pub fn checkpoints(&self) -> CheckpointsClient<Channel> {
        CheckpointsClient::new(self.channel.clone())
    }

    /// Asks it to stop; the answer comes when it has.
    pub fn ask_to_stop(&self) {
        self.shutdown.request();
    }

    pub async fn stopped(self) -> Result<(), ServeError> {
        soon("the coordinator's end", self.task).await.unwrap()
    }

    pub async fn stop(self) {
        self.ask_to_stop();
        self.stopped().await.unwrap();
    }

    pub async fn submit(&self, spec: pb::RunSpec) -> Result<pb::Run, Status> {
        let request = pb::SubmitRequest { spec: Some(spec) };
        let reply = self.runs().submit(request).await?.into_inner();
        Ok(reply.run.expect("an accepted run"))
    }

    pub async fn run(&self, id: &str) -> pb::Run {
        let request = pb::GetRunRequest { run_id: id.into() };
        self.runs().get(request).await.unwrap().into_inner()
    }

    pub async fn watch(&self, id: &str) -> Watch {
        let request = pb::WatchRequest { run_id: id.into() };
        Watch(self.runs().watch(request).await.unwrap().into_inner())
    }

    pub async fn upload(&self, dataset: &Path) -> Result<pb::Dataset, Status> {
        let reply = self
            .datasets()
            .create(tokio_stream::iter(parts(dataset)))
            .await?;
        Ok(reply.into_inner())
    }
}

/// A stream of a run's events.
pub struct Watch(pub Streaming<pb::RunEvent>);

impl Watch {
    /// The next event; None at the stream's end.
    pub async fn next(&mut self) -> Option<pb::run_event::Event> {
        let message = soon("an event of the run", self.0.message()).await.unwrap();
        message.map(|m| m.event.expect("an event"))
    }

    /// Reads until the run is in `phase`.
    pub async fn until(&mut self, phase: pb::Phase) -> pb::Run {
        loop {
            match self.next().await {
                Some(pb::run_event::Event::Run(run)) if run.phase() == phase => return run,
                Some(_) => {}
                None => panic!("the stream ended before {phase:?}"),
            }
        }
    }
}

/// The refusal that a call must meet: its code, and what its message must name.
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, named: &str) {
    let status = result.expect_err(named);
    assert_eq!(status.code(), code, "{named}: {status:?}");
    assert!(status.message().contains(named), "{named}: {status:?}");
}

/// A dataset of 24 photographs of 12 patients, 32 px, made in `dir`.
pub fn dataset(dir: &Path, name: &str, seed: u64) -> PathBuf {
    let images = dir.join(format!("{name}-images"));
    std::fs::create_dir_all(&images).unwrap();
    let mut labels = String::from("image,level\n");
    for patient in 0u32..12 {
        for (eye, side) in ["left", "right"].iter().enumerate() {
            labels.push_str(&format!("{patient}_{side},{}\n", patient % 5));
            // A bright disc with some structure on black.
            let picture = image::RgbImage::from_fn(64, 64, |x, y| {
                let (dx, dy) = (x as f32 - 31.5, y as f32 - 31.5);
                if dx * dx + dy * dy < 28.0 * 28.0 {
                    let tone = 120 + ((x * (patient + 2) + y * (eye as u32 + 3)) % 60) as u8;
                    image::Rgb([tone, tone / 2, tone / 3])
                } else {
                    image::Rgb([0, 0, 0])
                }
            });
            picture
                .save(images.join(format!("{patient}_{side}.png")))
                .unwrap();
        }
    }
    let csv = dir.join(format!("{name}.csv"));
    std::fs::write(&csv, labels).unwrap();
    let out = dir.join(name);
    let mut options =
        PrepareOptions::new(csv, images, out.clone(), DatasetName::new(name).unwrap());
    options.image_size = 32;
    options.seed = seed;
    options.pack_records = 8;
    prepare(&options, &()).unwrap();
    out
}

/// The messages that upload a dataset.
pub fn parts(dataset: &Path) -> Vec<pb::CreateDatasetRequest> {
    use pb::create_dataset_request::Part;
    let read = |file: &str| std::fs::read(dataset.join(file)).unwrap();
    let manifest = read("manifest.json");
    let parsed = fovea_dataset::Manifest::parse(&manifest).unwrap();
    let mut parts = vec![Part::Header(pb::DatasetFiles {
        manifest: manifest.into(),
        index: read("index.csv").into(),
    })];
    for (pack, entry) in parsed.packs.iter().enumerate() {
        // Small pieces, so that there are several.
        for data in read(&entry.file).chunks(5000) {
            parts.push(Part::Piece(pb::PackPiece {
                pack: pack as u32,
                data: data.to_vec().into(),
            }));
        }
    }
    parts
        .into_iter()
        .map(|part| pb::CreateDatasetRequest { part: Some(part) })
        .collect()
}

/// A run with 2 virtual ranks and 2 steps in each of 2 epochs, of which only the head is trained.
pub fn spec() -> pb::RunSpec {
    pb::RunSpec {
        name: "r".into(),
        dataset: "tiny".into(),
        model: Some(pb::ModelSpec {
            frozen: Some(pb::LayerList { names: frozen() }),
            ..Default::default()
        }),
        train: Some(pb::TrainSpec {
            epochs: Some(2),
            virtual_ranks: Some(2),
            batch: Some(6),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn frozen() -> Vec<String> {
    let mut layers = weight_layer_names();
    layers.retain(|name| name != HEAD);
    layers
}

/// Bytes of the state of `spec()`, a different one for every `seed`.
pub fn state(seed: u32) -> Vec<u8> {
    let elements = FlatLayout::new(2, &frozen()).unwrap().state_len() as u32;
    (0..elements)
        .flat_map(|i| ((i % 1000 + seed) as f32).to_le_bytes())
        .collect()
}

/// A worker that speaks the protocol and computes nothing.
pub struct Worker {
    client: WorkersClient<Channel>,
    up: mpsc::Sender<pb::WorkerMessage>,
    down: Streaming<pb::CoordinatorMessage>,
    heart: JoinHandle<()>,
}

impl Worker {
    /// Joins, with heartbeats.
    pub async fn join(server: &Server, id: &str) -> Self {
        let mut worker = Self::open(server, hello(id)).await.unwrap();
        let Down::Welcome(welcome) = worker.next().await else {
            panic!("no welcome")
        };
        assert!(welcome.timeout_ms >= 2 * welcome.heartbeat_ms);
        let up = worker.up.clone();
        let period = Duration::from_millis(welcome.heartbeat_ms.into());
        worker.heart = tokio::spawn(async move {
            let mut beat = tokio::time::interval(period);
            for sequence in 1.. {
                beat.tick().await;
                let message = Some(Up::Heartbeat(pb::Heartbeat { sequence }));
                if up.send(pb::WorkerMessage { message }).await.is_err() {
                    return;
                }
            }
        });
        worker
    }

    /// Opens a session that begins with `first`; no heartbeats.
    pub async fn open(server: &Server, first: Up) -> Result<Self, Status> {
        let (up, messages) = mpsc::channel(64);
        let first = pb::WorkerMessage {
            message: Some(first),
        };
        up.send(first).await.unwrap();
        let mut client = server.workers();
        let down = client.session(ReceiverStream::new(messages)).await?;
        Ok(Self {
            client,
            up,
            down: down.into_inner(),
            heart: tokio::spawn(async {}),
        })
    }

    /// Stops the heartbeats, but not the session.
    pub fn fall_silent(&self) {
        self.heart.abort();
    }

    pub async fn say(&self, message: Up) {
        let message = pb::WorkerMessage {
            message: Some(message),
        };
        self.up.send(message).await.expect("the session is open");
    }

    /// Says something that may be nothing.
    pub async fn say_raw(&self, message: Option<Up>) {
        let message = pb::WorkerMessage { message };
        self.up.send(message).await.expect("the session is open");
    }

    /// What the coordinator says next.
    pub async fn next(&mut self) -> Down {
        let message = soon("the coordinator's word", self.down.message()).await;
        let message = message.unwrap().expect("the session is open");
        message.message.expect("a message")
    }

    /// How the coordinator ends the session.
    pub async fn end(&mut self) -> Status {
        loop {
            match soon("the session's end", self.down.message()).await {
                Err(status) => return status,
                Ok(None) => return Status::ok("ended"),
                Ok(Some(_)) => {}
            }
        }
    }

    pub async fn assignment(&mut self) -> pb::Assignment {
        match self.next().await {
            Down::Assignment(assignment) => assignment,
            other => panic!("expected an assignment, not {other:?}"),
        }
    }

    pub async fn ready(&self, assignment: &pb::Assignment) {
        self.say(ready(assignment)).await;
    }

    pub async fn step(&self, assignment: &pb::Assignment, step: u64) {
        self.say(committed(assignment, report(step))).await;
    }

    /// Scores of this worker's half of `samples` validation samples.
    pub async fn scores(&self, assignment: &pb::Assignment, rank: u32, epoch: u32, samples: u64) {
        let half = samples as u32 / 2;
        let range = if rank == 0 {
            0..half
        } else {
            half..samples as u32
        };
        self.say(scores(assignment, epoch, range)).await;
    }

    /// Uploads this worker's slice of `state`.
    pub async fn upload(
        &self,
        assignment: &pb::Assignment,
        rank: usize,
        step: u64,
        state: &[u8],
    ) -> Result<(), Status> {
        let ranks = assignment.members.len();
        let parts = slice_parts(
            &assignment.members[rank].worker_id,
            assignment,
            rank,
            ranks,
            step,
            state,
        );
        let mut client = self.client.clone();
        soon(
            "the slice's answer",
            client.upload_slice(tokio_stream::iter(parts)),
        )
        .await?;
        Ok(())
    }

    pub async fn released(&self, assignment: &pb::Assignment, outcome: pb::released::Outcome) {
        self.say(Up::Released(pb::Released {
            run_id: assignment.run_id.clone(),
            generation: assignment.generation,
            outcome: Some(outcome),
        }))
        .await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

pub fn hello(id: &str) -> Up {
    Up::Hello(pb::Hello {
        worker_id: id.into(),
        address: "127.0.0.1:4000".into(),
        host: "test".into(),
        device: "cpu".into(),
        version: "test".into(),
    })
}

pub fn ready(assignment: &pb::Assignment) -> Up {
    Up::Ready(pb::Ready {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        state_digest: "a".repeat(64),
        fingerprint: Some(pb::Fingerprint {
            device: "cpu".into(),
            threads: 1,
            ..Default::default()
        }),
    })
}

pub fn committed(assignment: &pb::Assignment, report: pb::StepReport) -> Up {
    Up::Step(pb::StepCommitted {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        report: Some(report),
    })
}

pub fn report(step: u64) -> pb::StepReport {
    pb::StepReport {
        step,
        loss: 0.5,
        images: 12,
        images_per_s: 10.0,
        learning_rate: 0.001,
        phases: None,
    }
}

pub fn scores(assignment: &pb::Assignment, epoch: u32, samples: std::ops::Range<u32>) -> Up {
    let scores = samples
        .map(|sample| {
            let label = sample % 2;
            let positive = if label == 1 { 0.9 } else { 0.1 };
            pb::Score {
                sample,
                label,
                probabilities: vec![1.0 - positive, positive],
                loss: 0.1,
            }
        })
        .collect();
    Up::Scores(pb::Scores {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        epoch,
        scores,
    })
}

/// The messages that upload one rank's slice.
pub fn slice_parts(
    worker: &str,
    assignment: &pb::Assignment,
    rank: usize,
    ranks: usize,
    step: u64,
    state: &[u8],
) -> Vec<pb::SliceUpload> {
    use pb::slice_upload::Part;
    let slice = slice_of(state.len() as u64 / 4, ranks, rank);
    let bytes = &state[slice.start as usize * 4..slice.end as usize * 4];
    let mut parts = vec![Part::Header(pb::SliceHeader {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        worker_id: worker.into(),
        step,
        offset: slice.start,
        elements: slice.end - slice.start,
        sha256: hex::encode(Sha256::digest(bytes)),
    })];
    parts.extend(
        bytes
            .chunks(CHUNK_BYTES)
            .map(|data| Part::Data(data.to_vec().into())),
    );
    parts
        .into_iter()
        .map(|part| pb::SliceUpload { part: Some(part) })
        .collect()
}
