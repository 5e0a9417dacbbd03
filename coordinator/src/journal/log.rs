//! Whether a write-ahead log belongs to the database beside it.
//!
//! SQLite applies a log to any database of that name. Where somebody puts a backup in the place of `journal.db` and
//! leaves the `journal.db-wal` of a coordinator that was killed, that damages the backup. So each log has a number, in
//! the one row of the table `log`:
//!
//! ```text
//!   merged ──> the first commit after it writes  number = a new one, before = the one in the database
//! ```
//!
//! The database alone then holds the number that its log names as the one before, or the log's own after a merge. Any
//! other log is of another database, or of another state of this one. A database whose own number cannot be read says
//! nothing: a page of it may have been half written when a merge was cut off, which its log repairs.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::error::JournalError;
use super::filesystem;

/// The table, with at most one row. `sum` tells a row that is whole from one of a page that was half written.
pub(super) const TABLE: &str = "
    CREATE TABLE log (id INTEGER PRIMARY KEY, number INTEGER NOT NULL, before INTEGER NOT NULL,
                      sum INTEGER NOT NULL);";

/// A log's number, and that of the one before it (0: there was none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    number: i64,
    before: i64,
}

impl Log {
    fn sum(self) -> i64 {
        self.number.rotate_left(17) ^ !self.before
    }

    fn read(db: &Connection) -> rusqlite::Result<Option<Self>> {
        let row = db
            .query_row(
                "SELECT number, before, sum FROM log WHERE id = 1",
                [],
                |row| {
                    let (number, before) = (row.get(0)?, row.get(1)?);
                    Ok((Self { number, before }, row.get::<_, i64>(2)?))
                },
            )
            .optional()?;
        Ok(row
            .filter(|(log, sum)| log.sum() == *sum)
            .map(|(log, _)| log))
    }
}

/// What the database itself says, whatever its log does. None: it has no number yet, or it cannot be read.
///
/// To be called while this process has no connection to the file: closing it would free the lock of that one.
pub(super) fn in_database(path: &Path) -> Option<Log> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(filesystem::immutable(path), flags).ok()?;
    Log::read(&db).ok().flatten()
}

/// Refuses a log that does not belong to the database, which says `alone` without it. Nothing is changed then.
///
/// Returns whether the next change begins a new log. A log that a killed coordinator has left, with a number that is not in
/// the database yet, is continued: another number would not be that of the log after the one in the database.
///
/// # Errors
/// [`JournalError::ForeignLog`]; or the database cannot be read.
pub(super) fn check(
    db: &Connection,
    path: &Path,
    alone: Option<Log>,
) -> Result<bool, JournalError> {
    let fail = |e: rusqlite::Error| JournalError::from_sqlite("read", path, 0, &e);
    // A log without the table, or without a row in it, is of a new database or of an older version.
    let with_log = match Log::read(db) {
        Ok(log) => log,
        Err(rusqlite::Error::SqliteFailure(..)) if !has_table(db).map_err(fail)? => None,
        Err(error) => return Err(fail(error)),
    };
    let begins = with_log == alone;
    let Some(alone) = alone else {
        return Ok(begins);
    };
    if begins || with_log.is_some_and(|log| log.before == alone.number) {
        return Ok(begins);
    }
    // Else the last connection to close would apply the log.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(fail)?;
    Err(JournalError::ForeignLog {
        path: path.to_owned(),
    })
}

/// Gives the log a number of its own, with the first changes after a merge.
pub(super) fn begin(transaction: &Connection) -> rusqlite::Result<()> {
    let before = Log::read(transaction)?.map_or(0, |log| log.number);
    let number = i64::from_le_bytes(fovea_service::random_bytes());
    let log = Log { number, before };
    transaction.execute(
        "INSERT OR REPLACE INTO log (id, number, before, sum) VALUES (1, ?1, ?2, ?3)",
        params![number, before, log.sum()],
    )?;
    Ok(())
}

fn has_table(db: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = db.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'log'",
        [],
        |row| row.get(0),
    )?;
    Ok(tables > 0)
}
