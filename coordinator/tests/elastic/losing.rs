//! Workers that are lost, break off, leave, or cannot be reached: the others go on.

use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::worker_message::Message as Up;
use pb::released::Outcome;

use super::{Phase, Stage, form, gather, ids_of, spec_of};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn loss_after_loss_until_too_few_are_left_and_then_anew_with_who_holds_the_state() {
    let stage = Stage::new().await;
    // An older worker, busy with something else.
    let (other, others, _, [mut early]) = stage.begin(spec_of(1, 1, 1), ["early"]).await;
    let (run, at, mut watch, [mut w0, mut w1, mut w2, w3]) = stage
        .begin(spec_of(4, 2, 4), ["w0", "w1", "w2", "w3"])
        .await;
    stage.step(&w0, &at, 1).await;
    watch.until_step(1).await;

    drop(w3);
    let second = gather(&mut [&mut w0, &mut w1, &mut w2]).await;
    assert_eq!(
        (second.generation, ids_of(&second)),
        (2, vec!["w0", "w1", "w2"])
    );
    assert!(!second.at_boundary);
    w0.ready_at(&second, 1, 'a').await;
    // Another, while the generation forms.
    drop(w2);
    let third = gather(&mut [&mut w0, &mut w1]).await;
    assert_eq!((third.generation, ids_of(&third)), (3, vec!["w0", "w1"]));
    // Messages about the previous generation are ignored.
    w1.ready_at(&second, 1, 'b').await;
    w1.ready_at(&third, 1, 'a').await;
    w0.ready_at(&third, 1, 'a').await;
    watch.until_in(Phase::Running, 3).await;
    stage.step(&w0, &third, 2).await;
    watch.until_step(2).await;

    // One is fewer than the two that it wants.
    drop(w1);
    let abort = w0.abort().await;
    assert_eq!((&*abort.run_id, abort.generation), (&*run.id, 3));
    let queued = watch.until(Phase::Queued).await;
    assert!(queued.reason.contains("w1"), "{}", queued.reason);
    assert!(
        queued.reason.contains("1 worker left, at least 2 needed"),
        "{}",
        queued.reason
    );
    w0.aborted(&third).await;
    // Nothing happens until there is a second; then who holds the state comes first, though it is younger.
    stage.cancel(&other).await.unwrap();
    early.stop().await;
    early.upload(&others, 0, 1, &state(1)).await.unwrap();
    early.released(&others, Outcome::StoppedStep(1)).await;
    let fourth = gather(&mut [&mut w0, &mut early]).await;
    assert_eq!(
        (fourth.generation, ids_of(&fourth)),
        (4, vec!["w0", "early"])
    );
    assert_eq!(
        fourth.lineage, at.lineage,
        "the state that w0 holds is good"
    );
    w0.ready_at(&fourth, 2, 'c').await;
    early.ready_at(&fourth, 2, 'c').await;
    watch.until_in(Phase::Running, 4).await;
    stage.step(&w0, &fourth, 3).await;
    watch.until_step(3).await;
    let audit = stage.audit(&run).await;
    assert_eq!((audit.steps, &*audit.problems), (3, &[][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_that_it_holds_the_state_is_chosen() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0]) = stage.begin(spec_of(2, 1, 1), ["w0"]).await;
    // It joined later, but before w0's new session.
    let mut fresh = stage.join("fresh").await;
    stage.pause(&run).await.unwrap();
    w0.stop().await;
    w0.upload(&at, 0, 1, &state(1)).await.unwrap();
    w0.released(&at, Outcome::StoppedStep(1)).await;
    watch.until(Phase::Paused).await;
    drop(w0);
    let mut w0 = Worker::begin(&stage.server, hello_again("w0", None, &run.id)).await;
    stage.resume(&run, None).await.unwrap();
    let again = w0.assignment().await;
    assert_eq!((again.generation, ids_of(&again)), (2, vec!["w0"]));
    let other = stage.server.submit(spec_of(2, 1, 1)).await.unwrap();
    assert_eq!(fresh.assignment().await.run_id, other.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_without_a_loss_leads_to_a_generation_of_the_same_workers() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    stage.step(&w0, &at, 1).await;
    watch.until_step(1).await;
    let begun = Instant::now();
    w0.interrupted(&at).await;
    w1.interrupted(&at).await;
    let next = gather(&mut [&mut w0, &mut w1]).await;
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(150),
        "{took:?}: no time to learn of a loss"
    );
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w0", "w1"]));
    assert!(!next.at_boundary);
    let forming = watch.until(Phase::Forming).await;
    assert!(forming.reason.contains("interrupted"), "{}", forming.reason);
    // Both reported it; it counts as one interruption.
    for worker in [&w0, &w1] {
        worker.ready_at(&next, 1, 'a').await;
    }
    stage.step(&w0, &next, 2).await;
    w0.acked_step(2).await;
    assert_eq!(stage.server.run(&run.id).await.generation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_by_a_loss_leads_to_one_generation_only() {
    let stage = Stage::new().await;
    let (run, at, _, [mut w0, w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    w0.interrupted(&at).await;
    drop(w1);
    let next = form(&mut [&mut w0]).await;
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w0"]));
    // The acknowledgement comes half a second later; another generation would have begun before.
    stage.step(&w0, &next, 1).await;
    w0.acked_step(1).await;
    let run = stage.server.run(&run.id).await;
    assert_eq!((run.generation, run.phase()), (2, Phase::Running));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_yields_and_the_others_go_on_from_the_boundary() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    w0.send(Up::Leaving(pb::Leaving {})).await;
    let next = w1.assignment().await;
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w1"]));
    assert!(next.at_boundary);
    match w0.next().await {
        Down::Yield(it) => assert_eq!((&*it.run_id, it.generation), (&*run.id, 1)),
        other => panic!("{other:?}"),
    }
    w0.released(&at, Outcome::YieldedStep(1)).await;
    stage.step(&w1, &next, 1).await;
    w1.ready_at(&next, 1, 'a').await;
    watch.until_in(Phase::Running, 2).await;
    stage.step(&w1, &next, 2).await;
    w1.acked(|_| true).await;
    // It has announced that it leaves: though there is room, it is not asked to join.
    assert_eq!(w0.remaining_messages().await, []);
    let run = stage.server.run(&run.id).await;
    assert_eq!((run.generation, &*run.workers), (2, &["w1".to_owned()][..]));
}

/// A new member adopted a state whose steps were never reported, and the workers that could report them are gone.
#[tokio::test(flavor = "multi_thread")]
async fn steps_that_nobody_can_account_for_are_taken_again() {
    let stage = Stage::new().await;
    let (_, _, mut watch, [w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    drop(w0);
    let next = w1.assignment().await;
    w1.ready_at(&next, 1, 'a').await;
    let again = w1.assignment().await;
    assert_eq!(
        (again.generation, again.lineage, again.start_step),
        (3, next.lineage + 1, 0)
    );
    let forming = watch.until_in(Phase::Forming, 3).await;
    assert!(
        forming.reason.contains("can account for steps"),
        "{}",
        forming.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_reached_is_put_out() {
    let stage = Stage::new().await;
    let mut workers = Vec::new();
    for id in ["w0", "w1", "w2"] {
        workers.push(stage.join(id).await);
    }
    let [mut w0, mut w1, mut w2] = workers.try_into().ok().expect("three");
    let run = stage.server.submit(spec_of(3, 1, 3)).await.unwrap();
    let at = gather(&mut [&mut w0, &mut w1, &mut w2]).await;
    let unreachable = |ids: &[&str]| {
        Up::Unreachable(pb::Unreachable {
            run_id: at.run_id.clone(),
            generation: at.generation,
            worker_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        })
    };
    // The one that is cut off complains of both others, and they of it.
    w1.send(unreachable(&["w0", "w2"])).await;
    w0.send(unreachable(&["w1"])).await;
    w2.send(unreachable(&["w1"])).await;
    let next = gather(&mut [&mut w0, &mut w2]).await;
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w0", "w2"]));
    assert_eq!(w1.abort().await.generation, 1);
    let reason = stage.server.run(&run.id).await.reason;
    let expected = "w1 cannot be reached by its peers at 127.0.0.1:4000; check";
    assert!(reason.contains(expected), "{reason}");
}
