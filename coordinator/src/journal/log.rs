//! Whether a write-ahead log belongs to the database beside it.
//!
//! SQLite applies a log to any database of that name. Where somebody puts a backup in the place of `journal.db` and
//! leaves the `journal.db-wal` of a coordinator that was killed, that damages the backup. So each log has a number:
//!
//! ```text
//!   merged ──> the first commit after it writes  log = a new number, log_before = the one in the database
//! ```
//!
//! The database alone then holds the number that its log names as the one before, or the log's own after a merge. Any
//! other log is of another database, or of another state of this one.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::JournalError;
use super::rows;

const LOG: &str = "log";
const BEFORE: &str = "log_before";

/// The number in the database itself, whatever its log says. None: there is none, or the file is not there yet.
///
/// To be called while this process has no connection to the file: closing it would free the lock of that one.
pub(super) fn in_database(path: &Path) -> Option<i64> {
    let name = path.to_str()?;
    // The characters that mean something in a URI.
    let escaped = name
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags).ok()?;
    // A database whose first pages are still in its log has no such table.
    rows::meta(&db, LOG).ok().flatten()
}

/// Refuses a log that does not belong to the database, which alone has the number `alone`. Nothing is changed then.
///
/// # Errors
/// [`JournalError::ForeignLog`]; or the database cannot be read.
pub(super) fn check(db: &Connection, path: &Path, alone: Option<i64>) -> Result<(), JournalError> {
    let fail = |e: rusqlite::Error| JournalError::from_sqlite("read", path, 0, &e);
    let of_log = if has_meta(db).map_err(fail)? {
        rows::meta(db, LOG).map_err(fail)?
    } else {
        None
    };
    if of_log == alone {
        return Ok(());
    }
    let before = rows::meta(db, BEFORE).map_err(fail)?;
    if of_log.is_some() && before == alone {
        return Ok(());
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
    match rows::meta(transaction, LOG)? {
        Some(before) => rows::set_meta(transaction, BEFORE, before)?,
        None => rows::remove_meta(transaction, BEFORE)?,
    }
    let number = i64::from_le_bytes(fovea_service::random_bytes());
    rows::set_meta(transaction, LOG, number)
}

fn has_meta(db: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = db.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'",
        [],
        |row| row.get(0),
    )?;
    Ok(tables > 0)
}
