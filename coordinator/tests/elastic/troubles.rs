//! Workers with trouble of their own: the run goes on without them, and people see who is left out and why.

use fovea_proto::pb;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::pb::{Phase, Trouble, WorkerState};
use pb::released::Outcome;

use super::{Stage, form, gather, ids_of, spec_of};
use crate::common::*;

const FULL: &str = "/data: No space left on device";

fn unfit(trouble: Trouble) -> Outcome {
    Outcome::Unfit(pb::Unfit {
        trouble: trouble as i32,
        reason: FULL.into(),
    })
}

/// Hello of a worker with so much memory.
fn hello_with(id: &str, mib: u64) -> Up {
    let Up::Hello(mut message) = hello(id) else {
        unreachable!("hello says hello")
    };
    message.memory = Some(memory(mib));
    Up::Hello(message)
}

fn memory(mib: u64) -> pb::Memory {
    pb::Memory {
        host_bytes: mib << 20,
        ..Default::default()
    }
}

async fn workers(stage: &Stage) -> Vec<pb::Worker> {
    let request = pb::ListWorkersRequest {};
    let reply = stage.server.cluster().list_workers(request).await.unwrap();
    reply.into_inner().workers
}

/// The worker as people see it, once `holds`. No event reports that.
async fn worker_when(stage: &Stage, id: &str, holds: impl Fn(&pb::Worker) -> bool) -> pb::Worker {
    soon("the worker's state", async {
        loop {
            let all = workers(stage).await;
            if let Some(worker) = all.into_iter().find(|w| w.id == id && holds(w)) {
                return worker;
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_trouble_is_left_out_with_its_reason_and_asked_again_after_a_pause() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    w1.released(&at, unfit(Trouble::Disk)).await;
    let next = form(&mut [&mut w0]).await;
    assert_eq!(ids_of(&next), ["w0"]);
    let running = watch.until_in(Phase::Running, 2).await;
    let [left_out] = &running.left_out[..] else {
        panic!("{:?}", running.left_out)
    };
    assert_eq!((&*left_out.worker_id, &*left_out.run_id), ("w1", &*run.id));
    assert_eq!(
        (left_out.trouble(), &*left_out.reason),
        (Trouble::Disk, FULL)
    );
    assert!(left_out.again_in_ms <= 10_000, "{left_out:?}");
    let worker = worker_when(&stage, "w1", |w| w.state() == WorkerState::LeftOut).await;
    assert!(
        worker
            .reason
            .starts_with(&format!("of {} (disk): {FULL}", run.id))
    );
    assert_eq!(worker.left_out.len(), 1);
    assert_eq!(worker_when(&stage, "w0", |_| true).await.virtual_ranks, 2);
    stage.step(&w0, &next, 1).await;
    watch.until_step(1).await;

    // It is free for other work, and asked again for this run when the pause is over, which is longer than a second.
    let other = stage.server.submit(spec_of(1, 1, 1)).await.unwrap();
    let theirs = form(&mut [&mut w1]).await;
    assert_eq!(theirs.run_id, other.id);
    stage
        .server
        .watch(&other.id)
        .await
        .until(Phase::Running)
        .await;
    stage.cancel(&other).await.unwrap();
    assert_eq!(w1.stop().await.run_id, other.id);
    w1.released(&theirs, Outcome::Aborted(pb::Aborted {})).await;
    let asked = w1.prepare().await;
    assert_eq!(asked.run_id, run.id);
    // It cannot prepare for the same reason, and the run does not notice.
    w1.send(Up::Prepared(pb::Prepared {
        run_id: asked.run_id.clone(),
        problem: FULL.into(),
        trouble: Trouble::Disk as i32,
    }))
    .await;
    let doubled = |w: &pb::Worker| w.left_out.iter().any(|l| l.again_in_ms > 10_000);
    let worker = worker_when(&stage, "w1", doubled).await;
    assert_eq!(worker.state(), WorkerState::LeftOut);
    assert_eq!(stage.server.run(&run.id).await.generation, 2);
    // Another process on the same machine is another worker, and is asked at once.
    drop(w1);
    let mut w2 = stage.join("w2").await;
    assert_eq!(w2.prepare().await.run_id, run.id);
    stage
        .server
        .run_when(&run.id, "the run", |run| run.left_out.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_enough_workers_shows_the_reasons_and_fails_with_them() {
    let stage = Stage::with(|config| config.no_worker_patience_s = 2).await;
    let (run, at, mut watch, [w0, mut w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    w0.released(&at, unfit(Trouble::Disk)).await;
    let next = gather(&mut [&mut w1]).await;
    w1.released(&next, unfit(Trouble::Memory)).await;
    let expected = format!("left out: w0 (disk): {FULL}; w1 (memory): {FULL}");
    stage
        .server
        .run_when(&run.id, "the run", |run| run.reason.contains(&expected))
        .await;
    let failed = watch.until(Phase::Failed).await;
    let lines: Vec<&str> = failed.reason.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            format!("worker w0 (disk): {FULL}"),
            format!("worker w1 (memory): {FULL}")
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_a_worker_with_enough_memory_and_shows_the_numbers() {
    let stage = Stage::new().await;
    let mut small = Worker::begin(&stage.server, hello_with("small", 100)).await;
    let run = stage.server.submit(spec_of(2, 1, 1)).await.unwrap();
    // Whoever submits it sees it at once.
    for reason in [
        run.reason.clone(),
        stage
            .server
            .run_when(&run.id, "the run", |run| run.reason.contains("memory"))
            .await
            .reason,
    ] {
        for part in [
            "it needs about ",
            "small has 100 MiB",
            "workers with more memory",
        ] {
            assert!(reason.contains(part), "{reason}");
        }
    }
    let worker = worker_when(&stage, "small", |w| w.state() == WorkerState::Waiting).await;
    assert_eq!(worker.host_bytes, 100 << 20);
    assert!(
        worker.reason.contains("the worker has 100 MiB"),
        "{}",
        worker.reason
    );
    // One whose memory is not known is tried; one that is large enough serves.
    let mut large = Worker::begin(&stage.server, hello_with("large", 64 << 10)).await;
    let at = form(&mut [&mut large]).await;
    assert_eq!(ids_of(&at), ["large"]);
    stage
        .server
        .watch(&run.id)
        .await
        .until(Phase::Running)
        .await;

    // Nor does a small one join a run under way, before it has more.
    let more = stage.server.submit(spec_of(2, 1, 2)).await.unwrap();
    let mut other = Worker::begin(&stage.server, hello_with("other", 64 << 10)).await;
    let at = form(&mut [&mut other]).await;
    assert_eq!((&*at.run_id, ids_of(&at)), (&*more.id, vec!["other"]));
    let states = |w: &pb::Worker| w.state() == WorkerState::Waiting;
    worker_when(&stage, "small", states).await;
    small.send(Up::Memory(memory(64 << 10))).await;
    assert_eq!(small.prepare().await.run_id, more.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_worker_is_shown() {
    let stage = Stage::new().await;
    assert_eq!(workers(&stage).await, []);
    let (run, at, mut watch, [w0]) = stage.begin(spec_of(2, 1, 2), ["w0"]).await;
    stage.step(&w0, &at, 1).await;
    watch.until_step(1).await;
    let mut w1 = stage.join("w1").await;
    let asked = w1.prepare().await;
    let [first, second] = &workers(&stage).await[..] else {
        panic!("two workers")
    };
    assert_eq!((&*first.id, first.state()), ("w0", WorkerState::Training));
    assert_eq!((&*first.run_id, first.virtual_ranks), (&*run.id, 2));
    assert_eq!((&*first.address, &*first.device), ("127.0.0.1:4000", "cpu"));
    assert!(first.last_seen_ms < 20_000 && first.last_seen_ms <= first.connected_ms);
    assert_eq!(
        (&*second.id, second.state()),
        ("w1", WorkerState::Preparing)
    );
    assert_eq!((&*second.run_id, second.virtual_ranks), (&*run.id, 0));
    w1.prepared(&asked, "cannot reach w0").await;
    worker_when(&stage, "w1", |w| w.state() == WorkerState::Idle).await;
    // A run that needs more workers than are free.
    let big = stage.server.submit(spec_of(4, 4, 4)).await.unwrap();
    let waiting = worker_when(&stage, "w1", |w| w.state() == WorkerState::Waiting).await;
    assert!(
        waiting
            .reason
            .contains(&format!("{}: needs 4 workers", big.id)),
        "{waiting:?}"
    );
    w1.send(Up::Leaving(pb::Leaving {})).await;
    worker_when(&stage, "w1", |w| w.state() == WorkerState::Leaving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_figures_are_those_of_its_last_heartbeat() {
    let stage = Stage::new().await;
    let w0 = stage.join("w0").await;
    // One of an older version says nothing.
    let worker = worker_when(&stage, "w0", |_| true).await;
    assert_eq!(worker.load, None);
    let load = |step_ms| pb::Load {
        step_ms: Some(step_ms),
        wait_ratio: Some(0.25),
        gpu_used_bytes: Some(60 << 30),
        resident_bytes: Some(2 << 30),
    };
    for step_ms in [930.5, 12.5] {
        let heartbeat = pb::Heartbeat {
            load: Some(load(step_ms)),
            ..Default::default()
        };
        w0.send(Up::Heartbeat(heartbeat)).await;
        worker_when(&stage, "w0", |w| w.load == Some(load(step_ms))).await;
    }
}
