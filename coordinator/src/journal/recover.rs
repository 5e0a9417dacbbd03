//! What the coordinator finds in its journal at start.
//!
//! The time that this takes depends on the number of live runs and the length of their epochs, and not on the
//! number of ended runs or of steps: ended runs are counted by an index, and the ledger's head is stored.

use std::collections::BTreeMap;
use std::path::Path;

use fovea_core::run::Run;
use rusqlite::Connection;

use super::JournalError;
use super::rows;

/// What the journal holds when it is opened.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The number that the next run gets, from 1. Numbers are never used twice.
    pub next_run: u64,
    /// Runs that have not ended, by number.
    pub live: Vec<LiveRun>,
    /// How many runs have ended. They are read when they are asked for.
    pub terminal_runs: u64,
    /// Name and digest of all datasets, by name.
    pub datasets: Vec<(String, String)>,
    /// The identity of each store of files, by kind.
    pub stores: BTreeMap<String, String>,
    /// Kind and JSON of tokens and denials.
    pub access: Vec<(String, String)>,
}

/// A run that has not ended.
#[derive(Debug)]
pub(crate) struct LiveRun {
    /// As it was written; `Run::recovered` was not called yet.
    pub run: Run,
    /// The last step up to which the ledger has no gap.
    pub ledger_head: u64,
    /// Step, mean training loss in nats and number of samples of the steps of the epoch under way and after it,
    /// for `Run::restore_losses`.
    pub losses: Vec<(u64, f64, u32)>,
}

pub(super) fn recover(db: &Connection, path: &Path) -> Result<Recovered, JournalError> {
    let fail = |e: rusqlite::Error| JournalError::from_sqlite("read", path, 0, &e);
    let next = rows::meta(db, "next_run").map_err(fail)?.unwrap_or(1);
    let mut live = Vec::new();
    for (number, json) in live_rows(db).map_err(fail)? {
        let run: Run = serde_json::from_str(&json).map_err(|e| JournalError::entry(number, e))?;
        live.push(LiveRun {
            ledger_head: rows::head(db, number).map_err(fail)?.unwrap_or(0),
            losses: losses(db, &run).map_err(fail)?,
            run,
        });
    }
    let terminal_runs: i64 = db
        .query_row("SELECT count(*) FROM runs WHERE terminal = 1", [], |row| {
            row.get(0)
        })
        .map_err(fail)?;
    Ok(Recovered {
        next_run: u64::try_from(next).unwrap_or(1).max(1),
        live,
        terminal_runs: terminal_runs as u64,
        datasets: rows::pairs(db, "SELECT name, digest FROM datasets ORDER BY name")
            .map_err(fail)?,
        stores: rows::pairs(db, "SELECT kind, id FROM stores").map_err(fail)?,
        access: rows::pairs(db, "SELECT kind, entry FROM access ORDER BY kind, id")
            .map_err(fail)?,
    })
}

fn live_rows(db: &Connection) -> rusqlite::Result<Vec<(u64, String)>> {
    db.prepare("SELECT number, run FROM runs WHERE terminal = 0 ORDER BY number")?
        .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))?
        .collect()
}

/// Losses of the epoch under way; those before it have their result in the run.
fn losses(db: &Connection, run: &Run) -> rusqlite::Result<Vec<(u64, f64, u32)>> {
    let done = u64::from(run.next_epoch()).saturating_mul(run.extent.steps_per_epoch);
    let done = i64::try_from(done).unwrap_or(i64::MAX);
    db.prepare_cached(
        "SELECT step, loss, count FROM ledger WHERE run = ?1 AND step > ?2 ORDER BY step",
    )?
    .query_map([run.number as i64, done], |row| {
        let count = u32::try_from(row.get::<_, i64>(2)?).unwrap_or(u32::MAX);
        Ok((row.get::<_, i64>(0)? as u64, row.get(1)?, count))
    })?
    .collect()
}
