//! Workers whose states differ: one is outvoted, two rewind to a checkpoint, and no checkpoint is made of both states.

use fovea_proto::pb;
use fovea_proto::pb::slice_upload::Part;
use tonic::Code;

use super::{Phase, Stage, gather, ids_of, spec_of};
use crate::common::*;

/// Three workers of which w1 has another state after `step`; the assignments that follow.
async fn differ(members: &mut [&mut Worker; 3], at: &pb::Assignment, step: u64) {
    for (worker, digest) in members.iter().zip(['a', 'b', 'a']) {
        worker.digest(at, step, digest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_differs_takes_the_state_of_the_others_and_the_second_time_it_goes() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0, mut w1, mut w2]) =
        stage.begin(spec_of(3, 1, 3), ["w0", "w1", "w2"]).await;
    for step in 1..=2 {
        stage.step(&w0, &at, step).await;
        watch.until_step(step).await;
    }
    // Equal ones, and those that are not complete, change nothing.
    for worker in [&w0, &w1, &w2] {
        worker.digest(&at, 1, 'c').await;
    }
    differ(&mut [&mut w0, &mut w1, &mut w2], &at, 2).await;
    for (worker, void) in [(&mut w0, false), (&mut w1, true), (&mut w2, false)] {
        let next = worker.assignment().await;
        assert_eq!((next.generation, next.discard_state), (2, void));
        assert_eq!(ids_of(&next), ["w0", "w1", "w2"]);
        assert_eq!((next.lineage, next.at_boundary), (at.lineage, false));
        worker.ready_at(&next, 2, 'a').await;
    }
    let forming = watch.until(Phase::Forming).await;
    assert!(forming.reason.contains("w1 differs"), "{}", forming.reason);
    watch.until_in(Phase::Running, 2).await;

    let second = pb::Assignment {
        generation: 2,
        ..at.clone()
    };
    stage.step(&w0, &second, 3).await;
    differ(&mut [&mut w0, &mut w1, &mut w2], &second, 3).await;
    let third = gather(&mut [&mut w0, &mut w2]).await;
    assert_eq!((third.generation, ids_of(&third)), (3, vec!["w0", "w2"]));
    let abort = w1.abort().await;
    assert_eq!(abort.generation, 2);
    assert!(abort.reason.contains("memory"), "{}", abort.reason);
    w1.aborted(&second).await;
    for worker in [&w0, &w2] {
        worker.ready_at(&third, 3, 'a').await;
    }
    watch.until_in(Phase::Running, 3).await;
    stage.step(&w0, &third, 4).await;
    w0.acked_step(4).await;
    // There is room, but not for that one.
    assert_eq!(w1.remaining_messages().await, []);
    let audit = stage.audit(&run).await;
    assert_eq!((audit.steps, &*audit.problems), (4, &[][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_differ_go_back_to_the_checkpoint_and_the_ledger_is_cut() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    for step in 1..=2 {
        stage.step(&w0, &at, step).await;
    }
    stage.checkpoint(&[&w0, &w1], &at, 2, &state(1)).await;
    for step in 3..=4 {
        stage.step(&w0, &at, step).await;
    }
    w0.acked_step(4).await;
    w0.digest(&at, 4, 'a').await;
    w1.digest(&at, 4, 'b').await;
    let next = gather(&mut [&mut w0, &mut w1]).await;
    assert_eq!((next.generation, next.start_step), (2, 2));
    assert_eq!(next.lineage, at.lineage + 1);
    assert_eq!(next.checkpoint.as_ref().map(|c| c.step), Some(2));
    let audit = stage.audit(&run).await;
    assert_eq!((audit.steps, &*audit.problems), (2, &[][..]));

    // The steps are taken again; a checkpoint that the void generation took never counts.
    for worker in [&w0, &w1] {
        worker.ready(&next).await;
    }
    watch.until_in(Phase::Running, 2).await;
    for step in 3..=5 {
        stage.step(&w0, &next, step).await;
    }
    w0.acked_step(5).await;
    let audit = stage.audit(&run).await;
    assert_eq!((audit.steps, &*audit.problems), (5, &[][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_with_different_states_goes_back_too() {
    let stage = Stage::new().await;
    let (_, at, mut watch, [mut w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    stage.step(&w0, &at, 1).await;
    watch.until_step(1).await;
    w0.interrupted(&at).await;
    let next = gather(&mut [&mut w0, &mut w1]).await;
    w0.ready_at(&next, 1, 'a').await;
    w1.ready_at(&next, 1, 'b').await;
    let third = gather(&mut [&mut w0, &mut w1]).await;
    assert_eq!((third.generation, third.start_step), (3, 0));
    assert_eq!(third.lineage, at.lineage + 1);

    // At step 0 it is the weights file that differs: trying again would not help.
    w0.ready_at(&third, 0, 'a').await;
    w1.ready_at(&third, 0, 'b').await;
    let failed = watch.until(Phase::Failed).await;
    assert!(failed.reason.contains("weights"), "{}", failed.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_different_states_make_no_checkpoint() {
    let stage = Stage::new().await;
    let (run, at, _, [w0, w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    w0.upload(&at, 0, 1, &state(1)).await.unwrap();
    // The bytes of its slice are whole, but its state is another.
    refused(
        w1.upload(&at, 1, 1, &state(2)).await,
        Code::FailedPrecondition,
        "header.state_digest",
    );
    // The assembly is abandoned: the same step can be started again by all.
    let mut watch = stage.server.watch(&run.id).await;
    w1.upload(&at, 1, 1, &state(1)).await.unwrap();
    assert!(stage.server.run(&run.id).await.checkpoints.is_empty());
    w0.upload(&at, 0, 1, &state(1)).await.unwrap();
    while stage.server.run(&run.id).await.checkpoints.is_empty() {
        watch.next().await.expect("the run goes on");
    }

    // Slices that are consistent with each other, but not with the digest that they claim.
    let claimed = "0".repeat(32);
    for (rank, id) in ["w0", "w1"].into_iter().enumerate() {
        let mut parts = slice_parts(id, &at, rank, 2, 2, &state(1));
        if let Some(Part::Header(header)) = &mut parts[0].part {
            header.state_digest = claimed.clone();
        }
        let upload = tokio_stream::iter(parts);
        stage.server.workers().upload_slice(upload).await.unwrap();
    }
    loop {
        match watch.next().await.expect("the run goes on") {
            pb::run_event::Event::Note(note) if note.contains("was not stored") => {
                assert!(note.contains(&claimed), "{note}");
                break;
            }
            _ => {}
        }
    }
    let steps: Vec<u64> = stage
        .server
        .run(&run.id)
        .await
        .checkpoints
        .iter()
        .map(|c| c.step)
        .collect();
    assert_eq!(steps, [1]);
    let files = stage.files(&run);
    assert!(
        files.iter().all(|name| name.starts_with("step-0000000001")),
        "{files:?}"
    );
}
