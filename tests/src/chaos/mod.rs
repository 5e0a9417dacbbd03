//! Chaos: runs that are disturbed at random, and must end in the same bits as one that is not.
//!
//! [`rampage`] (or [`on_a_network`], with cables to pull) starts a coordinator and workers as real processes, trains the same run again and again while
//! one fault after the other is made, and compares every result with that of one undisturbed worker. What it
//! saw is a [`Report`]; what must not be is a panic that names the seed.

mod eyes;
mod inflict;
mod nodes;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fovea_client::Client;
use fovea_client::view::{Phase, RunInfo};
use fovea_core::random;
use fovea_core::spec::RunSpec;
use rand_chacha::ChaCha8Rng;

use crate::faults::{Partition, SmallDisk, census};
use crate::{synthetic_dataset, tensors};
use eyes::Eyes;
use nodes::Nodes;
pub use report::{Kind, Report};

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Rampage {
    /// How many faults.
    pub faults: u32,
    /// Seed of their order, kind and time.
    pub seed: u64,
    /// Kinds of faults: each is made once in this order, then at random.
    pub kinds: Vec<Kind>,
    /// Workers at the same time, at most: no more than the run has virtual ranks.
    pub workers: usize,
    /// Epochs of each run.
    pub epochs: u32,
}

/// Patients of two images each; three quarters of them are trained on.
const PATIENTS: u32 = 32;
/// Small images make many steps; the network is the whole GoogLeNet.
const SIZE: u32 = 64;
/// The longest that anything may take before the rampage counts as failed.
const PATIENCE: Duration = Duration::from_secs(90);
/// Room for the checkpoints of a few runs, of about 50 MB each.
const STORE_BYTES: u64 = 1 << 30;

/// Does it, in `dir`. With `net`, this thread must be inside its host 0.
pub async fn rampage(dir: &Path, wanted: Rampage, net: Option<&Partition>) -> Report {
    let begun = Instant::now();
    let dataset = synthetic_dataset(dir, PATIENTS, SIZE);
    let expected = undisturbed(dir, &dataset, &wanted).await;
    let folder = dir.join("chaos");
    std::fs::create_dir_all(folder.join("coordinator-data/checkpoints"))
        .expect("folders can be made");
    let disk = match SmallDisk::available() {
        Ok(()) => {
            let store = folder.join("coordinator-data/checkpoints");
            Some(SmallDisk::mount(&store, STORE_BYTES).expect("a small disk"))
        }
        Err(reason) => {
            eprintln!("no full disk: {reason}");
            None
        }
    };
    let mut chaos = Chaos {
        random: random::stream("chaos", &[wanted.seed]),
        nodes: Nodes::start(&folder, wanted.workers, net),
        disk,
        folder,
        expected,
        report: Report::default(),
        run: None,
        wanted,
    };
    chaos.nodes.add_dataset(&dataset);
    for number in 0..chaos.wanted.faults {
        chaos.one_fault(number).await;
    }
    chaos.finish().await;
    let mut report = chaos.report;
    report.seconds = begun.elapsed().as_secs();
    report
}

/// Does it on hosts that are connected by a network that can be cut, where this machine lets us make one. Blocks.
pub fn on_a_network(dir: &Path, wanted: Rampage) -> Report {
    let net = match Partition::new(wanted.workers + 1) {
        Ok(net) => Some(net),
        Err(reason) => {
            eprintln!("no network to cut: {reason}");
            None
        }
    };
    let work = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(rampage(dir, wanted.clone(), net.as_ref()))
    };
    match &net {
        // The coordinator's host is also the driver's.
        Some(net) => net.inside(0, work),
        None => work(),
    }
}

/// What one worker computes when nobody disturbs it: the tensors of the last checkpoint.
async fn undisturbed(dir: &Path, dataset: &Path, wanted: &Rampage) -> BTreeMap<String, Vec<u8>> {
    let folder = dir.join("undisturbed");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let nodes = Nodes::start(&folder, 1, None);
    nodes.add_dataset(dataset);
    let client = nodes.client().await;
    let run = client
        .submit(&spec(wanted))
        .await
        .expect("the run is accepted");
    let mut eyes = Eyes::open(&client, &run.id, 0).await;
    let run = eyes.end(PATIENCE * 10).await;
    let bytes = last_checkpoint(&client, &folder, &run).await;
    nodes.stop();
    tensors(&bytes)
}

struct Chaos<'a> {
    wanted: Rampage,
    random: ChaCha8Rng,
    folder: PathBuf,
    nodes: Nodes<'a>,
    disk: Option<SmallDisk>,
    expected: BTreeMap<String, Vec<u8>>,
    report: Report,
    /// The run under way.
    run: Option<(String, Eyes)>,
}

impl Chaos<'_> {
    /// A run that is under way and not about to end; a completed one is checked and followed by another.
    async fn under_way(&mut self) {
        loop {
            if let Some((_, eyes)) = &mut self.run {
                let seen = eyes.moving(PATIENCE, &self.wanted.seed).await;
                if !seen.phase.is_terminal() {
                    return;
                }
                self.check_completed().await;
            }
            let client = self.nodes.client().await;
            let run = client.submit(&spec(&self.wanted)).await;
            let run = run.expect("the run is accepted");
            let eyes = Eyes::open(&client, &run.id, 0).await;
            self.run = Some((run.id, eyes));
        }
    }

    async fn one_fault(&mut self, number: u32) {
        self.under_way().await;
        // At any point of a step, of a checkpoint, of an epoch.
        let pause = random::below(&mut self.random, 1200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let kinds = self.wanted.kinds.clone();
        // Each kind once, then at random.
        let kind = match kinds.get(number as usize) {
            Some(kind) => *kind,
            None => kinds[random::below(&mut self.random, kinds.len() as u64) as usize],
        };
        eprintln!("fault {} of {}: {kind:?}", number + 1, self.wanted.faults);
        let before = self.eyes().now();
        let at = Instant::now();
        match self.inflict(kind).await {
            Ok(()) => {}
            Err(reason) => {
                *self
                    .report
                    .skipped
                    .entry(format!("{kind:?}: {reason}"))
                    .or_default() += 1;
                return;
            }
        }
        let seed = self.wanted.seed;
        let after = self.eyes().beyond(&before, PATIENCE, seed).await;
        // A run that the fault found at its end has nothing to recover to.
        let moved = after.events > before.events;
        let took = moved.then(|| after.at.saturating_duration_since(at));
        self.report.made(kind, took);
        self.mend(kind).await;
        self.nodes.measure(&mut self.report);
    }

    fn eyes(&mut self) -> &mut Eyes {
        &mut self.run.as_mut().expect("a run is under way").1
    }

    /// The run has completed: its bits, its ledger, what its watcher was told.
    async fn check_completed(&mut self) {
        let Some((id, mut eyes)) = self.run.take() else {
            return;
        };
        let seed = self.wanted.seed;
        let run = eyes.end(PATIENCE * 4).await;
        assert_eq!(run.phase, Phase::Completed, "seed {seed}: {}", run.reason);
        let told: Vec<u32> = eyes.epochs();
        let all: Vec<u32> = (0..self.wanted.epochs).collect();
        assert_eq!(
            told, all,
            "seed {seed}: epochs that the watcher was told of"
        );
        let client = self.nodes.client().await;
        let bytes = last_checkpoint(&client, &self.folder, &run).await;
        let same = tensors(&bytes) == self.expected;
        assert!(
            same,
            "seed {seed}: run {id} ended in other bits than the undisturbed one"
        );
        let audit = client.audit(&id).await.expect("an audit");
        assert!(
            audit.problems.is_empty(),
            "seed {seed}: audit of {id}: {:?}",
            audit.problems
        );
        assert_eq!(
            audit.clean_epochs, self.wanted.epochs,
            "seed {seed}: audit of {id}"
        );
        self.report.runs += 1;
        self.report.steps += run.total_steps;
        self.report.generations += run.generation;
        self.report.steps_repeated += eyes.repeated();
        self.report.bit_identical = true;
        // Nobody asks for its checkpoints again, and the disk is small.
        let store = self.nodes.store().join(&id);
        std::fs::remove_dir_all(&store).expect("the checkpoints can be removed");
    }

    /// Lets the last run complete, stops everything, and looks at what is left.
    async fn finish(&mut self) {
        if self.run.is_some() {
            self.check_completed().await;
        }
        let left = self.nodes.temporary_files();
        self.nodes.stop_all();
        // Children of ours only; whoever else runs on this machine is not our business.
        let orphans = census::processes_with_env(&self.nodes.marker());
        assert!(orphans.is_empty(), "processes are left over: {orphans:?}");
        let still: Vec<PathBuf> = self.nodes.temporary_files();
        let leaked: Vec<&PathBuf> = left.iter().filter(|path| still.contains(path)).collect();
        assert!(
            leaked.is_empty(),
            "temporary files are left over: {leaked:?}"
        );
        self.report.steps_retried += self.nodes.broken_generations() as u64;
        self.report.temporary_files = leaked.len();
        self.report.orphans = orphans.len();
        self.report.audit = "clean";
        self.report.check_memory();
    }
}

async fn last_checkpoint(client: &Client, folder: &Path, run: &RunInfo) -> Vec<u8> {
    let target = folder.join(format!("{}.safetensors", run.id));
    let step = Some(run.total_steps);
    let fetched = client
        .fetch_checkpoint(&run.id, step, &target, |_, _| {})
        .await;
    fetched.expect("the last checkpoint is there");
    let bytes = std::fs::read(&target).expect("it can be read");
    std::fs::remove_file(&target).expect("it can be removed");
    bytes
}

/// Dropout, rotation, a frozen prefix, checkpoints at odd steps: all that could depend on who computes.
fn spec(wanted: &Rampage) -> RunSpec {
    let epochs = wanted.epochs;
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
