//! A run's result does not depend on who computed it: other numbers of workers, cancel and resume,
//! killed workers and a restarted coordinator all end in the same bits.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_tests::{Cluster, Process, synthetic_dataset, tensors};

/// Steps at this size are quick, and the network is the whole GoogLeNet.
const SIZE: u32 = 64;
const PATIENTS: u32 = 24;

fn spec(name: &str) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        model: None,
        train: Some(pb::TrainSpec {
            epochs: Some(3),
            virtual_ranks: Some(4),
            batch: Some(3),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        workers: None,
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            every_steps: Some(2),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn exactly(workers: u32, mut spec: pb::RunSpec) -> pb::RunSpec {
    spec.workers = Some(pb::WorkersSpec {
        min: Some(workers),
        max: Some(workers),
        ..Default::default()
    });
    spec
}

fn cluster(dir: &Path, workers: usize) -> Cluster {
    let prepared = synthetic_dataset(dir, PATIENTS, SIZE);
    let cluster = Cluster::start(dir, workers);
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
    assert_eq!(done.epochs.len(), 3);
    cluster.checkpoint(&run.id, done.total_steps).await
}

/// One undisturbed run with a single worker, and against it: 2 and 4 workers; a run that is cancelled
/// and resumed on the same workers; one whose worker is killed; one whose coordinator is restarted.
/// One test for all of it, so that the dataset is drawn and the cluster is started once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_bits_whatever_happens() {
    let (_keep, dir) = folder();
    let mut cluster = cluster(&dir, 4);
    let one = cluster.submit(exactly(1, spec("one"))).await;
    let expected = tensors(&completed(&cluster, &one).await);
    assert!(
        expected.contains_key("loss3/classifier.weight"),
        "names: {:?}",
        expected.keys().take(3).collect::<Vec<_>>()
    );

    for workers in [2, 4] {
        let run = cluster
            .submit(exactly(workers, spec(&format!("with-{workers}"))))
            .await;
        let file = completed(&cluster, &run).await;
        assert!(tensors(&file) == expected, "{workers} workers differ");
    }

    // Cancelled at a boundary with a checkpoint, then resumed.
    let run = cluster.submit(exactly(2, spec("cancelled"))).await;
    cluster.wait_step(&run.id, 3).await;
    let cancel = pb::CancelRequest {
        run_id: run.id.clone(),
    };
    cluster
        .runs()
        .await
        .cancel(cancel)
        .await
        .expect("a running run can be cancelled");
    let cancelled = cluster.wait_end(&run.id).await;
    assert_eq!(cancelled.phase(), pb::Phase::Cancelled);
    let stopped_at = cancelled.progress.expect("steps were taken").step;
    assert!(
        cancelled.checkpoints.iter().any(|c| c.step == stopped_at),
        "stopped at {stopped_at} without a checkpoint"
    );
    assert!(
        stopped_at < cancelled.total_steps,
        "it was too late to cancel"
    );
    let resume = pb::ResumeRequest {
        run_id: run.id.clone(),
        checkpoint_step: None,
    };
    cluster
        .runs()
        .await
        .resume(resume)
        .await
        .expect("a cancelled run can be resumed");
    let file = completed(&cluster, &run).await;
    assert!(tensors(&file) == expected, "the resumed run differs");

    // A worker is killed in the middle; the others go on from the newest checkpoint.
    let mut elastic = spec("killed");
    elastic.workers = Some(pb::WorkersSpec {
        min: Some(2),
        max: Some(4),
        ..Default::default()
    });
    let run = cluster.submit(elastic).await;
    cluster.wait_step(&run.id, 3).await;
    cluster.workers[3].signal(libc::SIGKILL);
    let file = completed(&cluster, &run).await;
    assert!(
        tensors(&file) == expected,
        "the run with a killed worker differs"
    );
    let got = pb::GetRunRequest {
        run_id: run.id.clone(),
    };
    let killed = cluster.runs().await.get(got).await.expect("it is there");
    assert!(killed.into_inner().generation >= 2, "nobody noticed");

    // The coordinator is asked to stop: the run is checkpointed, and goes on when it is back.
    let run = cluster.submit(exactly(2, spec("drained"))).await;
    cluster.wait_step(&run.id, 2).await;
    cluster.coordinator.signal(libc::SIGTERM);
    let status = cluster.coordinator.wait(std::time::Duration::from_secs(60));
    assert!(status.success(), "{status}: {}", cluster.coordinator.log());
    let hand_over = ("FOVEA_ON_STOP".to_owned(), "hand-over".to_owned());
    cluster.options.environment.push(hand_over);
    cluster.restart_coordinator();
    let file = completed(&cluster, &run).await;
    assert!(tensors(&file) == expected, "the drained run differs");

    // The coordinator hands over: the workers train on, and the next one adopts them.
    let run = cluster.submit(exactly(2, spec("handed-over"))).await;
    cluster.wait_step(&run.id, 2).await;
    let begun = assignments_begun(&cluster);
    let asked = Instant::now();
    cluster.coordinator.signal(libc::SIGTERM);
    let status = cluster.coordinator.wait(Duration::from_secs(60));
    let (took, log) = (asked.elapsed(), cluster.coordinator.log());
    assert!(status.success(), "{status}: {log}");
    assert!(took < Duration::from_secs(2), "it took {took:?}: {log}");
    assert!(log.contains("shutdown.handing_over: "), "{log}");
    cluster.restart_coordinator();
    let file = completed(&cluster, &run).await;
    assert!(tensors(&file) == expected, "the run handed over differs");
    let handed_over = cluster.run(&run.id).await;
    assert_eq!(handed_over.generation, 1, "{}", handed_over.reason);
    // They went on with what they had: nobody was given an assignment, and no generation formed.
    assert_eq!(assignments_begun(&cluster), begun);
    let log = cluster.coordinator.log();
    assert!(!log.contains("generation.formed: "), "{log}");
    assert!(!log.contains("worker.lost: "), "{log}");
    cluster.fovea(&["runs", "audit", &run.id]);
}

/// How often the workers have begun to prepare a generation.
fn assignments_begun(cluster: &Cluster) -> usize {
    let logs = cluster.workers.iter().map(Process::log);
    logs.map(|log| log.matches("assignment.begun: ").count())
        .sum()
}

/// Every sample is used once, the states of all workers agree, and the result is the same but for the last bits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_reduction_is_as_elastic_but_for_the_bits() {
    let (_keep, dir) = folder();
    let cluster = cluster(&dir, 2);
    let ordered = cluster.submit(exactly(2, spec("ordered"))).await;
    let ordered = tensors(&completed(&cluster, &ordered).await);
    let mut fast = spec("fast");
    if let Some(train) = &mut fast.train {
        train.reduction = Some(pb::Reduction::Fast.into());
        train.digest_every = Some(1);
    }
    fast.workers = Some(pb::WorkersSpec {
        min: Some(1),
        max: Some(2),
        ..Default::default()
    });
    let run = cluster.submit(fast).await;
    cluster.wait_step(&run.id, 4).await;
    cluster.workers[1].signal(libc::SIGKILL);
    let fast = tensors(&completed(&cluster, &run).await);
    cluster.fovea(&["runs", "audit", &run.id]);
    let notes = cluster.coordinator.log();
    assert!(!notes.contains("differ"), "states differ: {notes}");

    let floats = |bytes: &[u8]| -> Vec<f64> {
        let float = |four: &[u8]| f64::from(f32::from_le_bytes(four.try_into().expect("four")));
        bytes.chunks_exact(4).map(float).collect()
    };
    // Parameters only: velocities are sums of gradients, whose relative rounding errors are larger.
    let is_weight = |name: &str| name.ends_with(".weight") && !name.starts_with("optimizer/");
    for (name, ordered) in ordered.iter().filter(|(name, _)| is_weight(name)) {
        let (ordered, fast) = (floats(ordered), floats(&fast[name]));
        let largest = ordered.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let apart = ordered.iter().zip(&fast).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0, f64::max);
        assert!(apart < 1e-3 * largest, "{name}: {apart} of {largest}");
    }
}

/// SIGTERM to a worker: it finishes its step, its slice is in the checkpoint, it exits with 0, and the run
/// goes on with the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_asked_to_stop_leaves_at_a_step_boundary() {
    let (_keep, dir) = folder();
    let mut cluster = cluster(&dir, 2);
    let mut spec = spec("leaving");
    spec.workers = Some(pb::WorkersSpec {
        min: Some(1),
        max: Some(2),
        ..Default::default()
    });
    let run = cluster.submit(spec).await;
    cluster.wait_step(&run.id, 3).await;
    cluster.workers[0].signal(libc::SIGTERM);
    let status = cluster.workers[0].wait(std::time::Duration::from_secs(60));
    assert!(status.success(), "{status}: {}", cluster.workers[0].log());
    let done = cluster.wait_completed(&run.id).await;
    assert!(done.generation >= 2);
}
