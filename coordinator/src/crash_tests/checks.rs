//! The parent examines what the child left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_traces::Traces;

use super::SPLIT;
use super::story::Act::{self, *};
use super::story::STORY;
use super::world::World;
use crate::config::Config;
use crate::journal::Journal;
use crate::net::{Budget, Limits};
use crate::run::RunInput;
use crate::startup::{self, Certified};
use crate::store::Segment;
use crate::store::test_support::{dataset, files, memory_folder};

/// How long an actor of the started coordinator may take to answer.
const ANSWER: Duration = Duration::from_secs(60);

/// Examines what the child left after it had acknowledged so many acts.
pub(super) fn check(root: &Path, acknowledged: usize, worlds: &[World], about: &str) {
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
    journal.close().await.unwrap();
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
    let running = opened.start(limits, Certified::default(), Traces::default());
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
    running.journal.close().await.unwrap();
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
