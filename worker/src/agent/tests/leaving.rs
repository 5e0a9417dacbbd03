//! A worker that is asked to stop.

use fovea_core::run::Outcome;

use super::super::*;
use super::bench::*;

#[tokio::test]
async fn an_idle_worker_that_shuts_down_says_so_and_ends() {
    let bench = Bench::new();
    let mut talk = bench.open().await;
    bench.shutdown.request();
    assert_eq!(talk.sent().await, "leaving");
    while talk.outbound.recv().await.is_some() {}
    bench
        .link
        .send(LinkEvent::Down("closed".into()))
        .await
        .unwrap();
    bench.ends().await;

    let lonely = Bench::new();
    lonely.shutdown.request();
    lonely.ends().await;
}

#[tokio::test]
async fn a_busy_worker_that_shuts_down_waits_for_its_run_to_go_on_without_it() {
    let mut bench = Bench::new();
    let talk = bench.open().await;
    assign(&talk, assignment("r", 1)).await;
    let begun = bench.begun().await;
    bench.shutdown.request();
    bench.down(talk).await;
    let mut talk = bench.open().await;
    assert_eq!(talk.sent().await, "leaving");
    assert!(!begun.handle.control.given_up());
    ask_to_yield(&talk, "r", 1).await;
    begun.handle.control.wait_given_up().await;
    begun.takes(1).await;
    begun.ends(released(Outcome::Yielded { step: 1 }));
    let sent: [String; 2] = talk.all_sent().await;
    assert_eq!(sent, ["step 1 r.1 [1]", "released r.1 Yielded { step: 1 }"]);
    while talk.outbound.recv().await.is_some() {}
    bench
        .link
        .send(LinkEvent::Down("closed".into()))
        .await
        .unwrap();
    bench.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_shuts_down_does_not_wait_for_ever_for_its_coordinator() {
    let mut bench = Bench::new();
    let talk = bench.open().await;
    assign(&talk, assignment("r", 1)).await;
    let begun = bench.begun().await;
    bench.down(talk).await;
    bench.shutdown.request();
    // The clock is paused: it shows for how long the worker meant to wait.
    let asked = Instant::now();
    begun.handle.control.wait_aborted().await;
    assert_eq!(asked.elapsed().as_secs(), ALONE.as_secs());
    begun.ends(released(Outcome::Aborted));
    bench.ends().await;

    // Nor for a device that does not end, nor for an assignment that only waits for another generation.
    for waits in [false, true] {
        let mut bench = Bench::new();
        let mut talk = bench.open().await;
        assign(&talk, assignment("r", 1)).await;
        let begun = bench.begun().await;
        let mut kept = None;
        if waits {
            begun.ends(interrupted());
            assert_eq!(talk.sent().await, "interrupted r.1");
        } else {
            kept = Some(begun);
        }
        bench.down(talk).await;
        bench.shutdown.request();
        bench.ends().await;
        drop(kept);
    }
}

/// A coordinator whose disk is full answers, and takes nothing. The worker waits for as long as it may, and no longer.
#[tokio::test(start_paused = true)]
async fn a_worker_that_shuts_down_ends_in_time_whatever_its_coordinator_does_not_take() {
    let limit = Duration::from_secs(10);
    for waits in [false, true] {
        let mut bench = Bench::stops_within(limit);
        let mut talk = bench.open().await;
        assign(&talk, assignment("r", 1)).await;
        let begun = bench.begun().await;
        let control = begun.handle.control.clone();
        let mut working = Some(begun);
        if waits {
            working.take().unwrap().ends(interrupted());
            assert_eq!(talk.sent().await, "interrupted r.1");
        }
        assert!(!control.leaving());
        bench.shutdown.request();
        let asked = Instant::now();
        assert_eq!(talk.sent().await, "leaving");
        if let Some(begun) = working {
            assert!(control.leaving());
            control.wait_aborted().await;
            begun.ends(released(Outcome::Aborted));
        }
        // The coordinator learns of it: it must not wait for this worker.
        assert_eq!(talk.sent().await, "released r.1 Aborted");
        let waited = asked.elapsed();
        assert!(waited >= limit - LAST && waited < limit, "{waited:?}");
        while talk.outbound.recv().await.is_some() {}
        bench.ends().await;
        assert!(asked.elapsed() < limit, "{:?}", asked.elapsed());
    }
}
