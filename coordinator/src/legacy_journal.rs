//! The journal: what the coordinator has promised, on disk before anyone is told.
//!
//! An embedded SQLite database in write-ahead mode with `synchronous = FULL`: when a call returns,
//! the power may fail.

use std::path::{Path, PathBuf};

use fovea_core::ids::DatasetName;
use fovea_core::ledger::{self, Entry};
use fovea_core::run::Run;
use rusqlite::{Connection, OptionalExtension, params};

const SCHEMA_VERSION: i64 = 2;

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
             CREATE TABLE IF NOT EXISTS datasets (name TEXT PRIMARY KEY, digest TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS ledger (run INTEGER NOT NULL, step INTEGER NOT NULL,
                                                loss REAL NOT NULL, count INTEGER NOT NULL,
                                                samples BLOB NOT NULL, PRIMARY KEY (run, step))
                                                WITHOUT ROWID;",
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

    /// Writes a run, new or changed. With `rewind`, its ledger ends at that step from now on.
    pub(crate) fn put_run(&mut self, run: &Run, rewind: Option<u64>) -> Result<(), JournalError> {
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
        if let Some(step) = rewind {
            transaction
                .prepare_cached("DELETE FROM ledger WHERE run = ?1 AND step > ?2")?
                .execute(params![number, step as i64])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Writes committed steps of a run into its ledger. A step that is there is replaced.
    pub(crate) fn put_steps(&mut self, run: &Run, steps: &[Entry]) -> Result<(), JournalError> {
        let transaction = self.db.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT OR REPLACE INTO ledger (run, step, loss, count, samples)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for entry in steps {
                let packed = ledger::pack(&entry.samples, run.extent.train_samples);
                insert.execute(params![
                    run.number as i64,
                    entry.step as i64,
                    entry.loss,
                    entry.samples.len() as i64,
                    packed
                ])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// The ledger of a run from step `from` on, in order, and the bytes that its samples take.
    pub(crate) fn steps(&self, run: &Run, from: u64) -> Result<(Vec<Entry>, u64), JournalError> {
        let mut select = self.db.prepare_cached(
            "SELECT step, loss, count, samples FROM ledger WHERE run = ?1 AND step >= ?2
             ORDER BY step",
        )?;
        let mut rows = select.query(params![run.number as i64, from as i64])?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let step = row.get::<_, i64>(0)? as u64;
            let packed: Vec<u8> = row.get(3)?;
            bytes += packed.len() as u64;
            let count = row.get::<_, i64>(2)? as usize;
            let samples = ledger::unpack(&packed, count, run.extent.train_samples)
                .ok_or_else(|| entry_error(run.number, format!("step {step} is cut off")))?;
            entries.push(Entry {
                step,
                loss: row.get(1)?,
                samples,
            });
        }
        Ok((entries, bytes))
    }

    /// The last step up to which a run's ledger has no gap, at least `known`.
    pub(crate) fn ledger_head(&self, run: u64, known: u64) -> Result<u64, JournalError> {
        let mut select = self
            .db
            .prepare_cached("SELECT step FROM ledger WHERE run = ?1 AND step > ?2 ORDER BY step")?;
        let mut rows = select.query(params![run as i64, known as i64])?;
        let mut head = known;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(0)? as u64 != head + 1 {
                break;
            }
            head += 1;
        }
        Ok(head)
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
        journal.put_run(&run(1), None).unwrap();
        let mut second = run(2);
        journal.put_run(&second, None).unwrap();
        let workers = vec![(WorkerId::new("w").unwrap(), "h:1".into())];
        second.apply(0, Event::Assigned { workers });
        journal.put_run(&second, None).unwrap();
        // A write to an older run does not bring its number back.
        journal.put_run(&run(1), None).unwrap();
        drop(journal);

        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.next_run_number().unwrap(), 3);
        let runs = journal.runs().unwrap();
        assert_eq!(runs[0], run(1));
        assert_eq!(
            (&runs[1].phase, runs[1].generation),
            (&second.phase, second.generation)
        );
        assert!(matches!(runs[1].phase, Phase::Forming { .. }));
        assert_eq!(
            journal.datasets().unwrap(),
            vec![("d".into(), "abc".into())]
        );
    }

    /// A learning rate that is off in its last bit would change every weight after a restart.
    #[test]
    fn floats_come_back_to_the_bit() {
        for i in 1..2000u64 {
            let value = f64::from_bits(0x3f40_0000_0000_0000 + i * 0x1_2345_6789_abcd);
            let text = serde_json::to_string(&value).unwrap();
            let back: f64 = serde_json::from_str(&text).unwrap();
            assert_eq!(back.to_bits(), value.to_bits(), "{text}");
        }
    }

    #[test]
    fn the_ledger_is_kept_by_step_and_cut_by_a_rewind() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join("journal.db")).unwrap();
        let entry = |step: u64, samples: &[u32]| Entry {
            step,
            loss: step as f64 / 2.0,
            samples: samples.to_vec(),
        };
        let (one, two) = (run(1), run(2));
        journal
            .put_steps(&one, &[entry(1, &[7, 0, 3]), entry(2, &[]), entry(4, &[5])])
            .unwrap();
        journal.put_steps(&two, &[entry(1, &[1])]).unwrap();
        assert_eq!(journal.ledger_head(1, 0).unwrap(), 2, "3 is missing");
        journal
            .put_steps(&one, &[entry(3, &[6]), entry(4, &[4])])
            .unwrap();
        assert_eq!(journal.ledger_head(1, 2).unwrap(), 4);
        let (entries, bytes) = journal.steps(&one, 2).unwrap();
        assert_eq!(entries, [entry(2, &[]), entry(3, &[6]), entry(4, &[4])]);
        assert_eq!(bytes, 2);
        journal.put_run(&one, Some(1)).unwrap();
        assert_eq!(journal.steps(&one, 0).unwrap().0, [entry(1, &[7, 0, 3])]);
        assert_eq!(journal.steps(&two, 0).unwrap().0, [entry(1, &[1])]);
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
