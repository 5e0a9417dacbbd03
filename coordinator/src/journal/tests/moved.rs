//! The journal's files are moved, removed or replaced while a coordinator uses them.

use std::fs;

use super::*;

fn put_later(journal: &Journal, number: u64) -> tokio::task::JoinHandle<Result<u64, JournalError>> {
    let journal = journal.clone();
    tokio::spawn(async move { journal.put(&run(number), OnFull::Wait).await })
}

async fn is_blocked(journal: &Journal) -> String {
    let mut blocked = journal.blocked();
    let reason = within(blocked.wait_for(Option::is_some)).await.unwrap();
    reason.as_ref().unwrap().to_string()
}

#[tokio::test]
async fn writes_wait_until_the_files_are_back() {
    for name in ["journal.db", "journal.db-wal"] {
        let (folder, path) = place();
        let (journal, _) = open(&path);
        journal.put(&run(1), OnFull::Wait).await.unwrap();
        let (file, away) = (folder.path().join(name), folder.path().join("away"));
        fs::rename(&file, &away).unwrap();
        let error = journal.put(&run(2), OnFull::Refuse).await.unwrap_err();
        assert!(matches!(error, JournalError::Moved { .. }), "{error}");
        assert!(!error.is_fatal());
        let waiting = put_later(&journal, 3);
        let reason = is_blocked(&journal).await;
        assert!(reason.contains("is not at its place any more"), "{reason}");
        assert!(reason.contains(&*file.to_string_lossy()), "{reason}");
        // Another file in its place does not help.
        fs::write(&file, "another").unwrap();
        let error = journal.put(&run(2), OnFull::Refuse).await.unwrap_err();
        assert!(matches!(error, JournalError::Moved { .. }), "{error}");
        fs::rename(&away, &file).unwrap();
        within(waiting).await.unwrap().unwrap();
        let mut blocked = journal.blocked();
        within(blocked.wait_for(Option::is_none)).await.unwrap();
        journal.put(&run(4), OnFull::Refuse).await.unwrap();
        journal.close().await.unwrap();
        let found = open(&path).1;
        let numbers: Vec<u64> = found.live.iter().map(|live| live.run.number).collect();
        assert_eq!(numbers, [1, 3, 4], "{name}");
    }
}

/// Nothing was written since: only the end can notice.
#[tokio::test]
async fn a_journal_that_is_gone_at_the_end_is_no_success() {
    let (folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let away = folder.path().join("away");
    fs::rename(&path, &away).unwrap();
    fs::write(&path, "another").unwrap();
    let log = path.with_extension("db-wal");
    fs::remove_file(&log).unwrap();
    fs::write(&log, "another's").unwrap();
    let error = journal.close().await.unwrap_err();
    assert!(matches!(error, JournalError::Moved { .. }), "{error}");
    // What somebody has put there is left alone, and what was moved is whole.
    assert_eq!(fs::read_to_string(&path).unwrap(), "another");
    assert_eq!(fs::read_to_string(&log).unwrap(), "another's");
    assert_eq!(open(&away).1.live.len(), 1);
}

/// The end moves all that the log held into the database.
#[tokio::test]
async fn a_log_that_was_removed_is_not_missed_at_the_end() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    fs::remove_file(path.with_extension("db-wal")).unwrap();
    let waiting = put_later(&journal, 2);
    is_blocked(&journal).await;
    let error = journal.close().await.unwrap_err();
    assert!(matches!(error, JournalError::Moved { .. }), "{error}");
    within(waiting).await.unwrap().unwrap_err();
    let (journal, found) = open(&path);
    assert_eq!(found.live.len(), 1);

    let log = path.with_extension("db-wal");
    fs::remove_file(&log).unwrap();
    fs::write(&log, "another's").unwrap();
    journal.close().await.unwrap();
    // SQLite would delete the log by its name.
    assert_eq!(fs::read_to_string(&log).unwrap(), "another's");
    assert_eq!(open(&path).1.live.len(), 1);
}
