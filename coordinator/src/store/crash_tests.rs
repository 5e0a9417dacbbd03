//! The stores survive a kill at every system call that changes a file.
//!
//! A child, which is this test binary again, runs under ptrace. It performs [`STORY`] on real stores and acknowledges
//! each act when it is done. The parent kills it on entry to its N-th system call that changes files, for every N, and
//! once more after half of the bytes when the call is a write. Then the parent opens what is left, as a coordinator does at its
//! start, and compares it with what was acknowledged; the act under way may have happened or not.
//!
//! A kill is not a power failure: what the kernel took stays. So this tests the order of writes and that each is all or
//! nothing, but not that `fsync` is called.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fovea_core::checkpoint::CheckpointInfo;
use sha2::{Digest, Sha256};

use super::crash_trace::{self, FOLDER, Kill, Outcome, acknowledge, be_traced};
use super::manifest::Manifest;
use super::test_support::{
    WEIGHTS, add_weights, dataset, empty_trash_after, files, options, run_id, store_one, upload,
    weights_digest,
};
use super::{CheckpointStore, DatasetStore, TEMPORARY, WeightsStore};

/// How long all the kills may take. When they would take longer, only some of them are done.
const BUDGET: Duration = Duration::from_secs(60);

fn perform(root: &Path, kill: Option<&Kill>) -> Outcome {
    crash_trace::perform("store::crash_tests::child", root, kill)
}

/// Something that the child does and acknowledges.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Opens all stores, which makes them at first.
    Open,
    /// Assembles and stores a checkpoint (step, generation).
    Store(u64, u64),
    /// Removes one that is not listed any more.
    Remove(u64, u64),
    /// Puts one aside.
    Quarantine(u64, u64),
    /// Stores one and sweeps it away at once: it is not listed.
    Sweep(u64, u64),
    /// Removes everything from the trash.
    EmptyTrash,
    /// Uploads the dataset.
    Upload,
    /// Damages a pack and uploads the dataset again.
    Repair,
    /// Removes the dataset.
    RemoveDataset,
    /// Uploads weights.
    AddWeights,
    /// Damages their file and uploads them again.
    RepairWeights,
    /// Removes them.
    RemoveWeights,
}

const STORY: &[Act] = &[
    Act::Open,
    Act::Store(10, 1),
    Act::Store(20, 1),
    Act::Upload,
    Act::AddWeights,
    Act::Store(20, 2),
    Act::Remove(20, 1),
    Act::Sweep(30, 2),
    Act::Quarantine(10, 1),
    Act::Repair,
    Act::RepairWeights,
    Act::EmptyTrash,
    Act::Open,
    Act::Store(40, 3),
    Act::RemoveDataset,
    Act::RemoveWeights,
];

/// What there is after some acts.
#[derive(Debug, Default, Clone)]
struct World {
    listed: BTreeSet<(u64, u64)>,
    dataset: bool,
    weights: bool,
}

fn after(acts: &[Act]) -> World {
    let mut world = World::default();
    for act in acts {
        match *act {
            Act::Store(step, generation) => {
                world.listed.insert((step, generation));
            }
            Act::Remove(step, generation) | Act::Quarantine(step, generation) => {
                world.listed.remove(&(step, generation));
            }
            Act::Upload => world.dataset = true,
            Act::RemoveDataset => world.dataset = false,
            Act::AddWeights => world.weights = true,
            Act::RemoveWeights => world.weights = false,
            Act::Open | Act::Sweep(..) | Act::EmptyTrash => {}
            Act::Repair | Act::RepairWeights => {}
        }
    }
    world
}

#[test]
fn a_kill_at_any_write_leaves_whole_acts() {
    let begun = Instant::now();
    let root = tempfile::tempdir().unwrap();
    let whole = perform(root.path(), None);
    assert!(
        !whole.lines.iter().any(|line| line.starts_with("refused")),
        "this system permits no ptrace, which this test needs ({:?}); allow it, or leave the test out by name",
        whole.lines
    );
    assert!(libc::WIFEXITED(whole.status) && libc::WEXITSTATUS(whole.status) == 0);
    assert_eq!(whole.lines.len(), STORY.len(), "{:?}", whole.lines);
    check(root.path(), &whole.lines, "no kill");

    let mut kills: Vec<Kill> = Vec::new();
    for (at, point) in whole.points.iter().enumerate() {
        kills.push(Kill { at, half: false });
        if point.bytes > 1 {
            kills.push(Kill { at, half: true });
        }
    }
    assert!(kills.len() > 100, "{}", kills.len());
    // A killed child does half of the story on average, so this is more than enough.
    let all = begun.elapsed() * kills.len() as u32;
    let every = all.as_millis().div_ceil(BUDGET.as_millis()).max(1) as usize;
    println!(
        "{} calls change files; {} kills, of which every {every} is done",
        whole.points.len(),
        kills.len()
    );
    for kill in kills.iter().step_by(every) {
        let point = &whole.points[kill.at];
        let about = format!("kill {} {kill:?}, {} {}", kill.at, point.call, point.file);
        let root = tempfile::tempdir().unwrap();
        let outcome = perform(root.path(), Some(kill));
        assert!(
            libc::WIFSIGNALED(outcome.status) && libc::WTERMSIG(outcome.status) == libc::SIGKILL,
            "{about}: was not killed: {:?}",
            outcome.lines
        );
        check(root.path(), &outcome.lines, &about);
    }
    println!("done in {:.1?}", begun.elapsed());
}

/// Opens what the child left, and compares it with what the child acknowledged.
fn check(root: &Path, lines: &[String], about: &str) {
    let known = |number: usize| Some(lines.first()?.split(' ').nth(number)?.to_owned());
    let (before, then) = (
        after(&STORY[..lines.len()]),
        after(&STORY[..STORY.len().min(lines.len() + 1)]),
    );
    let folder = root.join("checkpoints").join(run_id().as_str());
    let (store, _) =
        CheckpointStore::open(&root.join("checkpoints"), known(0).as_deref(), 0, options())
            .expect(about);
    let (datasets, _) =
        DatasetStore::open(&root.join("datasets"), known(1).as_deref(), 0, options()).expect(about);

    let (weights, _) =
        WeightsStore::open(&root.join("weights"), known(2).as_deref(), options()).expect(about);

    let stores = ["checkpoints", "datasets", "weights"].map(|name| root.join(name));
    for folder in std::iter::once(&folder).chain(&stores) {
        for name in files(folder) {
            assert!(!name.starts_with(TEMPORARY), "{about}: {name} was left");
        }
    }
    let mut whole: Vec<CheckpointInfo> = Vec::new();
    for name in files(&folder).iter().filter(|name| name.ends_with(".json")) {
        // Listed or not: other programs find files by their manifests.
        whole.push(described(&folder.join(name), about));
    }
    let key = |info: &CheckpointInfo| (info.step, info.generation);
    let mut listed = Vec::new();
    for wanted in before.listed.intersection(&then.listed) {
        let info = whole.iter().find(|info| key(info) == *wanted);
        let info = info
            .unwrap_or_else(|| panic!("{about}: {wanted:?} is gone"))
            .clone();
        store.verify(&run_id(), &info, |_| ()).expect(about);
        listed.push(info);
    }
    for (info, manifest) in store.found(&run_id(), &listed).expect(about) {
        store.verify(&run_id(), &info, |_| ()).expect(about);
        assert!(manifest.record.is_some(), "{about}");
    }
    store.sweep(&run_id(), &listed).expect(about);
    assert_eq!(
        files(&folder).len(),
        2 * listed.len(),
        "{about}: after the sweep"
    );
    // The trash holds what was swept; nothing was deleted.
    for info in whole.iter().filter(|info| !listed.contains(info)) {
        let trash = root.join("checkpoints").join(super::trash::TRASH);
        let name = format!("step-{:010}.g{}.safetensors", info.step, info.generation);
        let found = files(&trash)
            .iter()
            .any(|entry| trash.join(entry).join(&name).exists());
        assert!(found, "{about}: {name} is not in the trash");
    }

    let source = dataset();
    let digest = &source.manifest.digest;
    let place = root.join("datasets").join(digest);
    if before.dataset && then.dataset {
        let held = datasets.open_dataset(digest).expect(about);
        let problems = datasets.verify(&held, |_| ());
        let repairing = STORY
            .get(lines.len())
            .is_some_and(|act| matches!(act, Act::Repair));
        let expected = |number: u32| repairing && number == 0;
        assert!(
            problems.iter().all(|(number, _)| expected(*number)),
            "{about}: {problems:?}"
        );
    } else if place.exists() {
        assert!(
            before.dataset || then.dataset,
            "{about}: nobody uploaded it"
        );
        let held = datasets.open_dataset(digest).expect(about);
        assert!(datasets.verify(&held, |_| ()).is_empty(), "{about}");
    }
    let stored = upload(&datasets, source)
        .expect(about)
        .store()
        .expect(about);
    assert!(datasets.verify(&stored.held, |_| ()).is_empty(), "{about}");
    store_one(&store, &run_id(), 90, 9);

    let there = root.join("weights").join(weights_digest());
    if before.weights && then.weights {
        let held = weights.describe(&weights_digest()).expect(about);
        let repairing = STORY
            .get(lines.len())
            .is_some_and(|act| matches!(act, Act::RepairWeights));
        let verified = weights.verify(&held, |_| ());
        assert!(verified.is_ok() || repairing, "{about}: {verified:?}");
    } else if there.exists() {
        assert!(before.weights || then.weights, "{about}: nobody added them");
        let held = weights.describe(&weights_digest()).expect(about);
        weights.verify(&held, |_| ()).expect(about);
    }
    let added = add_weights(&weights).expect(about);
    weights.verify(&added.held, |_| ()).expect(about);
}

/// What a manifest says, which must be true of its file.
fn described(path: &Path, about: &str) -> CheckpointInfo {
    let manifest = Manifest::parse(&fs::read(path).expect(about), path).expect(about);
    let bytes = fs::read(path.with_extension("safetensors")).expect(about);
    assert_eq!(manifest.info.bytes, bytes.len() as u64, "{about}");
    let sha256 = hex::encode(Sha256::digest(bytes));
    assert_eq!(manifest.info.sha256, sha256, "{about}");
    manifest.info
}

/// The test in the child: performs the whole story under ptrace.
#[test]
fn child() {
    let Some(root) = std::env::var_os(FOLDER) else {
        return;
    };
    let root = Path::new(&root);
    let source = dataset();
    be_traced();

    let mut ids: [Option<String>; 3] = [None, None, None];
    let mut stores = None;
    let mut infos: Vec<CheckpointInfo> = Vec::new();
    for act in STORY {
        if let Act::Open = act {
            let (checkpoints, id) =
                CheckpointStore::open(&root.join("checkpoints"), ids[0].as_deref(), 0, options())
                    .unwrap();
            ids[0] = Some(id);
            let (datasets, id) =
                DatasetStore::open(&root.join("datasets"), ids[1].as_deref(), 0, options())
                    .unwrap();
            ids[1] = Some(id);
            let (weights, id) =
                WeightsStore::open(&root.join("weights"), ids[2].as_deref(), options()).unwrap();
            ids[2] = Some(id);
            stores = Some((checkpoints, datasets, weights));
        }
        let (checkpoints, datasets, weights) = stores.as_ref().unwrap();
        let mut taken = |step, generation| {
            let key = (step, generation);
            let at = infos
                .iter()
                .position(|info| (info.step, info.generation) == key);
            infos.remove(at.unwrap())
        };
        match *act {
            Act::Open => {}
            Act::Store(step, generation) => {
                infos.push(store_one(checkpoints, &run_id(), step, generation));
            }
            Act::Remove(step, generation) => {
                let info = taken(step, generation);
                assert!(checkpoints.remove(&run_id(), &info).unwrap() > 0);
            }
            Act::Quarantine(step, generation) => {
                let info = taken(step, generation);
                checkpoints.quarantine(&run_id(), &info).unwrap();
            }
            Act::Sweep(step, generation) => {
                store_one(checkpoints, &run_id(), step, generation);
                assert_eq!(checkpoints.sweep(&run_id(), &infos).unwrap().len(), 2);
            }
            Act::EmptyTrash => {
                let purged = empty_trash_after(checkpoints, 30);
                assert!(purged.freed > 0 && purged.problem.is_none(), "{purged:?}");
            }
            Act::Upload => {
                let stored = upload(datasets, source).unwrap().store().unwrap();
                assert!(stored.added);
            }
            Act::Repair => {
                let place = root.join("datasets").join(&source.manifest.digest);
                fs::write(place.join(&source.manifest.packs[0].file), "damaged").unwrap();
                let stored = upload(datasets, source).unwrap().store().unwrap();
                assert_eq!(stored.repaired, [0]);
            }
            Act::RemoveDataset => {
                assert!(datasets.remove(&source.manifest.digest).unwrap() > 0);
            }
            Act::AddWeights => assert!(add_weights(weights).unwrap().added),
            Act::RepairWeights => {
                let place = root.join("weights").join(weights_digest());
                fs::write(place.join("file"), &WEIGHTS[1..]).unwrap();
                assert!(add_weights(weights).unwrap().repaired);
            }
            Act::RemoveWeights => assert!(weights.remove(&weights_digest()).unwrap() > 0),
        }
        let ids = ids.each_ref().map(|id| id.as_deref().unwrap());
        acknowledge(&format!("{} {act:?}", ids.join(" ")));
    }
}
