//! Workers that join a run under way.

use fovea_proto::pb;
use pb::released::Outcome;

use super::{Phase, Stage, form, gather, ids_of, spec_of};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_prepares_itself_and_joins_at_a_step_boundary() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0]) = stage.begin(spec_of(2, 1, 2), ["w0"]).await;

    let mut w1 = stage.join("w1").await;
    let asked = w1.prepare().await;
    assert_eq!(asked.run_id, run.id);
    assert_eq!(asked.spec, at.spec);
    assert_eq!(asked.dataset_digest, run.dataset_digest);
    let roster: Vec<(&str, u32, u32)> = asked
        .members
        .iter()
        .map(|m| (&*m.worker_id, m.first_virtual_rank, m.virtual_ranks))
        .collect();
    assert_eq!(roster, [("w0", 0, 1), ("w1", 1, 1)]);
    w1.prepared(&asked, "cannot reach w0").await;

    // The run goes on meanwhile, and an epoch ends.
    let mut w2 = stage.join("w2").await;
    let asked = w2.prepare().await;
    assert_eq!(asked.members[1].worker_id, "w2");
    for step in 1..=run.steps_per_epoch {
        stage.step(&w0, &at, step).await;
    }
    w0.send(scores(&at, 0, 0..run.validation_samples as u32))
        .await;
    watch.until_epoch(0).await;
    w2.prepared(&asked, "").await;

    let next = gather(&mut [&mut w0, &mut w2]).await;
    assert_eq!((next.generation, ids_of(&next)), (2, vec!["w0", "w2"]));
    assert!(next.at_boundary && !next.discard_state);
    assert_eq!((next.next_epoch, next.lineage), (1, at.lineage));
    assert_eq!(next.mesh_key.len(), 16);
    assert_ne!(next.mesh_key, at.mesh_key);
    let forming = watch.until(Phase::Forming).await;
    assert_eq!(forming.workers, ["w0", "w2"]);
    assert!(forming.reason.contains("w2 joins"), "{}", forming.reason);

    // Both agree on the state that w0 brought along.
    let step = run.steps_per_epoch + 1;
    w2.ready_at(&next, step - 1, 'b').await;
    w0.ready_at(&next, step - 1, 'b').await;
    watch.until_in(Phase::Running, 2).await;
    stage.step(&w0, &next, step).await;
    watch.until_step(step).await;
    assert_eq!(w2.acked_step(step).await.next_epoch, 1);

    // The one that could not was not asked again; it is there for other work.
    let other = stage.server.submit(spec_of(2, 1, 1)).await.unwrap();
    assert_eq!(w1.assignment().await.run_id, other.id);
    let audit = stage.audit(&run).await;
    assert_eq!((audit.steps, &*audit.problems), (step, &[][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_come_together_join_together_and_a_lost_one_holds_up_nobody() {
    let stage = Stage::new().await;
    let (_, _, mut watch, [mut w0]) = stage.begin(spec_of(4, 1, 4), ["w0"]).await;
    let mut others = Vec::new();
    let mut asked = Vec::new();
    for id in ["w1", "w2", "w3"] {
        let mut worker = stage.join(id).await;
        asked.push(worker.prepare().await);
        others.push(worker);
    }
    let [mut w1, mut w2, w3] = others.try_into().ok().expect("three");
    w1.prepared(&asked[0], "").await;
    w2.prepared(&asked[1], "").await;
    // Only now has the last one left.
    drop(w3);
    let next = gather(&mut [&mut w0, &mut w1, &mut w2]).await;
    assert_eq!(
        (next.generation, ids_of(&next)),
        (2, vec!["w0", "w1", "w2"])
    );
    let ranks: Vec<u32> = next.members.iter().map(|m| m.virtual_ranks).collect();
    assert_eq!(ranks, [1, 1, 2]);
    for worker in [&w0, &w1, &w2] {
        worker.ready(&next).await;
    }
    watch.until_in(Phase::Running, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_prepared_for_a_run_that_ended_is_asked_by_others() {
    let stage = Stage::new().await;
    let (first, at, mut watch, [mut a]) = stage.begin(spec_of(2, 1, 2), ["a"]).await;
    let mut b = stage.join("b").await;
    let asked = b.prepare().await;
    b.prepared(&asked, "not now").await;
    let second = stage.server.submit(spec_of(2, 1, 2)).await.unwrap();
    let theirs = form(&mut [&mut b]).await;
    assert_eq!(theirs.run_id, second.id);
    stage
        .server
        .watch(&second.id)
        .await
        .until(Phase::Running)
        .await;

    // Both have room for one; the older asks first, and ends before the answer.
    let mut idle = stage.join("idle").await;
    assert_eq!(idle.prepare().await.run_id, first.id);
    stage.cancel(&first).await.unwrap();
    a.stop().await;
    a.upload(&at, 0, 1, &state(1)).await.unwrap();
    a.released(&at, Outcome::StoppedStep(1)).await;
    watch.until(Phase::Cancelled).await;
    for worker in [&mut a, &mut idle] {
        let asked = worker.prepare().await;
        assert_eq!(asked.run_id, second.id);
        worker.prepared(&asked, "not now").await;
    }
}
