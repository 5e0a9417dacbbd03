//! Scores of evaluated epochs: for each, the probabilities that the model gave to every class of every sample.
//!
//! They are what figures with intervals are computed from, also long after the run. 4 bytes for each sample and class.

use fovea_core::run::EpochScores;
use rusqlite::{Connection, OptionalExtension, params};

/// The table. Journals of earlier builds do not have it; it is made when they are opened.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS scores (run INTEGER NOT NULL, epoch INTEGER NOT NULL, step INTEGER NOT NULL,
                                       classes INTEGER NOT NULL, probabilities BLOB NOT NULL,
                                       PRIMARY KEY (run, epoch));";

/// Scores as they lie in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScoresRow {
    pub epoch: u32,
    pub step: u64,
    pub classes: u32,
    /// Little-endian 32-bit floats.
    pub probabilities: Vec<u8>,
}

impl From<&EpochScores> for ScoresRow {
    fn from(scores: &EpochScores) -> Self {
        let EpochScores {
            epoch,
            step,
            classes,
            probabilities,
        } = scores;
        Self {
            epoch: *epoch,
            step: *step,
            classes: *classes,
            probabilities: probabilities.iter().flat_map(|p| p.to_le_bytes()).collect(),
        }
    }
}

impl From<ScoresRow> for EpochScores {
    fn from(row: ScoresRow) -> Self {
        let (floats, _) = row.probabilities.as_chunks::<4>();
        Self {
            epoch: row.epoch,
            step: row.step,
            classes: row.classes,
            probabilities: floats
                .iter()
                .map(|&four| f32::from_le_bytes(four))
                .collect(),
        }
    }
}

pub(super) fn put(db: &Connection, run: u64, row: &ScoresRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO scores (run, epoch, step, classes, probabilities)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        run as i64,
        row.epoch,
        row.step as i64,
        row.classes,
        row.probabilities
    ])?;
    Ok(())
}

/// Removes those of epochs that ended after `step`.
pub(super) fn cut(db: &Connection, run: u64, step: u64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM scores WHERE run = ?1 AND step > ?2")?
        .execute([run as i64, step as i64])?;
    Ok(())
}

pub(super) fn remove(db: &Connection, run: u64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM scores WHERE run = ?1")?
        .execute([run as i64])?;
    Ok(())
}

/// Those of the epoch that ended at `step`.
pub(super) fn get(db: &Connection, run: u64, step: u64) -> rusqlite::Result<Option<ScoresRow>> {
    db.prepare_cached(
        "SELECT epoch, step, classes, probabilities FROM scores WHERE run = ?1 AND step = ?2",
    )?
    .query_row([run as i64, step as i64], |row| {
        Ok(ScoresRow {
            epoch: row.get(0)?,
            step: row.get::<_, i64>(1)? as u64,
            classes: row.get(2)?,
            probabilities: row.get(3)?,
        })
    })
    .optional()
}
