//! Scores of evaluated epochs: for each, the probabilities that the model gave to every class of every sample, and the
//! class activation maps where they were asked for.
//!
//! They are what figures with intervals are computed from, also long after the run. 4 bytes for each sample and class, and
//! for each sample and place of a map.

use fovea_core::run::{EpochMaps, EpochScores};
use rusqlite::{Connection, OptionalExtension, params};

/// The tables. Journals of earlier builds do not have them; they are made when they are opened.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS scores (run INTEGER NOT NULL, epoch INTEGER NOT NULL, step INTEGER NOT NULL,
                                       classes INTEGER NOT NULL, probabilities BLOB NOT NULL,
                                       PRIMARY KEY (run, epoch));
    CREATE TABLE IF NOT EXISTS maps (run INTEGER NOT NULL, epoch INTEGER NOT NULL, step INTEGER NOT NULL,
                                     height INTEGER NOT NULL, width INTEGER NOT NULL, places BLOB NOT NULL,
                                     PRIMARY KEY (run, epoch));";

/// Scores as they lie in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScoresRow {
    pub epoch: u32,
    pub step: u64,
    pub classes: u32,
    /// Little-endian 32-bit floats.
    pub probabilities: Vec<u8>,
    pub maps: Option<MapsRow>,
}

/// Maps as they lie in their table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MapsRow {
    pub height: u32,
    pub width: u32,
    /// Little-endian 32-bit floats.
    pub places: Vec<u8>,
}

impl ScoresRow {
    /// Bytes of its numbers.
    pub fn bytes(&self) -> u64 {
        let maps = self.maps.as_ref().map_or(0, |maps| maps.places.len());
        (self.probabilities.len() + maps) as u64
    }
}

fn to_bytes(floats: &[f32]) -> Vec<u8> {
    floats
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn to_floats(bytes: &[u8]) -> Vec<f32> {
    let (floats, _) = bytes.as_chunks::<4>();
    floats
        .iter()
        .map(|&four| f32::from_le_bytes(four))
        .collect()
}

impl From<&EpochScores> for ScoresRow {
    fn from(scores: &EpochScores) -> Self {
        let EpochScores {
            epoch,
            step,
            classes,
            probabilities,
            maps,
        } = scores;
        Self {
            epoch: *epoch,
            step: *step,
            classes: *classes,
            probabilities: to_bytes(probabilities),
            maps: maps.as_ref().map(|maps| MapsRow {
                height: maps.height,
                width: maps.width,
                places: to_bytes(&maps.values),
            }),
        }
    }
}

impl From<ScoresRow> for EpochScores {
    fn from(row: ScoresRow) -> Self {
        Self {
            epoch: row.epoch,
            step: row.step,
            classes: row.classes,
            probabilities: to_floats(&row.probabilities),
            maps: row.maps.map(|maps| EpochMaps {
                height: maps.height,
                width: maps.width,
                values: to_floats(&maps.places),
            }),
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
    if let Some(maps) = &row.maps {
        db.prepare_cached(
            "INSERT OR REPLACE INTO maps (run, epoch, step, height, width, places)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            run as i64,
            row.epoch,
            row.step as i64,
            maps.height,
            maps.width,
            maps.places
        ])?;
    }
    Ok(())
}

/// Removes those of epochs that ended after `step`.
pub(super) fn cut(db: &Connection, run: u64, step: u64) -> rusqlite::Result<()> {
    for table in ["scores", "maps"] {
        db.prepare_cached(&format!("DELETE FROM {table} WHERE run = ?1 AND step > ?2"))?
            .execute([run as i64, step as i64])?;
    }
    Ok(())
}

pub(super) fn remove(db: &Connection, run: u64) -> rusqlite::Result<()> {
    for table in ["scores", "maps"] {
        db.prepare_cached(&format!("DELETE FROM {table} WHERE run = ?1"))?
            .execute([run as i64])?;
    }
    Ok(())
}

/// Those of the epoch that ended at `step`.
pub(super) fn get(db: &Connection, run: u64, step: u64) -> rusqlite::Result<Option<ScoresRow>> {
    let maps = db
        .prepare_cached("SELECT height, width, places FROM maps WHERE run = ?1 AND step = ?2")?
        .query_row([run as i64, step as i64], |row| {
            Ok(MapsRow {
                height: row.get(0)?,
                width: row.get(1)?,
                places: row.get(2)?,
            })
        })
        .optional()?;
    db.prepare_cached(
        "SELECT epoch, step, classes, probabilities FROM scores WHERE run = ?1 AND step = ?2",
    )?
    .query_row([run as i64, step as i64], |row| {
        Ok(ScoresRow {
            epoch: row.get(0)?,
            step: row.get::<_, i64>(1)? as u64,
            classes: row.get(2)?,
            probabilities: row.get(3)?,
            maps,
        })
    })
    .optional()
}
