//! Weights in the cache against a coordinator that serves them over real gRPC, with flipped bits on both sides.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pb::weights_server::{Weights, WeightsServer};
use tokio::runtime::Runtime;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::progress::Progress;
use crate::testing::{collect_log, logged, runtime, serve};

const BYTES: &[u8] = b"the weights of a network";

/// How the coordinator answers, one request after the other; at the end with the file.
#[derive(Debug, Clone)]
enum Answer {
    /// With a flipped bit, and without saying so.
    Flipped,
    Status(Status),
}

#[derive(Clone, Default)]
struct Served {
    answers: Arc<Mutex<Vec<Answer>>>,
    fetches: Arc<AtomicUsize>,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::WeightsChunk, Status>> + Send>>;

#[tonic::async_trait]
impl Weights for Served {
    type FetchStream = Chunks;

    async fn create(
        &self,
        _: Request<Streaming<pb::CreateWeightsRequest>>,
    ) -> Result<Response<pb::CreateWeightsResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }

    async fn list(
        &self,
        _: Request<pb::ListWeightsRequest>,
    ) -> Result<Response<pb::ListWeightsResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }

    async fn delete(
        &self,
        _: Request<pb::DeleteWeightsRequest>,
    ) -> Result<Response<pb::DeleteWeightsResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }

    async fn fetch(
        &self,
        request: Request<pb::FetchWeightsRequest>,
    ) -> Result<Response<Chunks>, Status> {
        assert_eq!(request.get_ref().sha256, digest());
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let mut bytes = BYTES.to_vec();
        match self.answers.lock().unwrap().pop() {
            None => {}
            Some(Answer::Flipped) => bytes[5] ^= 4,
            Some(Answer::Status(status)) => return Err(status),
        }
        let chunks: Vec<_> = bytes
            .chunks(10)
            .map(|data| {
                Ok(pb::WeightsChunk {
                    data: data.to_vec().into(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

fn digest() -> String {
    hex::encode(Sha256::digest(BYTES))
}

struct Bench {
    served: Served,
    cache: Cache,
    dir: tempfile::TempDir,
    // Dropped last.
    runtime: Runtime,
}

impl Bench {
    fn new(limit: u64) -> Self {
        collect_log();
        let runtime = runtime();
        let served = Served::default();
        let dir = tempfile::tempdir().unwrap();
        let server = Server::builder().add_service(WeightsServer::new(served.clone()));
        let channel = runtime.block_on(serve(server));
        let path = dir.path().to_owned();
        Self {
            served,
            cache: Cache::new(path, limit, channel, Progress::default()),
            dir,
            runtime,
        }
    }

    fn get(&self) -> Result<Vec<u8>, CacheError> {
        let file = self.runtime.block_on(self.cache.weights(&digest()))?;
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        Ok(bytes)
    }

    fn fetches(&self) -> usize {
        self.served.fetches.load(Ordering::SeqCst)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("weights").join(digest())
    }
}

#[test]
fn weights_are_fetched_once_and_again_when_the_disk_changed_them() {
    let bench = Bench::new(0);
    assert_eq!(bench.get().unwrap(), BYTES);
    assert_eq!(bench.get().unwrap(), BYTES);
    assert_eq!(bench.fetches(), 1);
    let mut bytes = BYTES.to_vec();
    bytes[3] ^= 1;
    std::fs::write(bench.path(), &bytes).unwrap();
    assert_eq!(bench.get().unwrap(), BYTES);
    assert_eq!(bench.fetches(), 2);
    assert!(logged("weights.corrupt"));
    let aside = bench.path().with_extension("corrupt");
    assert_eq!(std::fs::read(aside).unwrap(), bytes);
}

#[test]
fn what_arrives_damaged_is_fetched_again_but_not_for_ever() {
    let bench = Bench::new(0);
    bench.served.answers.lock().unwrap().push(Answer::Flipped);
    assert_eq!(bench.get().unwrap(), BYTES);
    assert_eq!(bench.fetches(), 2);
    std::fs::remove_file(bench.path()).unwrap();
    let flipped = vec![Answer::Flipped; 3];
    bench.served.answers.lock().unwrap().extend(flipped);
    let error = bench.get().unwrap_err();
    assert!(matches!(error, CacheError::Damaged { .. }), "{error}");
    assert!(!error.is_blocked());
    assert!(!bench.path().exists());
    let left = std::fs::read_dir(bench.dir.path().join("weights")).unwrap();
    assert_eq!(left.count(), 0, "nothing unverified stays");
}

#[test]
fn only_a_repair_at_the_coordinator_helps_where_it_has_none() {
    let bench = Bench::new(0);
    for status in [
        Status::failed_precondition("fovea weights add w.x"),
        Status::data_loss("the coordinator's copy is corrupt"),
    ] {
        let answer = Answer::Status(status.clone());
        bench.served.answers.lock().unwrap().push(answer);
        let error = bench.get().unwrap_err();
        assert!(error.is_blocked(), "{error}");
        assert!(error.to_string().contains(status.message()), "{error}");
    }
}

#[test]
fn weights_make_room_and_are_evicted_unless_they_are_open() {
    let bench = Bench::new(65 << 20);
    let dir = bench.dir.path();
    let packs = dir.join("datasets/d/packs");
    std::fs::create_dir_all(&packs).unwrap();
    let pack = std::fs::File::create(packs.join("0.pack")).unwrap();
    pack.set_len(2 << 20).unwrap();
    drop(pack);
    let file = bench
        .runtime
        .block_on(bench.cache.weights(&digest()))
        .unwrap();
    assert!(!packs.join("0.pack").exists(), "it made room");
    let room = || make_room(dir, 10, 1, None).unwrap();
    assert!(!room() && bench.path().exists(), "it is open");
    drop(file);
    assert!(room() && !bench.path().exists());
}
