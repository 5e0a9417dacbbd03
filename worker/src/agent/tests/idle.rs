//! A worker that is idle for too long leaves.

use std::sync::atomic::Ordering;

use fovea_core::run::Outcome;
use fovea_proto::pb::coordinator_message::Message as FromCoordinator;

use super::super::*;
use super::bench::*;

/// The time after which an idle worker leaves in these tests.
const IDLE: Duration = Duration::from_secs(600);

/// Lets `seconds` pass for the worker.
async fn after(bench: &Bench, seconds: u64) {
    bench.settles().await;
    // In small steps, as heartbeats come.
    for _ in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_leaves_after_its_time() {
    let bench = Bench::idle_for(Some(IDLE));
    let mut talk = bench.open().await;
    let begun = Instant::now();
    assert_eq!(talk.sent().await, "leaving");
    assert_eq!(begun.elapsed().as_secs(), IDLE.as_secs());
    bench.ends().await;

    // The coordinator was never there.
    let bench = Bench::idle_for(Some(IDLE));
    bench.fails("absent").await;
    let begun = Instant::now();
    after(&bench, IDLE.as_secs() - 1).await;
    assert!(!bench.agent.is_finished());
    bench.ends().await;
    assert_eq!(begun.elapsed().as_secs(), IDLE.as_secs());

    // Nor does one without a limit leave, or one whose limit no clock can show.
    for limit in [None, Some(Duration::MAX)] {
        let bench = Bench::idle_for(limit);
        let talk = bench.open().await;
        tokio::time::advance(IDLE * 1000).await;
        after(&bench, 10).await;
        assert!(!bench.agent.is_finished(), "{limit:?}");
        drop(talk);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_idleness_begins_when_the_last_assignment_ends() {
    let mut bench = Bench::idle_for(Some(IDLE));
    let mut talk = bench.open().await;
    after(&bench, 599).await;
    assign(&talk, assignment("r", 1)).await;
    // However long it is prepared, and though the coordinator is away meanwhile.
    let begun = bench.begun().await;
    after(&bench, 700).await;
    bench.down(talk).await;
    after(&bench, 700).await;
    // An interrupted one is not over: the state is kept for the next generation.
    begun.ends(interrupted());
    after(&bench, 700).await;
    talk = bench.open().await;
    assert_eq!(talk.sent().await, "interrupted r.1");
    assign(&talk, assignment("r", 2)).await;
    bench.begun().await.ends(released(Outcome::Aborted));
    assert_eq!(talk.sent().await, "released r.2 Aborted");
    let begun = Instant::now();
    assert_eq!(talk.sent().await, "leaving");
    assert_eq!(begun.elapsed().as_secs(), IDLE.as_secs());
    bench.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_reports_what_memory_it_can_use_when_that_has_changed() {
    let mut bench = Bench::idle_for(None);
    let mut talk = bench.open().await;
    assert_eq!(talk.hello.memory.unwrap().host_bytes, 1600);
    bench.memory.store(1550, Ordering::Relaxed);
    after(&bench, 60).await;
    bench.memory.store(400, Ordering::Relaxed);
    assert_eq!(talk.sent().await, "memory 400");
    // While it works it uses what the run needs.
    assign(&talk, assignment("r", 1)).await;
    let begun = bench.begun().await;
    bench.memory.store(2000, Ordering::Relaxed);
    after(&bench, 60).await;
    begun.ends(released(Outcome::Aborted));
    assert_eq!(talk.sent().await, "released r.1 Aborted");
    assert_eq!(talk.sent().await, "memory 2000");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_prepares_to_join_is_not_idle() {
    let bench = Bench::idle_for(Some(IDLE));
    let mut talk = bench.open().await;
    after(&bench, 500).await;
    let prepare = pb::Prepare {
        run_id: "r".into(),
        // It takes so many seconds.
        dataset_digest: "900".into(),
        ..pb::Prepare::default()
    };
    talk.tell(FromCoordinator::Prepare(prepare)).await;
    let begun = Instant::now();
    assert_eq!(talk.sent().await, "prepared r: 900");
    assert_eq!(begun.elapsed().as_secs(), 900);
    assert_eq!(talk.sent().await, "leaving");
    assert_eq!(begun.elapsed().as_secs(), 900 + IDLE.as_secs());
    bench.ends().await;
}
