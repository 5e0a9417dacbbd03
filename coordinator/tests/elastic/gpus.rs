//! Workers that share a GPU: never two of them in one run.

use fovea_proto::pb;
use fovea_proto::pb::Phase;
use fovea_proto::pb::worker_message::Message as Up;

use super::{Stage, form, gather, ids_of, spec_of};
use crate::common::*;

const A: &str = "GPU-aaaaaaaa-0000-0000-0000-000000000000";
const B: &str = "GPU-bbbbbbbb-0000-0000-0000-000000000000";

async fn join(stage: &Stage, id: &str, machine: &str, gpu: &str) -> Worker {
    Worker::begin(&stage.server, hello_on(id, machine, gpu)).await
}

/// Why the run waits, when `reason` is part of it. No event reports that.
async fn waits(stage: &Stage, run: &pb::Run, reason: &str) -> String {
    let waiting = |run: &pb::Run| run.reason.contains(reason);
    stage.server.run_when(&run.id, reason, waiting).await.reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_starts_with_one_worker_of_each_gpu_and_says_who_is_left_out() {
    let stage = Stage::new().await;
    let mut w1 = join(&stage, "w1", "m", A).await;
    let mut w2 = join(&stage, "w2", "m", A).await;
    let run = stage.server.submit(spec_of(4, 3, 4)).await.unwrap();
    let waiting = waits(&stage, &run, "shares").await;
    assert!(
        waiting.starts_with(&format!(
            "needs 3 workers; idle: 1; w2 shares {A} with w1: "
        )),
        "{waiting}"
    );
    assert!(waiting.contains("`local_rank` or `device`"), "{waiting}");
    // Another GPU of that machine, and the same UUID on another one.
    let mut w3 = join(&stage, "w3", "m", B).await;
    let mut w4 = join(&stage, "w4", "n", A).await;
    let at = form(&mut [&mut w1, &mut w3, &mut w4]).await;
    assert_eq!(ids_of(&at), ["w1", "w3", "w4"]);
    // There is room for a fourth, and the one left out works for another run.
    let other = stage.server.submit(spec_of(2, 1, 1)).await.unwrap();
    assert_eq!(w2.assignment().await.run_id, other.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_grows_by_workers_of_other_gpus_and_a_lost_one_is_replaced() {
    let stage = Stage::new().await;
    let mut w1 = join(&stage, "w1", "m", A).await;
    let run = stage.server.submit(spec_of(4, 1, 4)).await.unwrap();
    let mut watch = stage.server.watch(&run.id).await;
    let at = form(&mut [&mut w1]).await;
    assert_eq!(ids_of(&at), ["w1"]);
    watch.until(Phase::Running).await;
    // Its GPU is taken; then two on one GPU, of which the first is asked.
    let mut w2 = join(&stage, "w2", "m", A).await;
    let mut w3 = join(&stage, "w3", "m", B).await;
    let mut w4 = join(&stage, "w4", "m", B).await;
    let asked = w3.prepare().await;
    w3.prepared(&asked, "").await;
    let next = form(&mut [&mut w1, &mut w3]).await;
    assert_eq!(ids_of(&next), ["w1", "w3"]);
    watch.until_in(Phase::Running, 2).await;

    // The GPU is free again when its worker is lost: another worker of it joins.
    drop(w1);
    let next = form(&mut [&mut w3]).await;
    assert_eq!(ids_of(&next), ["w3"]);
    let asked = w2.prepare().await;
    let members: Vec<&str> = asked.members.iter().map(|m| &*m.worker_id).collect();
    assert_eq!(members, ["w3", "w2"]);
    w2.prepared(&asked, "").await;
    let next = gather(&mut [&mut w3, &mut w2]).await;
    assert_eq!(ids_of(&next), ["w3", "w2"]);
    // The other one on the second GPU was never asked for anything.
    assert_eq!(w4.remaining_messages().await, []);
}

/// After the coordinator's restart nothing is known of a member's GPU before it is back.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_in_the_place_of_a_member_that_comes_back() {
    let stage = Stage::new().await;
    let mut w1 = join(&stage, "w1", "m", A).await;
    let mut w3 = join(&stage, "w3", "m", B).await;
    let run = stage.server.submit(spec_of(4, 1, 4)).await.unwrap();
    let at = form(&mut [&mut w1, &mut w3]).await;
    stage
        .server
        .watch(&run.id)
        .await
        .until(Phase::Running)
        .await;
    let stage = stage.restart().await;
    let mut w2 = join(&stage, "w2", "m", A).await;
    let back = |id: &str, gpu: &str| {
        let Up::Hello(mut hello) = hello_on(id, "m", gpu) else {
            unreachable!("hello says hello")
        };
        hello.serving = Some(pb::Serving {
            run_id: at.run_id.clone(),
            generation: at.generation,
        });
        Up::Hello(hello)
    };
    let _w3 = Worker::begin(&stage.server, back("w3", B)).await;
    let mut w1 = Worker::begin(&stage.server, back("w1", A)).await;
    stage.step(&w1, &at, 1).await;
    w1.acked_step(1).await;
    assert_eq!(w2.remaining_messages().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_is_shared_where_it_is_allowed() {
    let stage = Stage::with(|config| config.allow_shared_gpu = true).await;
    let mut w1 = join(&stage, "w1", "m", A).await;
    let mut w2 = join(&stage, "w2", "m", A).await;
    stage.server.submit(spec_of(4, 2, 2)).await.unwrap();
    let at = gather(&mut [&mut w1, &mut w2]).await;
    assert_eq!(ids_of(&at), ["w1", "w2"]);
}
