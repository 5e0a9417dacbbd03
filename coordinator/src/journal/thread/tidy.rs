//! What can wait: the log is merged into the database, and ledgers of removed runs are swept.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::TransactionBehavior;
use tokio::time::Instant;
use tracing::{info, warn};

use super::super::error::JournalError;
use super::super::snapshot::{Pin, Snapshot};
use super::super::{log, rows, schema};
use super::{MERGE_PAGES, Thread, roll_back};

/// Steps of a removed run's ledger that are deleted in one piece.
const SWEEP_STEPS: usize = 256;
/// How long merging pauses while a snapshot is copied.
const PINNED_PAUSE: Duration = Duration::from_millis(50);
/// How long tidying pauses after an error.
const TIDY_PAUSE: Duration = Duration::from_secs(5);

impl Thread {
    /// Not while the disk refuses: the thread sleeps until the next attempt then.
    pub(super) fn may_tidy(&self) -> bool {
        self.fatal.is_none() && self.blocked.is_none()
    }

    /// Does a piece of what can wait. Returns whether it did something.
    pub(super) fn tidy(&mut self) -> bool {
        if !self.may_tidy() || Instant::now() < self.tidy_at {
            return false;
        }
        if self.log_pages >= MERGE_PAGES {
            self.merge();
            return true;
        }
        if self.sweeping {
            match self.sweep() {
                Ok(more) => {
                    self.sweeping = more;
                    self.sweep_failed = false;
                }
                Err(error) => self.sweep_later(&error),
            }
            return true;
        }
        false
    }

    /// Moves the log into the database. While that fails the log grows, and nothing else is wrong.
    pub(super) fn merge(&mut self) {
        if self.pin.strong_count() > 0 {
            self.tidy_at = Instant::now() + PINNED_PAUSE;
            return;
        }
        match schema::merge(&self.db) {
            // Without other connections nothing prevents a part of it.
            Ok(false) => self.tidy_at = Instant::now() + TIDY_PAUSE,
            Ok(true) => {
                self.log_pages = 0;
                self.log_begins = true;
                if std::mem::take(&mut self.merge_failed) {
                    info!("journal.merged: the write-ahead log is in the database again");
                }
            }
            Err(error) => {
                self.tidy_at = Instant::now() + TIDY_PAUSE;
                let pending = self.log_pages * 4096;
                let error = self.failed("merge the write-ahead log into", pending, &error);
                if !error.is_fatal() && !std::mem::replace(&mut self.merge_failed, true) {
                    warn!(
                        "journal.merge_failed: nothing is lost, but the write-ahead log grows until this \
                         succeeds: {error}"
                    );
                }
            }
        }
    }

    /// Merges the whole log and leaves the database file alone until the snapshot is gone.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot, JournalError> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        if self.pin.strong_count() > 0 {
            return Err(JournalError::Copied {
                path: self.path.clone(),
            });
        }
        self.place.check()?;
        let merged = roll_back(&self.db).and_then(|()| schema::merge(&self.db));
        if !merged.map_err(|error| self.failed("merge the write-ahead log into", 0, &error))? {
            return Err(JournalError::Unavailable {
                action: "merge the write-ahead log into",
                path: self.path.clone(),
                problem: "not all of it was merged".into(),
            });
        }
        self.log_pages = 0;
        self.log_begins = true;
        let bytes = self
            .file
            .metadata()
            .map_err(JournalError::io("examine", &self.path))?
            .len();
        let pin = Arc::new(Pin::default());
        self.pin = Arc::downgrade(&pin);
        Ok(Snapshot {
            file: Arc::clone(&self.file),
            bytes,
            pin,
        })
    }

    /// The rows are out of reach and harm nobody, unless the file is damaged.
    fn sweep_later(&mut self, error: &rusqlite::Error) {
        self.tidy_at = Instant::now() + TIDY_PAUSE;
        let error = self.failed("sweep removed ledgers in", 0, error);
        if !error.is_fatal() && !std::mem::replace(&mut self.sweep_failed, true) {
            warn!(
                "journal.sweep_failed: nothing is lost, but ledgers of removed runs take room until this succeeds: \
                 {error}"
            );
        }
    }

    /// Deletes a piece of a removed run's ledger. Returns whether there is more.
    fn sweep(&mut self) -> rusqlite::Result<bool> {
        let Some(number) = rows::next_unswept(&self.db)? else {
            return Ok(false);
        };
        roll_back(&self.db)?;
        if self.place.check().is_err() {
            // The next write says so.
            self.tidy_at = Instant::now() + TIDY_PAUSE;
            return Ok(true);
        }
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if self.log_begins {
            log::begin(&transaction)?;
        }
        let deleted = rows::sweep(&transaction, number, SWEEP_STEPS)?;
        transaction.commit()?;
        self.log_begins = false;
        self.log_pages += 4 + deleted as u64 / 8;
        Ok(true)
    }
}
