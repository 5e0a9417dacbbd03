//! Runs whose workers come, go, break and differ, over a real server: fake workers speak the protocol.

mod checkpoints;
mod gpus;
mod hand_over;
mod joining;
mod ledger;
mod losing;
mod machines;
mod pausing;
mod priority;
mod restart;
mod sessions;
mod states;
mod troubles;

use crate::common;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::*;
use fovea_coordinator::{Config, OnStop};
use fovea_proto::pb;
use fovea_proto::pb::run_event::Event;
use pb::Phase;

/// A coordinator with the dataset `tiny`, and the folder that both lie in.
pub struct Stage {
    dir: tempfile::TempDir,
    pub server: Server,
    on_stop: OnStop,
}

impl Stage {
    pub async fn new() -> Self {
        Self::new_with(OnStop::Checkpoint).await
    }

    /// Its coordinators treat their runs so when they are asked to stop.
    pub async fn new_with(on_stop: OnStop) -> Self {
        Self::build(on_stop, set(on_stop)).await
    }

    /// The same with a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::build(OnStop::Checkpoint, change).await
    }

    async fn build(on_stop: OnStop, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("data"), change).await;
        let tiny = dataset(dir.path(), "tiny", 1);
        server.upload(&tiny).await.unwrap();
        Self {
            dir,
            server,
            on_stop,
        }
    }

    /// Kills the coordinator and starts another in the same folder.
    pub async fn restart(self) -> Self {
        let Self {
            dir,
            server,
            on_stop,
        } = self;
        server.kill().await;
        let server = Server::start(&dir.path().join("data"), set(on_stop)).await;
        Self {
            dir,
            server,
            on_stop,
        }
    }

    /// Asks the coordinator to hand over, which it does in time and without an error, and starts another in the same
    /// folder. `between` looks at the folder when neither runs.
    pub async fn hand_over(self, between: impl FnOnce(&std::path::Path)) -> Self {
        let Self {
            dir,
            server,
            on_stop,
        } = self;
        assert_eq!(on_stop, OnStop::HandOver);
        let asked = Instant::now();
        server.stop().await;
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(2), "it took {took:?}");
        between(&dir.path().join("data"));
        let server = Server::start(&dir.path().join("data"), set(on_stop)).await;
        Self {
            dir,
            server,
            on_stop,
        }
    }

    pub async fn join(&self, id: &str) -> Worker {
        Worker::join(&self.server, id).await
    }

    /// Joins workers, submits a run, and waits until it runs with all of them in generation 1.
    pub async fn begin<const N: usize>(
        &self,
        spec: pb::RunSpec,
        ids: [&str; N],
    ) -> (pb::Run, pb::Assignment, Watch, [Worker; N]) {
        let mut workers = Vec::new();
        for id in ids {
            workers.push(self.join(id).await);
        }
        let run = self.server.submit(spec).await.unwrap();
        let mut watch = self.server.watch(&run.id).await;
        let mut members: Vec<&mut Worker> = workers.iter_mut().collect();
        let at = form(&mut members).await;
        assert_eq!((&*at.run_id, at.generation), (&*run.id, 1));
        assert_eq!(ids_of(&at), ids);
        let run = watch.until(Phase::Running).await;
        let workers = workers.try_into().ok().expect("as many as ids");
        (run, at, watch, workers)
    }

    /// The samples that `step` of the assignment's run uses, by its plan.
    pub fn samples(&self, at: &pb::Assignment, step: u64) -> Vec<u32> {
        samples(&self.dir.path().join("tiny"), at, step)
    }

    /// `worker` reports a step, with the samples of the plan.
    pub async fn step(&self, worker: &Worker, at: &pb::Assignment, step: u64) {
        let samples = self.samples(at, step);
        worker.send(committed_with(at, report(step), samples)).await;
    }

    /// The members upload a checkpoint; it is stored when this returns.
    pub async fn checkpoint(
        &self,
        members: &[&Worker],
        at: &pb::Assignment,
        step: u64,
        state: &[u8],
    ) {
        let mut watch = self.server.watch(&at.run_id).await;
        for (rank, worker) in members.iter().enumerate() {
            worker.upload(at, rank, step, state).await.unwrap();
        }
        let this = |c: &pb::Checkpoint| (c.step, c.generation) == (step, at.generation);
        loop {
            match watch.next().await.expect("the run goes on") {
                Event::Checkpoint(info) if this(&info) => return,
                Event::Run(run) if run.checkpoints.iter().any(this) => return,
                _ => {}
            }
        }
    }

    pub async fn audit(&self, run: &pb::Run) -> pb::AuditReport {
        let request = pb::AuditRequest {
            run_id: run.id.clone(),
        };
        self.server
            .runs()
            .audit(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn cancel(&self, run: &pb::Run) -> Result<pb::Run, tonic::Status> {
        let request = pb::CancelRequest {
            run_id: run.id.clone(),
        };
        Ok(self.server.runs().cancel(request).await?.into_inner())
    }

    pub async fn pause(&self, run: &pb::Run) -> Result<pb::Run, tonic::Status> {
        let request = pb::PauseRequest {
            run_id: run.id.clone(),
        };
        Ok(self.server.runs().pause(request).await?.into_inner())
    }

    pub async fn resume(
        &self,
        run: &pb::Run,
        checkpoint_step: Option<u64>,
    ) -> Result<pb::Run, tonic::Status> {
        let request = pb::ResumeRequest {
            run_id: run.id.clone(),
            checkpoint_step,
        };
        Ok(self.server.runs().resume(request).await?.into_inner())
    }

    /// The run's folder of checkpoints.
    pub fn folder(&self, run: &pb::Run) -> PathBuf {
        self.dir.path().join("data/checkpoints").join(&run.id)
    }

    /// What lies there, sorted.
    pub fn files(&self, run: &pb::Run) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder(run))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Files in the store's trash.
    pub fn trash(&self) -> Vec<String> {
        let trash = self.dir.path().join("data/checkpoints/.trash");
        let list = |folder: &std::path::Path| -> Vec<std::path::PathBuf> {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        list(&trash)
            .iter()
            .flat_map(|folder| list(folder))
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }
}

fn set(on_stop: OnStop) -> impl FnOnce(&mut Config) {
    move |config| config.on_stop = on_stop
}

/// A run over `virtual_ranks` with one sample for each a step, that takes `min` to `max` workers.
pub fn spec_of(virtual_ranks: u32, min: u32, max: u32) -> pb::RunSpec {
    let mut spec = spec();
    let train = spec.train.as_mut().unwrap();
    train.virtual_ranks = Some(virtual_ranks);
    train.batch = Some(1);
    train.epochs = Some(3);
    spec.workers = Some(pb::WorkersSpec {
        min: Some(min),
        max: Some(max),
        ..Default::default()
    });
    spec
}

/// The members of a new generation get the same assignment, except for whose state is void.
pub async fn gather(members: &mut [&mut Worker]) -> pb::Assignment {
    let mut first: Option<pb::Assignment> = None;
    for worker in members {
        let mut at = worker.assignment().await;
        at.discard_state = false;
        match &first {
            None => first = Some(at),
            Some(first) => assert_eq!(*first, at),
        }
    }
    first.expect("members")
}

/// They get it and are ready.
pub async fn form(members: &mut [&mut Worker]) -> pb::Assignment {
    let at = gather(members).await;
    for worker in members {
        worker.ready(&at).await;
    }
    at
}

/// The members of an assignment by rank.
pub fn ids_of(at: &pb::Assignment) -> Vec<&str> {
    at.members.iter().map(|m| &*m.worker_id).collect()
}

impl Watch {
    /// Reads until the run is in `phase` of `generation`.
    pub async fn until_in(&mut self, phase: Phase, generation: u64) -> pb::Run {
        loop {
            let run = self.until(phase).await;
            if run.generation == generation {
                return run;
            }
        }
    }

    /// Reads until a step event.
    pub async fn until_step(&mut self, step: u64) {
        loop {
            match self.next().await.expect("the run goes on") {
                Event::Step(report) if report.step == step => return,
                _ => {}
            }
        }
    }

    /// Reads until an epoch's result.
    pub async fn until_epoch(&mut self, epoch: u32) -> pb::EpochResult {
        loop {
            match self.next().await.expect("the run goes on") {
                Event::Epoch(result) if result.epoch == epoch => return result,
                _ => {}
            }
        }
    }
}
