//! Fetching a checkpoint from a coordinator that serves it over real gRPC, and cannot always read it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use fovea_core::ids::WorkerId;
use pb::checkpoints_server::{Checkpoints, CheckpointsServer};
use sha2::{Digest, Sha256};
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::*;
use crate::config::WorkerConfig;
use crate::job::{DeviceThread, MakeDevice};
use crate::link::Coordinator;
use crate::testing::{
    Manner, Peers, Pretending, collect_log, logged, no_fingerprint, peers, serve,
};

const BYTES: &[u8] = b"the bytes of a checkpoint";

/// Answers with these statuses first, and then with the checkpoint.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<VecDeque<Status>>>);

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::CheckpointChunk, Status>> + Send>>;

#[tonic::async_trait]
impl Checkpoints for Served {
    type GetStream = Chunks;

    async fn get(&self, _: Request<pb::GetCheckpointRequest>) -> Result<Response<Chunks>, Status> {
        let data = |data: &'static [u8]| {
            Ok(pb::CheckpointChunk {
                part: Some(pb::checkpoint_chunk::Part::Data(data.into())),
            })
        };
        // A damaged file is noticed at its end.
        let chunks = match self.0.lock().unwrap().pop_front() {
            Some(status) => vec![data(&BYTES[..5]), Err(status)],
            None => vec![data(&BYTES[..5]), data(&BYTES[5..])],
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn list(
        &self,
        _: Request<pb::ListCheckpointsRequest>,
    ) -> Result<Response<pb::ListCheckpointsResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }

    async fn verify(
        &self,
        _: Request<pb::VerifyCheckpointsRequest>,
    ) -> Result<Response<pb::VerifyCheckpointsResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }

    async fn delete(
        &self,
        _: Request<pb::DeleteCheckpointRequest>,
    ) -> Result<Response<pb::DeleteCheckpointResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }
}

struct Bench {
    served: Served,
    context: Context,
    control: Control,
    progress: Progress,
    peers: Peers,
    _channels: watch::Sender<Option<tonic::transport::Channel>>,
}

impl Bench {
    fn new(statuses: impl IntoIterator<Item = Status>) -> Self {
        collect_log();
        let peers = peers(1);
        let served = Served(Arc::new(Mutex::new(statuses.into_iter().collect())));
        let server = Server::builder().add_service(CheckpointsServer::new(served.clone()));
        let channel = peers.runtime.block_on(serve(server));
        let (channels, newest) = watch::channel(Some(channel));
        let make: MakeDevice =
            Box::new(|_, layout, _| Box::new(Pretending::new(layout, &Manner::default())));
        let context = Context {
            traces: fovea_traces::Traces::default(),
            hits: crate::hits::CacheHits::default(),
            worker: WorkerId::new("w").unwrap(),
            config: Arc::new(WorkerConfig::default()),
            mesh: peers.meshes[0].clone(),
            device: DeviceThread::start(tch::Device::Cpu, no_fingerprint().machine(), make, None)
                .unwrap(),
            coordinator: Coordinator(newest),
        };
        Self {
            served,
            context,
            control: Control::default(),
            progress: Progress::default(),
            peers,
            _channels: channels,
        }
    }

    /// As the device's thread fetches it.
    fn fetch(&self) -> Result<Vec<u8>, FetchError> {
        let info = CheckpointInfo {
            step: 3,
            bytes: BYTES.len() as u64,
            sha256: hex::encode(Sha256::digest(BYTES)),
            generation: 1,
            stored_at_ms: 0,
            lineage: 0,
            fingerprint: no_fingerprint(),
        };
        let _inside = self.peers.runtime.enter();
        let run = RunId::new("r-1").unwrap();
        let (control, progress) = (self.control.clone(), self.progress.clone());
        let fetch = fetcher(&self.context, run, info, control, progress);
        std::thread::spawn(fetch).join().unwrap()
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_now_is_asked_for_again_and_work_is_shown() {
    let unreadable = || Status::unavailable("step-3.safetensors cannot be read: EIO");
    let bench = Bench::new([unreadable(), unreadable()]);
    assert_eq!(bench.fetch().unwrap(), BYTES);
    assert!(bench.progress.ticks() >= 2);
    assert!(logged("checkpoint.unreadable: "));
}

#[test]
fn a_corrupt_checkpoint_blocks_and_another_refusal_interrupts() {
    let bench = Bench::new([
        Status::data_loss("step-3.safetensors is corrupt: verify it"),
        Status::failed_precondition("the generation is over"),
    ]);
    let error = bench.fetch().unwrap_err();
    let FetchError::Blocked(reason) = error else {
        panic!("not blocked: {error}");
    };
    assert!(reason.contains("checkpoint 3 of run r-1"), "{reason}");
    assert!(reason.contains("is corrupt: verify it"), "{reason}");
    assert!(matches!(bench.fetch(), Err(FetchError::Failed(_))));
    assert_eq!(bench.fetch().unwrap(), BYTES);
}

#[test]
fn a_checkpoint_that_stays_unreadable_does_not_hold_an_abort() {
    let bench = Bench::new((0..1000).map(|_| Status::unavailable("it cannot be read")));
    let (control, served) = (bench.control.clone(), bench.served.clone());
    let aborter = std::thread::spawn(move || {
        while served.0.lock().unwrap().len() > 998 {
            std::thread::sleep(Duration::from_millis(1));
        }
        control.abort();
    });
    assert!(matches!(bench.fetch(), Err(FetchError::Cancelled)));
    aborter.join().unwrap();
}

#[test]
fn no_path_that_a_run_names_is_opened() {
    let bench = Bench::new([]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.caffemodel");
    std::fs::write(&path, "it is here, and readable").unwrap();
    let mut spec = crate::testing::spec("");
    spec.model.weights = path.to_str().unwrap().to_owned();
    let _inside = bench.peers.runtime.enter();
    let (control, progress) = (bench.control.clone(), bench.progress.clone());
    let mut fetch = weights_fetcher(&bench.context, &spec, control, progress);
    let error = std::thread::spawn(move || fetch().unwrap_err())
        .join()
        .unwrap();
    let command = format!("`fovea weights add {}`", path.display());
    assert!(
        matches!(&error, FetchError::Blocked(text) if text.contains(&command)),
        "{error}"
    );
}

#[test]
fn weights_that_are_not_needed_any_more_are_not_waited_for() {
    let bench = Bench::new([]);
    let mut spec = crate::testing::spec("");
    spec.model.weights = "w".to_owned();
    let _inside = bench.peers.runtime.enter();
    let (control, progress) = (bench.control.clone(), bench.progress.clone());
    let mut fetch = weights_fetcher(&bench.context, &spec, control, progress);
    bench.control.abort();
    let fetched = std::thread::spawn(move || fetch().unwrap_err())
        .join()
        .unwrap();
    assert!(matches!(fetched, FetchError::Cancelled), "{fetched}");
}
