//! Making one fault, and what is to be mended after it.

use std::time::Duration;

use fovea_client::view::Phase;
use fovea_core::random;

use super::{Chaos, Kind};
use crate::faults::{Stall, corrupt_file};
use crate::process::Process;

/// Longer than a worker may be silent.
const LONG_STOP: Duration = Duration::from_millis(2500);
/// Shorter than that.
const BRIEF_STOP: Duration = Duration::from_millis(400);
/// Longer than a few steps, shorter than what counts as stuck.
const LATE: Duration = Duration::from_millis(500);

impl Chaos<'_> {
    /// Makes a fault. An error says why it cannot be made now.
    pub(super) async fn inflict(&mut self, kind: Kind) -> Result<(), String> {
        let running = self.nodes.running();
        let alone = running.len() < 2;
        match kind {
            Kind::KillWorker
            | Kind::LeaveWorker
            | Kind::StallDevice
            | Kind::StallWaiting
            | Kind::Partition
                if alone =>
            {
                return Err("only one worker is there".into());
            }
            Kind::KillWorker => {
                self.pick(&running).kill();
            }
            Kind::LeaveWorker => {
                let leaving = self.pick(&running);
                leaving.signal(libc::SIGTERM);
                let status = leaving.wait(Duration::from_secs(60));
                assert!(
                    status.success(),
                    "a worker that was asked to leave: {status}"
                );
            }
            Kind::KillAllWorkers => {
                for worker in self.nodes.workers.iter_mut().flatten() {
                    worker.kill();
                }
                self.refill();
            }
            Kind::StopWorker | Kind::BriefStop => {
                let pause = if kind == Kind::StopWorker {
                    LONG_STOP
                } else {
                    BRIEF_STOP
                };
                let stopped = self.pick(&running);
                stopped.stop();
                // The fault itself takes this long.
                tokio::time::sleep(pause).await;
                stopped.cont();
            }
            Kind::StallDevice => {
                let pid = self.pick(&running).pid();
                let stall = Stall::new(pid, "device").map_err(|e| e.to_string())?;
                self.goes_on_without().await;
                stall.release();
            }
            Kind::StallWaiting => {
                let at = random::below(&mut self.random, running.len() as u64) as usize;
                let [late, waiting] = [at, (at + 1) % running.len()].map(|at| {
                    let worker = self.nodes.workers[running[at]].as_ref();
                    worker.expect("a running worker has a process").pid()
                });
                let late = Stall::new(late, "device").map_err(|e| e.to_string())?;
                // The fault itself takes this long: some steps' time.
                tokio::time::sleep(LATE).await;
                let stall = Stall::new(waiting, "device").map_err(|e| e.to_string())?;
                late.release();
                self.goes_on_without().await;
                stall.release();
            }
            Kind::JoinWorker => {
                let free = (0..self.nodes.workers.len()).find(|place| !running.contains(place));
                let place = free.ok_or("there is no room")?;
                self.nodes.start_worker(place);
            }
            Kind::KillCoordinator | Kind::KillBoth => {
                if kind == Kind::KillBoth {
                    self.pick(&running).kill();
                }
                self.nodes.coordinator.kill();
                let away = random::below(&mut self.random, 1500);
                tokio::time::sleep(Duration::from_millis(away)).await;
                self.nodes.restart_coordinator();
                self.refill();
            }
            Kind::Partition => {
                let net = self.nodes.net().ok_or("there is no network to cut")?;
                let place = running[random::below(&mut self.random, running.len() as u64) as usize];
                net.cut(place + 1);
                self.goes_on_without().await;
                net.heal(place + 1);
            }
            Kind::FullDisk => {
                let disk = self.disk.as_ref().ok_or("there is no small disk")?;
                disk.fill().map_err(|e| e.to_string())?;
                let seed = self.wanted.seed;
                // Over at least one checkpoint; the last one may have to wait for the disk.
                for _ in 0..8 {
                    let seen = self.eyes().now();
                    if seen.phase.is_terminal() || seen.step + 1 >= seen.total {
                        break;
                    }
                    self.eyes().moving(super::PATIENCE, &seed).await;
                }
                if let Some(disk) = &self.disk {
                    disk.free().map_err(|e| e.to_string())?;
                }
            }
            Kind::CorruptCheckpoint => {
                let newest = newest_checkpoint(&self.nodes.store());
                let newest = newest.ok_or("there is no checkpoint yet")?;
                let last = format!("step-{:010}.", self.eyes().now().total);
                let name = newest.file_name().unwrap_or_default();
                if name.to_string_lossy().starts_with(&last) {
                    // Nobody is left to make another one.
                    return Err("the newest checkpoint is that of a completed run".into());
                }
                if corrupt_file(&newest).is_err() {
                    return Err("the newest checkpoint has just been removed".into());
                }
                for worker in self.nodes.workers.iter_mut().flatten() {
                    worker.kill();
                }
                self.refill();
            }
            Kind::PauseResume => {
                let client = self.nodes.client().await;
                let id = self
                    .run
                    .as_ref()
                    .map(|(id, _)| id.clone())
                    .unwrap_or_default();
                client.pause(&id).await.map_err(|e| e.to_string())?;
                let end = std::time::Instant::now() + super::PATIENCE;
                loop {
                    let run = client.run(&id).await.map_err(|e| e.to_string())?;
                    if run.phase == Phase::Paused {
                        break;
                    }
                    if run.phase.is_terminal() {
                        return Err("it was too late to pause".into());
                    }
                    assert!(std::time::Instant::now() < end, "still {:?}", run.phase);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                client.resume(&id, None).await.map_err(|e| e.to_string())?;
                // The watcher takes a pause for an end.
                self.watch_again(&id).await;
            }
        }
        Ok(())
    }

    /// The others go on while one cannot: two steps, as one may have been under way.
    async fn goes_on_without(&mut self) {
        let before = self.eyes().now();
        let seed = self.wanted.seed;
        self.eyes().beyond(&before, super::PATIENCE, seed).await;
        self.eyes().moving(super::PATIENCE, &seed).await;
    }

    /// A new watcher of the run under way.
    async fn watch_again(&mut self, id: &str) {
        let client = self.nodes.client().await;
        let seen = self.eyes().now().events;
        let eyes = super::Eyes::open(&client, id, seen).await;
        if let Some((_, old)) = self.run.replace((id.to_owned(), eyes)) {
            self.report.steps_repeated += old.repeated();
        }
    }

    /// Workers come back, one or all.
    pub(super) async fn mend(&mut self, kind: Kind) {
        let few = self.nodes.running().len() < 2;
        if few || kind != Kind::JoinWorker && random::below(&mut self.random, 3) > 0 {
            self.refill();
        }
    }

    /// Starts workers where none are.
    fn refill(&mut self) {
        let running = self.nodes.running();
        for place in 0..self.nodes.workers.len() {
            if !running.contains(&place) {
                self.nodes.start_worker(place);
            }
        }
    }

    fn pick(&mut self, running: &[usize]) -> &mut Process {
        let at = random::below(&mut self.random, running.len() as u64) as usize;
        let worker = self.nodes.workers[running[at]].as_mut();
        worker.expect("a running worker has a process")
    }
}

fn newest_checkpoint(store: &std::path::Path) -> Option<std::path::PathBuf> {
    let mut found = Vec::new();
    for run in std::fs::read_dir(store).ok()?.flatten() {
        for file in std::fs::read_dir(run.path()).ok()?.flatten() {
            let path = file.path();
            let modified = file.metadata().and_then(|m| m.modified());
            if let (Some("safetensors"), Ok(modified)) =
                (path.extension().and_then(|e| e.to_str()), modified)
            {
                found.push((modified, path));
            }
        }
    }
    found.into_iter().max().map(|(_, path)| path)
}
