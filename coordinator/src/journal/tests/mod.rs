//! The journal as its users see it.

mod backup;
mod children;
mod faults;
mod groups;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kills;
mod migration;
mod moved;
mod rights;
mod scores;
mod snapshots;
mod speed;
mod wal;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use fovea_core::ids::{DatasetName, RunId, WorkerId};
use fovea_core::ledger::Entry;
use fovea_core::run::{Event, Extent, Phase, Run};
use sha2::{Digest, Sha256};

use super::*;

/// Samples in the training split of every run here.
const SPLIT: u64 = 8;

fn run(number: u64) -> Run {
    Run::new(
        RunId::new(format!("a-{number}")).unwrap(),
        number,
        toml::from_str("name = 'a'\ndataset = 'd'").unwrap(),
        "0".repeat(64),
        Extent {
            steps_per_epoch: 2,
            total_steps: 4,
            train_samples: SPLIT,
            validation_samples: 2,
        },
        7,
    )
}

fn ended(number: u64) -> Run {
    let mut run = run(number);
    run.apply(0, Event::Cancel);
    assert_eq!(run.phase, Phase::Cancelled);
    run
}

fn step(step: u64, samples: &[u32]) -> Entry {
    Entry {
        step,
        loss: step as f64 / 2.0,
        samples: samples.to_vec(),
    }
}

fn steps(from: u64, to: u64) -> Vec<Entry> {
    (from..=to).map(|n| step(n, &[1, 2, 3, 4])).collect()
}

fn open(path: &Path) -> (Journal, Recovered) {
    // The tests do not depend on where the temporary folder is.
    Journal::open(path, true).unwrap()
}

/// A folder, and the path of a journal in it.
fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    (folder, path)
}

impl Journal {
    /// Does something to the connection, in the thread.
    async fn with(&self, act: impl FnOnce(&rusqlite::Connection) + Send + 'static) {
        let (done, ended) = oneshot::channel();
        let read = Read::Test(Box::new(move |db| {
            act(db);
            done.send(()).unwrap();
        }));
        self.reads.send(read).await.unwrap();
        ended.await.unwrap();
    }

    async fn put(&self, run: &Run, on_full: OnFull) -> Result<u64, JournalError> {
        let (number, split) = (run.number, run.extent.train_samples);
        self.put_run(
            RunChange {
                number,
                run: Some(run),
                rewind: None,
                steps: vec![],
                scores: None,
                train_samples: split,
                head: 0,
            },
            Urgency::Now,
            on_full,
        )
        .await
    }

    async fn append(&self, number: u64, steps: Vec<Entry>) -> Result<u64, JournalError> {
        self.put_run(
            RunChange {
                number,
                run: None,
                rewind: None,
                steps,
                scores: None,
                train_samples: SPLIT,
                head: 0,
            },
            Urgency::Soon,
            OnFull::Wait,
        )
        .await
    }
}

/// The processor time that the calling thread has taken.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is valid.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Waits for `what`, with a deadline that a busy machine does not reach.
async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what)
        .await
        .expect("not within 60 s")
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let (_folder, path) = place();
    let (journal, found) = open(&path);
    assert_eq!((found.next_run, found.live.len()), (1, 0));
    let name = DatasetName::new("d").unwrap();
    let gone = DatasetName::new("gone").unwrap();
    journal.put_dataset(&name, "abc").await.unwrap();
    journal.put_dataset(&gone, "x").await.unwrap();
    journal.remove_dataset(&gone).await.unwrap();
    journal.put_store("checkpoints", "old").await.unwrap();
    journal.put_store("checkpoints", "new").await.unwrap();
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let mut second = run(2);
    journal.put(&second, OnFull::Wait).await.unwrap();
    let workers = vec![(WorkerId::new("w").unwrap(), "h:1".into())];
    second.apply(0, Event::Assigned { workers });
    journal.put(&second, OnFull::Wait).await.unwrap();
    journal.put(&ended(3), OnFull::Wait).await.unwrap();
    // A write to an older run does not bring its number back.
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    journal.close().await.unwrap();

    let (journal, found) = open(&path);
    assert_eq!((found.next_run, found.terminal_runs), (4, 1));
    assert_eq!(found.live.len(), 2);
    assert_eq!(found.live[0].run, run(1));
    let forming = &found.live[1].run;
    assert_eq!(
        (&forming.phase, forming.generation),
        (&second.phase, second.generation)
    );
    assert!(matches!(forming.phase, Phase::Forming { .. }));
    assert_eq!(found.datasets, [("d".into(), "abc".into())]);
    let stores = BTreeMap::from([("checkpoints".into(), "new".into())]);
    assert_eq!(found.stores, stores);
    assert_eq!(journal.run(3).await.unwrap(), Some(ended(3)));
    assert_eq!(journal.run(4).await.unwrap(), None);
    let numbers = async |before: u64, limit: usize| {
        let runs: Vec<Run> = journal.runs_before(before, limit).await.unwrap();
        runs.iter().map(|run| run.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(u64::MAX, 2).await, [3, 2]);
    assert_eq!(numbers(2, 100).await, [1]);
    assert!(numbers(1, 100).await.is_empty());
    // An ended run that goes on is live again.
    journal.put(&run(3), OnFull::Wait).await.unwrap();
    journal.close().await.unwrap();
    let (_, found) = open(&path);
    assert_eq!((found.live.len(), found.terminal_runs), (3, 0));
}

/// The journal's own idea of an ended run is the run's.
#[tokio::test]
async fn the_files_are_readable_by_their_owner_only() {
    let (folder, path) = place();
    let journal = open(&path).0;
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name());
    }
    names.sort();
    assert_eq!(names, ["journal.db", "journal.db-wal"]);
}

#[test]
fn terminal_phases_are_those_of_a_run() {
    let mut failed = run(1);
    failed.phase = Phase::Failed { reason: "r".into() };
    let mut completed = run(1);
    completed.phase = Phase::Completed;
    let mut paused = run(1);
    paused.phase = Phase::Paused;
    for run in [run(1), ended(1), failed, completed, paused] {
        let row = run_row(1, &run).unwrap();
        assert_eq!(row.terminal, run.is_terminal(), "{}", row.phase);
    }
}

/// A learning rate that is off in its last bit would change every weight after a restart.
#[test]
fn floats_come_back_to_the_bit() {
    for i in 1..2000u64 {
        let value = f64::from_bits(0x3f40_0000_0000_0000 + i * 0x1_2345_6789_abcd);
        let text = serde_json::to_string(&value).unwrap();
        let back: f64 = serde_json::from_str(&text).unwrap();
        assert_eq!(back.to_bits(), value.to_bits(), "{text}");
    }
}

#[tokio::test]
async fn the_ledger_is_kept_by_step_and_cut_by_a_rewind() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    let first = vec![step(1, &[7, 0, 3]), step(2, &[]), step(4, &[5])];
    assert_eq!(journal.append(1, first).await.unwrap(), 2, "3 is missing");
    journal.append(2, vec![step(1, &[1])]).await.unwrap();
    let more = vec![step(3, &[6]), step(4, &[4])];
    assert_eq!(journal.append(1, more).await.unwrap(), 4);
    let (entries, bytes) = journal.steps(1, SPLIT, 2, 100).await.unwrap();
    assert_eq!(entries, [step(2, &[]), step(3, &[6]), step(4, &[4])]);
    assert_eq!(bytes, 2);
    let losses: Vec<(u64, f64)> = entries.iter().map(|e| (e.step, e.loss)).collect();
    let pairs = |rows: Vec<LossRow>| -> Vec<(u64, f64)> {
        rows.into_iter().map(|row| (row.step, row.loss)).collect()
    };
    assert_eq!(pairs(journal.losses(1, 2, 100).await.unwrap()), losses);
    assert_eq!(pairs(journal.losses(1, 2, 1).await.unwrap()), losses[..1]);
    let (entries, _) = journal.steps(1, SPLIT, 1, 2).await.unwrap();
    assert_eq!(entries, [step(1, &[7, 0, 3]), step(2, &[])]);
    // Cut and appended to in one write; what the caller believes of the head does not count.
    let rewound = run(1);
    let head = journal
        .put_run(
            RunChange {
                number: 1,
                run: Some(&rewound),
                rewind: Some(1),
                steps: vec![step(2, &[2])],
                scores: None,
                train_samples: SPLIT,
                head: 99,
            },
            Urgency::Now,
            OnFull::Wait,
        )
        .await
        .unwrap();
    assert_eq!(head, 2);
    let (entries, _) = journal.steps(1, SPLIT, 0, 100).await.unwrap();
    assert_eq!(entries, [step(1, &[7, 0, 3]), step(2, &[2])]);
    let (entries, _) = journal.steps(2, SPLIT, 0, 100).await.unwrap();
    assert_eq!(entries, [step(1, &[1])]);
    let bad = Entry {
        loss: f64::NAN,
        ..step(3, &[])
    };
    let error = journal.append(1, vec![bad]).await.unwrap_err();
    assert!(error.to_string().contains("step 3"), "{error}");
}

/// The head and the losses of the epoch under way are there after a restart.
#[tokio::test]
async fn a_restart_finds_head_and_losses_of_the_epoch_under_way() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    let mut one = run(1);
    one.epochs.push(fovea_core::run::EpochResult {
        epoch: 0,
        step: 2,
        train_loss: None,
        validation: fovea_core::metrics::evaluate(&[], fovea_core::spec::Scheme::softmax(5, 1)),
    });
    journal.put(&one, OnFull::Wait).await.unwrap();
    let steps = vec![step(1, &[1]), step(2, &[2]), step(3, &[3, 4]), step(5, &[])];
    journal.append(1, steps).await.unwrap();
    journal.close().await.unwrap();
    let (_, found) = open(&path);
    assert_eq!(found.live[0].ledger_head, 3);
    assert_eq!(found.live[0].losses, [(3, 1.5, 2), (5, 2.5, 0)]);
}

#[tokio::test]
async fn a_removed_run_is_gone_with_its_ledger_and_stays_so() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&ended(1), OnFull::Wait).await.unwrap();
    journal.put(&ended(2), OnFull::Wait).await.unwrap();
    let many: Vec<Entry> = (1..=2000).map(|n| step(n, &[1])).collect();
    journal.append(1, many).await.unwrap();
    journal.append(2, vec![step(1, &[1])]).await.unwrap();
    journal.remove_run(1).await.unwrap();
    assert_eq!(journal.run(1).await.unwrap(), None);
    assert_eq!(journal.steps(1, SPLIT, 0, 10).await.unwrap().0, []);
    assert_eq!(journal.losses(1, 0, 10).await.unwrap(), []);
    // A task of the run that is late does not bring it back.
    let late = journal.put(&run(1), OnFull::Wait).await.unwrap_err();
    assert!(matches!(late, JournalError::Removed { run: 1 }), "{late}");
    journal.remove_run(1).await.unwrap();
    within(async {
        loop {
            let (tell, left) = oneshot::channel();
            journal
                .with(move |db| {
                    let count = "SELECT count(*) FROM ledger WHERE run = 1";
                    let left: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
                    tell.send(left).unwrap();
                })
                .await;
            if left.await.unwrap() == 0 {
                break;
            }
        }
    })
    .await;
    assert_eq!(journal.steps(2, SPLIT, 0, 10).await.unwrap().0.len(), 1);
    journal.close().await.unwrap();
    let (_, found) = open(&path);
    assert_eq!((found.next_run, found.terminal_runs), (3, 1));
}

#[tokio::test]
async fn the_disk_has_it_when_a_write_is_answered_and_order_is_kept() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    let mut writers = tokio::task::JoinSet::new();
    for number in 1..=20 {
        let journal = journal.clone();
        writers.spawn(async move {
            for at in 1..=10 {
                let head = journal.append(number, vec![step(at, &[1])]).await.unwrap();
                assert_eq!(head, at);
            }
        });
    }
    within(writers.join_all()).await;
    let stats = journal.stats();
    assert_eq!(stats.writes, 200);
    assert!(stats.commits < 100, "no commit was shared: {stats:?}");
    // Sent without waiting, in order: cut after what was appended.
    let pair = tokio::join!(
        journal.append(1, vec![step(11, &[1])]),
        journal.put_run(
            RunChange {
                number: 1,
                run: None,
                rewind: Some(5),
                steps: vec![],
                scores: None,
                train_samples: SPLIT,
                head: 0
            },
            Urgency::Now,
            OnFull::Wait
        ),
        journal.append(1, vec![step(6, &[1])]),
    );
    let heads = [pair.0, pair.1, pair.2].map(Result::unwrap);
    assert_eq!(heads, [11, 5, 6]);
}

/// One write that cannot be made does not hinder those that share its commit.
#[tokio::test]
async fn a_write_that_sqlite_refuses_is_refused_alone() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let mut twin = run(2);
    twin.id = run(1).id;
    let good = run(3);
    let (bad, good) = tokio::join!(
        journal.put(&twin, OnFull::Wait),
        journal.put(&good, OnFull::Wait)
    );
    let bad = bad.unwrap_err();
    assert!(matches!(bad, JournalError::Refused { .. }), "{bad}");
    assert!(!bad.is_fatal());
    good.unwrap();
    assert!(journal.blocked().borrow().is_none());
}

#[tokio::test]
async fn a_closed_journal_says_so_and_one_in_use_is_refused() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    let error = Journal::open(&path, true).unwrap_err();
    assert!(matches!(error, JournalError::Locked { .. }), "{error}");
    let other = journal.clone();
    other.append(1, vec![step(1, &[])]).await.unwrap();
    journal.close().await.unwrap();
    let error = other.append(1, vec![step(2, &[])]).await.unwrap_err();
    assert!(matches!(error, JournalError::Closed), "{error}");
    let log = path.with_extension("db-wal");
    assert!(!log.exists(), "the log was not merged");
    open(&path);
}
