//! The coordinator is killed while workers train, and another one takes its place.

use fovea_proto::pb;
use pb::released::Outcome;

use super::{Phase, Stage, form, gather, ids_of, spec_of};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_trained_on_are_adopted_and_no_step_is_lost_or_there_twice() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0, w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    for step in 1..=2 {
        stage.step(&w0, &at, step).await;
    }
    w0.acked_step(2).await;
    // The coordinator receives a third step and is killed; two more are taken while it is away.
    stage.step(&w0, &at, 3).await;
    watch.until_step(3).await;
    let stage = stage.restart().await;
    assert!(
        !w0.try_send(committed(&at, report(4))).await || w0.end().await.code() != tonic::Code::Ok
    );
    drop((w0, w1));
    let found = stage.server.run(&run.id).await;
    assert_eq!((found.phase(), found.generation), (Phase::Running, 1));
    // Nobody is connected, and people read that.
    let waits =
        "recovering after the coordinator's restart: 2 of 2 workers are not back yet (w0 w1)";
    assert_eq!(found.reason, waits);
    assert!(
        stage.audit(&run).await.steps >= 2,
        "what was acknowledged is there"
    );

    let mut w1 = Worker::rejoin(&stage.server, "w1", &at).await;
    let until = async |reads: &dyn Fn(&str) -> bool| {
        let reads = |run: &pb::Run| reads(&run.reason);
        stage.server.run_when(&run.id, "the reason", reads).await
    };
    let told = until(&|reason| reason.contains("1 of 2 workers are not back yet (w0)")).await;
    assert_eq!(told.phase(), Phase::Running);
    let mut w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    until(&str::is_empty).await;
    for step in 3..=5 {
        stage.step(&w0, &at, step).await;
    }
    // Nothing but acknowledgements comes: no assignment, no abort.
    w0.acked_step(5).await;
    w1.acked_step(5).await;
    let mut watch = stage.server.watch(&run.id).await;
    for step in 6..=run.steps_per_epoch {
        stage.step(&w0, &at, step).await;
    }
    for (rank, worker) in [&w0, &w1].into_iter().enumerate() {
        worker
            .scores(&at, rank as u32, 0, run.validation_samples)
            .await;
    }
    let result = watch.until_epoch(0).await;
    // The losses of the whole epoch are known, those from before the restart too.
    assert_eq!(result.train_loss, Some(0.5));
    let run = stage.server.run(&run.id).await;
    assert_eq!((run.generation, run.phase()), (1, Phase::Running));
    let audit = stage.audit(&run).await;
    assert_eq!(
        (audit.steps, &*audit.problems),
        (run.steps_per_epoch, &[][..])
    );
    assert_eq!(
        (audit.clean_epochs, audit.samples_used),
        (1, run.train_samples)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_back_without_its_part_is_left_out() {
    let stage = Stage::new().await;
    let (run, at, _, workers) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    stage.step(&workers[0], &at, 1).await;
    let stage = stage.restart().await;
    drop(workers);
    let mut w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    let mut w1 = stage.join("w1").await;
    let next = gather(&mut [&mut w0]).await;
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w0"]));
    let reason = stage.server.run(&run.id).await.reason;
    assert!(reason.contains("w1 came back without"), "{reason}");
    stage.step(&w0, &next, 1).await;
    w0.ready_at(&next, 1, 'a').await;
    // Then it may join like any other.
    assert_eq!(w1.prepare().await.run_id, run.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_waited_for_when_one_without_it_comes_first() {
    let stage = Stage::new().await;
    let (run, at, _, workers) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    stage.step(&workers[0], &at, 1).await;
    let stage = stage.restart().await;
    drop(workers);
    let _w1 = stage.join("w1").await;
    let mut w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    let next = gather(&mut [&mut w0]).await;
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w0"]));
    let run = stage.server.run(&run.id).await;
    assert!(
        run.reason.contains("w1 came back without"),
        "{}",
        run.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_comes_back_is_left_out_in_the_end() {
    let stage = Stage::new().await;
    let (run, at, _, workers) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    let stage = stage.restart().await;
    drop(workers);
    let mut w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    // Meanwhile the run is what it was, and goes on as far as it can.
    stage.step(&w0, &at, 1).await;
    w0.acked_step(1).await;
    let next = gather(&mut [&mut w0]).await;
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w0"]));
    let reason = stage.server.run(&run.id).await.reason;
    assert!(reason.contains("w1 did not come back"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_formed_goes_on_forming() {
    let stage = Stage::new().await;
    let [mut w0, mut w1] = [stage.join("w0").await, stage.join("w1").await];
    let run = stage.server.submit(spec_of(2, 1, 2)).await.unwrap();
    let at = gather(&mut [&mut w0, &mut w1]).await;
    w0.ready(&at).await;
    let stage = stage.restart().await;
    drop((w0, w1));
    let w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    let w1 = Worker::rejoin(&stage.server, "w1", &at).await;
    let mut watch = stage.server.watch(&run.id).await;
    watch.until_in(Phase::Forming, 1).await;
    // Who was ready is not in the journal: both report it again.
    w1.ready(&at).await;
    w0.ready(&at).await;
    watch.until_in(Phase::Running, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_was_asked_for_is_told_again() {
    let stage = Stage::new().await;
    let (run, at, _, [w0]) = stage.begin(spec_of(1, 1, 1), ["w0"]).await;
    stage.pause(&run).await.unwrap();
    let stage = stage.restart().await;
    drop(w0);
    let mut w0 = Worker::rejoin(&stage.server, "w0", &at).await;
    assert_eq!(w0.stop().await.generation, 1);
    w0.upload(&at, 0, 1, &state(1)).await.unwrap();
    w0.released(&at, Outcome::StoppedStep(1)).await;
    stage.server.watch(&run.id).await.until(Phase::Paused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_last_checkpoint_is_taken_again() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [w0, w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    let total = run.total_steps;
    w0.upload(&at, 0, total, &state(1)).await.unwrap();
    w0.released(&at, Outcome::CompletedStep(total)).await;
    watch.until(Phase::Finishing).await;
    let stage = stage.restart().await;
    drop((w0, w1));
    let mut w0 = Worker::begin(&stage.server, hello_again("w0", None, &run.id)).await;
    let mut w1 = Worker::rejoin(&stage.server, "w1", &at).await;
    // Its half comes, but the other is gone with the coordinator.
    w1.upload(&at, 1, total, &state(1)).await.unwrap();
    w1.released(&at, Outcome::CompletedStep(total)).await;
    let next = form(&mut [&mut w0, &mut w1]).await;
    assert_eq!(next.generation, 2);
    for (rank, worker) in [&w0, &w1].into_iter().enumerate() {
        worker.upload(&next, rank, total, &state(1)).await.unwrap();
    }
    for worker in [&w0, &w1] {
        worker.released(&next, Outcome::CompletedStep(total)).await;
    }
    let done = stage
        .server
        .watch(&run.id)
        .await
        .until(Phase::Completed)
        .await;
    assert_eq!(done.checkpoints.last().unwrap().step, total);
}
