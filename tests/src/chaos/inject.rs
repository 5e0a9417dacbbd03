//! Injecting one fault, and replacing what it took away.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fovea_client::view::{Phase, RunInfo};
use fovea_core::random;

use super::run_watcher::{RunWatcher, Snapshot};
use super::{Chaos, Kind, PATIENCE};
use crate::faults::{SmallDisk, Stall, corrupt_file};
use crate::launch::Started;
use crate::process::Process;

/// Shorter than the heartbeat timeout of 1.5 s.
const BRIEF_STOP: Duration = Duration::from_millis(400);
/// Longer than a few steps, shorter than what counts as stuck.
const LATE: Duration = Duration::from_millis(500);
/// How long the store cannot be read.
const UNREADABLE: Duration = Duration::from_secs(5);

impl Chaos<'_> {
    /// Injects a fault. An error says why it cannot be injected now.
    pub(super) async fn inject(&mut self, kind: Kind) -> Result<(), String> {
        let running = self.nodes.running();
        let alone = running.len() < 2;
        match kind {
            Kind::KillWorker
            | Kind::LeaveWorker
            | Kind::StopWorker
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
                if !status.success() {
                    let text = format!("a worker ended with {status} after SIGTERM");
                    self.report.failures.push(text);
                }
            }
            Kind::KillAllWorkers => self.kill_all_workers(),
            Kind::StopWorker => {
                let place = self.pick_place(&running);
                self.worker(place).stop();
                self.progress_without().await;
                self.worker(place).cont();
            }
            Kind::BriefStop => {
                let stopped = self.pick(&running);
                stopped.stop();
                // The fault itself takes this long.
                tokio::time::sleep(BRIEF_STOP).await;
                stopped.cont();
            }
            Kind::StallDevice => {
                let pid = self.pick(&running).pid();
                let stall = Stall::new(pid, "device").map_err(|e| e.to_string())?;
                self.progress_without().await;
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
                self.progress_without().await;
                stall.release();
            }
            Kind::JoinWorker => {
                let free = (0..self.nodes.workers.len()).find(|place| !running.contains(place));
                let place = match free {
                    Some(place) => place,
                    None => {
                        // Make room: a worker leaves, and another one joins when the run has gone on.
                        let place = self.pick_place(&running);
                        self.worker(place).kill();
                        let before = self.watcher().now();
                        let seed = self.options.seed;
                        self.watcher().step_after(&before, PATIENCE, seed).await;
                        place
                    }
                };
                self.nodes.start_worker(place);
            }
            Kind::KillCoordinator | Kind::KillBoth => {
                if kind == Kind::KillBoth {
                    self.pick(&running).kill();
                }
                self.nodes.kill_coordinator();
                // The fault itself takes this long.
                let away = random::below(&mut self.random, 1500);
                tokio::time::sleep(Duration::from_millis(away)).await;
                self.nodes.restart_coordinator();
                self.refill();
            }
            Kind::Partition => {
                let net = self.nodes.net().ok_or("there is no network to cut")?;
                let place = self.pick_place(&running);
                net.cut(place + 1);
                self.progress_without().await;
                net.heal(place + 1);
            }
            Kind::FullDisk => self.fill_disk().await?,
            Kind::CorruptCheckpoint => {
                let newest = newest_checkpoint(&self.nodes.store().join(self.run_id()));
                let newest = newest.ok_or("there is no checkpoint yet")?;
                let last = format!("step-{:010}.", self.watcher().now().total);
                let name = newest.file_name().unwrap_or_default();
                if name.to_string_lossy().starts_with(&last) {
                    // No other one is going to be made.
                    return Err("the newest checkpoint is that of a completed run".into());
                }
                if corrupt_file(&newest).is_err() {
                    return Err("the newest checkpoint has just been removed".into());
                }
                self.kill_all_workers();
            }
            Kind::StoreUnreadable => self.make_store_unreadable().await?,
            Kind::StoreUnmounted => self.restart_without_store()?,
            Kind::CorruptPack => {
                let packs = self.nodes.cached_packs();
                if packs.is_empty() {
                    return Err("no pack is cached".into());
                }
                let at = random::below(&mut self.random, packs.len() as u64) as usize;
                corrupt_file(&packs[at]).map_err(|e| e.to_string())?;
                self.kill_all_workers();
            }
            Kind::PauseResume => self.pause_and_resume().await?,
        }
        Ok(())
    }

    /// Fills the checkpoint store's disk over at least one checkpoint, unless the run ends before.
    async fn fill_disk(&mut self) -> Result<(), String> {
        let fill = |disk: &SmallDisk| disk.fill().map(drop).map_err(|e| e.to_string());
        fill(self.disk.as_ref().ok_or("there is no small disk")?)?;
        let seed = self.options.seed;
        for _ in 0..8 {
            let Snapshot {
                phase, step, total, ..
            } = self.watcher().now();
            // The last checkpoint may have to wait for the disk.
            if phase.is_terminal() || step + 1 >= total {
                break;
            }
            self.watcher().next_step(PATIENCE, seed).await;
        }
        let disk = self.disk.as_ref().expect("it was there");
        disk.free().map_err(|e| e.to_string())
    }

    /// Takes away the permission to read the store, while all workers are lost: the run has to wait for its checkpoint.
    async fn make_store_unreadable(&mut self) -> Result<(), String> {
        let (id, stored) = self.run_and_checkpoints().await?;
        let newest = *stored.last().ok_or("there is no checkpoint yet")?;
        let store = self.nodes.store();
        let mode = fs::metadata(&store).map_err(|e| e.to_string())?;
        let mode = mode.permissions();
        fs::set_permissions(&store, Permissions::from_mode(0o000)).map_err(|e| e.to_string())?;
        let since = Instant::now();
        self.kill_all_workers();
        // It waits, and says why.
        let waits = |run: &RunInfo| {
            run.phase.is_terminal() || run.phase == Phase::Queued && run.reason.contains("read")
        };
        let run = self.run_until(&id, "waits for its checkpoint", waits).await;
        if run.phase.is_terminal() {
            let text = format!("an unreadable store ended run {id}: {}", run.reason);
            self.report.failures.push(text);
        }
        tokio::time::sleep(UNREADABLE.saturating_sub(since.elapsed())).await;
        fs::set_permissions(&store, mode).map_err(|e| e.to_string())?;
        let (_, after) = self.run_and_checkpoints().await?;
        if after.iter().all(|step| *step < newest) {
            let text = format!("run {id}: checkpoint {newest} is gone, there are {after:?}");
            self.report.failures.push(text);
            self.report.checkpoints_lost += 1;
        }
        Ok(())
    }

    /// Starts the coordinator again while an empty folder is in the place of its checkpoint store.
    fn restart_without_store(&mut self) -> Result<(), String> {
        let store = self.nodes.store();
        if newest_checkpoint(&store.join(self.run_id())).is_none() {
            return Err("there is no checkpoint yet".into());
        }
        self.nodes.kill_coordinator();
        let empty = SmallDisk::mount(&store, 1 << 20).map_err(|e| e.to_string())?;
        let problem = match self.nodes.try_restart_coordinator() {
            Started::Serving(mut process, _) => {
                process.kill();
                Some("it served".to_owned())
            }
            Started::Ended(process, status) => {
                let log = process.log();
                let named = log.contains(&*store.to_string_lossy()) && log.contains("accept-store");
                let refused = status.code() == Some(4) && named;
                (!refused).then(|| format!("it ended with {status}: {log}"))
            }
        };
        let made = fs::read_dir(&store).map_or(0, Iterator::count);
        drop(empty);
        if let Some(problem) = problem {
            let text = format!("a coordinator whose store is not mounted must refuse: {problem}");
            self.report.failures.push(text);
        }
        if made > 0 {
            let text = format!("{made} files were made in a folder that is not the store");
            self.report.failures.push(text);
        }
        self.nodes.restart_coordinator();
        self.refill();
        Ok(())
    }

    async fn pause_and_resume(&mut self) -> Result<(), String> {
        let client = self.nodes.client().await;
        let id = self.run_id();
        client.pause(&id).await.map_err(|e| e.to_string())?;
        let ended = |run: &RunInfo| run.phase.is_terminal();
        let run = self.run_until(&id, "pauses", ended).await;
        if run.phase != Phase::Paused {
            return Err("it was too late to pause".into());
        }
        client.resume(&id, None).await.map_err(|e| e.to_string())?;
        // The watcher takes a pause for an end.
        let seen = self.watcher().now().events;
        let watcher = RunWatcher::open(&client, &id, seen).await;
        if let Some((_, old)) = self.run.replace((id, watcher)) {
            self.report.steps_repeated += old.repeated();
        }
        Ok(())
    }

    /// Waits until the others make progress without a disturbed worker: two steps, as one may have been under way.
    async fn progress_without(&mut self) {
        let before = self.watcher().now();
        let seed = self.options.seed;
        self.watcher().step_after(&before, PATIENCE, seed).await;
        self.watcher().next_step(PATIENCE, seed).await;
    }

    /// Waits until the run has a checkpoint, if it is not about to end.
    pub(super) async fn wait_for_checkpoint(&mut self) -> Result<(), String> {
        let seed = self.options.seed;
        loop {
            let now = self.watcher().now();
            if now.phase.is_terminal() || now.step + 8 >= now.total {
                return Err("the run is about to end".into());
            }
            if !self.run_and_checkpoints().await?.1.is_empty() {
                return Ok(());
            }
            self.watcher().next_step(PATIENCE, seed).await;
        }
    }

    /// Asks for the run until `holds`.
    async fn run_until(
        &mut self,
        id: &str,
        what: &str,
        holds: impl Fn(&RunInfo) -> bool,
    ) -> RunInfo {
        let client = self.nodes.client().await;
        let end = Instant::now() + PATIENCE;
        loop {
            let run = client.run(id).await.expect("the run is known");
            if holds(&run) {
                return run;
            }
            assert!(
                Instant::now() < end,
                "seed {}: run {id} never {what}: it is {:?}: {:?}",
                self.options.seed,
                run.phase,
                run.reason
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The run under way, and the steps of its checkpoints.
    async fn run_and_checkpoints(&mut self) -> Result<(String, Vec<u64>), String> {
        let client = self.nodes.client().await;
        let id = self.run_id();
        let run = client.run(&id).await.map_err(|e| e.to_string())?;
        let steps = run.checkpoints.iter().map(|stored| stored.step);
        Ok((id, steps.collect()))
    }

    fn run_id(&self) -> String {
        self.run.as_ref().expect("a run is under way").0.clone()
    }

    fn kill_all_workers(&mut self) {
        for worker in self.nodes.workers.iter_mut().flatten() {
            worker.kill();
        }
        self.refill();
    }

    /// Starts workers in the place of lost ones: one, or all.
    pub(super) fn replace_workers(&mut self, kind: Kind) {
        let few = self.nodes.running().len() < 2;
        if few || kind != Kind::JoinWorker && random::below(&mut self.random, 3) > 0 {
            self.refill();
        }
    }

    /// Starts a worker in every place that has none.
    fn refill(&mut self) {
        let running = self.nodes.running();
        for place in 0..self.nodes.workers.len() {
            if !running.contains(&place) {
                self.nodes.start_worker(place);
            }
        }
    }

    fn pick_place(&mut self, running: &[usize]) -> usize {
        running[random::below(&mut self.random, running.len() as u64) as usize]
    }

    fn pick(&mut self, running: &[usize]) -> &mut Process {
        let place = self.pick_place(running);
        self.worker(place)
    }

    fn worker(&mut self, place: usize) -> &mut Process {
        let worker = self.nodes.workers[place].as_mut();
        worker.expect("a running worker has a process")
    }
}

/// The newest checkpoint file in a run's folder.
fn newest_checkpoint(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten();
    let found = files.filter_map(|file| {
        let path = file.path();
        let modified = file.metadata().and_then(|m| m.modified()).ok()?;
        (path.extension()? == "safetensors").then_some((modified, path))
    });
    found.max().map(|(_, path)| path)
}
