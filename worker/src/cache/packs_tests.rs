//! Packs in the cache against a coordinator that serves them over real gRPC, with flipped bits on both sides.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fovea_core::spec::Part;
use fovea_dataset::{INDEX_FILE, MANIFEST_FILE};
use fovea_proto::pb;
use pb::datasets_server::{Datasets, DatasetsServer};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::data::{DataError, LocalData};
use crate::fetch::{CacheHandle, Refetch};
use crate::link::Coordinator;
use crate::testing::{collect_log, logged, runtime, serve, tiny};

/// How the coordinator answers a request for a pack.
#[derive(Debug, Clone)]
enum Answer {
    Good,
    /// With a flipped bit, and without saying so.
    Flipped,
    Status(Status),
    /// An error at the end of all but the first.
    FirstPack,
}

#[derive(Clone)]
struct Served {
    answer: Arc<Mutex<Answer>>,
    fetches: Arc<AtomicUsize>,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::PackChunk, Status>> + Send>>;

#[tonic::async_trait]
impl Datasets for Served {
    type FetchPackStream = Chunks;

    async fn create(
        &self,
        _: Request<Streaming<pb::CreateDatasetRequest>>,
    ) -> Result<Response<pb::CreateDatasetResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }

    async fn list(
        &self,
        _: Request<pb::ListDatasetsRequest>,
    ) -> Result<Response<pb::ListDatasetsResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }

    async fn delete(
        &self,
        _: Request<pb::DeleteDatasetRequest>,
    ) -> Result<Response<pb::DeleteDatasetResponse>, Status> {
        Err(Status::unimplemented("workers do not call it"))
    }

    async fn get(
        &self,
        _: Request<pb::GetDatasetRequest>,
    ) -> Result<Response<pb::DatasetFiles>, Status> {
        let read = |name: &str| {
            std::fs::read(tiny().dataset().dir().join(name))
                .unwrap()
                .into()
        };
        Ok(Response::new(pb::DatasetFiles {
            manifest: read(MANIFEST_FILE),
            index: read(INDEX_FILE),
        }))
    }

    async fn fetch_pack(
        &self,
        request: Request<pb::FetchPackRequest>,
    ) -> Result<Response<Chunks>, Status> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let path = tiny().dataset().pack_path(request.get_ref().pack as usize);
        let mut bytes = std::fs::read(path).unwrap();
        let answer = self.answer.lock().unwrap().clone();
        let mut chunks = Vec::new();
        let mut end = None;
        match answer {
            Answer::Good => {}
            Answer::FirstPack if request.get_ref().pack == 0 => {}
            Answer::FirstPack => end = Some(Err(Status::internal("only the first"))),
            Answer::Flipped => bytes[5] ^= 4,
            Answer::Status(status) => {
                bytes.truncate(100);
                end = Some(Err(status));
            }
        }
        for data in bytes.chunks(1000) {
            chunks.push(Ok(pb::PackChunk {
                data: data.to_vec().into(),
            }));
        }
        chunks.extend(end);
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

/// A worker's cache and its coordinator.
struct Bench {
    served: Served,
    handle: CacheHandle,
    cache: Cache,
    dataset: CachedDataset,
    index: Index,
    all: BTreeSet<u32>,
    /// Packs that were not in the cache when they were needed.
    fetched: Mutex<BTreeSet<u32>>,
    dir: tempfile::TempDir,
    _channels: watch::Sender<Option<Channel>>,
    // Dropped last.
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        collect_log();
        let runtime = runtime();
        let served = Served {
            answer: Arc::new(Mutex::new(Answer::Good)),
            fetches: Arc::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let server = Server::builder().add_service(DatasetsServer::new(served.clone()));
        let channel = runtime.block_on(serve(server));
        let path = dir.path().to_owned();
        let cache = Cache::new(path.clone(), 0, channel.clone(), Progress::default());
        let digest = tiny().dataset().manifest().digest.clone();
        let (dataset, index) = runtime.block_on(cache.dataset(&digest)).unwrap();
        let (channels, newest) = watch::channel(Some(channel));
        let handle = CacheHandle {
            dir: path,
            limit: 0,
            coordinator: Coordinator(newest),
        };
        let bench = Self {
            served,
            handle,
            cache,
            all: (0..dataset.manifest.packs.len() as u32).collect(),
            fetched: Mutex::default(),
            dataset,
            index,
            dir,
            _channels: channels,
            runtime,
        };
        bench.open().unwrap();
        bench
    }

    /// All packs, from the cache or the coordinator, as training reads them.
    fn open(&self) -> Result<LocalData, CacheError> {
        let packs =
            self.runtime
                .block_on(self.cache.packs(&self.dataset, &self.all, &self.fetched))?;
        let source = Refetch {
            runtime: self.runtime.handle().clone(),
            cache: self.handle.clone(),
            dataset: self.dataset.clone(),
            progress: Progress::default(),
        };
        let size = self.dataset.manifest.image_size as usize;
        Ok(LocalData::new(
            self.index.clone(),
            Part::Validation,
            size,
            packs,
            Box::new(source),
        ))
    }

    fn answer(&self, answer: Answer) {
        *self.served.answer.lock().unwrap() = answer;
    }

    fn fetches(&self) -> usize {
        self.served.fetches.load(Ordering::SeqCst)
    }

    fn pack(&self, pack: usize) -> PathBuf {
        self.dataset
            .dir
            .join(&self.dataset.manifest.packs[pack].file)
    }

    fn sidecar(&self, pack: usize) -> PathBuf {
        fovea_dataset::Blocks::path(&self.pack(pack))
    }

    /// Every image is what the dataset has.
    fn assert_right_bits(&self, data: &LocalData) {
        let expected = tiny().data();
        for ordinal in 0..self.index.train().len() as u32 {
            let [mut a, mut b] = [0, 1].map(|_| vec![0; data.size() * data.size() * 3]);
            data.read(data.train(ordinal), &mut a).unwrap();
            expected.read(expected.train(ordinal), &mut b).unwrap();
            assert_eq!(a, b, "training image {ordinal}");
        }
    }

    fn names(&self) -> Vec<String> {
        let packs = std::fs::read_dir(self.dataset.dir.join("packs")).unwrap();
        packs
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// Flips a bit in the first record of the file.
fn flip(path: &Path, byte: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_bit_flipped_in_the_cache_before_a_run_changes_no_image() {
    let bench = Bench::new();
    let fetched = bench.fetches();
    let data = bench.open().unwrap();
    bench.assert_right_bits(&data);
    assert_eq!(bench.fetches(), fetched, "a good pack is not fetched again");
    drop(data);
    flip(&bench.pack(0), 7);
    bench.assert_right_bits(&bench.open().unwrap());
    assert_eq!(bench.fetches(), fetched + 1);
    assert!(logged("pack.corrupt: record 0 of pack 0 (packs/"));
    assert!(logged("pack.refetched: pack 0 (packs/"));
    assert!(bench.names().iter().any(|name| name.ends_with(".corrupt")));
    // The new copy is good.
    bench.assert_right_bits(&bench.open().unwrap());
    assert_eq!(bench.fetches(), fetched + 1);
}

#[test]
fn a_bit_flipped_while_a_run_reads_changes_no_image() {
    let bench = Bench::new();
    let data = bench.open().unwrap();
    bench.assert_right_bits(&data);
    let fetched = bench.fetches();
    flip(&bench.pack(0), 3071);
    bench.assert_right_bits(&data);
    assert_eq!(bench.fetches(), fetched + 1);
    // Cut off while it is read.
    let file = std::fs::File::options()
        .write(true)
        .open(bench.pack(0))
        .unwrap();
    file.set_len(10).unwrap();
    bench.assert_right_bits(&data);
    assert_eq!(bench.fetches(), fetched + 2);
}

#[test]
fn a_pack_that_another_worker_has_replaced_is_opened_and_not_fetched() {
    let bench = Bench::new();
    let data = bench.open().unwrap();
    let fetched = bench.fetches();
    let good = std::fs::read(bench.pack(0)).unwrap();
    flip(&bench.pack(0), 0);
    std::fs::remove_file(bench.pack(0)).unwrap();
    std::fs::write(bench.pack(0), good).unwrap();
    bench.assert_right_bits(&data);
    assert_eq!(bench.fetches(), fetched);
}

#[test]
fn damaged_or_missing_digests_are_made_again_from_the_verified_pack() {
    let bench = Bench::new();
    let fetched = bench.fetches();
    let good = std::fs::read(bench.sidecar(0)).unwrap();
    for byte in [0, 20, good.len() / 2, good.len() - 1] {
        flip(&bench.sidecar(0), byte);
        bench.assert_right_bits(&bench.open().unwrap());
        assert_eq!(std::fs::read(bench.sidecar(0)).unwrap(), good);
    }
    assert!(logged("pack.digests_corrupt: "));
    std::fs::remove_file(bench.sidecar(0)).unwrap();
    bench.assert_right_bits(&bench.open().unwrap());
    assert_eq!(std::fs::read(bench.sidecar(0)).unwrap(), good);
    assert_eq!(bench.fetches(), fetched);
    // With neither of them right the pack is fetched again.
    for damage in [0, 1] {
        flip(&bench.pack(0), 9);
        match damage {
            0 => std::fs::remove_file(bench.sidecar(0)).unwrap(),
            _ => flip(&bench.sidecar(0), 30),
        }
        bench.assert_right_bits(&bench.open().unwrap());
        assert_eq!(bench.fetches(), fetched + 1 + damage);
        assert_eq!(std::fs::read(bench.sidecar(0)).unwrap(), good);
    }
    // Another length.
    std::fs::write(bench.pack(0), b"short").unwrap();
    bench.assert_right_bits(&bench.open().unwrap());
    assert_eq!(bench.fetches(), fetched + 3);
}

#[test]
fn a_bad_copy_at_the_coordinator_blocks_with_its_cure() {
    let bench = Bench::new();
    let cure = "pack 0 of dataset \"tiny\" is corrupt; repair it with `fovea dataset add DIR`";
    for status in [
        Status::data_loss(cure),
        Status::unavailable(cure),
        Status::failed_precondition(cure),
    ] {
        let data = bench.open().unwrap();
        bench.answer(Answer::Status(status));
        flip(&bench.pack(0), 7);
        let mut pixels = vec![0; data.size() * data.size() * 3];
        let sample = (0..bench.index.train().len() as u32)
            .map(|ordinal| data.train(ordinal))
            .find(|sample| sample.pack == 0 && sample.record == 0)
            .unwrap();
        let error = data.read(sample, &mut pixels).unwrap_err();
        let DataError::Blocked { reason } = error else {
            panic!("not blocked: {error}");
        };
        assert!(reason.contains(cure) && reason.contains("tiny"), "{reason}");
        assert!(!reason.contains("tmp"), "{reason}");
        // When the next assignment comes it is still so.
        let error = bench.open().err().unwrap();
        assert!(error.is_blocked(), "{error}");
        let refusal = crate::fetch::Refusal::from(error);
        assert!(matches!(refusal, crate::fetch::Refusal::Blocked(_)));
        bench.answer(Answer::Good);
        bench.assert_right_bits(&bench.open().unwrap());
    }
    let leftover = bench.names().into_iter().find(|name| name.contains("tmp"));
    assert_eq!(leftover, None);
}

#[test]
fn what_arrives_damaged_is_fetched_again_and_never_kept() {
    let bench = Bench::new();
    let fetched = bench.fetches();
    std::fs::remove_file(bench.pack(0)).unwrap();
    bench.answer(Answer::Flipped);
    let error = bench.open().err().unwrap();
    assert!(matches!(error, CacheError::Damaged { .. }), "{error}");
    assert!(!error.is_blocked() && !error.is_away());
    assert_eq!(bench.fetches(), fetched + 3);
    assert!(!bench.pack(0).exists());
    bench.answer(Answer::Good);
    bench.assert_right_bits(&bench.open().unwrap());
}

#[test]
fn a_replacement_ends_when_it_is_cancelled() {
    let bench = Bench::new();
    let data = bench.open().unwrap();
    // Away: it would be tried for ever.
    bench.answer(Answer::Status(Status::unavailable(
        "the coordinator is shutting down; try again when it is back",
    )));
    flip(&bench.pack(0), 7);
    let cancel = data.canceller();
    let fetched = bench.fetches();
    let served = bench.served.clone();
    let canceller = std::thread::spawn(move || {
        while served.fetches.load(Ordering::SeqCst) < fetched + 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        cancel.cancel();
    });
    let mut pixels = vec![0; data.size() * data.size() * 3];
    let sample = (0..bench.index.train().len() as u32)
        .map(|ordinal| data.train(ordinal))
        .find(|sample| sample.pack == 0 && sample.record == 0)
        .unwrap();
    let error = data.read(sample, &mut pixels).unwrap_err();
    assert!(matches!(error, DataError::Cancelled), "{error}");
    canceller.join().unwrap();
}

#[test]
fn a_pack_is_a_miss_if_it_was_fetched_for_this_use_also_when_a_later_one_fails() {
    let bench = Bench::new();
    let fetched = || std::mem::take(&mut *bench.fetched.lock().unwrap());
    assert_eq!(fetched(), bench.all);
    bench.open().unwrap();
    assert_eq!(fetched(), BTreeSet::new());
    let last = *bench.all.last().unwrap();
    assert!(last > 0);
    for pack in [0, last] {
        std::fs::remove_file(bench.pack(pack as usize)).unwrap();
    }
    bench.answer(Answer::FirstPack);
    assert!(bench.open().is_err());
    assert_eq!(*bench.fetched.lock().unwrap(), BTreeSet::from([0]));
    bench.answer(Answer::Good);
    bench.open().unwrap();
    assert_eq!(fetched(), BTreeSet::from([0, last]));
}

#[test]
fn packs_in_use_exceed_the_limit_and_others_are_evicted_and_not_fetched_ahead() {
    let bench = Bench::new();
    let packs = bench.dataset.manifest.packs.len();
    let held = BTreeSet::from([0]);
    let small = Cache {
        limit: bench.dataset.manifest.packs[0].bytes / 2,
        ..bench.cache.clone()
    };
    let open = bench
        .runtime
        .block_on(small.packs(&bench.dataset, &held, &bench.fetched))
        .unwrap();
    std::fs::remove_file(bench.pack(packs - 1)).unwrap();
    let ahead = small.prefetch(&bench.dataset, packs as u32 - 1);
    assert!(!bench.runtime.block_on(ahead).unwrap());
    assert!(bench.pack(0).exists(), "in use");
    assert!(!bench.pack(packs - 1).exists());
    drop(open);
    assert!(bench.dir.path().exists());
}

#[test]
fn only_its_owner_can_read_the_cache() {
    let bench = Bench::new();
    let mut folders = vec![bench.dir.path().join("datasets")];
    let (mut folder_count, mut files) = (0, 0);
    while let Some(folder) = folders.pop() {
        folder_count += 1;
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    files += 1;
                    assert_eq!(mode(&path), 0o600, "{}", path.display());
                }
            }
        }
    }
    // The dataset's, and its packs'; manifest and index, packs and their digests.
    assert_eq!(folder_count, 3);
    assert_eq!(files, 2 + 2 * bench.all.len());
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
