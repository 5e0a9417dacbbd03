//! A store's folder and its identity: whether the files are those of the store that the journal knows.
//!
//! A volume that is not mounted leaves an empty folder in its place. Without an identity, every file of the store
//! would seem to be missing, and what is written would go to the wrong disk. So the store's folder holds
//! `store.json` with a random id, the journal holds the same id, and both are compared at start and before
//! everything that changes the folder.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::disk::{self, FileKey};
use super::error::{OpenError, StoreError};
use super::{StoreOptions, TEMPORARY};

/// Name of the identity file.
pub(super) const IDENTITY_FILE: &str = "store.json";

/// The newest format of a store that this version reads. A change that an older version would misread, of the
/// folder or of what is in it (manifests included), raises it.
const FORMAT: u32 = 1;

/// Largest identity file that is read, in bytes.
const MOST_BYTES: u64 = 64 << 10;

/// What `store.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// Format of the store.
    format: u32,
    /// `checkpoints`, `datasets` or `weights`.
    kind: String,
    /// 128 random bits in hex.
    id: String,
    /// When it was made, in milliseconds since the Unix epoch.
    created_at_ms: u64,
}

/// What tells one kind of store from the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// In `store.json`.
    pub key: &'static str,
    /// For people.
    pub name: &'static str,
    /// Whether the folder holds at least one file that such a store writes.
    pub in_use: fn(&Path) -> io::Result<bool>,
}

/// The folder of an open store.
#[derive(Debug)]
pub(super) struct Root {
    dir: PathBuf,
    kind: Kind,
    id: String,
    seen: Mutex<Seen>,
    /// Makes the names of temporary files unique in this process.
    next: AtomicU64,
    /// Temporary files and folders that could not be removed yet.
    leftovers: Mutex<BTreeSet<PathBuf>>,
}

/// What the last check found.
#[derive(Debug)]
struct Seen {
    key: Option<FileKey>,
    available: bool,
}

/// Why there is no identity to compare with.
enum NoIdentity {
    Absent,
    Io(io::Error),
    Invalid(String),
    TooNew(u32),
}

impl Root {
    /// Opens the store in `dir`, and makes a new one only where that cannot hide files that the journal lists.
    pub(super) fn open(
        dir: &Path,
        kind: Kind,
        known: Option<&str>,
        expected_files: usize,
        options: &StoreOptions,
    ) -> Result<Self, OpenError> {
        let path = dir.join(IDENTITY_FILE);
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io {
                action,
                path,
                source,
            }
        };
        let in_use = || match (kind.in_use)(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.map_err(fail("list", dir)),
        };
        let found = match read(dir) {
            Ok(identity) => Some(identity),
            Err(NoIdentity::Absent) => None,
            Err(NoIdentity::Io(source)) => return Err(fail("read", &path)(source)),
            Err(NoIdentity::TooNew(found)) => {
                return Err(OpenError::TooNew {
                    path,
                    found,
                    supported: FORMAT,
                });
            }
            Err(NoIdentity::Invalid(_)) if options.accept => None,
            Err(NoIdentity::Invalid(problem)) => return Err(OpenError::Identity { path, problem }),
        };
        if let Some(identity) = &found
            && identity.kind != kind.key
        {
            // Not even --accept-store makes packs of checkpoints.
            let problem = format!(
                "it belongs to a store of {}, not of {}; check the configured folders",
                identity.kind, kind.key
            );
            return Err(OpenError::Identity { path, problem });
        }
        if !options.accept {
            let (store, dir) = (kind.name, dir.to_owned());
            match (known, &found) {
                (Some(known), Some(identity)) if identity.id == known => {}
                (Some(known), Some(identity)) => {
                    return Err(OpenError::Foreign {
                        store,
                        dir,
                        expected: known.to_owned(),
                        found: identity.id.clone(),
                    });
                }
                (Some(known), None) => {
                    let problem = if disk::exists(&dir).map_err(fail("read", &dir))? {
                        format!("the folder has no {IDENTITY_FILE}")
                    } else {
                        "there is no such folder".to_owned()
                    };
                    return Err(OpenError::Absent {
                        store,
                        dir,
                        expected: known.to_owned(),
                        problem,
                    });
                }
                // The store of an older version, or one whose making was interrupted before the journal had it.
                (None, _) if expected_files > 0 => {
                    if !in_use()? {
                        return Err(OpenError::Emptied {
                            store,
                            dir,
                            expected: expected_files,
                        });
                    }
                }
                (None, Some(_)) => {
                    if in_use()? {
                        return Err(OpenError::Unlisted { store, dir });
                    }
                }
                // Empty, or an older version's with files that were never acknowledged.
                (None, None) => {}
            }
        }
        let identity = match found {
            Some(identity) => identity,
            None => create(dir, kind, options.accept).map_err(|(path, source)| OpenError::Io {
                action: "make",
                path,
                source,
            })?,
        };
        if options.accept && known.is_some_and(|known| known != identity.id) {
            warn!(
                store = kind.key,
                id = %identity.id,
                "store.accepted: using the {} in {} (id {}) in place of {} because of --accept-store",
                kind.name,
                dir.display(),
                identity.id,
                known.unwrap_or_default()
            );
        }
        let key = disk::stat(dir).map_err(fail("read", dir))?.1;
        Ok(Self {
            dir: dir.to_owned(),
            kind,
            id: identity.id,
            seen: Mutex::new(Seen {
                key: Some(key),
                available: true,
            }),
            next: AtomicU64::new(0),
            leftovers: Mutex::default(),
        })
    }

    /// The store's folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store's identity.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the folder is still there and still the one that was opened.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let found = self.look();
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        match found {
            Ok(key) => {
                let moved = seen.key != Some(key);
                if !seen.available || moved {
                    info!(
                        store = self.kind.key,
                        "store.available: the {} in {} can be used again{}",
                        self.kind.name,
                        self.dir.display(),
                        if moved {
                            "; it was mounted or moved there anew"
                        } else {
                            ""
                        }
                    );
                }
                *seen = Seen {
                    key: Some(key),
                    available: true,
                };
                Ok(())
            }
            Err(error) => {
                if matches!(error, StoreError::Unavailable { .. }) {
                    if seen.available {
                        warn!(store = self.kind.key, "store.unavailable: {error}");
                    }
                    seen.available = false;
                }
                Err(error)
            }
        }
    }

    fn look(&self) -> Result<FileKey, StoreError> {
        let path = self.dir.join(IDENTITY_FILE);
        let problem = match read(&self.dir) {
            Ok(identity) if identity.id == self.id => match disk::stat(&self.dir) {
                Ok((_, key)) => return Ok(key),
                Err(source) if disk::is_exhausted(&source) => {
                    let path = self.dir.clone();
                    return Err(StoreError::Unreadable { path, source });
                }
                Err(error) => format!("its folder cannot be read: {error}"),
            },
            Ok(identity) => format!(
                "the folder holds store {} now, not {}; mount the right volume",
                identity.id, self.id
            ),
            Err(NoIdentity::Absent) => {
                format!("there is no {IDENTITY_FILE} now, as if the volume were not mounted")
            }
            // Says nothing about the store.
            Err(NoIdentity::Io(source)) if disk::is_exhausted(&source) => {
                return Err(StoreError::Unreadable { path, source });
            }
            Err(NoIdentity::Io(source)) => format!("its {IDENTITY_FILE} cannot be read: {source}"),
            Err(NoIdentity::Invalid(problem)) => {
                format!("its {IDENTITY_FILE} is not valid: {problem}")
            }
            Err(NoIdentity::TooNew(format)) => {
                format!("its {IDENTITY_FILE} has the newer format {format}")
            }
        };
        Err(StoreError::Unavailable {
            store: format!("{} in {}", self.kind.name, self.dir.display()),
            problem,
        })
    }

    /// What an error while opening or reading `path` means. A store that went away as a whole is not a store
    /// whose files are missing one by one.
    pub(super) fn read_error(&self, path: &Path, source: io::Error) -> StoreError {
        let path = path.to_owned();
        match self.check() {
            Err(gone @ StoreError::Unavailable { .. }) => gone,
            Ok(()) if source.kind() == io::ErrorKind::NotFound => StoreError::Missing { path },
            Ok(()) | Err(_) => StoreError::Unreadable { path, source },
        }
    }

    /// What an error while writing at `path` means. `needed`: bytes that were to be written.
    pub(super) fn write_error(&self, path: &Path, needed: u64, source: io::Error) -> StoreError {
        if disk::is_full(&source) {
            return StoreError::Full {
                what: format!("cannot write {}", path.display()),
                needed,
                // Only for people: the error is known without it.
                free: disk::free_bytes(&self.dir).unwrap_or(0),
            };
        }
        match self.check() {
            Err(gone @ StoreError::Unavailable { .. }) => gone,
            Ok(()) | Err(_) => StoreError::Write {
                path: path.to_owned(),
                source,
            },
        }
    }

    /// What an error while removing `path` means.
    pub(super) fn remove_error(&self, path: &Path, source: io::Error) -> StoreError {
        match self.write_error(path, 0, source) {
            StoreError::Write { path, source } => StoreError::Remove { path, source },
            other => other,
        }
    }

    /// Checks the rights to remove what lies in `folder`. One that is not there needs none.
    ///
    /// # Errors
    /// `Remove` of the folder's content.
    pub(super) fn check_removable(&self, folder: &Path) -> Result<(), StoreError> {
        match disk::check_changeable(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.check(),
            result => result.map_err(|error| self.remove_error(folder, error)),
        }
    }

    /// Bytes that can still be written.
    pub(super) fn free_bytes(&self) -> Result<u64, StoreError> {
        disk::free_bytes(&self.dir).map_err(|error| self.read_error(&self.dir, error))
    }

    /// The same, and the size of the disk.
    pub(super) fn space(&self) -> Result<(u64, u64), StoreError> {
        disk::space(&self.dir).map_err(|error| self.read_error(&self.dir, error))
    }

    /// Removes a temporary file or folder that nobody needs any more. When the disk or an absent volume prevents it,
    /// it is removed later, by [`Self::remove_leftovers`] or at the next start.
    pub(super) fn discard_temporary(&self, path: &Path) {
        // While the volume is not mounted, the file would seem to be gone.
        let removed = match self.check() {
            Ok(()) => remove_tree_if_there(path).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(problem) = removed {
            warn!(
                store = self.kind.key,
                "store.leftover: {} cannot be removed: {problem}. It is tried again later",
                path.display()
            );
            let mut leftovers = self.leftovers.lock().unwrap_or_else(|e| e.into_inner());
            leftovers.insert(path.to_owned());
        }
    }

    /// Removes what [`Self::discard_temporary`] could not remove. The caller has just checked the store.
    pub(super) fn remove_leftovers(&self) {
        let mut leftovers = self.leftovers.lock().unwrap_or_else(|e| e.into_inner());
        leftovers.retain(|path| remove_tree_if_there(path).is_err());
    }

    /// The path of a new temporary file or folder in `folder`.
    pub(super) fn temporary(&self, folder: &Path, about: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // The process id keeps it from what an earlier coordinator left and nobody could remove.
        let process = std::process::id();
        folder.join(format!("{TEMPORARY}{about}-{process}-{number}"))
    }
}

fn remove_tree_if_there(path: &Path) -> io::Result<()> {
    match disk::remove_tree(path) {
        Ok(_) => Ok(()),
        // Of something in it, perhaps.
        Err(error) if error.kind() == io::ErrorKind::NotFound => match disk::exists(path)? {
            true => Err(error),
            false => Ok(()),
        },
        Err(error) => Err(error),
    }
}

/// The identity of the store in `dir`, if there is one that can be read. For people: opening a store decides.
pub(crate) fn stored_identity(dir: &Path) -> Option<String> {
    read(dir).ok().map(|identity| identity.id)
}

fn read(dir: &Path) -> Result<Identity, NoIdentity> {
    let bytes = match disk::read_whole(&dir.join(IDENTITY_FILE), MOST_BYTES) {
        Ok(bytes) => bytes,
        // A folder that is gone, or that became a file.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Err(NoIdentity::Absent);
        }
        Err(error) => return Err(NoIdentity::Io(error)),
    };
    /// The one field that every format has.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let invalid = |error: serde_json::Error| NoIdentity::Invalid(error.to_string());
    let Format { format } = serde_json::from_slice(&bytes).map_err(invalid)?;
    if format > FORMAT {
        return Err(NoIdentity::TooNew(format));
    }
    serde_json::from_slice(&bytes).map_err(invalid)
}

/// Makes an identity, and the folder where it is missing. With `replace`, an invalid identity is replaced.
fn create(dir: &Path, kind: Kind, replace: bool) -> Result<Identity, (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    if !disk::exists(dir).map_err(at(dir))? {
        disk::make_folder(dir).map_err(at(dir))?;
        if let Some(parent) = dir.parent() {
            disk::sync_folder(parent).map_err(at(parent))?;
        }
    }
    let path = dir.join(IDENTITY_FILE);
    let identity = Identity {
        format: FORMAT,
        kind: kind.key.to_owned(),
        id: random_id().map_err(at(&path))?,
        created_at_ms: unix_ms(SystemTime::now()),
    };
    let mut bytes = serde_json::to_vec_pretty(&identity)
        .map_err(io::Error::from)
        .map_err(at(&path))?;
    bytes.push(b'\n');
    let temporary = dir.join(format!("{TEMPORARY}{IDENTITY_FILE}"));
    // An earlier coordinator may have been killed here.
    disk::remove_if_there(&temporary).map_err(at(&temporary))?;
    disk::write_new(&temporary, &bytes).map_err(at(&temporary))?;
    let placed = match disk::exists(&path) {
        Ok(true) if !replace => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => disk::rename(&temporary, &path),
        Err(error) => Err(error),
    };
    if placed.is_err() {
        // The first error is the one to report.
        let _ = disk::remove(&temporary);
    }
    placed.map_err(at(&path))?;
    disk::sync_folder(dir).map_err(at(dir))?;
    Ok(identity)
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(hex::encode(bytes))
}

/// Milliseconds since the Unix epoch; 0 before it.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
