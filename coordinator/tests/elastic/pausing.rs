//! Pausing and resuming, over the wire.

use fovea_proto::pb;
use pb::released::Outcome;
use tonic::Code;

use super::{Phase, Stage, form, gather, ids_of, spec_of};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_checkpoints_and_a_resume_takes_as_many_workers_as_there_are() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0]) = stage.begin(spec_of(3, 1, 3), ["w0"]).await;
    refused(
        stage.resume(&run, None).await,
        Code::FailedPrecondition,
        "running",
    );
    stage.step(&w0, &at, 1).await;
    let pausing = stage.pause(&run).await.unwrap();
    assert_eq!(pausing.phase(), Phase::Running);
    assert!(pausing.reason.contains("paused"), "{}", pausing.reason);
    assert_eq!(w0.stop().await.generation, 1);
    // It takes one more step before the boundary.
    stage.step(&w0, &at, 2).await;
    w0.upload(&at, 0, 2, &state(1)).await.unwrap();
    w0.released(&at, Outcome::StoppedStep(2)).await;
    let paused = watch.until(Phase::Paused).await;
    assert_eq!(paused.checkpoints.len(), 1);
    assert_eq!(paused.workers, [""; 0]);
    refused(
        stage.pause(&run).await,
        Code::FailedPrecondition,
        "is paused",
    );
    refused(stage.resume(&run, Some(1)).await, Code::NotFound, "step 1");

    // New workers do not wake it.
    let [mut w1, mut w2] = [stage.join("w1").await, stage.join("w2").await];
    assert_eq!(stage.server.run(&run.id).await.phase(), Phase::Paused);
    stage.resume(&run, None).await.unwrap();
    let next = form(&mut [&mut w0, &mut w1, &mut w2]).await;
    assert_eq!((next.generation, next.start_step), (2, 2));
    assert_eq!(ids_of(&next), ["w0", "w1", "w2"]);
    // A watch goes on over a pause: it is no end.
    watch.until_in(Phase::Running, 2).await;
    stage.step(&w0, &next, 3).await;
    watch.until_step(3).await;

    // Paused again, then cancelled; then it can still be resumed, from a chosen checkpoint.
    stage.pause(&run).await.unwrap();
    for (rank, worker) in [&mut w0, &mut w1, &mut w2].into_iter().enumerate() {
        worker.stop().await;
        worker.upload(&next, rank, 3, &state(2)).await.unwrap();
        worker.released(&next, Outcome::StoppedStep(3)).await;
    }
    watch.until(Phase::Paused).await;
    assert_eq!(stage.cancel(&run).await.unwrap().phase(), Phase::Cancelled);
    refused(
        stage.pause(&run).await,
        Code::FailedPrecondition,
        "is cancelled",
    );
    refused(
        stage.cancel(&run).await,
        Code::FailedPrecondition,
        "already cancelled",
    );
    stage.resume(&run, Some(2)).await.unwrap();
    let third = gather(&mut [&mut w0, &mut w1, &mut w2]).await;
    assert_eq!((third.generation, third.start_step), (3, 2));
    assert_eq!(third.lineage, at.lineage + 1, "later states are void");
    assert_eq!(stage.audit(&run).await.steps, 2);
    let unknown = pb::Run {
        id: "r-9".into(),
        ..Default::default()
    };
    refused(stage.pause(&unknown).await, Code::NotFound, "r-9");
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_and_forming_runs_pause_at_once_and_a_later_wish_counts() {
    let stage = Stage::new().await;
    let run = stage.server.submit(spec_of(2, 1, 2)).await.unwrap();
    assert_eq!(stage.pause(&run).await.unwrap().phase(), Phase::Paused);
    let mut w0 = stage.join("w0").await;
    // It starts when it is resumed and not before.
    let other = stage.server.submit(spec_of(1, 1, 1)).await.unwrap();
    let theirs = w0.assignment().await;
    assert_eq!(theirs.run_id, other.id);
    stage.cancel(&other).await.unwrap();
    assert_eq!(w0.abort().await.run_id, other.id);
    w0.aborted(&theirs).await;
    stage.resume(&run, None).await.unwrap();
    let at = w0.assignment().await;
    assert_eq!((&*at.run_id, at.generation), (&*run.id, 1));

    // Forming: nothing is lost by letting go.
    assert_eq!(stage.pause(&run).await.unwrap().phase(), Phase::Paused);
    assert_eq!(w0.abort().await.generation, 1);
    w0.aborted(&at).await;
    stage.resume(&run, None).await.unwrap();
    let at = form(&mut [&mut w0]).await;
    let mut watch = stage.server.watch(&run.id).await;
    watch.until_in(Phase::Running, 2).await;

    // A pause while a cancel is under way.
    stage.cancel(&run).await.unwrap();
    w0.stop().await;
    stage.pause(&run).await.unwrap();
    w0.stop().await;
    w0.upload(&at, 0, 1, &state(1)).await.unwrap();
    w0.released(&at, Outcome::StoppedStep(1)).await;
    watch.until(Phase::Paused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_lost_while_pausing_does_not_undo_the_pause() {
    let stage = Stage::new().await;
    let (run, _, mut watch, [mut w0, w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    stage.pause(&run).await.unwrap();
    w0.stop().await;
    drop(w1);
    let next = form(&mut [&mut w0]).await;
    assert_eq!(next.generation, 2);
    // As soon as it runs, it is asked again to stop.
    assert_eq!(w0.stop().await.generation, 2);
    w0.upload(&next, 0, 1, &state(1)).await.unwrap();
    w0.released(&next, Outcome::StoppedStep(1)).await;
    watch.until(Phase::Paused).await;
}
