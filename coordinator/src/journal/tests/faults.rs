//! What the journal does when the disk is full or the file is damaged.

use std::fs;

use super::*;

/// The database may not grow from now on, which SQLite reports as it reports a full disk.
async fn fill(journal: &Journal) {
    journal
        .with(|db| {
            let pages: i64 = db
                .query_row("PRAGMA page_count", [], |row| row.get(0))
                .unwrap();
            limit(db, pages);
        })
        .await;
}

async fn free(journal: &Journal) {
    journal.with(|db| limit(db, 1 << 30)).await;
}

fn limit(db: &rusqlite::Connection, pages: i64) {
    db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_or_delays_and_loses_nothing() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let mut blocked = journal.blocked();
    fill(&journal).await;
    let waiting: Vec<_> = [steps(1, 3000), steps(3001, 6000)]
        .into_iter()
        .map(|steps| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.append(1, steps).await })
        })
        .collect();
    let reason = within(blocked.wait_for(Option::is_some))
        .await
        .unwrap()
        .as_ref()
        .unwrap()
        .to_string();
    assert!(
        reason.contains("the disk is full: free at least"),
        "{reason}"
    );
    // A write that does not wait is refused at once with what to do, also many at a time.
    for number in 2..3000 {
        let error = within(journal.put(&run(number), OnFull::Refuse))
            .await
            .unwrap_err();
        assert!(matches!(error, JournalError::Full { .. }), "{error}");
        assert!(!error.is_fatal());
    }
    // Reads go on, and nothing of the batch is there.
    assert_eq!(journal.run(1).await.unwrap(), Some(run(1)));
    assert_eq!(journal.steps(1, SPLIT, 0, 10).await.unwrap().0, []);
    free(&journal).await;
    within(blocked.wait_for(Option::is_none)).await.unwrap();
    let mut heads = Vec::new();
    for write in waiting {
        heads.push(within(write).await.unwrap().unwrap());
    }
    assert_eq!(heads.iter().max(), Some(&6000));
    journal.put(&run(2), OnFull::Refuse).await.unwrap();
    let (entries, _) = journal.steps(1, SPLIT, 0, usize::MAX).await.unwrap();
    assert_eq!(entries, steps(1, 6000));
    journal.close().await.unwrap();
    assert_eq!(open(&path).1.live[0].ledger_head, 6000);
}

/// With a removed ledger still to be swept, a blocked journal sleeps between its attempts.
#[tokio::test]
async fn a_blocked_journal_takes_no_time() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    journal.put(&ended(2), OnFull::Wait).await.unwrap();
    journal.append(2, steps(1, 20_000)).await.unwrap();
    let mut blocked = journal.blocked();
    fill(&journal).await;
    journal.remove_run(2).await.unwrap();
    let waiting = {
        let journal = journal.clone();
        tokio::spawn(async move { journal.append(1, steps(1, 60_000)).await })
    };
    within(blocked.wait_for(Option::is_some)).await.unwrap();
    let before = journal.thread_time().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = journal.thread_time().await - before;
    assert!(used < Duration::from_millis(300), "{used:?} of 1 s");
    free(&journal).await;
    assert_eq!(within(waiting).await.unwrap().unwrap(), 60_000);
}

impl Journal {
    /// The processor time that the thread has taken.
    async fn thread_time(&self) -> Duration {
        let (send, sent) = oneshot::channel();
        self.with(|_| send.send(super::thread_time()).unwrap())
            .await;
        sent.await.unwrap()
    }
}

/// A write that is refused does not block those that fit.
#[tokio::test]
async fn one_that_is_refused_blocks_nobody() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    fill(&journal).await;
    let large = journal.put_run(
        RunChange {
            number: 1,
            run: None,
            rewind: None,
            steps: steps(1, 3000),
            scores: None,
            train_samples: SPLIT,
            head: 0,
        },
        Urgency::Now,
        OnFull::Refuse,
    );
    let small = journal.append(1, vec![]);
    let (large, small) = within(async { tokio::join!(large, small) }).await;
    let error = large.unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert_eq!(small.unwrap(), 0);
    assert!(journal.blocked().borrow().is_none());
}

/// To close does not wait for a disk that stays full, and a write that waited gets an error.
#[tokio::test]
async fn a_full_disk_does_not_keep_the_journal_open() {
    let (_folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let mut blocked = journal.blocked();
    fill(&journal).await;
    let waiting = {
        let journal = journal.clone();
        tokio::spawn(async move { journal.append(1, steps(1, 3000)).await })
    };
    within(blocked.wait_for(Option::is_some)).await.unwrap();
    let error = within(journal.close()).await.unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    let error = within(waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert_eq!(open(&path).1.live[0].run, run(1));
}

#[tokio::test]
async fn a_damaged_file_is_fatal_and_stays_as_it_is() {
    let (_folder, path) = place();
    fs::write(&path, "this is no database. ".repeat(1000)).unwrap();
    let error = Journal::open(&path, true).unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { .. }), "{error}");
    assert!(error.is_fatal());
    assert!(fs::read_to_string(&path).unwrap().starts_with("this is no"));

    let (_folder, journal) = with_damaged_ledger().await;
    let steps = steps(MANY - 10, MANY + 1);
    let error = journal.append(1, steps).await.unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { .. }), "{error}");
    has_ended(journal).await;
}

#[tokio::test]
async fn damage_that_a_read_meets_is_fatal() {
    let (_folder, journal) = with_damaged_ledger().await;
    journal.put(&run(2), OnFull::Refuse).await.unwrap();
    // What can still be read is read, before the damage is met and after it.
    for _ in 0..2 {
        assert_eq!(journal.losses(1, 1, 10).await.unwrap().len(), 10);
        let error = journal.losses(1, MANY - 10, 10).await.unwrap_err();
        assert!(matches!(error, JournalError::Corrupt { .. }), "{error}");
    }
    has_ended(journal).await;
}

#[tokio::test]
async fn damage_that_a_sweep_meets_is_fatal() {
    let (_folder, journal) = with_damaged_ledger().await;
    journal.remove_run(1).await.unwrap();
    within(journal.damaged()).await;
    has_ended(journal).await;
}

const MANY: u64 = 20_000;

/// An open journal in which the end of a ledger is damaged: that of an ended run, which a start does not read.
async fn with_damaged_ledger() -> (tempfile::TempDir, Journal) {
    let (folder, path) = place();
    let (journal, _) = open(&path);
    journal.put(&ended(1), OnFull::Wait).await.unwrap();
    journal.append(1, steps(1, MANY)).await.unwrap();
    journal.close().await.unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // The first page of each table and index stays.
    let kept = 32 * 4096;
    assert!(bytes.len() > 2 * kept);
    bytes[kept..].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    (folder, open(&path).0)
}

/// No write is made any more, and the coordinator is told to stop.
async fn has_ended(journal: Journal) {
    for on_full in [OnFull::Refuse, OnFull::Wait] {
        let error = within(journal.put(&run(3), on_full)).await.unwrap_err();
        assert!(error.is_fatal(), "{error}");
    }
    assert!(within(journal.damaged()).await.is_fatal());
    assert!(journal.blocked().borrow().is_some());
    assert!(within(journal.close()).await.unwrap_err().is_fatal());
}
