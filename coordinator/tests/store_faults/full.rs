//! The disk of the data folder is full: the journal cannot be written.

use std::time::Instant;

use fovea_coordinator::{CLOSE_TIMEOUT, OnStop, ServeError};

use super::*;
use crate::common::small_disk::SmallDisk;

/// Room for the journal, the dataset and some checkpoints.
const DISK: u64 = 96 << 20;
const DRAIN_S: u64 = 1;

/// A place whose data folder is a small disk. The disk is unmounted before its folder is removed.
struct SmallPlace {
    disk: SmallDisk,
    place: Place,
    on_stop: OnStop,
}

impl SmallPlace {
    fn new() -> Self {
        let place = Place::new();
        std::fs::create_dir(place.data()).unwrap();
        let disk = SmallDisk::mount(&place.data(), DISK).expect("mounting needs root");
        let on_stop = OnStop::Checkpoint;
        Self {
            disk,
            place,
            on_stop,
        }
    }

    async fn server(&self) -> Server {
        Server::start(&self.place.data(), |config| {
            config.min_free_mib = 0;
            config.drain_timeout_s = DRAIN_S;
            config.on_stop = self.on_stop;
        })
        .await
    }

    /// A coordinator with the dataset and a run of which a step is in the journal.
    async fn begin(&self) -> (Server, pb::Run, pb::Assignment, Worker) {
        let server = self.server().await;
        server.upload(&self.place.tiny).await.unwrap();
        let (run, at, mut worker) = begin(&server).await;
        self.place.step(&mut worker, &at, 1).await;
        (server, run, at, worker)
    }

    /// Sends a step that is not acknowledged, as the disk is full.
    async fn send(&self, worker: &Worker, at: &pb::Assignment, step: u64) {
        let samples = samples(&self.place.tiny, at, step);
        worker.send(committed_with(at, report(step), samples)).await;
    }
}

/// Reads until people are shown that the disk is full, or that it is not.
async fn until_full(watch: &mut Watch, full: bool) -> pb::Run {
    loop {
        match watch.next().await.expect("the run goes on") {
            Event::Run(run) if run.reason.contains("the disk is full") == full => return run,
            _ => {}
        }
    }
}

async fn audit(server: &Server, run: &pb::Run) -> pb::AuditReport {
    let request = pb::AuditRequest {
        run_id: run.id.clone(),
    };
    server.runs().audit(request).await.unwrap().into_inner()
}

/// Asks the coordinator to stop. Returns the error with which it ends, and how long that takes.
async fn stop(server: Server) -> (ServeError, Duration) {
    let asked = Instant::now();
    server.ask_to_stop();
    let error = server.stopped().await.unwrap_err();
    (error, asked.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
async fn while_the_disk_is_full_requests_are_refused_and_runs_wait() {
    let small = SmallPlace::new();
    let (server, run, at, mut worker) = small.begin().await;
    let mut watch = server.watch(&run.id).await;
    small.disk.fill().unwrap();
    small.send(&worker, &at, 2).await;
    let told = until_full(&mut watch, true).await;
    assert_eq!(told.phase(), Phase::Running, "{}", told.reason);

    let full = "the disk is full";
    let id = || run.id.clone();
    let submitted = server.submit(small_spec()).await;
    refused(submitted, Code::Unavailable, full);
    let request = pb::CancelRequest { run_id: id() };
    refused(server.runs().cancel(request).await, Code::Unavailable, full);
    let request = pb::PauseRequest { run_id: id() };
    refused(server.runs().pause(request).await, Code::Unavailable, full);
    let request = pb::AuditRequest { run_id: id() };
    refused(server.runs().audit(request).await, Code::Unavailable, full);
    let request = pb::DeleteDatasetRequest {
        dataset: "tiny".into(),
    };
    server.datasets().delete(request).await.unwrap_err();
    // What is read is answered.
    assert!(server.run(&run.id).await.reason.contains(full));
    let watched = server.watch(&run.id).await.next().await;
    assert!(matches!(watched, Some(Event::Run(run)) if run.reason.contains(full)));

    small.disk.free().unwrap();
    worker.acked_step(2).await;
    let told = until_full(&mut watch, false).await;
    assert_eq!((told.phase(), &*told.reason), (Phase::Running, ""));
    for step in 3..=4 {
        small.place.step(&mut worker, &at, step).await;
    }
    checkpoint(&server, &worker, &at, 4).await;
    let audit = audit(&server, &run).await;
    assert_eq!((audit.steps, &*audit.problems), (4, &[][..]));
    // What was refused has not happened.
    let request = pb::ListRunsRequest::default();
    let runs = server.runs().list(request).await.unwrap().into_inner().runs;
    assert_eq!(runs.len(), 1);
    server.submit(small_spec()).await.unwrap();
    cancel(&server, &run.id).await;
}

/// Some room is not room for a checkpoint: that none can be stored is shown until there is as much as it takes.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
async fn a_checkpoint_that_does_not_fit_is_shown_until_it_would() {
    let place = Place::new();
    let whole = state(1);
    std::fs::create_dir_all(place.checkpoints()).unwrap();
    // The first checkpoint of the run: how large one is shows nothing else.
    let room = whole.len() as u64 / 2;
    let disk = SmallDisk::mount(&place.checkpoints(), room).expect("mounting needs root");
    let server = Server::start(&place.data(), |config| config.min_free_mib = 0).await;
    server.upload(&place.tiny).await.unwrap();
    let (run, at, mut worker) = begin(&server).await;
    place.step(&mut worker, &at, 1).await;
    let refusal = worker.upload(&at, 0, 1, &whole).await;
    refused(refusal, Code::ResourceExhausted, "no room");
    let delayed = |run: &pb::Run| run.reason.contains("checkpoint 1 cannot be stored");
    server.run_when(&run.id, "the delay", delayed).await;
    // The coordinator looks once a second whether it would fit.
    let end = Instant::now() + Duration::from_millis(3_500);
    while Instant::now() < end {
        let now = server.run(&run.id).await;
        assert!(delayed(&now), "it is said to be over: {:?}", now.reason);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.kill().await;
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
async fn a_stop_while_the_disk_is_full_ends_in_time_and_loses_nothing() {
    let small = SmallPlace::new();
    let (server, run, at, worker) = small.begin().await;
    let accepted = server.submit(small_spec()).await.unwrap();
    let mut watch = server.watch(&run.id).await;
    small.disk.fill().unwrap();
    small.send(&worker, &at, 2).await;
    until_full(&mut watch, true).await;

    let (error, took) = stop(server).await;
    println!("it ended after {took:.1?}: {error}");
    assert!(took < Duration::from_secs(DRAIN_S) + CLOSE_TIMEOUT + PATIENCE / 4);
    assert!(
        matches!(
            error,
            ServeError::DrainTimeout {
                runs: 1,
                seconds: DRAIN_S
            }
        ),
        "{error}"
    );
    assert_eq!(error.exit_code(), fovea_service::FORCED);
    drop((worker, watch));

    // The next one starts on the full disk, too, and has all that was accepted.
    let server = small.server().await;
    let held = server.run(&accepted.id).await;
    assert_eq!(held.phase(), Phase::Queued, "{}", held.reason);
    // Its end may have given some space back.
    small.disk.fill().unwrap();
    let submitted = server.submit(small_spec()).await;
    refused(submitted, Code::Unavailable, "the disk is full");
    small.disk.free().unwrap();
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    let found = audit(&server, &run).await;
    assert!(found.steps >= 1 && found.problems.is_empty(), "{found:?}");
    // The worker keeps what was not acknowledged, and reports it again.
    small.place.step(&mut worker, &at, 2).await;
    small.place.step(&mut worker, &at, 3).await;
    let found = audit(&server, &run).await;
    assert_eq!((found.steps, &*found.problems), (3, &[][..]));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
async fn a_hand_over_while_the_disk_is_full_ends_within_2_s_and_loses_nothing() {
    let small = SmallPlace {
        on_stop: OnStop::HandOver,
        ..SmallPlace::new()
    };
    let (server, run, at, worker) = small.begin().await;
    let mut watch = server.watch(&run.id).await;
    small.disk.fill().unwrap();
    small.send(&worker, &at, 2).await;
    until_full(&mut watch, true).await;

    let (error, took) = stop(server).await;
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    let is_timeout = matches!(error, ServeError::HandOverTimeout { runs: 1, .. });
    assert!(is_timeout, "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(error.exit_code(), fovea_service::FORCED);
    drop((worker, watch));

    small.disk.free().unwrap();
    let server = small.server().await;
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    small.place.step(&mut worker, &at, 2).await;
    small.place.step(&mut worker, &at, 3).await;
    let found = audit(&server, &run).await;
    assert_eq!((found.steps, &*found.problems), (3, &[][..]));
    assert_eq!(server.run(&run.id).await.generation, 1);
}

/// Nothing waits to be written.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
async fn a_stop_of_an_idle_coordinator_on_a_full_disk_succeeds() {
    let small = SmallPlace::new();
    let server = small.server().await;
    server.upload(&small.place.tiny).await.unwrap();
    let run = server.submit(small_spec()).await.unwrap();
    small.disk.fill().unwrap();
    server.stop().await;
    small.disk.free().unwrap();
    let server = small.server().await;
    assert_eq!(server.run(&run.id).await.phase(), Phase::Queued);
}
