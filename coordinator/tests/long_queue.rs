//! A long queue costs little: what is decided and computed for it, counted over a real server.
//!
//! Only events of this coordinator's threads are counted, not those of other tests.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use fovea_proto::pb;
use pb::Phase;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::common::*;

/// Runs in the queue.
const RUNS: u64 = 100;

static PLACINGS: AtomicUsize = AtomicUsize::new(0);
static ESTIMATES: AtomicUsize = AtomicUsize::new(0);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Counts what the cluster says that it does.
struct Count;

impl Subscriber for Count {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fovea_coordinator::cluster")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Count);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Count {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let count = match field.name() {
            "placed" => &PLACINGS,
            "estimated" => &ESTIMATES,
            "message" if format!("{value:?}").starts_with("run.waiting: ") => &WAITING,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Placings, estimates and lines about waiting runs since the last call.
fn counted() -> [usize; 3] {
    [&PLACINGS, &ESTIMATES, &WAITING].map(|count| count.swap(0, Ordering::Relaxed))
}

/// Counts the events of this thread until it ends.
fn count_this_thread() {
    std::mem::forget(tracing::subscriber::set_default(Count));
}

async fn submit(server: &Server, min: u32, max: u32, seeds: u64) -> pb::Group {
    let mut spec = spec();
    spec.workers = Some(pb::WorkersSpec {
        min: Some(min),
        max: Some(max),
        ..Default::default()
    });
    let train = spec.train.as_mut().unwrap();
    (train.virtual_ranks, train.batch) = (Some(max), Some(1));
    let request = pb::SubmitGroupRequest {
        spec: Some(spec),
        folds: 0,
        seeds: (0..seeds).collect(),
        ..Default::default()
    };
    server.groups().submit(request).await.unwrap().into_inner()
}

/// Waits until each run of the group says that it waits with so many idle workers.
async fn all_wait(server: &Server, group: &pb::Group, idle: usize) {
    let reason = format!("needs 4 workers; idle: {idle}");
    for member in &group.runs {
        let waits = |run: &pb::Run| run.reason == reason;
        server.run_when(&member.run_id, &reason, waits).await;
    }
}

async fn cancel(server: &Server, group: &pb::Group) -> pb::Group {
    let request = pb::CancelGroupRequest {
        group_id: group.id.clone(),
    };
    server.groups().cancel(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_costs_one_placing_and_a_run_one_estimate_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on_threads(&dir.path().join("data"), count_this_thread).await;
    let tiny = dataset(dir.path(), "tiny", 1);
    server.upload(&tiny).await.unwrap();
    let mut w1 = Worker::join(&server, "w1").await;
    let w2 = Worker::join(&server, "w2").await;
    counted();

    let group = submit(&server, 4, 4, RUNS).await;
    all_wait(&server, &group, 2).await;
    let runs = RUNS as usize;
    let [placings, estimates, lines] = counted();
    assert!(placings <= runs + 10, "{placings} placings");
    assert_eq!((estimates, lines), (runs, runs));

    // The reasons change, their cause does not.
    drop(w2);
    all_wait(&server, &group, 1).await;
    let [placings, estimates, lines] = counted();
    assert!(placings <= 10, "{placings} placings");
    assert_eq!((estimates, lines), (0, 0));

    let ended = cancel(&server, &group).await;
    assert!(ended.runs.iter().all(|run| run.phase() == Phase::Cancelled));
    let [placings, estimates, lines] = counted();
    assert!(placings <= runs + 10, "{placings} placings");
    assert_eq!((estimates, lines), (0, 0));

    // Their actors start at the same time, and the first run has the worker.
    for _ in 0..5 {
        let group = submit(&server, 1, 1, 8).await;
        let at = w1.assignment().await;
        assert_eq!(at.run_id, group.runs[0].run_id);
        cancel(&server, &group).await;
        w1.abort().await;
        w1.aborted(&at).await;
    }
    server.stop().await;
}
