//! `Workers.Session`.

use fovea_proto::pb;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::released::Outcome;
use fovea_proto::pb::worker_message::Message as Up;
use tonic::Code::InvalidArgument;

use super::{server, still_serves};
use crate::common::*;

fn serving(run: &str, generation: u64) -> Option<pb::Serving> {
    Some(pb::Serving {
        run_id: run.into(),
        generation,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    // The first message.
    type Change = fn(&mut pb::Hello);
    let hellos: Vec<(Change, &str)> = vec![
        (|h| h.worker_id.clear(), "hello.worker_id"),
        (|h| h.worker_id = "../w".into(), "hello.worker_id"),
        (|h| h.worker_id = "w".repeat(100_000), "hello.worker_id"),
        (|h| h.address.clear(), "hello.address"),
        (|h| h.address = "host".into(), "hello.address"),
        (|h| h.address = "host:0".into(), "hello.address"),
        (|h| h.address = "h/../x:1".into(), "hello.address"),
        (|h| h.host = "h".repeat(10_000), "hello.host"),
        (|h| h.device = "a\nb".into(), "hello.device"),
        (|h| h.version = "\u{1b}[31m".into(), "hello.version"),
        (|h| h.boot_id = "a b".into(), "hello.boot_id"),
        (|h| h.gpu_uuid = "g".repeat(65), "hello.gpu_uuid"),
        (|h| h.serving = serving("../x", 1), "hello.serving.run_id"),
        (
            |h| h.serving = serving("r-1", 0),
            "hello.serving.generation",
        ),
        (
            |h| h.serving = serving("r-1", u64::MAX),
            "hello.serving.generation",
        ),
        (|h| h.held_run_id = "../x".into(), "hello.held_run_id"),
        (|h| h.held_run_id = "r".repeat(100_000), "hello.held_run_id"),
    ];
    for (change, named) in hellos {
        let Up::Hello(mut hello) = hello("w") else {
            panic!()
        };
        change(&mut hello);
        refused(
            Worker::open(&server, Up::Hello(hello)).await.map(|_| ()),
            InvalidArgument,
            named,
        );
    }
    let first = Up::Leaving(pb::Leaving {});
    refused(
        Worker::open(&server, first).await.map(|_| ()),
        InvalidArgument,
        "hello",
    );
    let empty = tokio_stream::iter(Vec::<pb::WorkerMessage>::new());
    let result = server.workers().session(empty).await.map(|_| ());
    refused(result, InvalidArgument, "hello");
    let none = tokio_stream::iter(vec![pb::WorkerMessage { message: None }]);
    refused(
        server.workers().session(none).await.map(|_| ()),
        InvalidArgument,
        "hello",
    );

    // Later messages, from a worker that serves a run. Each ends the session, and the run waits for
    // another worker.
    type Say = fn(&pb::Assignment) -> Option<Up>;
    fn with(at: &pb::Assignment, change: fn(&mut pb::StepReport)) -> Option<Up> {
        let mut report = report(1);
        change(&mut report);
        Some(committed(at, report))
    }
    fn score(at: &pb::Assignment, change: fn(&mut pb::Score)) -> Option<Up> {
        let Up::Scores(mut message) = scores(at, 0, 0..1) else {
            panic!()
        };
        change(&mut message.scores[0]);
        Some(Up::Scores(message))
    }
    fn ready_with(at: &pb::Assignment, change: fn(&mut pb::Ready)) -> Option<Up> {
        let Up::Ready(mut message) = ready(at) else {
            panic!()
        };
        change(&mut message);
        Some(Up::Ready(message))
    }
    fn released(at: &pb::Assignment, outcome: Option<Outcome>) -> Option<Up> {
        Some(Up::Released(pb::Released {
            run_id: at.run_id.clone(),
            generation: at.generation,
            outcome,
        }))
    }
    fn digest(at: &pb::Assignment, change: fn(&mut pb::StateDigest)) -> Option<Up> {
        let mut message = pb::StateDigest {
            run_id: at.run_id.clone(),
            generation: at.generation,
            step: 1,
            digest: "a".repeat(32),
        };
        change(&mut message);
        Some(Up::StateDigest(message))
    }
    fn heartbeat(serving: Option<pb::Serving>) -> Option<Up> {
        Some(Up::Heartbeat(pb::Heartbeat {
            serving,
            ..Default::default()
        }))
    }
    fn fares(load: pb::Load) -> Option<Up> {
        Some(Up::Heartbeat(pb::Heartbeat {
            load: Some(load),
            ..Default::default()
        }))
    }
    fn unreachable(at: &pb::Assignment, id: String) -> Option<Up> {
        Some(Up::Unreachable(pb::Unreachable {
            run_id: at.run_id.clone(),
            generation: at.generation,
            worker_ids: vec!["w0".into(), id],
        }))
    }
    fn interrupted(run: &str, generation: u64) -> Option<Up> {
        Some(Up::Interrupted(pb::Interrupted {
            run_id: run.into(),
            generation,
            reason: String::new(),
        }))
    }
    fn prepared(run: &str) -> Option<Up> {
        Some(Up::Prepared(pb::Prepared {
            run_id: run.into(),
            problem: String::new(),
            trouble: 0,
        }))
    }
    let said: Vec<(Say, &str)> = vec![
        (|at| ready_with(at, |m| m.step = 5), "ready.step"),
        (|at| ready_with(at, |m| m.step = u64::MAX), "ready.step"),
        (
            |at| digest(at, |m| m.digest = "A".repeat(32)),
            "state_digest.digest",
        ),
        (|at| digest(at, |m| m.digest.clear()), "state_digest.digest"),
        (|at| digest(at, |m| m.step = 0), "state_digest.step"),
        (|at| digest(at, |m| m.step = 5), "state_digest.step"),
        (|at| digest(at, |m| m.run_id.clear()), "state_digest.run_id"),
        (
            |at| digest(at, |m| m.generation = 0),
            "state_digest.generation",
        ),
        (
            |at| Some(committed_with(at, report(1), vec![0, u32::MAX])),
            "step.samples",
        ),
        // No step of two virtual ranks with a batch of six each uses so many.
        (
            |at| Some(committed_with(at, report(1), vec![0; 13])),
            "step.samples",
        ),
        (|_| heartbeat(serving("a/b", 1)), "heartbeat.serving.run_id"),
        (
            |at| heartbeat(serving(&at.run_id, 0)),
            "heartbeat.serving.generation",
        ),
        (
            |_| {
                fares(pb::Load {
                    step_ms: Some(f64::NAN),
                    ..Default::default()
                })
            },
            "heartbeat.load.step_ms",
        ),
        (
            |_| {
                fares(pb::Load {
                    wait_ratio: Some(1.5),
                    ..Default::default()
                })
            },
            "heartbeat.load.wait_ratio",
        ),
        (
            |at| unreachable(at, "../w".into()),
            "unreachable.worker_ids",
        ),
        (
            |at| unreachable(at, "w".repeat(100_000)),
            "unreachable.worker_ids",
        ),
        (|_| interrupted("", 1), "interrupted.run_id"),
        (|at| interrupted(&at.run_id, 0), "interrupted.generation"),
        (|_| prepared("../x"), "prepared.run_id"),
        (
            |at| released(at, Some(Outcome::YieldedStep(u64::MAX))),
            "released.yielded_step",
        ),
        (|_| None, "message"),
        (|_| Some(hello("again")), "hello"),
        (|at| ready_with(at, |m| m.run_id.clear()), "ready.run_id"),
        (
            |at| ready_with(at, |m| m.generation = 0),
            "ready.generation",
        ),
        (
            |at| ready_with(at, |m| m.state_digest = "x".into()),
            "ready.state_digest",
        ),
        (
            |at| ready_with(at, |m| m.fingerprint = None),
            "ready.fingerprint",
        ),
        (
            |at| {
                ready_with(at, |m| {
                    m.fingerprint.as_mut().unwrap().cpu = "c".repeat(10_000)
                })
            },
            "ready.fingerprint.cpu",
        ),
        (|at| with(at, |r| r.loss = f64::NAN), "step.report.loss"),
        (
            |at| with(at, |r| r.images_per_s = f64::INFINITY),
            "step.report.images_per_s",
        ),
        (|at| with(at, |r| r.step = 0), "step.report.step"),
        (|at| with(at, |r| r.step = u64::MAX), "step.report.step"),
        (
            |at| {
                let Up::Step(mut message) = committed(at, report(1)) else {
                    panic!()
                };
                message.report = None;
                Some(Up::Step(message))
            },
            "step.report",
        ),
        (
            |at| score(at, |s| s.loss = f32::NAN),
            "scores.scores[0].loss",
        ),
        (
            |at| score(at, |s| s.probabilities[0] = 2.0),
            "scores.scores[0].probabilities",
        ),
        (
            |at| score(at, |s| s.probabilities[1] = f32::NAN),
            "scores.scores[0].probabilities",
        ),
        (
            |at| score(at, |s| s.probabilities.clear()),
            "scores.scores[0]",
        ),
        (|at| score(at, |s| s.label = u32::MAX), "scores.scores[0]"),
        (
            |at| score(at, |s| s.sample = u32::MAX),
            "scores.scores[0].sample",
        ),
        (|at| Some(scores(at, 2, 0..1)), "scores.epoch"),
        (|at| released(at, None), "released.outcome"),
        (
            |at| released(at, Some(Outcome::CompletedStep(1))),
            "released.completed_step",
        ),
        (
            |at| released(at, Some(Outcome::StoppedStep(u64::MAX))),
            "released.stopped_step",
        ),
    ];
    for (number, (say, named)) in said.into_iter().enumerate() {
        let mut worker = Worker::join(&server, &format!("w{number}")).await;
        let run = server.submit(spec()).await.unwrap();
        let at = worker.assignment().await;
        assert_eq!(at.run_id, run.id);
        // Messages about other runs or generations are ignored, and no error.
        worker
            .step(
                &pb::Assignment {
                    generation: 99,
                    ..at.clone()
                },
                1,
            )
            .await;
        worker
            .step(
                &pb::Assignment {
                    run_id: "other-1".into(),
                    ..at.clone()
                },
                1,
            )
            .await;
        worker.send_raw(say(&at)).await;
        let status = worker.end().await;
        assert_eq!(status.code(), InvalidArgument, "{named}: {status:?}");
        assert!(status.message().contains(named), "{named}: {status:?}");
        let run = server.run(&run.id).await;
        assert_eq!(run.phase(), pb::Phase::Queued, "{named}");
        assert!(run.reason.contains(named), "{named}: {}", run.reason);
        server
            .runs()
            .cancel(pb::CancelRequest { run_id: run.id })
            .await
            .unwrap();
    }
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut worker = Worker::join(&server, "w0").await;
    let run = server.submit(spec()).await.unwrap();
    let at = worker.assignment().await;
    worker.ready(&at).await;
    let mut watch = server.watch(&run.id).await;
    watch.until(pb::Phase::Running).await;
    // It is a member; it was not asked to prepare itself.
    for run_id in [&*run.id, "other-1"] {
        worker
            .send(Up::Prepared(pb::Prepared {
                run_id: run_id.into(),
                problem: "\u{1b}[31m".repeat(10_000),
                trouble: 0,
            }))
            .await;
    }
    worker
        .send(Up::Heartbeat(pb::Heartbeat {
            sequence: 0,
            serving: serving(&at.run_id, at.generation),
            ticks: u64::MAX,
            waiting_for: Some(u32::MAX),
            polls: u64::MAX,
            scored: u64::MAX,
            load: Some(pb::Load {
                step_ms: Some(f64::MAX),
                wait_ratio: Some(1.0),
                gpu_used_bytes: Some(u64::MAX),
                resident_bytes: Some(u64::MAX),
            }),
        }))
        .await;
    worker.step(&at, 1).await;
    worker.acked_step(1).await;
    let run = server.run(&run.id).await;
    assert_eq!((run.phase(), run.generation), (pb::Phase::Running, 1));

    // Unknown peers that it cannot reach are no members: it stays, in another generation.
    worker
        .send(Up::Unreachable(pb::Unreachable {
            run_id: at.run_id.clone(),
            generation: at.generation,
            worker_ids: (0..10_000).map(|i| format!("w{i}")).collect(),
        }))
        .await;
    let next = worker.assignment().await;
    assert_eq!((next.generation, &next.members), (2, &at.members));

    // A worker that reports the state of an unknown run is treated as one without a state.
    let stray = Worker::begin(&server, hello_again("stray", None, "nobody-1")).await;
    drop((worker, stray));
    server
        .runs()
        .cancel(pb::CancelRequest { run_id: run.id })
        .await
        .unwrap();
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_reads_nothing_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let deaf = Worker::join(&server, "deaf").await;
    // Messages to it are queued until it counts as lost.
    for _ in 0..3 {
        let run = server.submit(spec()).await.unwrap();
        let cancel = pb::CancelRequest { run_id: run.id };
        let cancelled = server.runs().cancel(cancel).await.unwrap().into_inner();
        assert_ne!(cancelled.phase(), pb::Phase::Failed);
    }
    let mut other = Worker::join(&server, "other").await;
    let run = server.submit(spec()).await.unwrap();
    let Down::Assignment(at) = other.next().await else {
        panic!("no assignment")
    };
    assert_eq!(at.run_id, run.id);
    drop((deaf, other));
    server.stop().await;
}
