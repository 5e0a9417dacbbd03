//! A write-ahead log that is damaged, cut off, or alone.

use std::fs;

use super::backup::files;
use super::*;

const HEADER: usize = 32;
const FRAME: usize = 24 + 4096;
/// The transactions of [`killed`] after the first, which creates the tables.
const RUNS: u64 = 20;

/// Equal in each run of the tests.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

/// What a coordinator leaves that is killed after `RUNS` acknowledged transactions, each with a run.
fn killed() -> (tempfile::TempDir, std::path::PathBuf) {
    let (folder, path) = place();
    let mut child = children::start("wal::write_and_wait", &path);
    let acknowledged = path.with_extension("done");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !acknowledged.exists() {
        assert!(
            std::time::Instant::now() < deadline,
            "the child does not write"
        );
        assert!(child.try_wait().unwrap().is_none(), "the child has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(acknowledged).unwrap();
    (folder, path)
}

#[tokio::test]
#[ignore = "the child of the tests of a damaged log"]
async fn write_and_wait() {
    let Some(path) = children::given() else {
        return;
    };
    let (journal, _) = open(&path);
    for number in 1..=RUNS {
        put_with_steps(&journal, number).await;
    }
    fs::write(path.with_extension("done"), "").unwrap();
    std::future::pending::<()>().await;
}

/// A run with the same 50 steps as before, in one transaction.
async fn put_with_steps(journal: &Journal, number: u64) {
    journal
        .put_run(
            RunChange {
                number,
                run: Some(&run(number)),
                rewind: Some(0),
                steps: steps(1, 50),
                scores: None,
                train_samples: SPLIT,
                head: 0,
            },
            Urgency::Now,
            OnFull::Wait,
        )
        .await
        .unwrap();
}

/// Indices from 0 of the frames that end a transaction.
fn commits(log: &[u8]) -> Vec<usize> {
    let frames = log[HEADER..].chunks_exact(FRAME).enumerate();
    frames
        .filter(|(_, frame)| frame[4..8] != [0; 4])
        .map(|(index, _)| index)
        .collect()
}

/// Where the last transaction begins, in bytes.
fn last_begins(log: &[u8]) -> usize {
    let commits = commits(log);
    HEADER + (commits[commits.len() - 2] + 1) * FRAME
}

fn put_files(path: &Path, database: &[u8], log: &[u8]) {
    fs::write(path, database).unwrap();
    fs::write(path.with_extension("db-wal"), log).unwrap();
}

/// Opens them. The number of runs, or None if they are refused, which leaves them as they are.
fn runs_in(database: &[u8], log: &[u8], about: &str) -> Option<u64> {
    let (_folder, path) = place();
    put_files(&path, database, log);
    match Journal::open(&path, true) {
        Ok((_, found)) => {
            for live in &found.live {
                assert_eq!(live.ledger_head, 50, "{about}: run {}", live.run.number);
            }
            Some(found.live.len() as u64)
        }
        Err(error) => {
            assert!(
                matches!(error, JournalError::DamagedLog { .. }),
                "{about}: {error}"
            );
            assert!(
                error.is_fatal() && error.to_string().contains("-wal"),
                "{error}"
            );
            assert!(
                files(&path) == [database, log],
                "{about}: the files are changed"
            );
            let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
            assert_eq!(left, 2, "{about}: something was created");
            None
        }
    }
}

/// A flipped byte is refused, or harmless, or in the last transaction, which is missing then.
fn flip_each(database: &[u8], log: &[u8], places: impl Iterator<Item = usize>) {
    let (mut refused, mut harmless, mut cut) = (0, 0, 0);
    let mut random = Random(7);
    for at in places {
        let mut flipped = log.to_vec();
        flipped[at] ^= 1 + random.below(255) as u8;
        let about = format!("byte {at} of {}", log.len());
        match runs_in(database, &flipped, &about) {
            None => refused += 1,
            Some(RUNS) => harmless += 1,
            Some(found) => {
                assert_eq!(found, RUNS - 1, "{about}: acknowledged runs are missing");
                assert!(
                    at >= last_begins(log),
                    "{about}: not of the last transaction"
                );
                cut += 1;
            }
        }
    }
    println!("{refused} refused, {harmless} harmless, {cut} without the last transaction");
    assert!(refused > 0);
}

#[test]
fn a_flipped_byte_of_a_young_log_loses_nothing_but_the_last_transaction() {
    let (_folder, path) = killed();
    let [database, log] = files(&path);
    assert_eq!(database.len(), 4096, "everything is in the log");
    assert_eq!(runs_in(&database, &log, "as it was left"), Some(RUNS));
    let commits = commits(&log);
    assert_eq!(commits.len() as u64, RUNS + 1);
    let mut random = Random(1);
    let anywhere = (0..120).map(|_| random.below(log.len()));
    // The header, and the headers of frames around the last but one commit.
    let around = commits[commits.len() - 2];
    let heads = (around - 1..around + 2)
        .flat_map(|frame| (0..24).map(move |byte| HEADER + frame * FRAME + byte));
    flip_each(&database, &log, (0..HEADER).chain(heads).chain(anywhere));
}

/// The log was begun anew: behind its frames there are those of the log before.
#[tokio::test]
async fn a_flipped_byte_of_a_log_that_was_begun_anew() {
    let (folder, path) = killed();
    let (journal, _) = open(&path);
    journal
        .with(|db| {
            db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                .unwrap();
        })
        .await;
    for number in RUNS - 3..=RUNS {
        put_with_steps(&journal, number).await;
    }
    let [database, log] = files(&path);
    journal.close().await.unwrap();
    drop(folder);
    let salts = |frame: usize| &log[HEADER + frame * FRAME + 8..][..8];
    assert_eq!(salts(0), &log[16..24]);
    let frames = (log.len() - HEADER) / FRAME;
    assert_ne!(salts(frames - 1), salts(0), "no frames of the log before");
    let own = (0..frames)
        .filter(|&frame| salts(frame) == salts(0))
        .count();
    // Every transaction replaces what is there by the same, so none can be missing unnoticed in the number of runs.
    for at in (0..HEADER).chain((0..own - 1).map(|frame| HEADER + frame * FRAME + 30)) {
        let mut flipped = log.clone();
        flipped[at] ^= 0x10;
        let later = HEADER + commits(&log)[2] * FRAME + FRAME;
        let found = runs_in(&database, &flipped, &format!("byte {at}"));
        assert!(
            found.is_none() || at >= later,
            "byte {at} of a log of {own} frames"
        );
    }
    let mut random = Random(3);
    for _ in 0..20 {
        let mut flipped = log.clone();
        let old = HEADER + own * FRAME;
        flipped[old + random.below(log.len() - old)] ^= 0x10;
        assert_eq!(
            runs_in(&database, &flipped, "of the log before"),
            Some(RUNS)
        );
    }
}

#[test]
fn what_a_kill_leaves_of_the_last_transaction_is_cut_off() {
    let (_folder, path) = killed();
    let [database, log] = files(&path);
    let begins = last_begins(&log);
    let mut random = Random(5);
    for _ in 0..40 {
        let end = begins + random.below(log.len() - begins);
        let about = format!("cut at {end}");
        assert_eq!(runs_in(&database, &log[..end], &about), Some(RUNS - 1));
        // A power failure may leave any sectors of it.
        let mut holes = log.clone();
        let from = begins + random.below(log.len() - begins);
        holes[from..(from + 512).min(log.len())].fill(0);
        let found = runs_in(&database, &holes, &about);
        assert!(found.is_some_and(|found| found >= RUNS - 1), "{found:?}");
    }
    // Before the first commit.
    for end in [0, 1, 31, 32, 33, HEADER + FRAME - 1, HEADER + FRAME] {
        assert_eq!(runs_in(&database, &log[..end], "young"), Some(0), "{end}");
    }
}

/// Each commit but the last, with its mark overwritten.
#[test]
fn a_commit_that_lost_its_mark_is_missed() {
    let (_folder, path) = killed();
    let [database, log] = files(&path);
    let commits = commits(&log);
    for &frame in &commits[..commits.len() - 1] {
        let mut erased = log.clone();
        erased[HEADER + frame * FRAME + 4..][..4].fill(0);
        let found = runs_in(&database, &erased, "erased");
        assert_eq!(found, None, "frame {frame} of {commits:?}");
    }
}

#[test]
fn random_bytes_are_no_log() {
    let (_folder, path) = killed();
    let [database, _] = files(&path);
    let mut random = Random(9);
    for bytes in [32, 33, 4096, 100_000] {
        let noise: Vec<u8> = (0..bytes).map(|_| random.below(256) as u8).collect();
        assert_eq!(runs_in(&database, &noise, "noise"), None, "{bytes}");
    }
}

/// SQLite deletes the log of an empty database.
#[test]
fn a_log_without_its_database_is_refused_and_stays() {
    let (_folder, path) = killed();
    let [_, log] = files(&path);
    assert_eq!(runs_in(&[], &log, "an empty database"), None);
    fs::remove_file(&path).unwrap();
    let error = Journal::open(&path, true).unwrap_err();
    assert!(error.to_string().contains("is missing or empty"), "{error}");
    assert!(!path.exists());
    assert_eq!(fs::read(path.with_extension("db-wal")).unwrap(), log);
    // A log in which nothing was committed holds nothing.
    assert_eq!(runs_in(&[], &log[..HEADER + FRAME], "empty"), Some(0));
}

/// A kill while the header of a new log is written leaves half of it, over a log that is in the database as a whole.
#[tokio::test]
async fn a_header_that_was_half_written_loses_nothing() {
    let (_folder, path) = killed();
    let before = files(&path);
    let (journal, _) = open(&path);
    journal
        .with(|db| {
            db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                .unwrap();
        })
        .await;
    let merged = files(&path);
    journal.close().await.unwrap();
    let half = |log: &[u8]| {
        let mut log = log.to_vec();
        let sequence = u32::from_be_bytes(log[12..16].try_into().unwrap());
        log[12..16].copy_from_slice(&(sequence + 1).to_be_bytes());
        log
    };
    assert_eq!(runs_in(&merged[0], &half(&merged[1]), "merged"), Some(RUNS));
    assert_eq!(runs_in(&before[0], &half(&before[1]), "not merged"), None);
    let mut partly = merged[0].clone();
    let last = partly.len() - 4096;
    partly[last..].fill(0);
    assert_eq!(runs_in(&partly, &half(&merged[1]), "partly"), None);
}
