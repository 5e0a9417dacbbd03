//! What a collector gets of a real cluster: the spans of formations, checkpoints, evaluations and a recovery, with the workers'
//! parts in them; none of a step. A collector that hangs changes nothing.

#[path = "../../../traces/testing/receiver.rs"]
mod receiver;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_tests::launch::CoordinatorOptions;
use fovea_tests::{Cluster, synthetic_dataset, tensors};
use fovea_traces::names;
use receiver::{Received, Receiver};

fn spec(name: &str, epochs: u32, workers: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        train: Some(pb::TrainSpec {
            epochs: Some(epochs),
            virtual_ranks: Some(2),
            batch: Some(3),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(workers),
            max: Some(2),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            every_steps: Some(3),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The spans of this name and of this run.
fn of<'a>(spans: &'a [Received], name: &str, run: &str) -> Vec<&'a Received> {
    let wanted = |s: &&Received| s.span.name == name && s.get(names::RUN) == run;
    spans.iter().filter(wanted).collect()
}

/// Those that are parts of `whole`.
fn parts<'a>(spans: &'a [Received], name: &str, whole: &Received) -> Vec<&'a Received> {
    let wanted = |s: &&Received| s.span.name == name && s.is_child_of(whole);
    spans.iter().filter(wanted).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_the_spans_of_a_run_and_one_that_hangs_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let prepared = synthetic_dataset(dir, 24, 64);
    let receiver = Receiver::start("127.0.0.1:0").await;
    let endpoint = format!("http://{}", receiver.address);
    let mut options = CoordinatorOptions::new(dir);
    options
        .environment
        .push(("FOVEA_OTLP_ENDPOINT".into(), endpoint.clone()));
    let mut cluster = Cluster::start_with(dir, 0, options);
    for _ in 0..2 {
        cluster.add_worker_on("cpu", &[("FOVEA_OTLP_ENDPOINT", &endpoint)]);
    }
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);

    // Without a fault: a formation of two workers, checkpoints, two evaluations.
    let calm = cluster.submit(spec("calm", 2, 2)).await;
    let done = cluster.wait_completed(&calm.id).await;
    let checkpoint = cluster.checkpoint(&calm.id, done.total_steps).await;
    let (id, last) = (calm.id.as_str(), done.total_steps.to_string());
    let spans = receiver
        .until("spans of the calm run", |spans| {
            of(spans, names::WORKER_EVALUATION, id).len() == 4
                && of(spans, names::EVALUATION, id).len() == 2
                && of(spans, names::CHECKPOINT, id)
                    .iter()
                    .any(|c| c.get(names::STEP) == last)
        })
        .await;
    let formations = of(&spans, names::FORMATION, id);
    assert_eq!(formations.len(), 1, "{formations:#?}");
    let formation = formations[0];
    assert!(formation.is_ok());
    assert_eq!(formation.service, "fovea-coordinator");
    assert_eq!(formation.get(names::REASON), "started");
    assert_eq!(formation.get(names::WORKERS), "2");
    let joined = parts(&spans, names::WORKER_FORMATION, formation);
    let workers: BTreeSet<String> = joined.iter().map(|s| s.get(names::WORKER)).collect();
    assert_eq!((joined.len(), workers.len()), (2, 2), "{joined:#?}");
    assert!(
        joined
            .iter()
            .all(|s| s.service == "fovea-worker" && s.is_ok())
    );
    // One that waits is replaced by a newer one on a slow machine; the last one never is.
    let checkpoints = of(&spans, names::CHECKPOINT, id);
    let mut stored = checkpoints.into_iter().filter(|c| c.is_ok());
    let stored = stored.find(|c| c.get(names::STEP) == last);
    let stored = stored.expect("the last checkpoint").clone();
    assert!(!stored.get(names::BYTES).is_empty());
    let spans = receiver
        .until("slices of the last checkpoint", |spans| {
            let slices = parts(spans, names::WORKER_SLICE, &stored);
            let whole = slices
                .iter()
                .filter(|slice| slice.is_ok() && !parts(spans, names::SLICE, slice).is_empty());
            whole.count() == 2
        })
        .await;
    for slice in parts(&spans, names::WORKER_SLICE, &stored) {
        assert_eq!(slice.get(names::STEP), last);
        assert_eq!(slice.span.kind, 3, "a call");
    }
    for evaluation in of(&spans, names::EVALUATION, id) {
        assert!(evaluation.is_ok() && evaluation.get(names::SAMPLES) != "0");
        let scored = parts(&spans, names::WORKER_EVALUATION, evaluation);
        assert_eq!(scored.len(), 2, "{evaluation:#?}");
    }
    assert!(of(&spans, names::RECOVERY, id).is_empty());

    // A worker is killed.
    let hurt = cluster.submit(spec("hurt", 200, 1)).await;
    let id = hurt.id.as_str();
    cluster
        .run_until(id, |run| {
            run.workers.len() == 2 && run.progress.is_some_and(|p| p.step >= 4)
        })
        .await;
    cluster.workers[1].kill();
    let spans = receiver
        .until("the recovery", |spans| {
            // The coordinator and the worker send theirs at different times.
            let formed = |recovery: &&Received| {
                let formations = parts(spans, names::FORMATION, recovery);
                formations
                    .iter()
                    .any(|formation| !parts(spans, names::WORKER_FORMATION, formation).is_empty())
            };
            of(spans, names::RECOVERY, id).iter().any(formed)
        })
        .await;
    let recoveries = of(&spans, names::RECOVERY, id);
    assert_eq!(recoveries.len(), 1, "{recoveries:#?}");
    let recovery = recoveries[0];
    assert!(recovery.is_ok(), "{recovery:#?}");
    assert_eq!(recovery.get(names::REASON), "worker_lost");
    assert!(recovery.get(names::CAUSE).contains("w1-"), "{recovery:#?}");
    let formation = parts(&spans, names::FORMATION, recovery)[0];
    assert!(formation.span.start_time_unix_nano >= recovery.span.start_time_unix_nano);
    assert!(formation.span.end_time_unix_nano <= recovery.span.end_time_unix_nano);
    let joined = parts(&spans, names::WORKER_FORMATION, formation);
    assert_eq!(joined.len(), 1, "{joined:#?}");
    let cancel = pb::CancelRequest {
        run_id: hurt.id.clone(),
    };
    let cancelled = cluster.runs().await.cancel(cancel).await;
    cancelled.expect("it can be cancelled");
    cluster.wait_end(&hurt.id).await;

    // Of nothing else there are spans, and every one names its run.
    let known: BTreeSet<&str> = names::SPANS.iter().map(|span| span.name).collect();
    for span in receiver.spans() {
        assert!(known.contains(&*span.span.name), "{span:#?}");
        let run = span.get(names::RUN);
        assert!(run == calm.id || run == hurt.id, "{span:#?}");
    }

    // The collector takes requests and never answers.
    receiver.hang();
    let again = cluster.submit(spec("again", 2, 1)).await;
    let done = cluster.wait_completed(&again.id).await;
    let without = cluster.checkpoint(&again.id, done.total_steps).await;
    assert!(tensors(&without) == tensors(&checkpoint), "other bits");
    let end = Instant::now() + Duration::from_secs(60);
    let said = |log: &str| log.matches("traces.unsent: ").count();
    while said(&cluster.coordinator.log()) == 0 {
        assert!(Instant::now() < end, "{}", cluster.coordinator.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(said(&cluster.coordinator.log()), 1);
}
