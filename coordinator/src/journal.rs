//! The journal: what the coordinator has promised, on disk before anyone is told.
//!
//! An embedded SQLite database in write-ahead mode with `synchronous = FULL`: when a call returns,
//! the power may fail.

use std::path::{Path, PathBuf};

use fovea_core::ids::DatasetName;
use fovea_core::run::Run;
use rusqlite::{Connection, OptionalExtension, params};

const SCHEMA_VERSION: i64 = 1;

/// The open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    db: Connection,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite refuses.
    #[error("the journal cannot be used: {0}; is the disk full or the file damaged?")]
    Sqlite(#[from] rusqlite::Error),
    /// Written by another version.
    #[error(
        "the journal {} has schema version {found}, this coordinator knows {SCHEMA_VERSION}: use \
         the Fovea version that wrote it, or another --data-dir",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A row that is not what it should be.
    #[error("the journal's entry of run {run} cannot be read: {problem}")]
    Entry {
        /// The run's number.
        run: u64,
        /// Why.
        problem: String,
    },
}

impl Journal {
    /// Opens the journal at `path`, making it where it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS runs (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
                                              run TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS datasets (name TEXT PRIMARY KEY, digest TEXT NOT NULL);",
        )?;
        let journal = Self { db };
        match journal.meta("schema_version")? {
            None => journal.set_meta("schema_version", SCHEMA_VERSION)?,
            Some(SCHEMA_VERSION) => {}
            Some(found) => {
                return Err(JournalError::Version {
                    path: path.to_owned(),
                    found,
                });
            }
        }
        Ok(journal)
    }

    /// The number that the next run gets. Numbers are never used twice.
    pub(crate) fn next_run_number(&self) -> Result<u64, JournalError> {
        let next = self.meta("next_run")?.unwrap_or(1);
        Ok(u64::try_from(next).unwrap_or(1).max(1))
    }

    /// Writes a run, new or changed.
    pub(crate) fn put_run(&mut self, run: &Run) -> Result<(), JournalError> {
        let json = serde_json::to_string(run).map_err(|e| entry_error(run.number, e))?;
        let number = run.number as i64;
        let transaction = self.db.transaction()?;
        transaction
            .prepare_cached(
                "INSERT INTO runs (number, id, run) VALUES (?1, ?2, ?3)
                 ON CONFLICT (number) DO UPDATE SET run = ?3",
            )?
            .execute(params![number, run.id.as_str(), json])?;
        transaction
            .prepare_cached(
                "INSERT INTO meta (key, value) VALUES ('next_run', ?1)
                 ON CONFLICT (key) DO UPDATE SET value = max(value, ?1)",
            )?
            .execute(params![number + 1])?;
        transaction.commit()?;
        Ok(())
    }

    /// All runs by number, as they were written.
    pub(crate) fn runs(&self) -> Result<Vec<Run>, JournalError> {
        let mut select = self
            .db
            .prepare("SELECT number, run FROM runs ORDER BY number")?;
        let rows = select.query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let mut runs = Vec::new();
        for row in rows {
            let (number, json) = row?;
            runs.push(serde_json::from_str(&json).map_err(|e| entry_error(number as u64, e))?);
        }
        Ok(runs)
    }

    /// Writes a dataset, new or under a name whose files were lost.
    pub(crate) fn put_dataset(
        &mut self,
        name: &DatasetName,
        digest: &str,
    ) -> Result<(), JournalError> {
        self.db.execute(
            "INSERT INTO datasets (name, digest) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET digest = ?2",
            params![name.as_str(), digest],
        )?;
        Ok(())
    }

    /// Name and digest of all datasets, by name.
    pub(crate) fn datasets(&self) -> Result<Vec<(String, String)>, JournalError> {
        let mut select = self
            .db
            .prepare("SELECT name, digest FROM datasets ORDER BY name")?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn meta(&self, key: &str) -> Result<Option<i64>, JournalError> {
        Ok(self
            .db
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()?)
    }

    fn set_meta(&self, key: &str, value: i64) -> Result<(), JournalError> {
        self.db.execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET value = ?2",
            params![key, value],
        )?;
        Ok(())
    }
}

fn entry_error(run: u64, problem: impl ToString) -> JournalError {
    JournalError::Entry {
        run,
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use fovea_core::ids::{RunId, WorkerId};
    use fovea_core::run::{Event, Extent, Phase};

    use super::*;

    fn run(number: u64) -> Run {
        Run::new(
            RunId::new(format!("a-{number}")).unwrap(),
            number,
            toml::from_str("name = 'a'\ndataset = 'd'").unwrap(),
            "0".repeat(64),
            Extent {
                steps_per_epoch: 2,
                total_steps: 4,
                train_samples: 8,
                validation_samples: 2,
            },
            7,
        )
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.next_run_number().unwrap(), 1);
        let name = DatasetName::new("d").unwrap();
        journal.put_dataset(&name, "abc").unwrap();
        journal.put_run(&run(1)).unwrap();
        let mut second = run(2);
        journal.put_run(&second).unwrap();
        second.apply(Event::Assigned {
            workers: vec![(WorkerId::new("w").unwrap(), "h:1".into())],
        });
        journal.put_run(&second).unwrap();
        // A write to an older run does not bring its number back.
        journal.put_run(&run(1)).unwrap();
        drop(journal);

        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.next_run_number().unwrap(), 3);
        assert_eq!(journal.runs().unwrap(), vec![run(1), second.clone()]);
        assert_eq!(
            journal.datasets().unwrap(),
            vec![("d".into(), "abc".into())]
        );
        let recovered = journal.runs().unwrap().remove(1).recovered();
        assert!(matches!(recovered.phase, Phase::Queued { .. }));
        assert_eq!(recovered.generation, 1);
    }

    #[test]
    fn another_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let journal = Journal::open(&path).unwrap();
        journal.set_meta("schema_version", 99).unwrap();
        drop(journal);
        let error = Journal::open(&path).unwrap_err();
        assert!(error.to_string().contains("schema version 99"), "{error}");
    }
}
