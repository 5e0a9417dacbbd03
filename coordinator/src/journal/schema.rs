//! The database: its tables, its version, and how an older one is brought to this version.
//!
//! ```text
//!  no file, or no table ──> created as version 3, in one transaction
//!  version 2 ──> log merged ──> journal.db.v2.bak (copied, fsynced, renamed) ──> migrated in one transaction
//!  version 3 ──> used
//!  any other ──> refused by name, unchanged
//! ```
//!
//! A process that is killed at any point of this leaves the old database or the new one. The copy appears
//! under its name only when it is whole.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fovea_core::count::count;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde::Deserialize;
use tracing::info;

use super::error::JournalError;
use super::filesystem::{self, beside, folder_of, log_of};
use super::groups;
use super::log;
use super::rows;
use super::scores;
use super::version::{OLDEST, VERSION};
use super::wal;

/// Memory for pages of the database, KiB.
const CACHE_KIB: i64 = 8 * 1024;

/// The tables of version 3.
///
/// - `meta`: `schema_version` and `next_run`. `log`: see `log.rs`.
/// - `runs`: a run as JSON, and beside it what lists and recovery select by.
/// - `ledger`: samples of committed steps, packed by `fovea_core::ledger::pack`.
/// - `heads`: the last step of a run's ledger without a gap before it, so that nobody scans the ledger.
/// - `removed`: runs that were removed; `swept` once their ledger is gone, too.
/// - `stores`: the identity of each store of files, by kind.
/// - `scores`: see `scores.rs`. `run_groups`, `group_runs`: see `groups.rs`.
/// - `access`: tokens and denied workers, each as JSON, by kind and id.
const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
    CREATE TABLE runs (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, run TEXT NOT NULL,
                       phase TEXT NOT NULL DEFAULT '', terminal INTEGER NOT NULL DEFAULT 0,
                       dataset_digest TEXT NOT NULL DEFAULT '',
                       submitted_at_ms INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE datasets (name TEXT PRIMARY KEY, digest TEXT NOT NULL);
    CREATE TABLE ledger (run INTEGER NOT NULL, step INTEGER NOT NULL, loss REAL NOT NULL,
                         count INTEGER NOT NULL, samples BLOB NOT NULL, PRIMARY KEY (run, step))
                         WITHOUT ROWID;";

/// What version 3 has beyond the tables of version 2.
const ADDED: &str = "
    CREATE TABLE heads (run INTEGER PRIMARY KEY, head INTEGER NOT NULL);
    CREATE TABLE removed (run INTEGER PRIMARY KEY, swept INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE stores (kind TEXT PRIMARY KEY, id TEXT NOT NULL);
    CREATE TABLE access (kind TEXT NOT NULL, id TEXT NOT NULL, entry TEXT NOT NULL,
                         PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE INDEX runs_by_terminal ON runs (terminal, number);
    CREATE INDEX runs_by_dataset ON runs (dataset_digest, number);";

/// What version 3 added to the table `runs` of version 2.
const RUN_COLUMNS: &str = "
    ALTER TABLE runs ADD COLUMN phase TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN terminal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN dataset_digest TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN submitted_at_ms INTEGER NOT NULL DEFAULT 0;";

/// Opens the database at `path` for this process alone, creates or migrates it. Returns with it whether the first change
/// begins a new log.
pub(super) fn open(path: &Path) -> Result<(Connection, bool), JournalError> {
    // Before SQLite sees the log, and before anything is created.
    wal::check(path)?;
    filesystem::open_files(path)?;
    let alone = log::in_database(path);
    let mut db = connect(path)?;
    let mut log_begins = log::check(&db, path, alone)?;
    let fail = |e: rusqlite::Error| JournalError::from_sqlite("open", path, 0, &e);
    match version(&db).map_err(fail)? {
        Some(VERSION) => {
            for added in [scores::TABLE, groups::TABLES] {
                db.execute_batch(added).map_err(fail)?;
            }
        }
        None => create(&mut db).map_err(fail)?,
        Some(OLDEST) => {
            // Closed for the copy: to close a second descriptor of the file would free SQLite's lock on it.
            merge_log(&db).map_err(fail)?;
            close(db, path)?;
            refuse_log(path)?;
            let backup = back_up(path)?;
            db = connect(path)?;
            migrate(&mut db, path, &backup)?;
            log_begins = true;
        }
        Some(found) => {
            return Err(JournalError::Version {
                path: path.to_owned(),
                found,
            });
        }
    }
    Ok((db, log_begins))
}

/// A connection that holds an exclusive lock and has all its files open, so that it needs no further
/// descriptor: no `-shm` file in exclusive mode, and temporary data stay in memory.
fn connect(path: &Path) -> Result<Connection, JournalError> {
    let fail = |e: rusqlite::Error| match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Locked {
            path: path.to_owned(),
        },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure) => {
            filesystem::denied(path)
                .unwrap_or_else(|| JournalError::from_sqlite("open", path, 0, &e))
        }
        _ => JournalError::from_sqlite("open", path, 0, &e),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(fail)?;
    // Before the first access: only then is the index of the log kept in memory instead of in `-shm`.
    pragma(&db, "locking_mode", "EXCLUSIVE").map_err(fail)?;
    pragma(&db, "temp_store", "MEMORY").map_err(fail)?;
    pragma(&db, "cache_size", -CACHE_KIB).map_err(fail)?;
    let mode: String = db
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(fail)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(JournalError::Unavailable {
            action: "use a write-ahead log for",
            path: path.to_owned(),
            problem: format!("SQLite stays in mode {mode:?}"),
        });
    }
    pragma(&db, "synchronous", "FULL").map_err(fail)?;
    // The thread merges the log between commits, after the acknowledgements.
    pragma(&db, "wal_autocheckpoint", 0).map_err(fail)?;
    // Takes the lock and opens the log now.
    db.execute_batch("BEGIN IMMEDIATE; COMMIT").map_err(fail)?;
    Ok(db)
}

fn pragma(db: &Connection, name: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    db.pragma_update(None, name, value)
}

fn close(db: Connection, path: &Path) -> Result<(), JournalError> {
    db.close()
        .map_err(|(_, e)| JournalError::from_sqlite("close", path, 0, &e))
}

/// A copy of the database without its log would not be whole.
fn refuse_log(path: &Path) -> Result<(), JournalError> {
    let log = log_of(path);
    match fs::metadata(&log) {
        Ok(found) if found.len() > 0 => Err(JournalError::Migration {
            path: path.to_owned(),
            from: OLDEST,
            problem: format!("its log {} could not be merged into it", log.display()),
        }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(JournalError::io("examine", &log)(error)),
    }
}

/// Moves the log into the database. Returns whether all of it is there, so that the next write begins a new log.
pub(super) fn merge(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?)
    })
}

/// Moves the whole log into the database and empties it.
pub(super) fn merge_log(db: &Connection) -> rusqlite::Result<()> {
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// The log is not deleted when the database is closed.
pub(super) fn keep_log(db: &Connection) {
    // It cannot fail: the option is known to every version.
    let _ = db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

/// The database's version. None for a new file. Version 2 created its tables one by one and wrote its version
/// last, so tables without a version are an empty database of version 2.
fn version(db: &Connection) -> rusqlite::Result<Option<i64>> {
    let has = |table: &str| {
        db.query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            [table],
            |_| Ok(()),
        )
        .optional()
        .map(|found| found.is_some())
    };
    if !has("meta")? {
        return Ok(None);
    }
    if !has("runs")? || !has("datasets")? || !has("ledger")? {
        return Ok(Some(OLDEST));
    }
    Ok(Some(rows::meta(db, "schema_version")?.unwrap_or(OLDEST)))
}

/// The version of a database that this coordinator reads.
pub(super) fn supported(db: &Connection, path: &Path) -> Result<i64, JournalError> {
    let fail = |e: rusqlite::Error| JournalError::from_sqlite("read", path, 0, &e);
    match version(db).map_err(fail)? {
        Some(found @ (OLDEST | VERSION)) => Ok(found),
        Some(found) => Err(JournalError::Version {
            path: path.to_owned(),
            found,
        }),
        None => Err(JournalError::Corrupt {
            path: path.to_owned(),
            problem: "it has none of a journal's tables".into(),
        }),
    }
}

fn create(db: &mut Connection) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(ADDED)?;
    transaction.execute_batch(log::TABLE)?;
    transaction.execute_batch(scores::TABLE)?;
    transaction.execute_batch(groups::TABLES)?;
    rows::set_meta(&transaction, "schema_version", VERSION)?;
    transaction.commit()
}

/// Copies the database at `path`, whose log is merged, to `<name>.v2.bak`. An equal copy is kept, another one is
/// never replaced: the next free name is taken.
fn back_up(path: &Path) -> Result<PathBuf, JournalError> {
    let mut backup = beside(path, &format!(".v{OLDEST}.bak"));
    let mut number = 2;
    while backup.exists() {
        if equal(path, &backup).map_err(JournalError::io("compare the journal with", &backup))? {
            return Ok(backup);
        }
        backup = beside(path, &format!(".v{OLDEST}.bak.{number}"));
        number += 1;
    }
    let unfinished = beside(path, ".bak.tmp");
    let copied = fs::copy(path, &unfinished)
        .and_then(|_| File::open(&unfinished)?.sync_all())
        .and_then(|()| fs::rename(&unfinished, &backup))
        .and_then(|()| File::open(folder_of(path))?.sync_all());
    if let Err(source) = copied {
        // What cannot be removed now is overwritten by the next try.
        let _ = fs::remove_file(&unfinished);
        return Err(JournalError::Migration {
            path: path.to_owned(),
            from: OLDEST,
            problem: format!("cannot copy it to {}: {source}", backup.display()),
        });
    }
    Ok(backup)
}

fn equal(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = one.read(&mut left)?;
        if n == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..n])?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
    }
}

/// What a migration needs of a run's JSON. The JSON itself stays as it is.
#[derive(Deserialize)]
struct Columns {
    phase: String,
    dataset_digest: String,
    submitted_at_ms: u64,
}

/// Why a database stays at version 2.
#[derive(Debug, thiserror::Error)]
enum MigrationProblem {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("the entry of run {run} cannot be read: {source}")]
    Entry { run: i64, source: serde_json::Error },
}

fn migrate(db: &mut Connection, path: &Path, backup: &Path) -> Result<(), JournalError> {
    let begun = Instant::now();
    let runs = migrate_tables(db).map_err(|problem| JournalError::Migration {
        path: path.to_owned(),
        from: OLDEST,
        problem: problem.to_string(),
    })?;
    info!(
        path = %path.display(),
        "journal.migrated: {} from schema version {OLDEST} to {VERSION} in {:.2} s, {}; the old one is kept as {}",
        path.display(),
        begun.elapsed().as_secs_f64(),
        count(runs, "run", "runs"),
        backup.display()
    );
    Ok(())
}

/// Brings version 2 to this version in one transaction. Returns the number of runs.
fn migrate_tables(db: &mut Connection) -> Result<usize, MigrationProblem> {
    let transaction = db.transaction()?;
    // An interrupted creation of version 2 may have left some of its tables out.
    transaction.execute_batch(&TABLES.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))?;
    let has_columns = transaction
        .prepare("SELECT * FROM runs LIMIT 0")?
        .column_names()
        .contains(&"terminal");
    if !has_columns {
        transaction.execute_batch(RUN_COLUMNS)?;
    }
    transaction.execute_batch(ADDED)?;
    transaction.execute_batch(log::TABLE)?;
    transaction.execute_batch(scores::TABLE)?;
    transaction.execute_batch(groups::TABLES)?;
    let numbers: Vec<i64> = transaction
        .prepare("SELECT number FROM runs ORDER BY number")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for &number in &numbers {
        let json: String = transaction
            .prepare_cached("SELECT run FROM runs WHERE number = ?1")?
            .query_row([number], |row| row.get(0))?;
        let columns: Columns =
            serde_json::from_str(&json).map_err(|source| MigrationProblem::Entry {
                run: number,
                source,
            })?;
        transaction
            .prepare_cached(
                "UPDATE runs SET phase = ?2, terminal = ?3, dataset_digest = ?4, submitted_at_ms = ?5
                 WHERE number = ?1",
            )?
            .execute(params![
                number,
                columns.phase,
                rows::is_terminal(&columns.phase),
                columns.dataset_digest,
                columns.submitted_at_ms as i64
            ])?;
        let head = rows::extend_head(&transaction, number as u64, 0)?;
        rows::set_head(&transaction, number as u64, head)?;
    }
    rows::set_meta(&transaction, "schema_version", VERSION)?;
    transaction.commit()?;
    Ok(numbers.len())
}
