//! The trash: checkpoints that were put aside, each in a folder whose name begins with the time (UTC).
//!
//! A sweep or a quarantine may be wrong about what it moves (a journal restored from a backup that is too old, a disk
//! controller that returns wrong bytes for a while). So nothing is deleted for days, and people can move it back.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use fovea_core::ids::RunId;
use time::{OffsetDateTime, PrimitiveDateTime, format_description};
use tracing::info;

use super::disk;
use super::error::StoreError;
use super::folder::Inner;
use super::identity::unix_ms;
use super::names::path_for;

/// Name of the trash folder. It is not the id of a run: these begin with a letter or a digit.
pub(super) const TRASH: &str = ".trash";

/// Numbers the entries of this process, so that two of one millisecond have two names.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Inner {
    /// Moves the files at a checkpoint's place into a new folder of the trash, which it returns; its ledger stays as a
    /// segment. `Missing` when there are none.
    pub(super) fn discard(
        &self,
        run: &RunId,
        step: u64,
        generation: u64,
    ) -> Result<PathBuf, StoreError> {
        let folder = self.folder(run);
        let path = path_for(&folder, step, generation);
        let mut files = Vec::new();
        // The manifest first: at no moment does one describe a file that is not there.
        for path in [path.with_extension("json"), path.clone()] {
            if disk::exists(&path).map_err(|error| self.root.read_error(&path, error))? {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Err(self.root.read_error(&path, io::ErrorKind::NotFound.into()));
        }
        self.keep_ledger(run, step, generation);
        let entry = self.new_entry(run)?;
        let failed = |error| self.root.write_error(&entry, 0, error);
        for path in &files {
            let name = path.file_name().unwrap_or_default();
            disk::rename(path, &entry.join(name)).map_err(failed)?;
        }
        disk::sync_folder(&entry).map_err(failed)?;
        disk::sync_folder(&folder).map_err(failed)?;
        Ok(entry)
    }

    fn new_entry(&self, run: &RunId) -> Result<PathBuf, StoreError> {
        let trash = self.root.dir().join(TRASH);
        self.ensure_folder(&trash)?;
        let now = time_name(SystemTime::now());
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let entry = trash.join(format!("{now}-{number}-{run}"));
            match disk::make_folder(&entry) {
                Ok(()) => {
                    disk::sync_folder(&trash)
                        .map_err(|error| self.root.write_error(&trash, 0, error))?;
                    return Ok(entry);
                }
                // Of an earlier coordinator, in the same millisecond.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.root.write_error(&entry, 0, error)),
            }
        }
    }

    /// Goes through the trash, oldest first, and removes the entries that are `wanted`, which is given the bytes that became
    /// free before. One that cannot be removed does not keep the others.
    pub(super) fn purge(&self, mut wanted: impl FnMut(&Entry, u64) -> bool) -> Purged {
        let trash = self.root.dir().join(TRASH);
        let mut purged = Purged::default();
        let names = match disk::list(&trash) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return purged,
            Err(error) => {
                purged.problem = Some(self.root.read_error(&trash, error));
                return purged;
            }
        };
        let mut entries: Vec<Entry> = names.into_iter().filter_map(Entry::of).collect();
        entries.sort();
        for entry in entries {
            if !wanted(&entry, purged.freed) {
                continue;
            }
            let path = trash.join(&entry.name);
            match disk::remove_tree(&path) {
                Ok(bytes) => {
                    purged.freed += bytes;
                    info!("trash.removed: {} ({bytes} bytes)", path.display());
                }
                Err(error) => {
                    let error = self.root.remove_error(&path, error);
                    let is_away = matches!(error, StoreError::Unavailable { .. });
                    purged.problem.get_or_insert(error);
                    if is_away {
                        break;
                    }
                }
            }
        }
        purged
    }
}

/// What became of the trash.
#[derive(Debug, Default)]
pub(crate) struct Purged {
    /// Bytes that became free.
    pub freed: u64,
    /// Why the first of the entries that should have gone could not be removed.
    pub problem: Option<StoreError>,
}

/// What was put aside at one time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// When, in milliseconds since the Unix epoch, by the clock of that time.
    pub since_ms: u64,
    /// The folder's.
    pub name: String,
}

impl Entry {
    /// None: people have put it there.
    fn of(name: String) -> Option<Self> {
        let since_ms = time_of(&name)?;
        Some(Self { since_ms, name })
    }
}

/// The format of the time in an entry's name. Such names sort by time.
const TIME: &str = "[year][month][day]T[hour][minute][second].[subsecond digits:3]Z";

/// `now` in the format [`TIME`], UTC.
fn time_name(now: SystemTime) -> String {
    format_description::parse_borrowed::<2>(TIME)
        .ok()
        .and_then(|format| OffsetDateTime::from(now).format(&format).ok())
        // Of a clock beyond the year 9999: an entry that is never removed.
        .unwrap_or_else(|| "undated".to_owned())
}

/// The time in an entry's name, milliseconds since the Unix epoch. None: the name is not one of ours.
fn time_of(name: &str) -> Option<u64> {
    let (time, _) = name.split_once('-')?;
    let format = format_description::parse_borrowed::<2>(TIME).ok()?;
    let time = PrimitiveDateTime::parse(time, &format).ok()?.assume_utc();
    Some(unix_ms(time.into()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_time_in_a_name_is_readable_and_read_back() {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_633_251_042);
        assert_eq!(time_name(now), "20261125T190051.042Z");
        assert_eq!(
            time_of("20261125T190051.042Z-7-r-1"),
            Some(1_795_633_251_042)
        );
        for other in ["", "notes", "my-files", "20261399T190051.042Z-7-r-1"] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }
}
