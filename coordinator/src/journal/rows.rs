//! The statements: one function for each change and each read, on an open connection.
//!
//! Nothing here commits. JSON and packed samples are made and read by the callers' tasks, so that the journal's
//! thread spends its time on SQLite alone.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

use super::JournalError;
use super::groups::{self, GroupRow};
use super::scores::{self, ScoresRow};

/// A run as it lies in its table.
#[derive(Debug, Clone)]
pub(super) struct RunRow {
    pub id: String,
    pub json: String,
    pub phase: &'static str,
    pub terminal: bool,
    pub dataset_digest: String,
    pub submitted_at_ms: u64,
}

/// A committed step as it lies in the ledger.
#[derive(Debug, Clone)]
pub(super) struct StepRow {
    pub step: u64,
    pub loss: f64,
    /// Number of samples.
    pub count: u64,
    /// Packed by `fovea_core::ledger::pack`.
    pub samples: Vec<u8>,
}

/// Something to be written.
#[derive(Debug)]
pub(super) enum Change {
    Run {
        number: u64,
        row: Option<RunRow>,
        rewind: Option<u64>,
        steps: Vec<StepRow>,
        scores: Option<Box<ScoresRow>>,
        /// Where the ledger begins when the journal has no head of this run.
        base: u64,
    },
    RemoveRun {
        number: u64,
    },
    /// A new group and its runs.
    PutGroup(Box<GroupRow>),
    PutDataset {
        name: String,
        digest: String,
    },
    RemoveDataset {
        name: String,
    },
    PutStore {
        kind: String,
        id: String,
    },
    PutAccess {
        kind: &'static str,
        id: String,
        entry: String,
    },
    RemoveAccess {
        kind: &'static str,
        id: String,
    },
}

impl Change {
    /// About the bytes that it adds to the log.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Run {
                row, steps, scores, ..
            } => {
                let row = row.as_ref().map_or(0, |row| row.json.len() as u64);
                let steps = steps.iter().map(|s| s.samples.len() as u64 + 32);
                let scores = scores.as_ref().map_or(0, |s| s.bytes());
                row + steps.sum::<u64>() + scores + 64
            }
            Self::PutGroup(row) => {
                let runs = row.runs.iter().map(|(_, run)| run.json.len() as u64 + 64);
                row.json.len() as u64 + runs.sum::<u64>() + 64
            }
            Self::RemoveRun { .. } | Self::RemoveDataset { .. } | Self::RemoveAccess { .. } => 64,
            Self::PutAccess { id, entry, .. } => (id.len() + entry.len() + 64) as u64,
            Self::PutDataset { name, digest } => (name.len() + digest.len() + 64) as u64,
            Self::PutStore { kind, id } => (kind.len() + id.len() + 64) as u64,
        }
    }
}

/// Why one change of a batch cannot be made.
#[derive(Debug)]
pub(super) enum ApplyError {
    Sqlite(rusqlite::Error),
    /// Whatever the disk says, this change is not made.
    Refused(JournalError),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Makes a change within the open transaction. Returns the ledger's head of a run, 0 for anything else.
pub(super) fn apply(db: &Connection, change: &Change) -> Result<u64, ApplyError> {
    match change {
        Change::Run {
            number,
            row,
            rewind,
            steps,
            scores,
            base,
        } => {
            refuse_removed(db, *number)?;
            if let Some(row) = row {
                put_run(db, *number, row)?;
            }
            if let Some(step) = rewind {
                scores::cut(db, *number, *step)?;
            }
            if let Some(scores) = scores {
                scores::put(db, *number, scores)?;
            }
            return Ok(put_steps(db, *number, *rewind, steps, *base)?);
        }
        Change::RemoveRun { number } => {
            remove_run(db, *number)?;
            groups::forget_run(db, *number)?;
        }
        Change::PutGroup(row) => {
            groups::put(db, row)?;
            for (number, run) in &row.runs {
                put_run(db, *number, run)?;
                set_head(db, *number, 0)?;
            }
        }
        Change::PutDataset { name, digest } => {
            db.prepare_cached(
                "INSERT INTO datasets (name, digest) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET digest = ?2",
            )?
            .execute(params![name, digest])?;
        }
        Change::RemoveDataset { name } => {
            db.prepare_cached("DELETE FROM datasets WHERE name = ?1")?
                .execute([name])?;
        }
        Change::PutStore { kind, id } => {
            db.prepare_cached(
                "INSERT INTO stores (kind, id) VALUES (?1, ?2)
                 ON CONFLICT (kind) DO UPDATE SET id = ?2",
            )?
            .execute(params![kind, id])?;
        }
        Change::PutAccess { kind, id, entry } => {
            db.prepare_cached(
                "INSERT INTO access (kind, id, entry) VALUES (?1, ?2, ?3)
                 ON CONFLICT (kind, id) DO UPDATE SET entry = ?3",
            )?
            .execute(params![kind, id, entry])?;
        }
        Change::RemoveAccess { kind, id } => {
            db.prepare_cached("DELETE FROM access WHERE kind = ?1 AND id = ?2")?
                .execute(params![kind, id])?;
        }
    }
    Ok(0)
}

fn refuse_removed(db: &Connection, number: u64) -> Result<(), ApplyError> {
    if is_removed(db, number)? {
        return Err(ApplyError::Refused(JournalError::Removed { run: number }));
    }
    Ok(())
}

fn put_run(db: &Connection, number: u64, row: &RunRow) -> rusqlite::Result<()> {
    let RunRow {
        id,
        json,
        phase,
        terminal,
        dataset_digest,
        submitted_at_ms,
    } = row;
    db.prepare_cached(
        "INSERT INTO runs (number, id, run, phase, terminal, dataset_digest, submitted_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (number) DO UPDATE SET run = ?3, phase = ?4, terminal = ?5, dataset_digest = ?6,
                                            submitted_at_ms = ?7",
    )?
    .execute(params![
        number as i64,
        id,
        json,
        phase,
        terminal,
        dataset_digest,
        *submitted_at_ms as i64
    ])?;
    // Only upwards: a number is never used twice.
    db.prepare_cached(
        "INSERT INTO meta (key, value) VALUES ('next_run', ?1)
         ON CONFLICT (key) DO UPDATE SET value = max(value, ?1)",
    )?
    .execute([number as i64 + 1])?;
    Ok(())
}

/// Cuts the ledger, appends to it, and returns its new head.
fn put_steps(
    db: &Connection,
    number: u64,
    rewind: Option<u64>,
    steps: &[StepRow],
    base: u64,
) -> rusqlite::Result<u64> {
    let stored = head(db, number)?;
    let mut head = stored.unwrap_or(base);
    if let Some(step) = rewind {
        db.prepare_cached("DELETE FROM ledger WHERE run = ?1 AND step > ?2")?
            .execute([number as i64, step as i64])?;
        head = head.min(step);
    }
    if !steps.is_empty() {
        let mut insert = db.prepare_cached(
            "INSERT OR REPLACE INTO ledger (run, step, loss, count, samples)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for step in steps {
            insert.execute(params![
                number as i64,
                step.step as i64,
                step.loss,
                step.count as i64,
                step.samples
            ])?;
        }
        head = extend_head(db, number, head)?;
    }
    if stored != Some(head) {
        set_head(db, number, head)?;
    }
    Ok(head)
}

/// The last step that the ledger has, from `known` on, without a gap.
pub(super) fn extend_head(db: &Connection, number: u64, known: u64) -> rusqlite::Result<u64> {
    let mut select =
        db.prepare_cached("SELECT step FROM ledger WHERE run = ?1 AND step > ?2 ORDER BY step")?;
    let mut rows = select.query([number as i64, known as i64])?;
    let mut head = known;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(0)? as u64 != head + 1 {
            break;
        }
        head += 1;
    }
    Ok(head)
}

pub(super) fn head(db: &Connection, number: u64) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT head FROM heads WHERE run = ?1")?
        .query_row([number as i64], |row| row.get::<_, i64>(0))
        .optional()
        .map(|head| head.map(|head| head as u64))
}

pub(super) fn set_head(db: &Connection, number: u64, head: u64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO heads (run, head) VALUES (?1, ?2) ON CONFLICT (run) DO UPDATE SET head = ?2",
    )?
    .execute([number as i64, head as i64])?;
    Ok(())
}

/// Removes a run. Its ledger can be large: it is out of reach from now on, and swept in pieces.
fn remove_run(db: &Connection, number: u64) -> rusqlite::Result<()> {
    let run = db
        .prepare_cached("DELETE FROM runs WHERE number = ?1")?
        .execute([number as i64])?;
    scores::remove(db, number)?;
    let head = db
        .prepare_cached("DELETE FROM heads WHERE run = ?1")?
        .execute([number as i64])?;
    if run + head > 0 {
        db.prepare_cached("INSERT OR IGNORE INTO removed (run) VALUES (?1)")?
            .execute([number as i64])?;
    }
    Ok(())
}

fn is_removed(db: &Connection, number: u64) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM removed WHERE run = ?1")?
        .exists([number as i64])
}

/// A removed run whose ledger is not gone yet.
pub(super) fn next_unswept(db: &Connection) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT run FROM removed WHERE swept = 0 LIMIT 1")?
        .query_row([], |row| row.get::<_, i64>(0))
        .optional()
        .map(|run| run.map(|run| run as u64))
}

/// Deletes at most `limit` steps of a removed run's ledger, within the open transaction. Returns how many.
pub(super) fn sweep(db: &Connection, number: u64, limit: usize) -> rusqlite::Result<usize> {
    let deleted = db
        .prepare_cached(
            "DELETE FROM ledger WHERE run = ?1 AND step <= (
                 SELECT max(step) FROM (
                     SELECT step FROM ledger WHERE run = ?1 ORDER BY step LIMIT ?2))",
        )?
        .execute([number as i64, limit as i64])?;
    if deleted < limit {
        db.prepare_cached("UPDATE removed SET swept = 1 WHERE run = ?1")?
            .execute([number as i64])?;
    }
    Ok(deleted)
}

/// A run's JSON.
pub(super) fn run(db: &Connection, number: u64) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT run FROM runs WHERE number = ?1")?
        .query_row([number as i64], |row| row.get(0))
        .optional()
}

/// Rows, and whether there may be more: a page ends at its limit of rows, or when its time is up.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub rows: Vec<T>,
    pub more: bool,
}

/// Number and JSON of runs below `before`, newest first, for at most about `time`.
pub(super) fn runs_before(
    db: &Connection,
    before: u64,
    limit: usize,
    time: Duration,
) -> rusqlite::Result<Page<(u64, String)>> {
    let mut select = db.prepare_cached(
        "SELECT number, run FROM runs WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
    )?;
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let rows = select.query(params![before, as_limit(limit)])?;
    page(rows, time, |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
    })
}

/// Steps of a run's ledger from `from` on, in order, for at most about `time`.
pub(super) fn steps(
    db: &Connection,
    number: u64,
    from: u64,
    limit: usize,
    time: Duration,
) -> rusqlite::Result<Page<StepRow>> {
    if is_removed(db, number)? {
        return Ok(Page {
            rows: Vec::new(),
            more: false,
        });
    }
    let mut select = db.prepare_cached(
        "SELECT step, loss, count, samples FROM ledger WHERE run = ?1 AND step >= ?2
         ORDER BY step LIMIT ?3",
    )?;
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let rows = select.query(params![number as i64, from, as_limit(limit)])?;
    page(rows, time, |row| {
        Ok(StepRow {
            step: row.get::<_, i64>(0)? as u64,
            loss: row.get(1)?,
            count: row.get::<_, i64>(2)? as u64,
            samples: row.get(3)?,
        })
    })
}

/// Step and loss of a run's steps from `from` on.
pub(super) fn losses(
    db: &Connection,
    number: u64,
    from: u64,
    limit: usize,
    time: Duration,
) -> rusqlite::Result<Page<(u64, f64)>> {
    if is_removed(db, number)? {
        return Ok(Page {
            rows: Vec::new(),
            more: false,
        });
    }
    let mut select = db.prepare_cached(
        "SELECT step, loss FROM ledger WHERE run = ?1 AND step >= ?2 ORDER BY step LIMIT ?3",
    )?;
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let rows = select.query(params![number as i64, from, as_limit(limit)])?;
    page(rows, time, |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
    })
}

fn as_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Takes at least one row, if there is one, so that every page makes progress.
fn page<T>(
    mut rows: rusqlite::Rows<'_>,
    time: Duration,
    read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Page<T>> {
    let begun = Instant::now();
    let mut taken = Vec::new();
    while let Some(row) = rows.next()? {
        taken.push(read(row)?);
        if begun.elapsed() >= time {
            return Ok(Page {
                rows: taken,
                more: true,
            });
        }
    }
    Ok(Page {
        rows: taken,
        more: false,
    })
}

pub(super) fn meta(db: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
        row.get(0)
    })
    .optional()
}

pub(super) fn set_meta(db: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
        params![key, value],
    )?;
    Ok(())
}

/// Whether a run in that phase moves no more unless a person resumes it. As `Run::is_terminal`.
pub(super) fn is_terminal(phase: &str) -> bool {
    matches!(phase, "completed" | "failed" | "cancelled")
}

/// Two columns of text.
pub(super) fn pairs<T: FromIterator<(String, String)>>(
    db: &Connection,
    sql: &str,
) -> rusqlite::Result<T> {
    db.prepare(sql)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
