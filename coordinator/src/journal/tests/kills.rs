//! A kill never leads to a refusal, also where a log is begun anew: at every call that changes files, and after half of each
//! write.

use std::fs;

use super::*;
use crate::store::crash_trace::{self, FOLDER, Kill, acknowledge, be_traced};
use crate::store::test_support::memory_folder;

/// The first of them is there before.
const RUNS: u64 = 4;

async fn merge(journal: &Journal) {
    journal
        .with(|db| {
            db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                .unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_kill_while_a_log_is_begun_anew_loses_nothing() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    journal.close().await.unwrap();
    let begin = fs::read(&path).unwrap();
    let perform = |kill: Option<&Kill>| {
        let root = memory_folder();
        fs::write(root.path().join("journal.db"), &begin).unwrap();
        let outcome = crash_trace::perform("journal::tests::kills::child", root.path(), kill);
        (root, outcome)
    };
    let (_, whole) = perform(None);
    assert!(
        libc::WIFEXITED(whole.status) && libc::WEXITSTATUS(whole.status) == 0,
        "{:?}",
        whole.lines
    );
    assert_eq!(whole.lines.len() as u64, RUNS - 1, "{:?}", whole.lines);
    let headers = whole.points.iter().filter(|point| point.bytes == 32);
    assert_eq!(headers.count() as u64, RUNS - 1, "logs that are begun");
    let mut kills = 0;
    for at in 0..whole.points.len() {
        for half in [false, true] {
            if half && whole.points[at].bytes < 2 {
                continue;
            }
            let kill = Kill { at, half };
            let (root, outcome) = perform(Some(&kill));
            let point = outcome.points.last().unwrap();
            let about = format!("{kill:?}, {} {}", point.call, point.file);
            let acknowledged = 1 + outcome.lines.len() as u64;
            // Twice: what the first start has left is whole, too.
            for _ in 0..2 {
                let (journal, found) = Journal::open(&root.path().join("journal.db"), true)
                    .unwrap_or_else(|error| panic!("{about}: {error}"));
                // Before the next start, as the lock of the data folder sees to it.
                journal.close().await.unwrap();
                let runs = found.live.len() as u64;
                let fits = runs == acknowledged || runs == acknowledged + 1;
                assert!(fits, "{about}: {runs} runs, {acknowledged} acknowledged");
            }
            kills += 1;
        }
    }
    println!("{kills} kills");
}

/// Each run begins a log.
#[test]
fn child() {
    let Some(root) = std::env::var_os(FOLDER) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    be_traced();
    runtime.block_on(async {
        let (journal, _) = open(&Path::new(&root).join("journal.db"));
        for number in 2..=RUNS {
            journal.put(&run(number), OnFull::Wait).await.unwrap();
            acknowledge(&format!("run {number}"));
            merge(&journal).await;
        }
        journal.close().await.unwrap();
    });
}
