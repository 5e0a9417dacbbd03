//! Nothing acknowledged is lost, for the journal and the stores together.
//!
//! A child, which is this test binary again, runs under ptrace. It performs [`STORY`] on a real journal and real stores,
//! with the file operations of each act in the order in which the coordinator makes them (named at [`Operation`]), and
//! acknowledges each act when it is done. The parent kills it on entry to its N-th system call that changes files, and
//! once more after half of the bytes when the call is a write; calls of all threads count, so those of the journal's, too.
//! Then the parent examines what is left:
//!
//! 1. The journal, opened from a copy, holds exactly the acknowledged acts, or those and the one that was under way.
//! 2. The coordinator's own start (`startup`) succeeds on the folder, with its sweeps and adoptions. Every acknowledged
//!    checkpoint is listed, its file verifies against its SHA-256, and the ledger has no gap up to its head.
//! 3. A run's folder holds what the run lists, and nothing else; no temporary file is left; acknowledged datasets verify.
//!
//! A kill is not a power failure: what the kernel took stays. So this tests the order of operations and that each is all
//! or nothing, but not that `fsync` is called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::{DatasetName, RunId, WorkerId};
use fovea_core::ledger::Entry;
use fovea_core::run::{Effect, Event, Extent, Phase, Run, StepPhases, StepReport};
use fovea_core::state::StateId;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::journal::{Journal, OnFull, Urgency};
use crate::net::{Budget, Limits};
use crate::run::RunInput;
use crate::startup;
use crate::store::crash_trace::{self, FOLDER, Kill, acknowledge, be_traced};
use crate::store::test_support::{
    ELEMENTS, dataset, digest_of, files, fingerprint, header, memory_folder, options, state, upload,
};
use crate::store::{CheckpointRecord, CheckpointStore, DatasetStore, RunRecord, Segment};

/// Every n-th kill is always made. The others follow in passes of every n-th while there is time. Odd, so that a pass has
/// both kinds of kills at a write.
const EVERY: usize = 7;
/// No further pass is begun after this time, seconds.
const BUDGET_S: u64 = 30;
/// Another number of seconds, for a run that makes all kills.
const BUDGET: &str = "FOVEA_CRASH_BUDGET_S";
/// How long an actor of the started coordinator may take to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Samples in the training split.
const SPLIT: u64 = 40;
/// Bytes of a slice of a checkpoint.
const SLICE: usize = 5000;

/// Something that the child does and acknowledges. Numbers of runs are 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    /// Opens the data folder, the journal and the stores; registers the stores in the journal at first.
    Open,
    /// Closes the journal, which merges its log into the database.
    Close,
    AddDataset,
    RemoveDataset,
    Accept(u64),
    /// A worker is assigned to run 1.
    Assign,
    /// It is ready at this step: the run is under way.
    Ready(u64),
    /// Steps up to this one are committed.
    Steps(u64),
    /// The checkpoint of this step is stored and listed; this many steps are journalled with it. Retention removes what
    /// has expired.
    Checkpoint(u64, u64),
    /// The only worker is lost: the run is queued.
    Lose,
    Cancel,
    /// A person resumes from this step: a rewind.
    Resume(u64),
    /// A person removes the checkpoint of this step.
    DeleteCheckpoint(u64),
    /// A person removes the run with its checkpoints.
    DeleteRun,
}

use Act::*;

const STORY: &[Act] = &[
    Open,
    AddDataset,
    Accept(1),
    Assign,
    Ready(0),
    Steps(4),
    Steps(6),
    Checkpoint(5, 1),
    Steps(11),
    Checkpoint(10, 0),
    Steps(14),
    // The first one expires; its part of the ledger stays as a segment.
    Checkpoint(14, 2),
    Lose,
    Cancel,
    Resume(10),
    Assign,
    Ready(10),
    Steps(15),
    // Takes the place of the void one of the same step.
    Checkpoint(14, 0),
    Close,
    Open,
    Accept(2),
    Steps(17),
    Checkpoint(17, 1),
    Lose,
    Cancel,
    DeleteCheckpoint(14),
    DeleteRun,
    RemoveDataset,
    Close,
];

/// What an act does to the disk.
#[derive(Debug, Clone)]
enum Operation {
    /// As `startup::open`.
    Open,
    Close,
    /// As `Catalogue`'s `add`: the files, then the journal.
    AddDataset,
    /// As `Catalogue`'s `remove`: the journal, then the files.
    RemoveDataset,
    /// As the actor's `open_assembly`, slices from a worker, and `Unfinished::store`.
    Store(CheckpointInfo, RunRecord),
    /// As the actor's `persist`, or the writing of its ledger when there is no run.
    Put {
        number: u64,
        run: Option<Box<Run>>,
        rewind: Option<u64>,
        steps: Vec<Entry>,
    },
    /// As the actor's `remove_file` and `delete_checkpoint`: the ledger is kept, then the files are removed.
    RemoveFile(CheckpointInfo),
    /// As the actor's `delete`: the files, then the journal.
    RemoveRun,
}

/// What must be on disk after some acts.
#[derive(Debug, Clone, Default)]
struct World {
    /// As their actors have them.
    runs: BTreeMap<u64, Run>,
    /// As they were journalled last: steps alone do not write the run.
    journalled: BTreeMap<u64, Run>,
    ledgers: BTreeMap<u64, Vec<Entry>>,
    /// Lowest number that the next run may get.
    next_run: u64,
    dataset: bool,
    /// Step and generation of checkpoints that were removed while the run stayed.
    removed: BTreeSet<(u64, u64)>,
    /// Steps are taken again with other samples after a rewind.
    taken: u32,
}

impl World {
    fn new() -> Self {
        Self {
            next_run: 1,
            ..Self::default()
        }
    }

    fn after(acts: &[Act]) -> Self {
        let mut world = Self::new();
        for act in acts {
            world.perform(*act);
        }
        world
    }

    /// Changes the world by an act. Returns what that takes.
    fn perform(&mut self, act: Act) -> Vec<Operation> {
        match act {
            Open => vec![Operation::Open],
            Close => vec![Operation::Close],
            AddDataset => {
                self.dataset = true;
                vec![Operation::AddDataset]
            }
            RemoveDataset => {
                self.dataset = false;
                vec![Operation::RemoveDataset]
            }
            Accept(number) => {
                self.runs.insert(number, accepted(number));
                self.ledgers.insert(number, Vec::new());
                self.next_run = number + 1;
                vec![self.put(number, None, Vec::new())]
            }
            Assign => {
                self.taken += 1;
                let workers = vec![(worker(), "h:1".to_owned())];
                self.apply(Event::Assigned { workers })
            }
            Ready(step) => {
                let (worker, generation) = (worker(), self.runs[&1].generation);
                let state = StateId { step, digest: 7 };
                self.apply(Event::Ready {
                    worker,
                    generation,
                    state,
                    fingerprint: fingerprint(),
                })
            }
            Steps(to) => {
                let steps = self.commit(to);
                vec![Operation::Put {
                    number: 1,
                    run: None,
                    rewind: None,
                    steps,
                }]
            }
            Checkpoint(step, with) => {
                let (info, record) = self.checkpoint(step);
                let store = Operation::Store(info.clone(), record);
                let steps = self.commit(self.head(1) + with);
                let mut operations = self.apply_with(Event::CheckpointStored { info }, steps);
                operations.insert(0, store);
                operations
            }
            Lose => self.apply(Event::WorkerLost {
                worker: worker(),
                reason: "its session ended".into(),
            }),
            Cancel => self.apply(Event::Cancel),
            Resume(step) => {
                let checkpoint = Some(step);
                let mut operations = self.apply(Event::Resume { checkpoint });
                let generation = self.listed(step).generation;
                operations.extend(self.apply(Event::CheckpointReadable { step, generation }));
                assert_eq!(
                    operations.len(),
                    1,
                    "one acknowledgement for one transaction"
                );
                operations
            }
            DeleteCheckpoint(step) => {
                let info = self.listed(step);
                let run = self.runs.get_mut(&1).unwrap();
                run.checkpoints.retain(|c| *c != info);
                self.removed.insert((info.step, info.generation));
                vec![self.put(1, None, Vec::new()), Operation::RemoveFile(info)]
            }
            DeleteRun => {
                self.runs.remove(&1);
                self.journalled.remove(&1);
                self.removed.clear();
                self.ledgers.remove(&1);
                vec![Operation::RemoveRun]
            }
        }
    }

    /// Whether the journal of `self`, which was read, is that of `other`.
    fn is_written_as(&self, other: &Self) -> bool {
        let written = |(number, run): (&u64, &Run)| {
            // Without what is not written.
            let json = serde_json::to_string(run).unwrap();
            (*number, serde_json::from_str::<Run>(&json).unwrap())
        };
        let expected: BTreeMap<u64, Run> = other.journalled.iter().map(written).collect();
        self.journalled == expected
            && self.ledgers == other.ledgers
            && (self.next_run, self.dataset) == (other.next_run, other.dataset)
    }

    /// For messages of failures.
    fn summary(&self) -> String {
        let run = |(number, run): (&u64, &Run)| {
            let key = |c: &CheckpointInfo| (c.step, c.generation);
            let checkpoints: Vec<_> = run.checkpoints.iter().map(key).collect();
            let (phase, steps) = (run.phase_name(), self.ledgers.get(number).map(Vec::len));
            format!(
                "{} {phase}, generation {}, lineage {}, checkpoints {checkpoints:?}, ledger {steps:?}",
                run.id, run.generation, run.lineage
            )
        };
        let runs: Vec<String> = self.journalled.iter().map(run).collect();
        let (next, dataset) = (self.next_run, self.dataset);
        format!("{runs:?}, next run {next}, dataset {dataset}")
    }

    fn listed(&self, step: u64) -> CheckpointInfo {
        let listed = &self.runs[&1].checkpoints;
        listed.iter().find(|c| c.step == step).unwrap().clone()
    }

    fn head(&self, number: u64) -> u64 {
        self.ledgers[&number].len() as u64
    }

    fn put(&mut self, number: u64, rewind: Option<u64>, steps: Vec<Entry>) -> Operation {
        let run = self.runs[&number].clone();
        self.journalled.insert(number, run.clone());
        Operation::Put {
            number,
            run: Some(Box::new(run)),
            rewind,
            steps,
        }
    }

    fn apply(&mut self, event: Event) -> Vec<Operation> {
        self.apply_with(event, Vec::new())
    }

    /// What the actor of run 1 does about an event: decides, journals (with the steps that wait), carries out.
    fn apply_with(&mut self, event: Event, steps: Vec<Entry>) -> Vec<Operation> {
        let effects = self.runs.get_mut(&1).unwrap().apply(0, event);
        let mut rewind = None;
        let mut removed = Vec::new();
        for effect in &effects {
            match effect {
                Effect::Rewind { step } => rewind = Some(*step),
                Effect::RemoveCheckpoint(info) => {
                    self.removed.insert((info.step, info.generation));
                    removed.push(Operation::RemoveFile(info.clone()));
                }
                _ => {}
            }
        }
        if let Some(step) = rewind {
            let ledger = self.ledgers.get_mut(&1).unwrap();
            ledger.retain(|entry| entry.step <= step);
        }
        let mut operations = Vec::new();
        if effects.contains(&Effect::Persist) {
            operations.push(self.put(1, rewind, steps));
        } else {
            assert!(rewind.is_none() && steps.is_empty());
        }
        operations.extend(removed);
        operations
    }

    /// Commits steps up to `to`, and returns them.
    fn commit(&mut self, to: u64) -> Vec<Entry> {
        let (taken, generation) = (self.taken, self.runs[&1].generation);
        let steps: Vec<Entry> = (self.head(1) + 1..=to)
            .map(|step| Entry {
                step,
                loss: step as f64 / 8.0,
                samples: vec![taken, 39, step as u32],
            })
            .collect();
        for entry in &steps {
            let report = StepReport {
                step: entry.step,
                loss: entry.loss,
                images: 3,
                images_per_s: 1.5,
                learning_rate: 0.1,
                phases: StepPhases::default(),
            };
            let effects = self
                .runs
                .get_mut(&1)
                .unwrap()
                .apply(0, Event::StepCommitted { generation, report });
            assert!(!effects.contains(&Effect::Persist));
        }
        self.ledgers.get_mut(&1).unwrap().extend(steps.clone());
        steps
    }

    /// The checkpoint of a step, as the store will describe it, and what is recorded with it.
    fn checkpoint(&self, step: u64) -> (CheckpointInfo, RunRecord) {
        let run = &self.runs[&1];
        let bytes = [header(), state(step, run.generation)].concat();
        let info = CheckpointInfo {
            step,
            generation: run.generation,
            bytes: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(bytes)),
            lineage: run.lineage,
            stored_at_ms: 7,
            fingerprint: fingerprint(),
        };
        let before = run
            .checkpoints
            .iter()
            .filter(|c| c.step < step && !run.is_void(c));
        let before = before.map(|c| c.step).max().unwrap_or(0);
        let since = |entry: &&Entry| entry.step > before && entry.step <= step;
        let record = RunRecord {
            number: 1,
            id: run.id.clone(),
            name: run.spec.name.clone(),
            epochs: Vec::new(),
            train_samples: SPLIT,
            ledger: self.ledgers[&1].iter().filter(since).cloned().collect(),
        };
        (info, record)
    }
}

fn worker() -> WorkerId {
    WorkerId::new("w1").unwrap()
}

fn accepted(number: u64) -> Run {
    let mut spec: fovea_core::spec::RunSpec =
        toml::from_str("name = 'r'\ndataset = 'eyes'").unwrap();
    spec.train.virtual_ranks = 1;
    spec.checkpoint.keep_last = 2;
    let extent = Extent {
        steps_per_epoch: 20,
        total_steps: 40,
        train_samples: SPLIT,
        validation_samples: 2,
    };
    let id = RunId::new(format!("r-{number}")).unwrap();
    let digest = dataset().manifest.digest.clone();
    Run::new(id, number, spec, digest, extent, 7)
}

/// The story takes every path that it is to take.
#[test]
fn the_story_has_a_retention_a_rewind_and_a_replacement() {
    let mut world = World::new();
    let mut removed = Vec::new();
    let mut rewinds = 0;
    for act in STORY {
        for operation in world.perform(*act) {
            match operation {
                Operation::RemoveFile(info) => removed.push((info.step, info.generation)),
                Operation::Put { rewind, .. } => rewinds += usize::from(rewind.is_some()),
                _ => {}
            }
        }
        match act {
            Ready(_) => assert!(matches!(world.runs[&1].phase, Phase::Running { .. })),
            Cancel => assert_eq!(world.runs[&1].phase, Phase::Cancelled),
            _ => {}
        }
    }
    assert_eq!(removed, [(5, 1), (14, 1), (14, 2)]);
    assert_eq!(rewinds, 1);
    assert_eq!(world.next_run, 3);
}

#[test]
fn a_kill_at_any_write_loses_nothing_acknowledged() {
    let perform =
        |root: &Path, kill: Option<&Kill>| crash_trace::perform("crash_tests::child", root, kill);
    let worlds: Vec<World> = (0..=STORY.len())
        .map(|acts| World::after(&STORY[..acts]))
        .collect();
    let begun = Instant::now();
    let root = memory_folder();
    let whole = perform(&root.path().join("data"), None);
    assert!(
        !whole.lines.iter().any(|line| line.starts_with("refused")),
        "this system permits no ptrace, which this test needs ({:?}); allow it, or leave the test out by name",
        whole.lines
    );
    assert!(
        libc::WIFEXITED(whole.status) && libc::WEXITSTATUS(whole.status) == 0,
        "the child failed after {:?}",
        whole.lines
    );
    assert_eq!(whole.lines.len(), STORY.len(), "{:?}", whole.lines);
    check(&root.path().join("data"), STORY.len(), &worlds, "no kill");
    drop(root);

    let mut kills: Vec<Kill> = Vec::new();
    for (at, point) in whole.points.iter().enumerate() {
        kills.push(Kill { at, half: false });
        if point.bytes > 1 {
            kills.push(Kill { at, half: true });
        }
    }
    assert!(kills.len() > 200, "{}", kills.len());
    let seconds = std::env::var(BUDGET).map_or(BUDGET_S, |text| text.parse().unwrap());
    let budget = Duration::from_secs(seconds);
    let (mut made, mut missed, mut acts) = (0, 0, BTreeSet::new());
    let passes = (0..EVERY).map(|first| kills.iter().skip(first).step_by(EVERY));
    for (number, kill) in passes
        .enumerate()
        .flat_map(|(n, of)| of.map(move |kill| (n, kill)))
    {
        if number > 0 && begun.elapsed() > budget {
            break;
        }
        let root = memory_folder();
        let data = root.path().join("data");
        let outcome = perform(&data, Some(kill));
        let killed =
            libc::WIFSIGNALED(outcome.status) && libc::WTERMSIG(outcome.status) == libc::SIGKILL;
        // The journal's thread sweeps a removed ledger at its leisure, so that the number of calls differs a little.
        let ended = libc::WIFEXITED(outcome.status) && libc::WEXITSTATUS(outcome.status) == 0;
        let at = outcome.points.last().unwrap();
        let about = format!(
            "{kill:?}, {} {}, after {:?}",
            at.call,
            at.file,
            outcome.lines.last()
        );
        assert!(killed || ended, "{about}: status {}", outcome.status);
        missed += usize::from(!killed);
        made += 1;
        acts.insert(outcome.lines.len());
        check(&data, outcome.lines.len(), &worlds, &about);
    }
    println!(
        "{} calls change files; {made} of {} kills made, in {} acts, {missed} after the end, in {:.1?}",
        whole.points.len(),
        kills.len(),
        acts.len(),
        begun.elapsed()
    );
    assert!(missed * 20 <= made, "{missed} of {made} were not killed");
}

/// Examines what the child left after it had acknowledged so many acts.
fn check(root: &Path, acknowledged: usize, worlds: &[World], about: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let copy = memory_folder();
        for name in ["journal.db", "journal.db-wal"] {
            if root.join(name).exists() {
                fs::copy(root.join(name), copy.path().join(name)).unwrap();
            }
        }
        let (before, then) = (
            &worlds[acknowledged],
            &worlds[(acknowledged + 1).min(STORY.len())],
        );
        let happened = check_journal(copy.path(), before, then, about).await;
        let under_way = STORY.get(acknowledged).copied();
        let world = if happened { then } else { before };
        check_start(root, world, &before.removed, under_way, about).await;
    });
}

/// The journal holds `before` or `then`. Returns whether it is `then`.
async fn check_journal(folder: &Path, before: &World, then: &World, about: &str) -> bool {
    let (journal, recovered) = Journal::open(&folder.join("journal.db"), true).expect(about);
    let mut runs = BTreeMap::new();
    let mut ledgers = BTreeMap::new();
    for run in journal.runs_before(u64::MAX, 100).await.expect(about) {
        let live = journal.live_run(run.number).await.expect(about).unwrap();
        let (steps, _) = journal
            .steps(run.number, SPLIT, 0, 1000)
            .await
            .expect(about);
        assert_eq!(
            live.ledger_head,
            steps.len() as u64,
            "{about}: head of the ledger"
        );
        ledgers.insert(run.number, steps);
        runs.insert(run.number, run);
    }
    journal.close().await;
    let found = World {
        journalled: runs,
        ledgers,
        next_run: recovered.next_run,
        dataset: !recovered.datasets.is_empty(),
        ..World::default()
    };
    let is_before = found.is_written_as(before);
    assert!(
        is_before || found.is_written_as(then),
        "{about}: the journal holds {}\nacknowledged: {}\nwith the act under way: {}",
        found.summary(),
        before.summary(),
        then.summary()
    );
    !is_before
}

/// The coordinator starts on the folder, and has all of `world`, and the ledgers of those checkpoints of run 1 whose
/// removal was acknowledged.
async fn check_start(
    root: &Path,
    world: &World,
    removed: &BTreeSet<(u64, u64)>,
    under_way: Option<Act>,
    about: &str,
) {
    let config = Arc::new(Config {
        data_dir: root.to_owned(),
        allow_network_data_dir: true,
        min_free_mib: 0,
        ..Config::default()
    });
    let limits = Limits::new(&config, &Budget::of_this_process(&config));
    let opened = startup::open(Arc::clone(&config)).await.expect(about);
    let running = opened.start(limits);
    let store = &running.context.checkpoints;
    for (number, wanted) in &world.journalled {
        let id = &wanted.id;
        let actor = running.context.runs.actor(id).await.expect(about);
        // An actor answers once it has adopted and swept.
        let flushed = actor.query(|reply| RunInput::Flush { reply });
        let flushed = tokio::time::timeout(ANSWER, flushed).await.expect(about);
        flushed.expect(about);
        // What it adopts it writes before it shows it.
        let journal = &running.journal;
        let run = journal.run(*number).await.expect(about).expect(about);
        for info in &wanted.checkpoints {
            // The one under way takes its place, if the start adopted it.
            let replaced = matches!(under_way, Some(Checkpoint(step, _)) if step == info.step);
            let is_it = |c: &&CheckpointInfo| {
                *c == info || replaced && c.step == info.step && c.generation > info.generation
            };
            assert!(
                run.checkpoints.iter().any(|c| is_it(&c)),
                "{about}: {id} lists {info:?} no more"
            );
        }
        // The files of a run that is being removed go first; the removal can be asked for again, see below.
        let deleting = under_way == Some(DeleteRun) && *number == 1;
        let mut names = BTreeSet::new();
        for info in run.checkpoints.iter().filter(|_| !deleting) {
            store.verify(id, info, |_| ()).expect(about);
            store.manifest(id, info).expect(about);
            let name = format!("step-{:010}.g{}", info.step, info.generation);
            names.extend([format!("{name}.json"), format!("{name}.safetensors")]);
        }
        if !deleting {
            let folder = root.join("checkpoints").join(id.as_str());
            assert_eq!(files(&folder), names, "{about}: the folder of {id}");
        }
        if *number == 1 && !deleting {
            let segments = store.segments(id).expect(about);
            let key = |s: &Segment| (s.ledger.last().unwrap().step, s.generation);
            let kept: BTreeSet<(u64, u64)> = segments.iter().map(key).collect();
            assert!(
                kept.is_superset(removed),
                "{about}: ledger segments {kept:?}, removed {removed:?}"
            );
        }
        let (steps, _) = journal.steps(*number, SPLIT, 0, 1000).await.expect(about);
        assert_eq!(steps, world.ledgers[number], "{about}: the ledger of {id}");
    }
    // Whatever was in no run's folder: a removed run's would be the only one.
    let known = |name: &String| world.journalled.values().any(|run| run.id.as_str() == name);
    for name in files(&root.join("checkpoints")) {
        assert!(
            ["store.json", ".trash", ".ledger"].contains(&&*name) || known(&name),
            "{about}: checkpoints/{name} was left"
        );
    }
    for name in files(&root.join("checkpoints/.ledger")) {
        assert!(known(&name), "{about}: .ledger/{name} was left");
    }
    check_dataset(&running.context, root, world, under_way, about);
    if under_way == Some(DeleteRun) && world.journalled.contains_key(&1) {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let actor = running.context.runs.actor(&world.journalled[&1].id).await;
        actor.expect(about).send(RunInput::Delete {
            with_checkpoints: true,
            reply,
        });
        answer.await.expect(about).expect(about);
        assert!(!root.join("checkpoints/r-1").exists(), "{about}");
        assert_eq!(running.journal.run(1).await.expect(about), None, "{about}");
    }
    running.context.closing.cancel();
    running.journal.close().await;
}

fn check_dataset(
    context: &crate::services::Context,
    root: &Path,
    world: &World,
    under_way: Option<Act>,
    about: &str,
) {
    let digest = &dataset().manifest.digest;
    let held = context.datasets.now().find("eyes");
    if world.dataset {
        let problems = context.dataset_files.verify(&held.expect(about), |_| ());
        assert!(problems.is_empty(), "{about}: {problems:?}");
    } else {
        assert!(held.is_err(), "{about}: a dataset that nobody added");
    }
    for name in files(&root.join("datasets")) {
        let there = name == "store.json"
            || (name == *digest
                && (world.dataset || matches!(under_way, Some(AddDataset | RemoveDataset))));
        assert!(there, "{about}: datasets/{name} was left");
    }
}

/// The test in the child: performs the whole story under ptrace.
#[test]
fn child() {
    let Some(root) = std::env::var_os(FOLDER) else {
        return;
    };
    // Before the tracing: it takes hundreds of calls.
    dataset();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    be_traced();
    let mut world = World::new();
    let mut open = None;
    for act in STORY {
        for operation in world.perform(*act) {
            if let Operation::Open = operation {
                open = Some(runtime.block_on(Files::open(Path::new(&root))));
            } else {
                let (number, head) = (1, world.ledgers.get(&1).map_or(0, Vec::len) as u64);
                runtime.block_on(Files::perform(&mut open, operation, number, head));
            }
        }
        acknowledge(&format!("{act:?}"));
    }
}

/// What the child has open.
struct Files {
    journal: Journal,
    checkpoints: CheckpointStore,
    datasets: DatasetStore,
    _dir: DataDir,
}

impl Files {
    async fn open(root: &Path) -> Self {
        let dir = DataDir::open(root).unwrap();
        let (journal, recovered) = Journal::open(&dir.journal(), true).unwrap();
        let known = |kind: &str| recovered.stores.get(kind).map(String::as_str);
        let (checkpoints, id) =
            CheckpointStore::open(&dir.checkpoints(), known("checkpoints"), 0, options()).unwrap();
        let named = recovered.datasets.len();
        let (datasets, datasets_id) =
            DatasetStore::open(&dir.datasets(), known("datasets"), named, options()).unwrap();
        for (kind, id) in [("checkpoints", id), ("datasets", datasets_id)] {
            if known(kind) != Some(&id) {
                journal.put_store(kind, &id).await.unwrap();
            }
        }
        Self {
            journal,
            checkpoints,
            datasets,
            _dir: dir,
        }
    }

    async fn perform(open: &mut Option<Self>, operation: Operation, number: u64, head: u64) {
        if let Operation::Close = operation {
            return open.take().unwrap().journal.close().await;
        }
        let files = open.as_ref().unwrap();
        let id = RunId::new(format!("r-{number}")).unwrap();
        let name = DatasetName::new("eyes").unwrap();
        let digest = &dataset().manifest.digest;
        match operation {
            Operation::Open | Operation::Close => unreachable!(),
            Operation::AddDataset => {
                let verified = upload(&files.datasets, dataset()).unwrap();
                assert!(verified.store().unwrap().added);
                files.journal.put_dataset(&name, digest).await.unwrap();
            }
            Operation::RemoveDataset => {
                files.journal.remove_dataset(&name).await.unwrap();
                assert!(files.datasets.remove(digest).unwrap() > 0);
            }
            Operation::Store(info, run) => files.store(&info, run),
            Operation::Put {
                number: of,
                run,
                rewind,
                steps,
            } => {
                let urgency = match run {
                    Some(_) => Urgency::Now,
                    None => Urgency::Soon,
                };
                let put = files.journal.put_run(
                    of,
                    run.as_deref(),
                    rewind,
                    steps,
                    SPLIT,
                    0,
                    urgency,
                    OnFull::Wait,
                );
                let found = put.await.unwrap();
                assert!(of != number || found == head, "head {found}, not {head}");
            }
            Operation::RemoveFile(info) => {
                assert!(files.checkpoints.remove(&id, &info).unwrap() > 0);
            }
            Operation::RemoveRun => {
                assert!(files.checkpoints.remove_run(&id).unwrap() > 0);
                files.journal.remove_run(number).await.unwrap();
            }
        }
    }

    fn store(&self, info: &CheckpointInfo, run: RunRecord) {
        let bytes = state(info.step, info.generation);
        let file = self
            .checkpoints
            .begin(&run.id, info.step, info.generation, &header(), ELEMENTS)
            .unwrap();
        for (number, slice) in bytes.chunks(SLICE).enumerate() {
            file.write_at(slice, (number * SLICE) as u64).unwrap();
            file.sync().unwrap();
        }
        let record = CheckpointRecord {
            fingerprint: fingerprint(),
            lineage: info.lineage,
            stored_at_ms: info.stored_at_ms,
            run,
        };
        let stored = file.finish(&digest_of(&bytes), &record).unwrap();
        assert_eq!(stored, *info);
    }
}
