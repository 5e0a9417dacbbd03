//! Why the journal refuses something, and what to do about it.
//!
//! SQLite's result codes fall into three classes:
//!
//! | class | codes | consequence |
//! |---|---|---|
//! | environment | FULL, IOERR, CANTOPEN, BUSY, NOMEM, READONLY, ... | rolled back; refused or tried again |
//! | damage | CORRUPT, NOTADB | fatal: the file itself is not what was written |
//! | the write's own | CONSTRAINT, TOOBIG, ... | this one write is refused, the others go on |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use super::filesystem;
use crate::data_dir::owners;

/// Why the journal refuses something. It can be cloned, because one failed commit answers many writers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The file system has no room.
    #[error(
        "journal: the disk is full: free at least {need_mib} MiB in {} ({free_mib} MiB are free) and try \
         again",
        folder.display()
    )]
    Full {
        /// The folder of the journal.
        folder: PathBuf,
        /// What the waiting writes need at most, MiB.
        need_mib: u64,
        /// What the system says is free, MiB.
        free_mib: u64,
    },
    /// The system cannot read or write the file at the moment. Nothing is damaged.
    #[error(
        "journal: cannot {action} {}: {problem}; check the disk and the mount of that folder, then try again",
        path.display()
    )]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite and the system say.
        problem: String,
    },
    /// Another process holds the file.
    #[error(
        "journal: {} is in use by another process; stop that process (`fuser {}` names it), or use another \
         --data-dir",
        path.display(), path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The log beside the file belongs to another database, or to another state of this one.
    #[error(
        "journal: {}-wal does not belong to {}: was a backup put in its place? Nothing was changed. Move the -wal away \
         and start again; it holds the last changes of the journal that was here before",
        path.display(), path.display()
    )]
    ForeignLog {
        /// The database.
        path: PathBuf,
    },
    /// SQLite would ignore acknowledged changes in the log.
    #[error(
        "journal: {}-wal cannot be applied: {problem}. It holds changes that were acknowledged. Nothing was changed. Restore {} \
         and its -wal together from a backup; or, to go on without what the -wal holds, move it away and start again",
        path.display(), path.display()
    )]
    DamagedLog {
        /// The database.
        path: PathBuf,
        /// What is wrong with its log.
        problem: String,
    },
    /// Another file, or none, is where the open one was.
    #[error(
        "journal: {} is not at its place any more (it was moved or replaced); put it back, or stop the coordinator",
        path.display()
    )]
    Moved {
        /// The database or its log.
        path: PathBuf,
    },
    /// It is being copied for another backup.
    #[error(
        "journal: {} is being copied for another backup; try again when that is done",
        path.display()
    )]
    Copied {
        /// The database.
        path: PathBuf,
    },
    /// This user has no right to a file.
    #[error(
        "journal: cannot {action} {}: {source}; {owners}. Run the coordinator as the user whose files they are, or give them to \
         its user with chown",
        path.display()
    )]
    Denied {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
        /// Whose file and folder it is, and who this process is.
        owners: String,
    },
    /// The file is not what was written.
    #[error(
        "journal: {} is damaged: {problem}; stop the coordinator, move the file and its -wal away together, \
         and put the journal of a backup there",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
    },
    /// Written by a version that this one cannot read.
    #[error(
        "journal: {} has schema version {found}, this coordinator reads versions {} to {}: use the Fovea \
         version that wrote it, or another --data-dir",
        path.display(), super::version::OLDEST, super::version::VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// An older file could not be brought to this version. It is unchanged.
    #[error(
        "journal: {} could not be migrated from schema version {from} to {}: {problem}; the file is unchanged: \
         remove the cause and start again, or use the Fovea version that wrote it",
        path.display(), super::version::VERSION
    )]
    Migration {
        /// The file.
        path: PathBuf,
        /// Its version.
        from: i64,
        /// Why.
        problem: String,
    },
    /// The folder is on a network file system.
    #[error(
        "journal: {} is on a network file system ({kind}), where locks and fsync are not dependable: use a \
         --data-dir on a local disk, or allow it with allow_network_data_dir = true",
        folder.display()
    )]
    Network {
        /// The folder.
        folder: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
    /// A file beside the journal, or the thread that serves it.
    #[error("journal: cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// A row that cannot be read or must not be written.
    #[error("journal: the entry of run {run} cannot be used: {problem}")]
    Entry {
        /// The run's number.
        run: u64,
        /// Why.
        problem: String,
    },
    /// A token or a denial that cannot be read.
    #[error("journal: an entry about access ({kind}) cannot be used: {problem}")]
    Access {
        /// Which kind of entry.
        kind: String,
        /// Why.
        problem: String,
    },
    /// The run was removed. Its number is never used again.
    #[error("journal: run {run} was removed; `fovea runs` lists those there are")]
    Removed {
        /// The run's number.
        run: u64,
    },
    /// SQLite refuses this one statement.
    #[error("journal: SQLite refuses to {action} {}: {problem}", path.display())]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
    },
    /// The journal was closed.
    #[error(
        "journal: it is closed, because the coordinator is shutting down; try again when it is back"
    )]
    Closed,
}

impl JournalError {
    /// Whether the coordinator must stop: what it would write from now on could not be trusted.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Corrupt { .. }
            | Self::ForeignLog { .. }
            | Self::DamagedLog { .. }
            | Self::Version { .. }
            | Self::Migration { .. }
            | Self::Network { .. } => true,
            Self::Full { .. }
            | Self::Unavailable { .. }
            | Self::Moved { .. }
            | Self::Copied { .. }
            | Self::Denied { .. }
            | Self::Locked { .. }
            | Self::Io { .. }
            | Self::Entry { .. }
            | Self::Access { .. }
            | Self::Removed { .. }
            | Self::Refused { .. }
            | Self::Closed => false,
        }
    }

    /// An error of SQLite while it did `action` with the journal at `path`. `pending` are the bytes that wait
    /// to be written.
    pub(super) fn from_sqlite(
        action: &'static str,
        path: &Path,
        pending: u64,
        error: &rusqlite::Error,
    ) -> Self {
        let path = path.to_owned();
        match class(error) {
            Class::Damage => Self::Corrupt {
                path,
                problem: error.to_string(),
            },
            Class::Environment if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                let folder = filesystem::folder_of(&path).to_owned();
                Self::Full {
                    need_mib: need_mib(pending),
                    free_mib: filesystem::free_mib(&folder).unwrap_or(0),
                    folder,
                }
            }
            Class::Environment => Self::Unavailable {
                action,
                path,
                problem: describe(error),
            },
            Class::Own => Self::Refused {
                action,
                path,
                problem: error.to_string(),
            },
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source: Arc::new(source),
        }
    }

    /// As [`JournalError::io`], and where rights are missing it says whose files they are.
    pub(super) fn cannot(action: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() != io::ErrorKind::PermissionDenied {
            return Self::io(action, path)(source);
        }
        Self::Denied {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
            owners: owners(path),
        }
    }

    pub(crate) fn access(kind: &str, problem: impl ToString) -> Self {
        Self::Access {
            kind: kind.to_owned(),
            problem: problem.to_string(),
        }
    }

    pub(super) fn entry(run: u64, problem: impl ToString) -> Self {
        Self::Entry {
            run,
            problem: problem.to_string(),
        }
    }
}

/// Room that lets `pending` bytes into the log and from there into the database, with some to spare, MiB.
pub(super) fn need_mib(pending: u64) -> u64 {
    16 + (2 * pending).div_ceil(1 << 20)
}

/// What an error of SQLite means for the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The system refuses at the moment. The same write can succeed later.
    Environment,
    /// The file is not what was written.
    Damage,
    /// The statement itself cannot succeed.
    Own,
}

pub(super) fn class(error: &rusqlite::Error) -> Class {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Class::Damage,
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OutOfMemory
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::NoLargeFileSupport,
        ) => Class::Environment,
        Some(_) | None => Class::Own,
    }
}

/// SQLite's words, and the extended code, which tells a failed fsync from a failed write.
fn describe(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(code) => format!("{error} (SQLite code {})", code.extended_code),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn sqlite(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn an_io_error_is_not_damage() {
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_IOERR_CORRUPTFS,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_NOMEM,
        ] {
            let error = sqlite(code);
            assert_eq!(class(&error), Class::Environment, "{code}");
            let error = JournalError::from_sqlite("write to", Path::new("/x/j.db"), 0, &error);
            assert!(!error.is_fatal(), "{error}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            let error = sqlite(code);
            assert_eq!(class(&error), Class::Damage, "{code}");
            let error = JournalError::from_sqlite("write to", Path::new("/x/j.db"), 0, &error);
            assert!(error.is_fatal(), "{error}");
        }
        assert_eq!(class(&sqlite(ffi::SQLITE_CONSTRAINT_UNIQUE)), Class::Own);
    }

    #[test]
    fn a_full_disk_says_how_much_to_free_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let error =
            JournalError::from_sqlite("write to", &path, 5 << 20, &sqlite(ffi::SQLITE_FULL));
        let text = error.to_string();
        let place = format!("in {}", folder.path().display());
        assert!(text.contains("free at least 26 MiB"), "{text}");
        assert!(text.contains(&place), "{text}");
    }
}
