//! The queue of a team: a run of higher priority takes workers from lower ones, which lose neither a step nor a bit; two runs do not
//! take turns; quotas hold; a run whose workers all died with the coordinator goes on before those that were behind it.

use std::path::Path;

use fovea_proto::pb;
use fovea_tests::launch::CoordinatorOptions;
use fovea_tests::{Cluster, all_before_the_last_module, synthetic_dataset, tensors};

const SIZE: u32 = 64;
const PATIENTS: u32 = 24;
/// How often the low run is displaced.
const TIMES: usize = 20;

fn spec(name: &str, priority: pb::Priority, (min, max): (u32, u32), epochs: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(3),
        priority: Some(priority.into()),
        model: Some(pb::ModelSpec {
            frozen: Some(all_before_the_last_module()),
            ..Default::default()
        }),
        train: Some(pb::TrainSpec {
            epochs: Some(epochs),
            virtual_ranks: Some(2),
            batch: Some(4),
            learning_rate: Some(0.0001),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(min),
            max: Some(max),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn start(dir: &Path, workers: usize, min_hold_s: u32, grace_ms: u32) -> Cluster {
    let mut options = CoordinatorOptions::new(dir);
    options.environment.extend([
        ("FOVEA_MIN_HOLD_S".into(), min_hold_s.to_string()),
        ("FOVEA_FORMING_GRACE_MS".into(), grace_ms.to_string()),
    ]);
    let cluster = Cluster::start_with(dir, workers, options);
    let prepared = synthetic_dataset(dir, PATIENTS, SIZE);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    cluster
}

fn clean(cluster: &Cluster, run: &pb::Run) {
    let audit = cluster.fovea(&["runs", "audit", &run.id]);
    let epochs = run.epochs.len();
    assert!(
        audit.contains(&format!("{epochs} clean of {epochs} begun")),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_displaced_again_and_again_loses_nothing() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let cluster = start(keep.path(), 2, 0, 0);
    let low = spec("low", pb::Priority::Low, (1, 2), 40);
    let alone = cluster.submit(low.clone()).await;
    let alone = cluster.wait_completed(&alone.id).await;
    let expected = tensors(&cluster.checkpoint(&alone.id, alone.total_steps).await);

    let disturbed = cluster.submit(low).await;
    let mut step = 1;
    for time in 0..TIMES {
        cluster.wait_step(&disturbed.id, step).await;
        // In turn all of its workers and one of them.
        let workers = if time % 2 == 0 { 2 } else { 1 };
        let name = format!("high-{time}");
        let high = spec(&name, pb::Priority::High, (workers, workers), 1);
        let high = cluster.submit(high).await;
        cluster.wait_completed(&high.id).await;
        let run = cluster.run(&disturbed.id).await;
        assert_ne!(run.phase(), pb::Phase::Completed, "it ended before {name}");
        step = run.progress.map_or(0, |progress| progress.step) + 1;
    }
    let run = cluster.wait_completed(&disturbed.id).await;
    assert!(run.generation as usize > TIMES, "{}", run.generation);
    assert!(
        tensors(&cluster.checkpoint(&run.id, run.total_steps).await) == expected,
        "other bits"
    );
    clean(&cluster, &run);
    assert_eq!(run.epochs, alone.epochs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_got_its_workers_back_keeps_them_for_a_while() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = start(keep.path(), 0, 6, 500);
    // Nobody works yet: the queue is shown in its order.
    let mut ids = Vec::new();
    for (name, priority, epochs) in [
        ("low", pb::Priority::Low, 60),
        ("normal", pb::Priority::Normal, 1),
        ("high", pb::Priority::High, 1),
    ] {
        ids.push(
            cluster
                .submit(spec(name, priority, (1, 2), epochs))
                .await
                .id,
        );
    }
    let [low, normal, high] = &ids[..] else {
        unreachable!()
    };
    let queue = cluster.fovea(&["queue"]);
    let at = |id: &str| queue.find(id).unwrap_or_else(|| panic!("{id}: {queue}"));
    assert!(at(high) < at(normal) && at(normal) < at(low), "{queue}");
    cluster.add_worker();
    // A worker is free a moment before its run has ended: the last checkpoint is verified meanwhile.
    let mut before = 0;
    for id in [high, normal] {
        let run = cluster.wait_completed(id).await;
        assert!(run.began_at_ms > before && run.generation == 1, "{run:?}");
        before = run.began_at_ms;
    }
    let began = cluster.run_until(low, |run| run.began_at_ms > 0).await;
    assert!(began.began_at_ms > before, "{began:?}");

    cluster.wait_step(low, 1).await;
    let before = cluster.run(low).await.generation;
    let first = cluster
        .submit(spec("first", pb::Priority::Normal, (1, 1), 1))
        .await;
    let first = cluster.wait_completed(&first.id).await;
    cluster.run_until(low, |run| run.generation > before).await;
    // Now it is the other's turn for a while.
    let second = cluster
        .submit(spec("second", pb::Priority::High, (1, 1), 1))
        .await;
    let queue = cluster.fovea_until(&["queue"], |queue| queue.contains("keeps those"));
    assert!(queue.contains(&second.id), "{queue}");
    let second = cluster.wait_completed(&second.id).await;
    let waited = second.began_at_ms.saturating_sub(first.ended_at_ms);
    assert!(waited >= 5_000, "it began after {waited} ms");
    let low = cluster.wait_completed(low).await;
    clean(&cluster, &low);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persons_runs_have_no_more_workers_than_the_quota_allows() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = Cluster::start_secure(keep.path(), 2);
    let quota = ("FOVEA_QUOTA_WORKERS".into(), "1".into());
    cluster.options.environment.push(quota);
    cluster.coordinator.kill();
    cluster.restart_coordinator();
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    // It would take both workers.
    let long = cluster
        .submit(spec("long", pb::Priority::Normal, (1, 2), 20))
        .await;
    cluster.wait_step(&long.id, 1).await;
    let next = cluster
        .submit(spec("next", pb::Priority::Normal, (1, 1), 1))
        .await;
    let queue = cluster.fovea_until(&["queue"], |queue| queue.contains("at a time"));
    assert!(queue.contains("have 1 of the 1"), "{queue}");
    let large = cluster
        .submit(spec("large", pb::Priority::Normal, (2, 2), 1))
        .await;
    cluster.fovea_until(&["queue"], |queue| queue.contains(&large.id));
    let long = cluster.wait_completed(&long.id).await;
    assert_eq!(long.most_workers, 1);
    cluster.wait_completed(&next.id).await;
    let queue = cluster.fovea(&["queue"]);
    assert!(queue.contains(&large.id), "{queue}");
}

/// As after a power cut: other processes come in the place of all that were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_lost_all_its_workers_with_the_coordinator_is_not_overtaken() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = start(keep.path(), 2, 0, 200);
    let first = cluster
        .submit(spec("first", pb::Priority::Normal, (1, 2), 12))
        .await;
    cluster.wait_step(&first.id, 2).await;
    let next = cluster
        .submit(spec("next", pb::Priority::Normal, (1, 2), 1))
        .await;
    cluster.coordinator.kill();
    for mut worker in std::mem::take(&mut cluster.workers) {
        worker.kill();
    }
    cluster.restart_coordinator();
    cluster.add_worker();
    cluster.add_worker();
    let workers = cluster.fovea_until(&["workers"], |text| text.contains("kept for"));
    assert!(
        workers.contains(&format!("kept for {}", first.id)),
        "{workers}"
    );
    cluster.run_until(&next.id, |run| run.generation > 0).await;
    // Its workers may be free before its last checkpoint is stored.
    let shown = cluster.run(&first.id).await;
    let step = shown.progress.map_or(0, |progress| progress.step);
    assert_eq!(step, shown.total_steps, "it was overtaken");
    let first = cluster.wait_completed(&first.id).await;
    clean(&cluster, &first);
    cluster.wait_completed(&next.id).await;
}
