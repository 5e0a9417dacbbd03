//! Chaos tests: runs that are disturbed at random must end in the same bits as one that is not.
//!
//! [`run_chaos`] starts a coordinator and workers as real processes, trains the same run again and again while one fault
//! after the other is injected, and compares every result with that of one undisturbed worker. The result is a
//! [`Report`]. A process that hangs or refuses what it must do is a panic that names the seed.

mod inject;
mod kind;
mod nodes;
mod report;
mod run_watcher;
mod scraper;
mod scrapes;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fovea_client::Client;
use fovea_client::view::{Phase, RunInfo};
use fovea_core::random;
use fovea_core::spec::RunSpec;
use rand_chacha::ChaCha8Rng;

use crate::faults::{Partition, SmallDisk, inspect};
use crate::launch::MIN_FREE_MIB;
use crate::{synthetic_dataset, tensors};
pub use kind::Kind;
use nodes::Nodes;
use report::Comparison;
pub use report::Report;
use run_watcher::RunWatcher;
use scraper::Scraper;
pub use scrapes::Scrapes;

/// What to do.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// How many faults to inject at least.
    pub faults: u32,
    /// Seed of their order, kind and time.
    pub seed: u64,
    /// Kinds of faults: each is injected once in this order, then at random. The test goes on until each kind was
    /// injected.
    pub kinds: Vec<Kind>,
    /// Workers at the same time, at most: no more than the run has virtual ranks.
    pub workers: usize,
    /// Epochs of each run.
    pub epochs: u32,
    /// With TLS, and a certificate for each worker.
    pub secure: bool,
}

/// Patients of two images each; three quarters of them are trained on.
const PATIENTS: u32 = 32;
/// Small images make many steps; the network is the whole GoogLeNet.
const SIZE: u32 = 64;
/// The longest wait for anything; after it the test has failed.
const PATIENCE: Duration = Duration::from_secs(90);
/// Room for the checkpoints of a few runs, of about 50 MB each, above the free space that a coordinator of a test keeps.
const STORE_BYTES: u64 = (776 + MIN_FREE_MIB) << 20;
/// Attempts to inject a fault that is refused, for each kind, before the test gives up on it.
const ATTEMPTS: usize = 40;

/// Runs the test in `dir`, which is made if it is not there. Blocks.
///
/// # Panics
/// If `dir` cannot be made, the machine refuses what a wanted kind needs (see [`Kind`]), or a process hangs.
pub fn run_chaos(dir: &Path, options: &ChaosOptions) -> Report {
    // The coordinator may run as another user.
    let enter = std::fs::Permissions::from_mode(0o755);
    let made = std::fs::create_dir_all(dir).and_then(|()| std::fs::set_permissions(dir, enter));
    // The processes are given whole paths.
    let dir = made.and_then(|()| dir.canonicalize());
    let dir = &dir.unwrap_or_else(|error| panic!("the folder of the chaos test: {error}"));
    let work = |net: Option<&Partition>| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(run(dir, options.clone(), net))
    };
    if options.kinds.iter().any(|kind| kind.needs_network()) {
        let net = Partition::new(options.workers + 1)
            .unwrap_or_else(|reason| panic!("no network that can be cut: {reason}"));
        // The coordinator's host is also that of the test.
        net.inside(0, || work(Some(&net)))
    } else {
        work(None)
    }
}

async fn run(dir: &Path, options: ChaosOptions, net: Option<&Partition>) -> Report {
    let begun = Instant::now();
    let dataset = synthetic_dataset(dir, PATIENTS, SIZE);
    let expected = undisturbed(dir, &dataset, &options).await;
    let folder = dir.join("chaos");
    let store = folder.join("coordinator-data/checkpoints");
    std::fs::create_dir_all(&store).expect("folders can be made");
    let disk = options.kinds.iter().any(|kind| kind.needs_mount());
    let disk = disk.then(|| SmallDisk::mount(&store, STORE_BYTES).expect("a tmpfs"));
    let unprivileged = options.kinds.iter().any(|kind| kind.needs_root());
    let mut chaos = Chaos {
        random: random::stream("chaos", &[options.seed]),
        nodes: Nodes::start(&folder, &options, net, unprivileged),
        disk,
        folder,
        expected,
        report: Report::default(),
        run: None,
        scraper: None,
        options,
    };
    chaos.nodes.add_dataset(&dataset);
    let (ops, census) = (chaos.nodes.ops(), chaos.nodes.census.clone());
    chaos.scraper = Some(Scraper::start(ops, census));
    chaos.inject_all().await;
    chaos.finish().await;
    let mut report = chaos.report;
    report.seconds = begun.elapsed().as_secs();
    report
}

/// The final tensors of a run on one worker that nothing disturbs.
async fn undisturbed(
    dir: &Path,
    dataset: &Path,
    options: &ChaosOptions,
) -> BTreeMap<String, Vec<u8>> {
    let folder = dir.join("undisturbed");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let alone = ChaosOptions {
        workers: 1,
        secure: false,
        ..options.clone()
    };
    let nodes = Nodes::start(&folder, &alone, None, false);
    nodes.add_dataset(dataset);
    let client = nodes.client().await;
    let run = client
        .submit(&spec(options))
        .await
        .expect("the run is accepted");
    let mut watcher = RunWatcher::open(&client, &run.id, 0).await;
    let run = watcher.end(PATIENCE * 10).await;
    let bytes = last_checkpoint(&client, &folder, &run).await;
    nodes.stop();
    tensors(&bytes)
}

struct Chaos<'a> {
    options: ChaosOptions,
    random: ChaCha8Rng,
    folder: PathBuf,
    nodes: Nodes<'a>,
    disk: Option<SmallDisk>,
    expected: BTreeMap<String, Vec<u8>>,
    report: Report,
    /// The run under way.
    run: Option<(String, RunWatcher)>,
    scraper: Option<Scraper>,
}

impl Chaos<'_> {
    /// Injects as many faults as are wanted, and more until each kind was injected.
    async fn inject_all(&mut self) {
        // Each kind once, then at random.
        let mut queue: VecDeque<Kind> = self.options.kinds.iter().copied().collect();
        let mut refusals: BTreeMap<Kind, usize> = BTreeMap::new();
        let mut injected = 0;
        while injected < self.options.faults || !queue.is_empty() {
            if !self.report.failures.is_empty() {
                return;
            }
            self.run_under_way().await;
            let kinds = &self.options.kinds;
            let kind = queue.pop_front().unwrap_or_else(|| {
                kinds[random::below(&mut self.random, kinds.len() as u64) as usize]
            });
            eprintln!(
                "fault {} of {}: {kind:?}",
                injected + 1,
                self.options.faults
            );
            match self.one_fault(kind).await {
                Ok(()) => injected += 1,
                Err(reason) => {
                    eprintln!("  refused: {reason}");
                    self.report.skipped(kind, &reason);
                    let refused = refusals.entry(kind).or_default();
                    *refused += 1;
                    let missing = !self.report.faults.contains_key(&kind);
                    if missing && !queue.contains(&kind) && *refused < ATTEMPTS {
                        queue.push_back(kind);
                    } else if *refused >= ATTEMPTS * 5 {
                        return;
                    }
                }
            }
        }
    }

    /// Returns when a run makes progress. A run that has completed is compared and followed by another.
    async fn run_under_way(&mut self) {
        loop {
            if let Some((_, watcher)) = &mut self.run {
                let now = watcher.next_step(PATIENCE, self.options.seed).await;
                if !now.phase.is_terminal() {
                    return;
                }
                self.compare_completed().await;
            }
            let client = self.nodes.client().await;
            let run = client.submit(&spec(&self.options)).await;
            let run = run.expect("the run is accepted");
            let watcher = RunWatcher::open(&client, &run.id, 0).await;
            self.run = Some((run.id, watcher));
        }
    }

    /// Injects one fault, waits for the next step, and repairs. An error says why it cannot be injected now.
    async fn one_fault(&mut self, kind: Kind) -> Result<(), String> {
        if kind.needs_checkpoint() {
            self.wait_for_checkpoint().await?;
        }
        // At any point of a step, of a checkpoint, of an epoch.
        let pause = random::below(&mut self.random, 1200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let before = self.watcher().now();
        let at = Instant::now();
        self.inject(kind).await?;
        let seed = self.options.seed;
        let after = self.watcher().step_after(&before, PATIENCE, seed).await;
        // A run that was at its end has nothing to recover.
        let moved = after.events > before.events;
        let took = moved.then(|| after.at.saturating_duration_since(at));
        self.report.injected(kind, took);
        self.replace_workers(kind);
        self.nodes.measure(&mut self.report);
        Ok(())
    }

    fn watcher(&mut self) -> &mut RunWatcher {
        &mut self.run.as_mut().expect("a run is under way").1
    }

    /// The run has completed: compares its bits, its ledger, its checkpoints and what its watcher saw.
    async fn compare_completed(&mut self) {
        let Some((id, mut watcher)) = self.run.take() else {
            return;
        };
        let seed = self.options.seed;
        let run = watcher.end(PATIENCE * 4).await;
        if run.phase != Phase::Completed {
            let text = format!("run {id} ended as {:?}: {}", run.phase, run.reason);
            self.report.failures.push(text);
            return;
        }
        let seen = watcher.epochs();
        if !seen.iter().copied().eq(0..self.options.epochs) {
            let text = format!("run {id}: the watcher saw the epochs {seen:?}");
            self.report.failures.push(text);
        }
        let client = self.nodes.client().await;
        let found = tensors(&last_checkpoint(&client, &self.folder, &run).await);
        let audit = client.audit(&id).await;
        let audit = audit.unwrap_or_else(|e| panic!("seed {seed}: audit of {id}: {e}"));
        let names = self.expected.keys().chain(found.keys());
        let mut differing: Vec<String> = names
            .filter(|name| self.expected.get(*name) != found.get(*name))
            .cloned()
            .collect();
        differing.dedup();
        self.report.compared(Comparison {
            run: id.clone(),
            differing,
            audit_problems: audit.problems,
            clean_epochs: audit.clean_epochs,
            epochs: self.options.epochs,
        });
        for (step, problem) in self.nodes.verify_checkpoints(&id).await {
            self.report.checkpoints_verified += 1;
            if !problem.is_empty() {
                self.report.checkpoints_lost += 1;
                let text = format!("run {id}: checkpoint {step}: {problem}");
                self.report.failures.push(text);
            }
        }
        self.report.steps += run.total_steps;
        self.report.generations += run.generation;
        self.report.steps_repeated += watcher.repeated();
        // The disk is small.
        self.nodes.delete_run(&id).await;
    }

    /// Lets the last run complete, stops everything, and looks for what is left over.
    async fn finish(&mut self) {
        if self.run.is_some() {
            self.compare_completed().await;
        }
        let left = self.nodes.temporary_files();
        if let Some(scraper) = self.scraper.take() {
            self.report.scraped(scraper.stop());
        }
        self.nodes.stop_all();
        // Only processes that this test has started.
        let orphans = inspect::processes_with_env(&self.nodes.marker());
        let still = self.nodes.temporary_files();
        let leaked: Vec<&PathBuf> = left.iter().filter(|path| still.contains(path)).collect();
        if !leaked.is_empty() {
            eprintln!("temporary files are left over: {leaked:?}");
        }
        self.report.steps_retried += self.nodes.interrupted_generations() as u64;
        self.report.corrupt_packs_detected = self.nodes.log_lines("pack.corrupt: ");
        self.report.temporary_files = leaked.len();
        self.report.orphans = orphans.len();
        self.report.finish(&self.options.kinds);
    }
}

async fn last_checkpoint(client: &Client, folder: &Path, run: &RunInfo) -> Vec<u8> {
    let target = folder.join(format!("{}.safetensors", run.id));
    let step = Some(run.total_steps);
    let fetched = client
        .fetch_checkpoint(&run.id, step, &target, true, |_, _| {})
        .await;
    fetched.expect("the last checkpoint is there");
    let bytes = std::fs::read(&target).expect("it can be read");
    std::fs::remove_file(&target).expect("it can be removed");
    bytes
}

/// Dropout, rotation, a frozen prefix, checkpoints at odd steps: all that could depend on who computes.
fn spec(options: &ChaosOptions) -> RunSpec {
    let epochs = options.epochs;
    toml::from_str(&format!(
        r#"
        name = "chaos"
        dataset = "synthetic"
        seed = 11
        [train]
        epochs = {epochs}
        virtual_ranks = 4
        batch = 3
        learning_rate = 0.0005
        digest_every = 3
        [workers]
        min = 1
        max = 4
        [checkpoint]
        every_epochs = 0
        every_steps = 7
        keep_last = 2
        "#
    ))
    .expect("a valid run")
}
