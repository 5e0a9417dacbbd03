//! A consistent copy of the journal while writes go on.
//!
//! Writes go to the log, and only a merge changes the database file. So the thread merges the whole log, and then does
//! not merge again until the [`Snapshot`] is gone: meanwhile the file is the journal as it was at that moment.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};

use super::error::JournalError;
use super::filesystem;
use super::{rows, schema};

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// Whether the file is still as it was.
#[derive(Debug, Default)]
pub(super) struct Pin {
    /// The journal was closed, which merges the log.
    broken: AtomicBool,
}

impl Pin {
    pub(super) fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }
}

/// The journal as it was at one moment. While it lives the log is not merged, so it should not live for long.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(super) file: Arc<File>,
    pub(super) bytes: u64,
    pub(super) pin: Arc<Pin>,
}

/// Why a snapshot was not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("cannot read the journal: {0}")]
    Read(io::Error),
    #[error(transparent)]
    Write(io::Error),
    /// The coordinator is stopping; what was copied is no journal.
    #[error("the journal was closed before it was copied")]
    Closed,
}

impl Snapshot {
    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies it to `out` and returns its SHA-256, in hexadecimal digits.
    pub(crate) fn copy(self, out: &mut impl Write) -> Result<String, CopyError> {
        let (mut piece, mut at) = (vec![0; PIECE], 0);
        let mut hash = Sha256::new();
        while at < self.bytes {
            let wanted = (self.bytes - at).min(PIECE as u64) as usize;
            let piece = &mut piece[..wanted];
            self.file
                .read_exact_at(piece, at)
                .map_err(CopyError::Read)?;
            hash.update(&*piece);
            out.write_all(piece).map_err(CopyError::Write)?;
            at += wanted as u64;
        }
        if self.pin.broken.load(Ordering::Acquire) {
            return Err(CopyError::Closed);
        }
        Ok(hex::encode(hash.finalize()))
    }
}

/// What a journal that nobody uses holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Version of its tables.
    pub schema: i64,
    /// All runs.
    pub runs: u64,
    /// Those that have not ended.
    pub live: u64,
    pub datasets: u64,
    /// Kind and identity of the stores.
    pub stores: Vec<(String, String)>,
}

/// Checks a journal that no process has open, such as a copy, and says what it holds. A log beside it is ignored; nothing is
/// changed.
///
/// # Errors
/// It is damaged, no journal, or of a version that this coordinator does not read.
pub(crate) fn inspect(path: &Path) -> Result<Content, JournalError> {
    let fail = |e: rusqlite::Error| JournalError::from_sqlite("read", path, 0, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(filesystem::immutable(path), flags).map_err(fail)?;
    let found: String = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(fail)?;
    if found != "ok" {
        return Err(JournalError::Corrupt {
            path: path.to_owned(),
            problem: found,
        });
    }
    let schema = schema::supported(&db, path)?;
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    let count = |sql| count(sql).map(|n| n as u64).map_err(fail);
    let (live, stores) = match schema {
        super::version::VERSION => (
            count("SELECT count(*) FROM runs WHERE terminal = 0")?,
            rows::pairs(&db, "SELECT kind, id FROM stores ORDER BY kind").map_err(fail)?,
        ),
        // It has neither; the start that migrates it will see.
        _ => (0, Vec::new()),
    };
    Ok(Content {
        schema,
        runs: count("SELECT count(*) FROM runs")?,
        live,
        datasets: count("SELECT count(*) FROM datasets")?,
        stores,
    })
}
