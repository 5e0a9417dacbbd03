//! Workers whose connection breaks and who are back before that is noticed, and the messages that they get.

use fovea_proto::pb;

use super::{Phase, Stage, form, gather, ids_of, spec_of};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_that_serves_the_same_is_no_loss() {
    let stage = Stage::new().await;
    let (run, at, _, [mut w0, w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    let mut again = Worker::rejoin(&stage.server, "w1", &at).await;
    drop(w1);
    stage.step(&w0, &at, 1).await;
    w0.acked_step(1).await;
    // It gets the messages that the members get.
    again.acked_step(1).await;
    let run = stage.server.run(&run.id).await;
    assert_eq!((run.generation, run.phase()), (1, Phase::Running));
    assert_eq!(run.workers, ["w0", "w1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_that_serves_something_else_is_a_loss() {
    let stage = Stage::new().await;
    let (run, _, _, [mut w0, w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    let serving = Some((&*run.id, 7));
    let mut again = Worker::begin(&stage.server, hello_again("w1", serving, "")).await;
    drop(w1);
    let abort = again.abort().await;
    assert_eq!((&*abort.run_id, abort.generation), (&*run.id, 7));
    let next = form(&mut [&mut w0]).await;
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w0"]));
    // It gets no work before it has released what it served; then it may join.
    stage.step(&w0, &next, 1).await;
    w0.acked_step(1).await;
    again
        .aborted(&pb::Assignment {
            generation: 7,
            ..next.clone()
        })
        .await;
    let asked = again.prepare().await;
    assert_eq!(asked.run_id, run.id);
    again.prepared(&asked, "").await;
    let third = gather(&mut [&mut w0, &mut again]).await;
    assert_eq!((third.generation, ids_of(&third)), (3, vec!["w0", "w1"]));

    // An unknown run.
    let serving = Some(("lost-9", 1));
    let mut stray = Worker::begin(&stage.server, hello_again("stray", serving, "lost-9")).await;
    let abort = stray.abort().await;
    assert_eq!((&*abort.run_id, abort.generation), ("lost-9", 1));
    stray
        .aborted(&pb::Assignment {
            run_id: "lost-9".into(),
            generation: 1,
            ..Default::default()
        })
        .await;
    let other = stage.server.submit(spec_of(1, 1, 1)).await.unwrap();
    assert_eq!(stray.assignment().await.run_id, other.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_got_lost_with_the_session_is_told_again() {
    let stage = Stage::new().await;
    let (run, at, _, [w0]) = stage.begin(spec_of(1, 1, 1), ["w0"]).await;
    stage.pause(&run).await.unwrap();
    // The worker never read it.
    let mut again = Worker::rejoin(&stage.server, "w0", &at).await;
    drop(w0);
    assert_eq!(again.stop().await.generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_journal_is_acknowledged_to_all() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    stage.step(&w0, &at, 1).await;
    // Without another message that would bring it about.
    let ack = w0.acked(|_| true).await;
    assert_eq!((&*ack.run_id, ack.step, ack.next_epoch), (&*run.id, 1, 0));
    w1.acked_step(1).await;

    // With a gap only what comes before it.
    stage.step(&w0, &at, 3).await;
    assert_eq!(w0.acked(|_| true).await.step, 1);
    stage.step(&w0, &at, 2).await;
    assert_eq!(w0.acked(|_| true).await.step, 3);

    for step in 4..=run.steps_per_epoch {
        stage.step(&w0, &at, step).await;
    }
    // Two halves of the scores, one of them twice, are one result.
    let half = run.validation_samples as u32 / 2;
    w0.send(scores(&at, 0, 0..half)).await;
    w0.send(scores(&at, 0, 0..half)).await;
    w0.acked_step(run.steps_per_epoch).await;
    assert!(stage.server.run(&run.id).await.epochs.is_empty());
    w1.send(scores(&at, 0, half..run.validation_samples as u32))
        .await;
    let result = watch.until_epoch(0).await;
    assert_eq!(result.validation.unwrap().samples, run.validation_samples);
    for worker in [&mut w0, &mut w1] {
        let ack = worker.acked(|ack| ack.next_epoch == 1).await;
        assert_eq!(ack.step, run.steps_per_epoch);
    }
    // Scores that are sent again are acknowledged again, with the next step.
    w1.send(scores(&at, 0, half..run.validation_samples as u32))
        .await;
    stage.step(&w0, &at, run.steps_per_epoch + 1).await;
    assert_eq!(w1.acked_step(run.steps_per_epoch + 1).await.next_epoch, 1);
    assert_eq!(stage.server.run(&run.id).await.epochs.len(), 1);
}
