//! One transaction for all writes that wait, and what follows when it cannot be made.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fovea_core::count::count;
use rusqlite::{Connection, TransactionBehavior};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::super::OnFull;
use super::super::error::{Class, JournalError, class};
use super::super::log;
use super::super::rows::{self, ApplyError, Change};
use super::{Blocked, Thread, Write, answer, roll_back};

/// Writes in one transaction, at most, and about their bytes. More would make all of them wait longer.
const BATCH_WRITES: usize = 1024;
const BATCH_BYTES: u64 = 8 << 20;
/// Waits between attempts while the disk refuses.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

impl Thread {
    /// Writes the oldest of the held writes in one transaction and answers them.
    pub(super) fn commit(&mut self) {
        if self.blocked.is_some() {
            // A log that is merged starts again at its beginning, which needs no room on the disk.
            self.merge();
        }
        loop {
            let mut bytes = 0;
            let fits = |write: &&Write| {
                bytes += write.bytes;
                bytes <= BATCH_BYTES
            };
            // One that is larger than a batch goes alone.
            let count = self.held.iter().take(BATCH_WRITES).take_while(fits).count();
            let count = count.max(1).min(self.held.len());
            if count == 0 {
                return self.unblock(0);
            }
            if let Err(error) = self.place.check() {
                if self.refuse(&error) == 0 {
                    return self.block(error);
                }
                continue;
            }
            let begun = Instant::now();
            match transact(&mut self.db, self.log_begins, self.held.iter().take(count)) {
                Ok(heads) => {
                    self.log_begins = false;
                    self.committed(heads, begun.elapsed());
                    return self.unblock(count);
                }
                Err(Failure::Refused(index, error)) => {
                    if let Some(write) = self.release(index) {
                        answer(write.done, Err(error));
                    }
                }
                Err(Failure::Sqlite(Some(index), error)) if class(&error) == Class::Own => {
                    let error = JournalError::from_sqlite("write to", &self.path, 0, &error);
                    if let Some(write) = self.release(index) {
                        answer(write.done, Err(error));
                    }
                }
                Err(Failure::Sqlite(_, error)) if class(&error) == Class::Damage => {
                    self.failed("write to", 0, &error);
                    return;
                }
                Err(Failure::Sqlite(_, error)) => {
                    let pending = self.held_bytes;
                    let mut error =
                        JournalError::from_sqlite("write to", &self.path, pending, &error);
                    if let JournalError::Refused { problem, .. } = error {
                        // Of the whole transaction, so no write of it is to blame.
                        error = JournalError::Unavailable {
                            action: "write to",
                            path: self.path.clone(),
                            problem,
                        };
                    }
                    if self.refuse(&error) == 0 {
                        return self.block(error);
                    }
                    // Those that wait may fit now.
                }
            }
        }
    }

    fn committed(&mut self, heads: Vec<u64>, took: Duration) {
        let count = heads.len() as u64;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.counters.writes.fetch_add(count, Ordering::Relaxed);
        self.counters
            .commit_micros
            .fetch_add(micros, Ordering::Relaxed);
        let mut bytes = 0;
        for head in heads {
            if let Some(write) = self.release(0) {
                bytes += write.bytes;
                self.sweeping |= matches!(write.change, Change::RemoveRun { .. });
                answer(write.done, Ok(head));
            }
        }
        // A page for each tree that a write touches, and the pages of what it carries.
        self.log_pages += 4 + 2 * count + bytes / 4096;
    }

    /// Answers those that do not wait. Returns how many there were.
    fn refuse(&mut self, error: &JournalError) -> usize {
        let before = self.held.len();
        let mut index = 0;
        while index < self.held.len() {
            if self.held[index].on_full == OnFull::Refuse {
                if let Some(write) = self.release(index) {
                    answer(write.done, Err(error.clone()));
                }
            } else {
                index += 1;
            }
        }
        let refused = before - self.held.len();
        if refused > 0 {
            warn!(writes = refused, "journal.write_refused: {error}");
        }
        refused
    }

    fn block(&mut self, error: JournalError) {
        let now = Instant::now();
        let pause = match &self.blocked {
            Some(blocked) => (blocked.pause * 2).min(RETRY_LAST),
            None => {
                error!(
                    writes = self.held.len(),
                    "journal.blocked: {}, and so do the runs that they belong to; they are tried again until they \
                     succeed: {error}",
                    count(self.held.len(), "write waits", "writes wait")
                );
                RETRY_FIRST
            }
        };
        self.blocked = Some(Blocked {
            since: self.blocked.as_ref().map_or(now, |blocked| blocked.since),
            retry_at: now + pause,
            pause,
        });
        self.refusal.send_replace(Some(error));
    }

    fn unblock(&mut self, written: usize) {
        if let Some(blocked) = self.blocked.take() {
            let seconds = blocked.since.elapsed().as_secs_f64();
            info!(
                "journal.unblocked: writes succeed again after {seconds:.1} s; {written} are written, {} follow",
                self.held.len()
            );
            self.refusal.send_replace(None);
        }
    }

    /// The file is damaged: nothing is written any more.
    pub(super) fn fail(&mut self, error: JournalError) {
        if self.fatal.is_some() {
            return;
        }
        error!("journal.corrupt: {error}");
        // First what decides, then what is seen.
        self.fatal = Some(error.clone());
        self.blocked = None;
        self.refusal.send_replace(Some(error.clone()));
        while let Some(write) = self.release(0) {
            answer(write.done, Err(error.clone()));
        }
    }
}

enum Failure {
    /// This write is never made.
    Refused(usize, JournalError),
    /// SQLite's error, at this write or for the whole transaction.
    Sqlite(Option<usize>, rusqlite::Error),
}

/// Makes all changes or none. Returns the heads, one for each write. `log_begins`: they are the first in a new log.
fn transact<'a>(
    db: &mut Connection,
    log_begins: bool,
    writes: impl Iterator<Item = &'a Write>,
) -> Result<Vec<u64>, Failure> {
    let whole = |e| Failure::Sqlite(None, e);
    roll_back(db).map_err(whole)?;
    let transaction = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(whole)?;
    if log_begins {
        log::begin(&transaction).map_err(whole)?;
    }
    let mut heads = Vec::new();
    for (index, write) in writes.enumerate() {
        match rows::apply(&transaction, &write.change) {
            Ok(head) => heads.push(head),
            Err(ApplyError::Refused(error)) => return Err(Failure::Refused(index, error)),
            Err(ApplyError::Sqlite(error)) => return Err(Failure::Sqlite(Some(index), error)),
        }
    }
    transaction.commit().map_err(whole)?;
    Ok(heads)
}
