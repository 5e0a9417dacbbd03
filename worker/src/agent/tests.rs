//! The main loop between a pretended coordinator and pretended work.

mod bench;
mod idle;
mod leaving;

use fovea_core::run::Outcome;
use fovea_proto::pb::coordinator_message::Message as FromCoordinator;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::collective::Unreached;
use crate::testing::{collect_log, logged, step_report};
use bench::*;

#[tokio::test]
async fn training_outlives_a_session_and_events_are_reported_in_the_next() {
    let mut bench = Bench::new();
    let mut talk = bench.open().await;
    assert_eq!(
        (&talk.hello.serving, &*talk.hello.held_run_id),
        (&None, "held-1")
    );
    assign(&talk, assignment("r", 1)).await;
    let begun = bench.begun().await;
    begun.is_ready().await;
    begun.takes(1).await;
    begun.takes(2).await;
    let sent: [String; 3] = talk.all_sent().await;
    let mut sorted = sent.clone();
    sorted.sort();
    assert_eq!(sorted, ["ready r.1", "step 1 r.1 [1]", "step 2 r.1 [2]"]);
    let ack = pb::Ack {
        run_id: "r".into(),
        step: 1,
        next_epoch: 3,
    };
    talk.tell(FromCoordinator::Ack(ack)).await;
    let mut acknowledged = begun.handle.next_epoch.clone();
    acknowledged.wait_for(|next| *next == 3).await.unwrap();

    bench.down(talk).await;
    begun.takes(3).await;
    let digest = String::new();
    begun.tell(JobEvent::Digest { step: 3, digest }).await;
    let mut talk = bench.open().await;
    assert!(!begun.handle.control.aborted());
    let serving = talk.hello.serving.clone().unwrap();
    assert_eq!((&*serving.run_id, serving.generation), ("r", 1));
    let sent: [String; 3] = talk.all_sent().await;
    assert_eq!(sent, ["step 2 r.1 [2]", "step 3 r.1 [3]", "ready r.1"]);

    // Interrupted without a session.
    bench.down(talk).await;
    begun.ends(interrupted());
    let mut talk = bench.open().await;
    let sent: [String; 4] = talk.all_sent().await;
    assert_eq!(
        sent,
        [
            "step 2 r.1 [2]",
            "step 3 r.1 [3]",
            "ready r.1",
            "interrupted r.1"
        ]
    );
    let beat = talk.heartbeat(|beat| beat.waiting_for.is_some()).await;
    assert_eq!(beat.waiting_for, Some(0), "for itself");
    assert_eq!(beat.serving.unwrap().generation, 1);

    // The next generation begins at once, and hears of what is not acknowledged.
    assign(&talk, assignment("r", 2)).await;
    let begun = bench.begun().await;
    let sent: [String; 2] = talk.all_sent().await;
    assert_eq!(sent, ["step 2 r.2 [2]", "step 3 r.2 [3]"]);
    assert_eq!(*begun.handle.next_epoch.borrow(), 3);
}

#[tokio::test]
async fn who_is_not_rank_0_tells_only_what_may_be_lost() {
    let mut bench = Bench::new();
    let mut talk = bench.open().await;
    let second = |generation| {
        let mut assignment = assignment("r", generation);
        assignment.members.reverse();
        assignment
    };
    assign(&talk, second(1)).await;
    let begun = bench.begun().await;
    begun.takes(1).await;
    begun.is_ready().await;
    assert_eq!(talk.sent().await, "ready r.1");
    begun.ends(interrupted());
    assert_eq!(talk.sent().await, "interrupted r.1");
    assign(&talk, second(2)).await;
    bench.begun().await;
    assert_eq!(talk.sent().await, "step 1 r.2 [1]");
}

#[tokio::test]
async fn a_newer_assignment_replaces_the_one_under_way_when_the_device_is_free() {
    let mut bench = Bench::new();
    let mut talk = bench.open().await;
    assign(&talk, assignment("r", 1)).await;
    let first = bench.begun().await;
    let progress = first.handle.progress.clone();
    let _waits = progress.waiting().begin(1);
    let beat = talk.heartbeat(|beat| beat.waiting_for.is_some()).await;
    assert_eq!(beat.waiting_for, Some(1));
    let mut second = assignment("r", 2);
    second.at_boundary = true;
    assign(&talk, second).await;
    first.handle.control.wait_given_up().await;
    assert!(first.handle.control.yielding() && !first.handle.control.aborted());
    let serves = |generation| {
        move |beat: &pb::Heartbeat| {
            beat.serving
                .as_ref()
                .is_some_and(|s| s.generation == generation)
        }
    };
    let beat = talk.heartbeat(serves(2)).await;
    assert_eq!(
        beat.waiting_for,
        Some(1),
        "the boundary cannot be reached without it"
    );
    // An even newer one that cannot wait; older ones change nothing.
    assign(&talk, assignment("r", 3)).await;
    assign(&talk, assignment("r", 2)).await;
    first.handle.control.wait_aborted().await;
    let beat = talk.heartbeat(serves(3)).await;
    assert_eq!(beat.waiting_for, None, "for its own device only");
    first.ends(released(Outcome::Aborted));
    let third = bench.begun().await;
    assert_eq!(third.handle.assignment.generation, 3);

    // Another run: no peer waits for this worker's step boundary.
    let mut other = assignment("q", 1);
    other.at_boundary = true;
    assign(&talk, other).await;
    third.handle.control.wait_aborted().await;
    let reason = "the weights file is not there";
    third.ends(Ended::failed(reason, true));
    let other = bench.begun().await;
    assert_eq!(other.handle.assignment.run_id, "q");
    // Of the replaced assignments only a fatal failure is reported: no other worker may know of it.
    assert!(talk.sent().await.starts_with("released r.3 Failed"));
    other.ends(released(Outcome::Stopped { step: 4 }));
    assert_eq!(talk.sent().await, "released q.1 Stopped { step: 4 }");
}

#[tokio::test]
async fn an_abort_ends_what_it_names() {
    collect_log();
    let mut bench = Bench::new();
    let mut talk = bench.open().await;
    assign(&talk, assignment("r", 2)).await;
    let first = bench.begun().await;
    abort(&talk, "r", 1).await;
    abort(&talk, "q", 9).await;
    assign(&talk, assignment("r", 3)).await;
    first.handle.control.wait_aborted().await;
    abort(&talk, "r", 3).await;
    assert_eq!(
        talk.sent().await,
        "released r.3 Aborted",
        "it does not begin"
    );
    first.ends(released(Outcome::Aborted));
    assert_eq!(talk.sent().await, "released r.2 Aborted");

    // One that only waits is over at once, also when it is to yield.
    for (generation, yields) in [(4, false), (5, true)] {
        assign(&talk, assignment("r", generation)).await;
        bench.begun().await.ends(Ended::Unreachable {
            missing: vec![Unreached {
                worker: "v".into(),
                address: "10.0.0.9:7071".into(),
            }],
        });
        assert_eq!(talk.sent().await, "unreachable [\"v\"]");
        assert!(logged(
            "assignment.unreachable: cannot reach v at 10.0.0.9:7071; "
        ));
        match yields {
            true => ask_to_yield(&talk, "r", generation).await,
            false => abort(&talk, "r", generation).await,
        }
        assert_eq!(
            talk.sent().await,
            format!("released r.{generation} Aborted")
        );
    }
    // No new generation is formed with a worker that was to yield.
    assign(&talk, assignment("r", 6)).await;
    let begun = bench.begun().await;
    ask_to_yield(&talk, "r", 6).await;
    begun.handle.control.wait_given_up().await;
    begun.ends(interrupted());
    assert_eq!(talk.sent().await, "released r.6 Aborted");
}

#[tokio::test]
async fn it_prepares_unless_there_is_something_better_to_do() {
    let mut bench = Bench::new();
    let mut talk = bench.open().await;
    let prepare = |run: &str, problem: &str| {
        FromCoordinator::Prepare(pb::Prepare {
            run_id: run.into(),
            dataset_digest: problem.into(),
            ..pb::Prepare::default()
        })
    };
    talk.tell(prepare("r", "")).await;
    assert_eq!(talk.sent().await, "prepared r: ");
    talk.tell(prepare("r", "no room")).await;
    assert_eq!(talk.sent().await, "prepared r: no room");
    assign(&talk, assignment("r", 1)).await;
    bench.begun().await;
}

/// Many reports are sent at the pace at which they are taken.
#[tokio::test]
async fn after_a_long_absence_all_reports_are_sent() {
    const STEPS: u64 = 3000;
    let mut bench = Bench::new();
    let talk = bench.open().await;
    assign(&talk, assignment("r", 1)).await;
    let begun = bench.begun().await;
    bench.down(talk).await;
    for step in 1..=STEPS {
        begun.takes(step).await;
    }
    let mut talk = bench.open().await;
    for step in 1..=STEPS {
        assert_eq!(talk.sent().await, format!("step {step} r.1 [{step}]"));
    }
    drop(begun);
}

#[tokio::test]
async fn another_protocol_ends_the_worker_with_both_versions() {
    let bench = Bench::new();
    let talk = bench.open_with(fovea_proto::PROTOCOL + 1).await;
    let error = bench.result().await.unwrap_err();
    let expected = AgentError::Protocol {
        coordinator: fovea_proto::PROTOCOL + 1,
    };
    assert_eq!(error, expected);
    let text = error.to_string();
    for version in [fovea_proto::PROTOCOL, fovea_proto::PROTOCOL + 1] {
        assert!(text.contains(&format!("version {version}")), "{text}");
    }
    drop(talk);
}

/// A coordinator that refuses the worker ends it at once, whatever it is doing, and with the coordinator's sentence.
#[tokio::test]
async fn a_refusal_for_good_ends_the_worker() {
    let sentence = "hello.address: \"h:0\" is not host:port with a port above 0";
    for working in [false, true] {
        let mut bench = Bench::new();
        let mut begun = None;
        if working {
            let talk = bench.open().await;
            assign(&talk, assignment("r", 1)).await;
            begun = Some(bench.begun().await);
            bench.down(talk).await;
        }
        bench.fails("absent").await;
        bench.refuses(sentence).await;
        if let Some(begun) = begun {
            // The process must not end while the device computes: its libraries' exit handlers would pull away what it uses.
            let aborted = begun.handle.control.wait_aborted();
            timeout(DEADLINE, aborted).await.expect("it goes on");
            assert!(!bench.agent.is_finished());
            begun.ends(interrupted());
        }
        let error = bench.result().await.unwrap_err();
        let reason = sentence.to_owned();
        assert_eq!(error, AgentError::Refused { reason });
        assert!(error.to_string().contains(sentence), "{error}");
    }
}

/// A device that hangs does not keep a refused worker.
#[tokio::test(start_paused = true)]
async fn a_refused_worker_whose_device_hangs_ends_without_it() {
    let mut bench = Bench::new();
    let talk = bench.open().await;
    assign(&talk, assignment("r", 1)).await;
    let begun = bench.begun().await;
    bench.down(talk).await;
    bench.refuses("denied").await;
    let refused = Instant::now();
    assert!(bench.result().await.is_err());
    assert_eq!(refused.elapsed().as_secs(), ABORTING.as_secs());
    drop(begun);
}

/// A device that takes 60 steps, as fast as their events are taken, and the newest of them. The reports of 16 are the
/// limit.
fn takes_60_large_steps(begun: &Begun) -> (JoinHandle<()>, watch::Receiver<u64>) {
    /// 4 MiB.
    const SAMPLES: usize = 1 << 20;
    let events = begun.handle.events.clone();
    let (taken, steps) = watch::channel(0);
    let device = tokio::spawn(async move {
        for step in 1..=60 {
            let (report, samples) = (step_report(step), vec![0; SAMPLES]);
            events
                .send(JobEvent::Step { report, samples })
                .await
                .unwrap();
            taken.send_replace(step);
        }
    });
    (device, steps)
}

/// The coordinator is away for so long that the reports are full: training pauses, and nothing is lost.
#[tokio::test]
async fn full_reports_pause_training_until_they_are_acknowledged() {
    let mut bench = Bench::new();
    let talk = bench.open().await;
    assign(&talk, assignment("r", 1)).await;
    let begun = bench.begun().await;
    bench.down(talk).await;
    let (device, mut steps) = takes_60_large_steps(&begun);
    let paused = steps.wait_for(|step| *step >= 16);
    timeout(DEADLINE, paused).await.unwrap().unwrap();
    let mut talk = bench.open().await;
    // It waits for the coordinator and shows that it is not stuck.
    let ticks = talk.heartbeat(|_| true).await.ticks;
    talk.heartbeat(|beat| beat.ticks > ticks + 2).await;
    let far = *steps.borrow();
    assert!(far < 60, "it does not pause");
    // After each acknowledgement it continues; no step is left out.
    bench.down(talk).await;
    let mut talk = bench.open().await;
    for step in 1..=60 {
        assert!(talk.sent().await.starts_with(&format!("step {step} r.1")));
        let ack = pb::Ack {
            run_id: "r".into(),
            step,
            next_epoch: 0,
        };
        talk.tell(FromCoordinator::Ack(ack)).await;
    }
    timeout(DEADLINE, device).await.unwrap().unwrap();
    drop(begun);
}

#[tokio::test]
async fn full_reports_do_not_hold_an_abort() {
    let mut bench = Bench::new();
    let talk = bench.open().await;
    assign(&talk, assignment("r", 1)).await;
    let begun = bench.begun().await;
    let (device, _steps) = takes_60_large_steps(&begun);
    abort(&talk, "r", 1).await;
    timeout(DEADLINE, device).await.unwrap().unwrap();
    drop((begun, talk));
}

/// The clock is paused, so that nothing but this test lets time pass.
#[tokio::test(start_paused = true)]
async fn an_absent_coordinator_is_logged_at_first_and_then_seldom() {
    collect_log();
    let bench = Bench::new();
    for attempt in 1..=10 {
        bench.fails(&format!("absence {attempt} in a test")).await;
    }
    bench.settles().await;
    assert!(logged(
        "session.failed: cannot open a session with the coordinator: absence 1 in"
    ));
    assert!((2..=10).all(|attempt| !logged(&format!("absence {attempt} in a test"))));
    tokio::time::advance(Duration::from_secs(30)).await;
    bench.fails("absence after 30 s in a test").await;
    let talk = bench.open().await;
    bench.settles().await;
    assert!(logged("after 11 attempts: absence after 30 s in a test"));
    assert!(logged(
        "session.opened: joined the coordinator, after 30.0 s and 11 failed attempts"
    ));

    // Now there is a session to lose.
    drop(talk);
    bench.fails("broken in a test").await;
    bench.fails("absent after that in a test").await;
    bench.open().await;
    assert!(logged(
        "session.lost: the session with the coordinator broke: broken in a test"
    ));
    assert!(!logged("absent after that in a test"));
}
