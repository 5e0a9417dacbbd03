//! Copies of the journal while it is used.

use super::*;

/// Larger than what is merged at a time.
const MANY: u64 = 20_000;

fn copied(snapshot: Snapshot, to: &Path) -> Result<String, CopyError> {
    snapshot.copy(&mut std::fs::File::create(to).unwrap())
}

#[tokio::test]
async fn a_snapshot_has_what_was_answered_before_and_nothing_after() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    let copy = path.with_file_name("copy.db");
    for number in 1..=20 {
        journal.put(&run(number), OnFull::Wait).await.unwrap();
        journal.append(number, steps(1, number)).await.unwrap();
        let snapshot = journal.snapshot().await.unwrap();
        // It is of that moment, however much is written before it is copied.
        journal
            .put(&ended(100 + number), OnFull::Wait)
            .await
            .unwrap();
        journal.append(100 + number, steps(1, MANY)).await.unwrap();
        let sha256 = copied(snapshot, &copy).unwrap();
        let bytes = std::fs::read(&copy).unwrap();
        assert_eq!(sha256, hex::encode(Sha256::digest(&bytes)));

        let content = inspect(&copy).unwrap();
        assert_eq!((content.runs, content.live), (2 * number - 1, number));
        assert_eq!(std::fs::read(&copy).unwrap(), bytes, "it was changed");
        let (opened, found) = open(&copy);
        assert_eq!(found.live.len() as u64, number);
        assert_eq!(found.live.last().unwrap().ledger_head, number);
        opened.close().await.unwrap();
    }
    journal.close().await.unwrap();
    let (_journal, found) = open(&path);
    assert_eq!((found.live.len(), found.terminal_runs), (20, 20));
}

#[tokio::test]
async fn the_log_is_merged_again_when_the_snapshot_is_gone() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let snapshot = journal.snapshot().await.unwrap();
    let size = || std::fs::metadata(&path).unwrap().len();
    let before = size();
    for from in 0..20 {
        journal
            .append(1, steps(1 + from * MANY, (from + 1) * MANY))
            .await
            .unwrap();
    }
    // Reads are served, and another snapshot is refused.
    assert!(journal.run(1).await.unwrap().is_some());
    let error = journal.snapshot().await.unwrap_err();
    assert!(matches!(error, JournalError::Copied { .. }), "{error}");
    assert_eq!(size(), before, "the file is left alone");
    drop(snapshot);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while size() == before {
        assert!(std::time::Instant::now() < deadline, "it was not merged");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(journal.snapshot().await.unwrap());
}

#[tokio::test]
async fn a_copy_of_a_journal_that_was_closed_meanwhile_is_none() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let snapshot = journal.snapshot().await.unwrap();
    journal.put(&run(2), OnFull::Wait).await.unwrap();
    journal.close().await.unwrap();
    let error = copied(snapshot, &path.with_file_name("copy.db")).unwrap_err();
    assert!(matches!(error, CopyError::Closed), "{error}");
    assert_eq!(open(&path).1.live.len(), 2);
}

#[tokio::test]
async fn what_is_no_journal_is_named() {
    let (_folder, path) = place();
    std::fs::write(&path, "no database at all, but long enough to be looked at").unwrap();
    let text = inspect(&path).unwrap_err().to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    let empty = path.with_file_name("empty?%#.db");
    drop(rusqlite::Connection::open(&empty).unwrap());
    std::fs::write(&empty, "").unwrap();
    let text = inspect(&empty).unwrap_err().to_string();
    assert!(text.contains("none of a journal's tables"), "{text}");
}
