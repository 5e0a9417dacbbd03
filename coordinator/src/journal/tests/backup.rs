//! A backup that is put in the place of the journal.

use std::fs;

use super::*;

/// What a coordinator that was killed leaves: the files as they are while the journal is open.
pub(super) fn leave(from: &Path, to: &Path) {
    for name in ["journal.db", "journal.db-wal"] {
        fs::copy(from.with_file_name(name), to.with_file_name(name)).unwrap();
    }
}

pub(super) fn files(path: &Path) -> [Vec<u8>; 2] {
    [path.to_owned(), path.with_extension("db-wal")].map(|file| fs::read(file).unwrap_or_default())
}

#[tokio::test]
async fn the_log_of_a_killed_coordinator_is_not_applied_to_an_older_backup() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    journal.close().await.unwrap();
    let backup = fs::read(&path).unwrap();
    let (_other, killed) = place();
    for number in 2..4 {
        let (journal, _) = open(&path);
        journal.put(&run(number), OnFull::Wait).await.unwrap();
        journal.append(number, steps(1, 2_000)).await.unwrap();
        leave(&path, &killed);
        journal.close().await.unwrap();
    }
    // Its own log is applied.
    let (_third, whole) = place();
    leave(&killed, &whole);
    assert_eq!(open(&whole).1.live.len(), 3);

    fs::write(&killed, &backup).unwrap();
    let before = files(&killed);
    for _ in 0..2 {
        let error = Journal::open(&killed, true).unwrap_err();
        assert!(matches!(error, JournalError::ForeignLog { .. }), "{error}");
        assert!(error.is_fatal());
        assert!(files(&killed) == before, "the refused files are unchanged");
    }
    fs::rename(
        killed.with_extension("db-wal"),
        killed.with_extension("old"),
    )
    .unwrap();
    assert_eq!(open(&killed).1.live.len(), 1);
}

/// The log of a new journal that was left beside it, when the old one is restored.
#[tokio::test]
async fn the_log_of_a_new_journal_is_not_applied_to_a_restored_one() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    journal.close().await.unwrap();
    let backup = fs::read(&path).unwrap();
    for writes in [false, true] {
        let (_new, fresh) = place();
        let (_left, left) = place();
        let (journal, _) = open(&fresh);
        if writes {
            journal.put_store("checkpoints", "other").await.unwrap();
        }
        leave(&fresh, &left);
        journal.close().await.unwrap();
        fs::write(&left, &backup).unwrap();
        let error = Journal::open(&left, true).unwrap_err();
        assert!(matches!(error, JournalError::ForeignLog { .. }), "{error}");
    }
}

/// However often the log was merged and begun anew, a coordinator that is killed finds its own.
#[tokio::test]
async fn a_log_is_known_again_before_and_after_each_merge() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    for number in 1..200 {
        journal.put(&run(number), OnFull::Wait).await.unwrap();
        // Large enough to be merged every few times.
        journal.append(number, steps(1, 3_000)).await.unwrap();
        if number % 5 == 0 {
            let (_copy, killed) = place();
            // Between two writes; the thread may be merging meanwhile.
            let read = journal.run(number).await.unwrap();
            leave(&path, &killed);
            let found = open(&killed).1;
            assert_eq!(found.live.len() as u64, number, "{read:?}");
        }
    }
    journal.close().await.unwrap();
    assert_eq!(open(&path).1.live.len(), 199);
}

/// A coordinator that is killed again before it has merged what the one before it left.
#[tokio::test]
async fn the_log_of_one_that_was_killed_is_continued_by_the_next() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    journal.close().await.unwrap();
    let mut kept = vec![(_folder, path)];
    for number in 2..6 {
        let (_, path) = kept.last().unwrap();
        let (journal, _) = open(path);
        journal.put(&run(number), OnFull::Wait).await.unwrap();
        let (folder, killed) = place();
        leave(path, &killed);
        journal.close().await.unwrap();
        kept.push((folder, killed));
    }
    let (_, path) = kept.last().unwrap();
    assert_eq!(open(path).1.live.len(), 5);
}
