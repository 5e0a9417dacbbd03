//! Nothing acknowledged is lost, for the journal and the stores together.
//!
//! A child, which is this test binary again, runs under ptrace. It performs [`story::STORY`] on a real journal and real stores,
//! with the file operations of each act in the order in which the coordinator makes them (named at [`story::Operation`]), and
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

mod checks;
mod files;
mod story;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use fovea_core::run::Phase;

use checks::check;
use files::Files;
use story::Act::*;
use story::{Operation, STORY};
use world::World;

use crate::store::crash_trace::{self, FOLDER, Kill, acknowledge, be_traced};
use crate::store::test_support::{dataset, memory_folder};

/// Every n-th kill is always made. The others follow in passes of every n-th while there is time. Odd, so that a pass has
/// both kinds of kills at a write.
const EVERY: usize = 7;
/// No further pass is begun after this time, seconds.
const BUDGET_S: u64 = 30;
/// Another number of seconds, for a run that makes all kills.
const BUDGET: &str = "FOVEA_CRASH_BUDGET_S";
/// Samples in the training split.
const SPLIT: u64 = 40;

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
