//! Groups of runs: written in one transaction with their runs, and removed with the last of them.

use fovea_core::group::Group;
use fovea_core::run::Run;
use rusqlite::{Connection, OptionalExtension, params};

use super::convert::run_row;
use super::rows::{Change, RunRow};
use super::thread::Read;
use super::{Journal, JournalError};

/// The tables: a group as JSON, and which runs of it are there. Journals of earlier builds do not have them; they are made when
/// these are opened.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS run_groups (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
                                           entry TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS group_runs (run INTEGER PRIMARY KEY, number INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS group_runs_by_group ON group_runs (number);";

/// A group as it lies in its table, and its runs.
#[derive(Debug)]
pub(super) struct GroupRow {
    number: u64,
    id: String,
    pub(super) json: String,
    pub(super) runs: Vec<(u64, RunRow)>,
}

impl Journal {
    /// Writes a new group and its runs, which are new, too: all of it or nothing.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with `OnFull::Refuse`.
    pub(crate) async fn put_group(&self, group: &Group, runs: &[Run]) -> Result<(), JournalError> {
        let rows = runs
            .iter()
            .map(|run| Ok((run.number, run_row(run.number, run)?)));
        let row = GroupRow {
            number: group.number,
            id: group.id.to_string(),
            json: serde_json::to_string(group).map_err(|e| JournalError::entry(group.number, e))?,
            runs: rows.collect::<Result<_, JournalError>>()?,
        };
        self.write_now(Change::PutGroup(Box::new(row))).await
    }

    /// A group, if a run of it is there.
    ///
    /// # Errors
    /// It cannot be read, or the journal is closed.
    pub(crate) async fn group(&self, number: u64) -> Result<Option<Group>, JournalError> {
        let json = self.read(|answer| Read::Group { number, answer }).await?;
        json.map(|json| parse(number, &json)).transpose()
    }

    /// Groups with numbers below `before`, newest first, at most `limit`, which is small; fewer only when there are no more.
    ///
    /// # Errors
    /// One cannot be read, or the journal is closed.
    pub(crate) async fn groups_before(
        &self,
        before: u64,
        limit: usize,
    ) -> Result<Vec<Group>, JournalError> {
        let rows = self
            .read(|answer| Read::GroupsBefore {
                before,
                limit,
                answer,
            })
            .await?;
        rows.into_iter()
            .map(|(number, json)| parse(number, &json))
            .collect()
    }
}

fn parse(number: u64, json: &str) -> Result<Group, JournalError> {
    serde_json::from_str(json).map_err(|e| JournalError::entry(number, e))
}

/// Writes the group. Its runs are written by the caller, in the same transaction.
pub(super) fn put(db: &Connection, row: &GroupRow) -> rusqlite::Result<()> {
    let number = row.number as i64;
    db.prepare_cached("INSERT INTO run_groups (number, id, entry) VALUES (?1, ?2, ?3)")?
        .execute(params![number, row.id, row.json])?;
    let mut insert = db.prepare_cached("INSERT INTO group_runs (run, number) VALUES (?1, ?2)")?;
    for (run, _) in &row.runs {
        insert.execute([*run as i64, number])?;
    }
    Ok(())
}

/// A run is removed: the group that has no other any more goes, too.
pub(super) fn forget_run(db: &Connection, run: u64) -> rusqlite::Result<()> {
    let number: Option<i64> = db
        .prepare_cached("DELETE FROM group_runs WHERE run = ?1 RETURNING number")?
        .query_row([run as i64], |row| row.get(0))
        .optional()?;
    if let Some(number) = number {
        db.prepare_cached(
            "DELETE FROM run_groups WHERE number = ?1
             AND NOT EXISTS (SELECT 1 FROM group_runs WHERE number = ?1)",
        )?
        .execute([number])?;
    }
    Ok(())
}

pub(super) fn get(db: &Connection, number: u64) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT entry FROM run_groups WHERE number = ?1")?
        .query_row([number as i64], |row| row.get(0))
        .optional()
}

/// Number and JSON of groups below `before`, newest first.
pub(super) fn before(
    db: &Connection,
    before: u64,
    limit: usize,
) -> rusqlite::Result<Vec<(u64, String)>> {
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    db.prepare_cached(
        "SELECT number, entry FROM run_groups WHERE number < ?1 ORDER BY number DESC LIMIT ?2",
    )?
    .query_map(params![before, limit as i64], |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
    })?
    .collect()
}
