//! The coordinator is asked to stop and hands its runs over: workers train on, and another coordinator takes its place.

use std::path::Path;

use fovea_coordinator::OnStop;
use fovea_proto::pb;
use pb::released::Outcome;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{Phase, Stage, spec_of};
use crate::common::*;

/// The write-ahead log was merged into the database: the next coordinator recovers nothing.
fn journal_is_whole(data: &Path) {
    let log = std::fs::metadata(data.join("journal.db-wal"));
    assert!(log.is_err(), "the log is left: {log:?}");
}

/// The session was ended as one is at a stop, and the worker was sent nothing that ends or changes its assignment.
async fn left_alone(worker: &mut Worker) {
    let (messages, end) = worker.last_messages().await;
    assert!(messages.is_empty(), "{messages:?}");
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_train_on_and_are_adopted_and_nothing_is_recovered() {
    let stage = Stage::new_with(OnStop::HandOver).await;
    let (run, at, mut watch, [mut w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    for step in 1..=3 {
        stage.step(&w0, &at, step).await;
    }
    // It has reached the coordinator; the journal need not have it yet.
    watch.until_step(3).await;
    let stage = stage.hand_over(journal_is_whole).await;
    left_alone(&mut w0).await;
    left_alone(&mut w1).await;
    drop((w0, w1));

    // The run is as it was, and all that was received is there.
    let found = stage.server.run(&run.id).await;
    assert_eq!((found.phase(), found.generation), (Phase::Running, 1));
    assert_eq!(stage.audit(&run).await.steps, 3);
    let mut w1 = Worker::rejoin(&stage.server, "w1", &at).await;
    let mut w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    for step in 4..=run.steps_per_epoch {
        stage.step(&w0, &at, step).await;
    }
    // Nothing but acknowledgements comes: no assignment, no abort.
    w0.acked_step(run.steps_per_epoch).await;
    w1.acked_step(run.steps_per_epoch).await;
    let mut watch = stage.server.watch(&run.id).await;
    for (rank, worker) in [&w0, &w1].into_iter().enumerate() {
        worker
            .scores(&at, rank as u32, 0, run.validation_samples)
            .await;
    }
    assert_eq!(watch.until_epoch(0).await.train_loss, Some(0.5));
    let run = stage.server.run(&run.id).await;
    assert_eq!((run.generation, run.phase()), (1, Phase::Running));
    let audit = stage.audit(&run).await;
    assert_eq!((audit.clean_epochs, &*audit.problems), (1, &[][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_checkpoint_is_dropped_and_taken_again() {
    let stage = Stage::new_with(OnStop::HandOver).await;
    let (run, at, _, [mut w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    stage.step(&w0, &at, 1).await;
    w0.upload(&at, 0, 1, &state(1)).await.unwrap();
    let stage = stage.hand_over(journal_is_whole).await;
    left_alone(&mut w0).await;
    left_alone(&mut w1).await;
    assert!(stage.files(&run).is_empty(), "{:?}", stage.files(&run));
    let w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    let w1 = Worker::rejoin(&stage.server, "w1", &at).await;
    stage.checkpoint(&[&w0, &w1], &at, 1, &state(1)).await;
    let run = stage.server.run(&run.id).await;
    assert_eq!((run.generation, run.checkpoints.len()), (1, 1));
}

/// What was asked for before is still asked for after.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_was_asked_for_outlives_a_hand_over() {
    let stage = Stage::new_with(OnStop::HandOver).await;
    let (run, at, _, [mut w0]) = stage.begin(spec_of(1, 1, 1), ["w0"]).await;
    stage.pause(&run).await.unwrap();
    assert_eq!(w0.stop().await.generation, 1);
    let queued = stage.server.submit(spec_of(1, 1, 1)).await.unwrap();
    let stage = stage.hand_over(journal_is_whole).await;
    left_alone(&mut w0).await;
    assert_eq!(stage.server.run(&queued.id).await.phase(), Phase::Queued);
    let mut w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    assert_eq!(w0.stop().await.generation, 1);
    w0.upload(&at, 0, 1, &state(1)).await.unwrap();
    w0.released(&at, Outcome::StoppedStep(1)).await;
    stage.server.watch(&run.id).await.until(Phase::Paused).await;
}

/// Watches end with a status that asks the client to connect again; health as a whole follows.
async fn health_follows(on_stop: OnStop) {
    let stage = Stage::new_with(on_stop).await;
    // It never lets go, so that draining takes its time.
    let (_, _, mut watch, [w0]) = stage.begin(spec_of(1, 1, 1), ["w0"]).await;
    let mut health = Vec::new();
    for service in ["", "fovea.v1.Runs", "fovea.v1.Workers"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let mut client = HealthClient::new(stage.server.channel.clone());
        let mut statuses = client.watch(request).await.unwrap().into_inner();
        let status = soon("a status", statuses.message()).await.unwrap().unwrap();
        assert_eq!(status.status(), ServingStatus::Serving, "{service:?}");
        health.push((service, statuses));
    }
    stage.server.ask_to_stop();
    for (service, statuses) in &mut health {
        let status = soon("a status", statuses.message()).await.unwrap().unwrap();
        assert_eq!(status.status(), ServingStatus::NotServing, "{service:?}");
    }
    if on_stop == OnStop::HandOver {
        let end = loop {
            match soon("the stream's end", watch.0.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended as if the run had"),
                Err(status) => break status,
            }
        };
        assert_eq!(end.code(), Code::Unavailable, "{end:?}");
        drop(health);
        stage.server.stopped().await.unwrap();
    } else {
        stage.server.kill().await;
    }
    drop(w0);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_as_a_whole_follows_a_hand_over() {
    health_follows(OnStop::HandOver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_as_a_whole_follows_draining() {
    health_follows(OnStop::Checkpoint).await;
}
