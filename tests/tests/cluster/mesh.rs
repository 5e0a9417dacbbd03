//! The workers' connections with each other: many workers in one run, and a checkpoint that one reads for all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fovea_core::roster::MOST_TESTED_WORKERS;
use fovea_proto::pb;
use fovea_tests::faults::Proxy;
use fovea_tests::launch::CoordinatorOptions;
use fovea_tests::{Cluster, Process, synthetic_dataset, tensors};

/// Steps at this size are quick, and the network is the whole GoogLeNet.
const SIZE: u32 = 64;
/// More than the workers' packs and messages, less than a checkpoint.
const HALFWAY: u64 = 16 << 20;
const DEADLINE: Duration = Duration::from_secs(120);

fn spec(name: &str, virtual_ranks: u32, epochs: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        model: None,
        train: Some(pb::TrainSpec {
            epochs: Some(epochs),
            virtual_ranks: Some(virtual_ranks),
            batch: Some(2),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        workers: None,
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn workers(min: u32, max: u32, mut spec: pb::RunSpec) -> pb::RunSpec {
    spec.workers = Some(pb::WorkersSpec {
        min: Some(min),
        max: Some(max),
        ..Default::default()
    });
    spec
}

fn cluster(dir: &Path, patients: u32, workers: usize) -> Cluster {
    let prepared = synthetic_dataset(dir, patients, SIZE);
    let mut options = CoordinatorOptions::new(dir);
    // On a few cores each of many processes waits long for its turn, and is no lost worker.
    let patience = ("FOVEA_TIMEOUT_MS".to_owned(), "20000".to_owned());
    options.environment.push(patience);
    let cluster = Cluster::start_with(dir, workers, options);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    cluster
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().to_owned();
    (dir, path)
}

async fn completed(cluster: &Cluster, run: &pb::Run) -> Vec<u8> {
    let done = cluster.wait_completed(&run.id).await;
    cluster.checkpoint(&run.id, done.total_steps).await
}

/// How often the workers have logged `event`.
fn logged(cluster: &Cluster, event: &str) -> usize {
    let logs = cluster.workers.iter().map(Process::log);
    logs.map(|log| log.matches(event).count()).sum()
}

/// As many worker processes as a run may have without a remark; they end with the bits of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_workers_end_with_the_bits_of_one() {
    let many = MOST_TESTED_WORKERS;
    let (_keep, dir) = folder();
    let cluster = cluster(&dir, many + many / 2, many as usize);
    let run = cluster
        .submit(workers(many, many, spec("many", many, 1)))
        .await;
    let found = tensors(&completed(&cluster, &run).await);
    // Every worker was there to the end.
    assert_eq!(
        logged(&cluster, "checkpoint.slice_uploaded: "),
        many as usize
    );
    cluster.fovea(&["runs", "audit", &run.id]);
    let alone = cluster.submit(workers(1, 1, spec("alone", many, 1))).await;
    let expected = tensors(&completed(&cluster, &alone).await);
    assert!(found == expected, "{many} workers differ from one");
}

/// Both who submits and the coordinator's log say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_workers_than_were_tested_are_remarked() {
    let (_keep, dir) = folder();
    let cluster = cluster(&dir, 60, 0);
    let file = dir.join("run.toml");
    for (ranks, remarked) in [
        (MOST_TESTED_WORKERS, false),
        (MOST_TESTED_WORKERS + 1, true),
    ] {
        let text = format!(
            "name = 'with-{ranks}'\ndataset = 'synthetic'\n[train]\nbatch = 1\nvirtual_ranks = {ranks}\n"
        );
        std::fs::write(&file, text).expect("the run file can be written");
        let output = cluster.try_fovea(&["submit", file.to_str().expect("UTF-8")]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        let remark = format!("up to {ranks} workers may train this run");
        assert_eq!(text.contains(&remark), remarked, "{text}");
        let log = cluster.coordinator.log();
        assert_eq!(log.contains("run.size_untested: "), remarked, "{log}");
        assert_eq!(log.contains(&remark), remarked, "{log}");
    }
}

/// New workers resume a run. One of them downloads the checkpoint; it is killed half-way, another downloads it, and the
/// rest get it from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_downloads_the_checkpoint_and_another_if_it_dies() {
    let (_keep, dir) = folder();
    let mut cluster = cluster(&dir, 24, 2);
    let run = cluster.submit(workers(1, 1, spec("one", 4, 3))).await;
    let expected = tensors(&completed(&cluster, &run).await);

    let run = cluster.submit(workers(3, 4, spec("handed-on", 4, 3))).await;
    cluster.add_worker();
    cluster.wait_step(&run.id, 2).await;
    let mut runs = cluster.runs().await;
    let request = pb::PauseRequest {
        run_id: run.id.clone(),
    };
    runs.pause(request).await.expect("it can be paused");
    let is_paused = |run: &pb::Run| run.phase() == pb::Phase::Paused;
    let paused = cluster.run_until(&run.id, is_paused).await;
    let step = paused.progress.expect("steps were taken").step;
    assert!(step < paused.total_steps, "it was too late to pause");
    cluster.workers.clear();

    let proxy = Proxy::holding_after(cluster.address(), HALFWAY).await;
    let proxy = proxy.expect("a port is free");
    for _ in 0..4 {
        cluster.add_worker_through(proxy.address());
    }
    let request = pb::ResumeRequest {
        run_id: run.id.clone(),
        checkpoint_step: None,
    };
    runs.resume(request).await.expect("it can be resumed");
    proxy.holds(DEADLINE).await;
    let reads = |worker: &Process| worker.log().contains("checkpoint.fetching: ");
    let readers: Vec<usize> = (0..4).filter(|&i| reads(&cluster.workers[i])).collect();
    assert_eq!(readers.len(), 1, "several download it: {readers:?}");
    assert_eq!(logged(&cluster, "state.handed_on: "), 0);
    cluster.workers[readers[0]].kill();

    let found = tensors(&completed(&cluster, &run).await);
    assert!(found == expected, "the run that was handed on differs");
    assert_eq!(logged(&cluster, "checkpoint.fetching: "), 2);
    assert_eq!(logged(&cluster, "state.handed_on: "), 1);
    cluster.fovea(&["runs", "audit", &run.id]);
}
