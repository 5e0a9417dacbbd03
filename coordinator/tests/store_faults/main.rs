//! A hostile environment: stores that go away, journals from a backup, datasets that are removed, clients and workers that
//! leave in the middle of something. Over a real server, with fake workers.

#[path = "../common/mod.rs"]
mod common;

mod full;
mod phases;
mod removal;
mod verifying;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use fovea_coordinator::Config;
use fovea_proto::pb;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::run_event::Event;
use pb::Phase;
use tokio::time::Instant;
use tonic::Code;

/// A folder with a data folder in it, and the dataset `tiny`.
struct Place {
    dir: tempfile::TempDir,
    tiny: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tiny = dataset(dir.path(), "tiny", 1);
        Self { dir, tiny }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn checkpoints(&self) -> PathBuf {
        self.data().join("checkpoints")
    }

    /// A coordinator on the data folder.
    async fn server(&self) -> Server {
        Server::start(&self.data(), |_| {}).await
    }

    /// A coordinator on an empty data folder, with the dataset.
    async fn fresh_server(&self) -> Server {
        let server = self.server().await;
        server.upload(&self.tiny).await.unwrap();
        server
    }

    /// The same for one without rights to the files of others, with another configuration.
    async fn fresh_unprivileged_server(&self, change: impl FnOnce(&mut Config)) -> Server {
        let server = Server::start_unprivileged(&self.data(), change).await;
        server.upload(&self.tiny).await.unwrap();
        server
    }

    /// Names of the files of a run's checkpoints, without `.json`.
    fn stored(&self, run: &pb::Run) -> Vec<String> {
        let entries = std::fs::read_dir(self.checkpoints().join(&run.id)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|n| n.ends_with("tensors")).collect();
        names.sort();
        names
    }

    /// The only worker takes a step, which is in the journal when this returns.
    async fn step(&self, worker: &mut Worker, at: &pb::Assignment, step: u64) {
        let samples = samples(&self.tiny, at, step);
        worker.send(committed_with(at, report(step), samples)).await;
        worker.acked_step(step).await;
    }
}

fn small_spec() -> pb::RunSpec {
    let mut spec = spec();
    let train = spec.train.as_mut().unwrap();
    train.batch = Some(1);
    train.epochs = Some(3);
    spec.workers = Some(pb::WorkersSpec {
        min: Some(1),
        max: Some(1),
    });
    spec.checkpoint = Some(pb::CheckpointSpec {
        keep_last: Some(2),
        keep_best: Some(pb::BestBy::None.into()),
        ..Default::default()
    });
    spec
}

/// A run with one worker, under way.
async fn begin(server: &Server) -> (pb::Run, pb::Assignment, Worker) {
    let mut worker = Worker::join(server, "w0").await;
    let run = server.submit(small_spec()).await.unwrap();
    let mut watch = server.watch(&run.id).await;
    let at = worker.assignment().await;
    worker.ready(&at).await;
    let run = watch.until(Phase::Running).await;
    (run, at, worker)
}

/// The only worker uploads a checkpoint; it is listed when this returns.
async fn checkpoint(server: &Server, worker: &Worker, at: &pb::Assignment, step: u64) {
    let mut watch = server.watch(&at.run_id).await;
    worker
        .upload(at, 0, step, &state(step as u32))
        .await
        .unwrap();
    loop {
        match watch.next().await.expect("the run goes on") {
            Event::Checkpoint(info) if info.step == step => return,
            Event::Run(run) if run.checkpoints.iter().any(|c| c.step == step) => return,
            _ => {}
        }
    }
}

/// Reads the run until what is shown of it will do.
async fn shown(
    server: &Server,
    id: &str,
    what: &str,
    will_do: impl Fn(&pb::Run) -> bool,
) -> pb::Run {
    let read = async {
        loop {
            let run = server.run(id).await;
            if will_do(&run) {
                return run;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    soon(what, read).await
}

fn copy_journal(from: &Path, to: &Path) {
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        match std::fs::copy(from.join(name), to.join(name)) {
            Ok(_) => {}
            // What was merged has no log.
            Err(_) if name != "journal.db" => drop(std::fs::remove_file(to.join(name))),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

async fn cancel(server: &Server, id: &str) -> pb::Run {
    let request = pb::CancelRequest { run_id: id.into() };
    server.runs().cancel(request).await.unwrap().into_inner()
}

async fn resume(server: &Server, id: &str) -> pb::Run {
    let request = pb::ResumeRequest {
        run_id: id.into(),
        checkpoint_step: None,
    };
    server.runs().resume(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_journal_adopts_newer_checkpoints_over_those_that_retention_removed() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, at, mut worker) = begin(&server).await;
    for step in 1..=2 {
        place.step(&mut worker, &at, step).await;
    }
    checkpoint(&server, &worker, &at, 2).await;
    server.kill().await;
    let backup = tempfile::tempdir().unwrap();
    copy_journal(&place.data(), backup.path());

    let server = place.server().await;
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    for step in 3..=10 {
        place.step(&mut worker, &at, step).await;
        if step % 2 == 0 {
            checkpoint(&server, &worker, &at, step).await;
        }
    }
    let kept = [8, 10].map(|step| format!("step-{step:010}.g1.safetensors"));
    eventually("only the kept files", || place.stored(&run) == kept).await;
    server.kill().await;
    copy_journal(backup.path(), &place.data());

    let server = place.server().await;
    let adopted = shown(&server, &run.id, "the newer checkpoints", |run| {
        run.checkpoints.iter().any(|c| c.step == 10)
    })
    .await;
    let steps: Vec<u64> = adopted.checkpoints.iter().map(|c| c.step).collect();
    assert!(steps.ends_with(&[8, 10]), "{steps:?}");
    assert_eq!(place.stored(&run), kept);
    // Nothing is missing in its ledger.
    let request = pb::AuditRequest {
        run_id: run.id.clone(),
    };
    let audit = server.runs().audit(request).await.unwrap().into_inner();
    assert_eq!((audit.steps, &*audit.problems), (10, &[][..]), "{audit:?}");
    // And it goes on from the newest.
    let mut worker = Worker::join(&server, "w0").await;
    let at = worker.assignment().await;
    assert_eq!(at.start_step, 10);
    assert_eq!(at.checkpoint.map(|c| c.step), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_only_a_lost_journal_knew_are_taken_again() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, at, mut worker) = begin(&server).await;
    for step in 1..=2 {
        place.step(&mut worker, &at, step).await;
    }
    checkpoint(&server, &worker, &at, 2).await;
    server.kill().await;
    let backup = tempfile::tempdir().unwrap();
    copy_journal(&place.data(), backup.path());

    let server = place.server().await;
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    for step in 3..=5 {
        place.step(&mut worker, &at, step).await;
    }
    server.kill().await;
    copy_journal(backup.path(), &place.data());

    // Steps 3 to 5 were acknowledged, so the worker has forgotten them.
    let server = place.server().await;
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    let samples = samples(&place.tiny, &at, 6);
    worker.send(committed_with(&at, report(6), samples)).await;
    let again = worker.assignment().await;
    assert_eq!((again.generation, again.start_step), (2, 2));
    assert_eq!(again.lineage, at.lineage + 1, "the worker's state is void");
    let reason = server.run(&run.id).await.reason;
    assert!(
        reason.contains("account for steps 3-5; rewinding to checkpoint 2"),
        "{reason}"
    );
    worker.ready(&again).await;
    for step in 3..=6 {
        place.step(&mut worker, &again, step).await;
    }
    let request = pb::AuditRequest {
        run_id: run.id.clone(),
    };
    let audit = server.runs().audit(request).await.unwrap().into_inner();
    assert_eq!((audit.steps, &*audit.problems), (6, &[][..]), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_run_takes_nothing_of_another_one_of_its_id() {
    let place = Place::new();
    let server = place.fresh_server().await;
    server.kill().await;
    // Before the first run, but with the dataset.
    let backup = tempfile::tempdir().unwrap();
    copy_journal(&place.data(), backup.path());
    let server = place.server().await;
    let (lost, at, mut worker) = begin(&server).await;
    for step in 1..=2 {
        place.step(&mut worker, &at, step).await;
    }
    checkpoint(&server, &worker, &at, 2).await;
    server.kill().await;
    let stored = place.stored(&lost);
    copy_journal(backup.path(), &place.data());

    // Its folder is seen at the start, and its id is not given again.
    let server = place.server().await;
    let run = server.submit(small_spec()).await.unwrap();
    assert_ne!(run.id, lost.id);
    assert_eq!(run.checkpoints, []);
    assert_eq!(place.stored(&lost), stored);
    server.kill().await;
    copy_journal(backup.path(), &place.data());

    // Where the folder is elsewhere at the start, the id is given again; when it is back, the next start takes nothing.
    let aside = place.data().join("aside");
    std::fs::rename(place.checkpoints().join(&lost.id), &aside).unwrap();
    let server = place.server().await;
    let mut names = Vec::new();
    for _ in 0..2 {
        names.push(server.submit(small_spec()).await.unwrap().id);
    }
    assert!(names.contains(&lost.id), "{names:?}");
    server.kill().await;
    let _ = std::fs::remove_dir(place.checkpoints().join(&lost.id));
    std::fs::rename(&aside, place.checkpoints().join(&lost.id)).unwrap();
    let server = place.server().await;
    let run = server.run(&lost.id).await;
    assert_eq!(
        (run.phase(), &*run.checkpoints),
        (Phase::Queued, &[][..]),
        "{run:?}"
    );
    // A worker that still trains the other run of that id is not taken for one of this.
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    assert_eq!(worker.abort().await.run_id, lost.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_run_removes_the_ledgers_of_its_removed_checkpoints() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, at, mut worker) = begin(&server).await;
    for step in 1..=3 {
        place.step(&mut worker, &at, step).await;
        checkpoint(&server, &worker, &at, step).await;
    }
    let ledgers = place.checkpoints().join(".ledger").join(&run.id);
    eventually("the ledger of the first", || {
        ledgers.join("step-0000000001.g1.json").is_file()
    })
    .await;
    cancel(&server, &run.id).await;
    let stop = worker.stop().await;
    assert_eq!(stop.run_id, run.id);
    worker.upload(&at, 0, 3, &state(3)).await.unwrap();
    let stopped = pb::released::Outcome::StoppedStep(3);
    worker.released(&at, stopped).await;
    shown(&server, &run.id, "its end", |run| {
        run.phase() == Phase::Cancelled
    })
    .await;
    let request = pb::DeleteRunRequest {
        run_id: run.id.clone(),
        with_checkpoints: true,
    };
    server.runs().delete(request.clone()).await.unwrap();
    assert!(!ledgers.exists());
    refused(server.runs().delete(request).await, Code::NotFound, &run.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_delays_checkpoints_and_loses_none() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, at, mut worker) = begin(&server).await;
    place.step(&mut worker, &at, 1).await;
    checkpoint(&server, &worker, &at, 1).await;
    place.step(&mut worker, &at, 2).await;
    checkpoint(&server, &worker, &at, 2).await;
    let before = place.stored(&run);

    // Gone; then an empty folder, as a mount point is.
    let away = place.data().join("away");
    std::fs::rename(place.checkpoints(), &away).unwrap();
    for empty in [false, true] {
        if empty {
            std::fs::create_dir(place.checkpoints()).unwrap();
        }
        worker.upload(&at, 0, 3, &state(3)).await.unwrap_err();
        let told = shown(&server, &run.id, "the reason", |run| !run.reason.is_empty()).await;
        assert!(
            told.reason.contains("checkpoint 3 cannot be stored"),
            "{}",
            told.reason
        );
        assert_eq!(told.phase(), Phase::Running);
        // Nothing is taken off the list while the store cannot be asked.
        let request = pb::DeleteCheckpointRequest {
            run_id: run.id.clone(),
            step: 1,
        };
        server.checkpoints().delete(request).await.unwrap_err();
        assert_eq!(server.run(&run.id).await.checkpoints.len(), 2);
    }
    // Training goes on.
    place.step(&mut worker, &at, 3).await;
    assert_eq!(std::fs::read_dir(place.checkpoints()).unwrap().count(), 0);
    std::fs::remove_dir(place.checkpoints()).unwrap();
    std::fs::rename(&away, place.checkpoints()).unwrap();
    assert_eq!(place.stored(&run), before);
    checkpoint(&server, &worker, &at, 3).await;
    let told = shown(&server, &run.id, "no reason", |run| run.reason.is_empty()).await;
    assert_eq!(told.checkpoints.last().unwrap().step, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_dataset_was_removed_waits_and_goes_on_when_it_is_back() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let run = server.submit(small_spec()).await.unwrap();
    let remove = || pb::DeleteDatasetRequest {
        dataset: "tiny".into(),
    };
    refused(
        server.datasets().delete(remove()).await,
        Code::FailedPrecondition,
        &format!("cancel it first (`fovea cancel {}`)", run.id),
    );
    cancel(&server, &run.id).await;
    server.datasets().delete(remove()).await.unwrap();
    refused(
        server.datasets().delete(remove()).await,
        Code::NotFound,
        "tiny",
    );
    let mut worker = Worker::join(&server, "w0").await;
    resume(&server, &run.id).await;
    let told = shown(&server, &run.id, "the reason", |run| {
        run.reason.contains("fovea dataset add")
    })
    .await;
    assert_eq!((told.phase(), told.generation), (Phase::Queued, 0));
    server.upload(&place.tiny).await.unwrap();
    let at = worker.assignment().await;
    assert_eq!(at.run_id, run.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_scheduled_although_whoever_submitted_it_has_left() {
    let place = Place::new();
    let server = place.fresh_server().await;
    for attempt in 0..60u64 {
        let patience = Duration::from_micros(attempt * 200);
        let _ = tokio::time::timeout(patience, server.submit(small_spec())).await;
    }
    // What was accepted has an actor: it says what it waits for.
    let accepted = soon("all runs", async {
        loop {
            let request = pb::ListRunsRequest::default();
            let runs = server.runs().list(request).await.unwrap().into_inner().runs;
            if runs
                .iter()
                .all(|run| run.reason.contains("needs 1 worker;"))
            {
                return runs.len();
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    println!("{accepted} of 60 runs were accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_resumed_while_its_actor_closes_is_scheduled() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let mut runs = Vec::new();
    for _ in 0..60 {
        runs.push(server.submit(small_spec()).await.unwrap());
    }
    let mut ended = Vec::new();
    for run in &runs {
        cancel(&server, &run.id).await;
        ended.push(Instant::now());
    }
    // An ended run's actor closes after 2 s, by the clock. The resumes are spread around that moment.
    for (n, (run, ended)) in (0..).zip(runs.iter().zip(ended)) {
        tokio::time::sleep_until(ended + Duration::from_millis(1_700 + 10 * n)).await;
        resume(&server, &run.id).await;
    }
    for run in &runs {
        shown(&server, &run.id, "a live run", |run| {
            run.reason.contains("needs 1 worker;")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_opens_another_session_during_an_offer_is_not_stranded() {
    let place = Place::new();
    let server = place.fresh_server().await;
    for attempt in 0..20 {
        let name = format!("w{attempt}");
        let first = Worker::join(&server, &name).await;
        let run = server.submit(small_spec()).await.unwrap();
        let mut watch = server.watch(&run.id).await;
        // Without waiting for the assignment, which may or may not have been on its way.
        drop(first);
        let mut second = Worker::join(&server, &name).await;
        let forms = async {
            let mut at: Option<pb::Assignment> = None;
            loop {
                match second.next().await {
                    Down::Assignment(assignment) => {
                        second.ready(&assignment).await;
                        at = Some(assignment);
                    }
                    Down::Abort(abort) => match &at {
                        Some(at) if at.generation == abort.generation => second.aborted(at).await,
                        _ => {}
                    },
                    _ => {}
                }
            }
        };
        tokio::select! {
            _ = watch.until(Phase::Running) => {}
            () = forms => unreachable!("it does not end"),
        }
        cancel(&server, &run.id).await;
    }
}
