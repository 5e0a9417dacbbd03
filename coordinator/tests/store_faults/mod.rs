//! A hostile environment: stores that go away, journals from a backup, datasets that are removed, clients and workers that
//! leave in the middle of something. Over a real server, with fake workers.

mod away;
mod full;
mod leaving;
mod phases;
mod removal;
mod restored;
mod verifying;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::*;
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

/// As [`begin`], and takes steps up to `last`, each with a checkpoint.
async fn begin_with_checkpoints(
    place: &Place,
    server: &Server,
    last: u64,
) -> (pb::Run, pb::Assignment, Worker) {
    let (run, at, mut worker) = begin(server).await;
    for step in 1..=last {
        place.step(&mut worker, &at, step).await;
        checkpoint(server, &worker, &at, step).await;
    }
    (run, at, worker)
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
