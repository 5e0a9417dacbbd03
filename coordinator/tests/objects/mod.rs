//! The object store, over a real S3 server (SeaweedFS): it goes away, forbids, belongs to others; the coordinator is killed
//! between the parts of an upload, and comes back on a new machine.

mod recovery;
mod refusals;
mod seaweed;
mod spans;
mod troubles;

use crate::common;
use std::path::{Path, PathBuf};

use common::*;
use fovea_coordinator::Config;
use fovea_core::googlenet::FlatLayout;
use fovea_proto::pb;
use fovea_proto::pb::run_event::Event;
use pb::{CheckpointPlace, Phase};
use seaweed::Seaweed;

/// A data folder, a dataset and a bucket.
struct Place {
    dir: tempfile::TempDir,
    tiny: PathBuf,
    bucket: Seaweed,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tiny = dataset(dir.path(), "tiny", 1);
        let bucket = Seaweed::start().await;
        Self { dir, tiny, bucket }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The configuration of a coordinator with the bucket.
    fn with_bucket(&self) -> impl FnOnce(&mut Config) + use<> {
        let (url, endpoint) = (self.bucket.url(), self.bucket.endpoint());
        move |config| {
            config.store = url;
            config.store_endpoint = endpoint;
            config.store_allow_http = true;
        }
    }

    async fn server(&self) -> Server {
        Server::start(&self.data(), self.with_bucket()).await
    }

    async fn step(&self, worker: &mut Worker, at: &pb::Assignment, step: u64) {
        let samples = samples(&self.tiny, at, step);
        worker.send(committed_with(at, report(step), samples)).await;
        worker.acked_step(step).await;
    }
}

/// A run of one worker that keeps two checkpoints. `large`: its state has about 48 MB, else some KB.
fn one_worker(large: bool) -> pb::RunSpec {
    let mut spec = small_spec();
    if large {
        spec.model.as_mut().unwrap().frozen = Some(pb::LayerList { names: vec![] });
    }
    spec
}

/// The state of the large run.
fn large_state(seed: u32) -> Vec<u8> {
    let elements = FlatLayout::new::<&str>(2, &[]).unwrap().state_len() as u32;
    (0..elements)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) as f32).to_le_bytes())
        .collect()
}

async fn begin(server: &Server, large: bool) -> (pb::Run, pb::Assignment, Worker) {
    let mut worker = Worker::join(server, "w0").await;
    let run = server.submit(one_worker(large)).await.unwrap();
    let mut watch = server.watch(&run.id).await;
    let at = worker.assignment().await;
    worker.ready(&at).await;
    let run = watch.until(Phase::Running).await;
    (run, at, worker)
}

/// The only worker uploads a checkpoint; it is listed when this returns.
async fn checkpoint(
    server: &Server,
    worker: &Worker,
    at: &pb::Assignment,
    step: u64,
    state: &[u8],
) {
    let mut watch = server.watch(&at.run_id).await;
    worker.upload(at, 0, step, state).await.unwrap();
    loop {
        match watch.next().await.expect("the run goes on") {
            Event::Checkpoint(info) if info.step == step => return,
            Event::Run(run) if run.checkpoints.iter().any(|c| c.step == step) => return,
            _ => {}
        }
    }
}

async fn listed(server: &Server, run: &str) -> pb::ListCheckpointsResponse {
    let request = pb::ListCheckpointsRequest { run_id: run.into() };
    server
        .checkpoints()
        .list(request)
        .await
        .unwrap()
        .into_inner()
}

/// Waits until all of a run's checkpoints are where they should be.
async fn until_all(server: &Server, run: &str, place: CheckpointPlace) {
    let mut last = None;
    let wait = async {
        loop {
            let list = listed(server, run).await;
            let all = list.places.iter().all(|found| *found == i32::from(place));
            if all && !list.places.is_empty() {
                return;
            }
            last = Some(list);
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("waited for {place:?}: {last:?}");
    }
}

/// The file of a run's checkpoint, whose digest is compared.
async fn fetched(server: &Server, run: &str, step: u64) -> Vec<u8> {
    use pb::checkpoint_chunk::Part;
    use sha2::Digest;
    let request = pb::GetCheckpointRequest {
        run_id: run.into(),
        step: Some(step),
    };
    let mut stream = server
        .checkpoints()
        .get(request)
        .await
        .unwrap()
        .into_inner();
    let (mut bytes, mut sha256) = (Vec::new(), String::new());
    while let Some(chunk) = stream.message().await.unwrap() {
        match chunk.part.unwrap() {
            Part::Info(info) => sha256 = info.sha256,
            Part::Data(data) => bytes.extend_from_slice(&data),
        }
    }
    assert_eq!(hex::encode(sha2::Sha256::digest(&bytes)), sha256);
    bytes
}

async fn audit(server: &Server, run: &str) -> pb::AuditReport {
    let request = pb::AuditRequest { run_id: run.into() };
    server.runs().audit(request).await.unwrap().into_inner()
}

fn remote_state(data: &Path) -> serde_json::Value {
    let bytes = std::fs::read(data.join("remote.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
