//! Why a store cannot do what was asked. The kinds lead to different actions, so they are never mixed up.

use std::io;
use std::path::PathBuf;

use fovea_proto::NO_ROOM;

/// Why a store did not do what was asked.
///
/// | kind | what is known | what the caller does |
/// |---|---|---|
/// | `Unavailable` | the whole store is absent or is another one | wait and try again; delete nothing |
/// | `Missing` | the store is there, this file is not | wait and try again; delete nothing |
/// | `Unreadable` | opening or reading failed | wait and try again; delete nothing |
/// | `Corrupt` | a complete read has another size or SHA-256 | put aside, use another copy |
/// | `TooNew` | a newer Fovea wrote it | leave it alone |
/// | `Full` | no room | free room, try again |
/// | `Write` | writing failed | try again |
/// | `Remove` | removing failed; some of it may be gone | try again |
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The whole store is not there, or is not the one that it should be.
    #[error(
        "the {store} is unavailable: {problem}. Nothing was deleted; it is used again when it is back"
    )]
    Unavailable {
        /// Which store, with its folder.
        store: String,
        /// What was found in its place.
        problem: String,
    },
    /// There is no such file, though its store is there.
    #[error("{} is missing, though its store is there. Put the file back; nothing was deleted", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be opened or read. That says nothing about its content.
    #[error("{} cannot be read: {source}. Nothing was deleted; correct the cause and it is used again", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A complete read of a file found another size or SHA-256 than was stored.
    #[error("{} is corrupt: {problem}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A newer version of Fovea wrote the file.
    #[error(
        "{} has the format {format:?}, which is newer than this version of Fovea reads. Use the newer version",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The format that it names.
        format: String,
    },
    /// The disk or the quota is full.
    #[error(
        "{what}: {NO_ROOM}: {} are needed, {} are free (a quota may be lower). Free room on that disk",
        mib(*needed), mib(*free)
    )]
    Full {
        /// What was to be written, and where.
        what: String,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Writing or renaming failed.
    #[error("{} cannot be written: {source}. What was stored before is unchanged; correct the cause", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Removing failed. The caller knows what was removed before, and what becomes of the rest.
    #[error("{} cannot be removed: {source}", path.display())]
    Remove {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl StoreError {
    /// What was found, without what to do: for those who say themselves what to do.
    pub(crate) fn finding(&self) -> String {
        match self {
            Self::Unavailable { store, problem } => {
                format!("the {store} is unavailable: {problem}")
            }
            Self::Missing { path } => {
                format!("{} is missing, though its store is there", path.display())
            }
            Self::Unreadable { path, source } => {
                format!("{} cannot be read: {source}", path.display())
            }
            error => error.to_string(),
        }
    }

    /// The same call can succeed later, without anything being done to the file in question by Fovea.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Missing { .. }
            | Self::Unreadable { .. }
            | Self::Full { .. }
            | Self::Remove { .. } => true,
            // A temporary file that is gone does not come back by trying again.
            Self::Write { source, .. } => source.kind() != io::ErrorKind::NotFound,
            Self::Corrupt { .. } | Self::TooNew { .. } => false,
        }
    }
}

/// Why a store is not opened. Nothing was created or changed in its folder.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal knows a store, but the folder holds none.
    #[error(
        "the {store} is not in {}: the journal expects store {expected}, but {problem}. Is the volume mounted? \
         Mount it and start again, or start with --accept-store to use the folder as it is now",
        dir.display()
    )]
    Absent {
        /// Which store.
        store: &'static str,
        /// Its folder.
        dir: PathBuf,
        /// The identity that the journal knows.
        expected: String,
        /// What was found.
        problem: String,
    },
    /// The folder holds another store than the one that the journal knows.
    #[error(
        "{} holds another {store}: the journal expects {expected}, its store.json says {found}. Mount the right \
         volume and start again, or start with --accept-store if the store was replaced on purpose",
        dir.display()
    )]
    Foreign {
        /// Which store.
        store: &'static str,
        /// Its folder.
        dir: PathBuf,
        /// The identity that the journal knows.
        expected: String,
        /// The identity in the folder.
        found: String,
    },
    /// The journal lists files, but none is there.
    #[error(
        "the {store} in {} is empty, but the journal lists {expected} of its files. Is the volume mounted? Mount it \
         and start again, or start with --accept-store to go on without these files",
        dir.display()
    )]
    Emptied {
        /// Which store.
        store: &'static str,
        /// Its folder.
        dir: PathBuf,
        /// How many files the journal lists.
        expected: usize,
    },
    /// The folder holds a store with files of which the journal knows nothing.
    #[error(
        "the {store} in {} holds files, but the journal is new and knows none of them. Put the journal \
         that belongs to the store there (and no journal.db-wal of another), or start with --accept-store to use it with this journal",
        dir.display()
    )]
    Unlisted {
        /// Which store.
        store: &'static str,
        /// Its folder.
        dir: PathBuf,
    },
    /// A newer version of Fovea made the store.
    #[error(
        "{} has format {found}, newer than the {supported} that this version of Fovea reads. Start the newer version",
        path.display()
    )]
    TooNew {
        /// The identity file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is read.
        supported: u32,
    },
    /// The identity file is not valid, or belongs to another kind of store.
    #[error(
        "{} is not a store's identity: {problem}. Restore it from a copy, or start with --accept-store to write a new one",
        path.display()
    )]
    Identity {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A number of bytes in MiB, rounded up when little is left of it.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
