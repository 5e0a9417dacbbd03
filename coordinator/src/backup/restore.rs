//! Restoring a backup into a data folder that has no journal.

use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fovea_security::utc;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::certificates::{self, Content};
use super::{ABOUT, About, FORMAT, JOURNAL, TEMPORARY};
use crate::data_dir::{DataDir, DataDirError, sync_folder};
use crate::journal::{JournalError, inspect};
use crate::remote::REMOTE;
use crate::store::stored_identity;

/// A description is short.
const MOST_ABOUT: u64 = 1 << 20;

/// Why a backup was not restored. Nothing was changed in the data folder, except for [`RestoreError::Unsynced`].
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is a journal already, or what is left of one.
    #[error(
        "{} is there; a backup is restored only where nothing of a journal or an earlier restoration is. If it is not \
         needed any more, move journal.db, journal.db-wal and restored-tls away, or name another folder with --data-dir",
        path.display()
    )]
    Occupied {
        /// The file that is there.
        path: PathBuf,
    },
    /// The archive cannot be read.
    #[error("cannot read the backup {}: {source}", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The archive is not what was written.
    #[error("the backup {} is damaged, or is none: {problem}; use another one", path.display())]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A newer program made it.
    #[error(
        "the backup {} has format {found}, this coordinator reads format {FORMAT}; use the Fovea version that made it",
        path.display()
    )]
    TooNew {
        /// The archive.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Its journal cannot be used by this program.
    #[error("the backup's journal cannot be used: {0}")]
    Journal(JournalError),
    /// The files of TLS cannot be written.
    #[error("{0}; nothing was restored")]
    Tls(fovea_security::FileError),
    /// The journal cannot be written.
    #[error("cannot write {}: {source}; nothing was restored", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Everything was restored, and may not last.
    #[error(
        "the backup was restored: {} is in place{}. But {} cannot be flushed to the disk: {source}; what was restored may be gone \
         after a power failure. Check the disk. Then start the coordinator, or move what was restored away and restore again",
        journal.display(), with_tls(tls.as_deref()), folder.display()
    )]
    Unsynced {
        /// The journal.
        journal: PathBuf,
        /// Where the files of TLS are, if the archive has some.
        tls: Option<PathBuf>,
        /// The data folder.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl RestoreError {
    /// The program's exit code: 2 for a wrong archive, else 4, as for the data folder.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. } | Self::Damaged { .. } | Self::TooNew { .. } => 2,
            Self::DataDir(_)
            | Self::Occupied { .. }
            | Self::Journal(_)
            | Self::Tls(_)
            | Self::Write { .. }
            | Self::Unsynced { .. } => 4,
        }
    }
}

fn with_tls(folder: Option<&Path>) -> String {
    folder.map_or_else(String::new, |folder| {
        format!(", and certificates and keys are in {}", folder.display())
    })
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    about: About,
    /// The stores that the journal knows and that are not in the data folder, with what is there.
    stores: Vec<(String, PathBuf, StoreFound)>,
    /// Where the files of TLS are, if the archive has some.
    tls: Option<PathBuf>,
}

/// What lies in the place of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StoreFound {
    Itself,
    None,
    Other(String),
}

/// Puts the journal of the backup `archive` into the data folder `root`, which is made where it is missing. Waits for the
/// disk.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(archive: &Path, root: &Path) -> Result<Restored, RestoreError> {
    restore_by(archive, root, sync_folder)
}

/// The same with another way to flush the folder at the end.
pub(super) fn restore_by(
    archive: &Path,
    root: &Path,
    sync_last: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<Restored, RestoreError> {
    // Before a folder is made for it.
    let file = open(archive)?;
    let dir = DataDir::open(root)?;
    let target = dir.journal();
    let tls_folder = root.join(certificates::FOLDER);
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Write { path, source }
    };
    // What a restoration that was killed has written of these is no use to anybody.
    if dir.is_half_restored() && tls_folder.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(&tls_folder).map_err(write(&tls_folder))?;
    }
    for path in [target.clone(), target.with_extension("db-wal"), tls_folder] {
        if path.symlink_metadata().is_ok() {
            return Err(RestoreError::Occupied { path });
        }
    }
    let mark = dir.restoring();
    let marked = File::create(&mark).and_then(|_| sync_folder(root));
    marked.map_err(write(&mark))?;
    let _mark = Mark(mark);
    let mut copy = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(root)
        .map_err(write(root))?;
    let (about, tls) = unpack(file, archive, &mut copy)?;
    inspect(copy.path()).map_err(RestoreError::Journal)?;
    copy.as_file().sync_all().map_err(write(copy.path()))?;
    let tls = match &*tls {
        [] => None,
        files => Some(certificates::write(root, files).map_err(RestoreError::Tls)?),
    };
    if let Err(error) = copy.persist_noclobber(&target) {
        if let Some(folder) = &tls {
            // What counts is why it was not restored.
            let _ = std::fs::remove_dir_all(folder);
        }
        return Err(write(&target)(error.error));
    }
    if let Err(source) = sync_last(root) {
        return Err(RestoreError::Unsynced {
            journal: target,
            tls,
            folder: root.to_owned(),
            source,
        });
    }
    let stores = about
        .stores
        .iter()
        .filter_map(|(kind, id)| {
            let folder = dir.store(kind)?;
            let found = match stored_identity(&folder) {
                None => StoreFound::None,
                Some(found) if found == *id => StoreFound::Itself,
                Some(found) => StoreFound::Other(found),
            };
            Some((kind.clone(), folder, found))
        })
        .collect();
    Ok(Restored { about, stores, tls })
}

/// Says that a restoration is under way; the file is gone when it has ended, well or not.
struct Mark(PathBuf);

impl Drop for Mark {
    fn drop(&mut self) {
        // One that is left beside a journal means nothing.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open(archive: &Path) -> Result<File, RestoreError> {
    let read = |source| RestoreError::Read {
        path: archive.to_owned(),
        source,
    };
    let file = File::open(archive).map_err(read)?;
    if !file.metadata().map_err(read)?.is_file() {
        return Err(read(io::Error::other("it is no regular file")));
    }
    Ok(file)
}

/// Reads the archive to its end, and its journal into `copy`.
fn unpack(
    file: File,
    path: &Path,
    copy: &mut NamedTempFile,
) -> Result<(About, Vec<Content>), RestoreError> {
    let damaged = |problem: String| RestoreError::Damaged {
        path: path.to_owned(),
        problem,
    };
    // The archive's reader gives its complaints as I/O errors without an error of the system.
    let read = |source: io::Error| match source.raw_os_error() {
        Some(_) => RestoreError::Read {
            path: path.to_owned(),
            source,
        },
        None => damaged(source.to_string()),
    };
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut entries = archive.entries().map_err(read)?;
    let mut next = |name: &str| {
        let entry = match entries.next() {
            Some(entry) => entry.map_err(read)?,
            None => return Err(damaged(format!("it has no {name}"))),
        };
        match &*entry.path_bytes() {
            found if found == name.as_bytes() => Ok(entry),
            found => Err(damaged(format!(
                "it holds {} where {name} should be",
                String::from_utf8_lossy(found).escape_debug()
            ))),
        }
    };
    let mut text = Vec::new();
    let description = next(ABOUT)?;
    description
        .take(MOST_ABOUT)
        .read_to_end(&mut text)
        .map_err(read)?;
    /// The one field that every format has.
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let invalid = |error: serde_json::Error| damaged(format!("{ABOUT} is not valid: {error}"));
    let Format { format } = serde_json::from_slice(&text).map_err(invalid)?;
    if format != FORMAT {
        return Err(RestoreError::TooNew {
            path: path.to_owned(),
            found: format,
        });
    }
    let about: About = serde_json::from_slice(&text).map_err(invalid)?;
    let mut journal = next(JOURNAL)?;
    let (mut hash, mut piece, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let read = journal.read(&mut piece).map_err(read)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        hash.update(&piece[..read]);
        let written = copy.write_all(&piece[..read]);
        written.map_err(|source| RestoreError::Write {
            path: copy.path().to_owned(),
            source,
        })?;
    }
    if bytes != about.journal_bytes {
        return Err(damaged(format!(
            "its {JOURNAL} has {bytes} bytes, {} were written",
            about.journal_bytes
        )));
    }
    let found = hex::encode(hash.finalize());
    if found != about.journal_sha256 {
        return Err(damaged(format!(
            "the SHA-256 of its {JOURNAL} is {found}, {} was written",
            about.journal_sha256
        )));
    }
    let mut tls = Vec::new();
    for described in &about.tls {
        let name = &described.name;
        if !certificates::is_known(name) {
            return Err(damaged(format!("it holds {name:?}, which no backup has")));
        }
        let mut bytes = Vec::new();
        next(name)?
            .take(certificates::LARGEST)
            .read_to_end(&mut bytes)
            .map_err(read)?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found != described.sha256 {
            return Err(damaged(format!(
                "the SHA-256 of its {name} is {found}, {} was written",
                described.sha256
            )));
        }
        tls.push(Content {
            entry: described.clone(),
            bytes,
        });
    }
    Ok((about, tls))
}

impl Restored {
    /// What was restored, and what to do next, in lines for people.
    pub fn report(&self) -> Vec<String> {
        use fovea_core::count::count;
        let about = &self.about;
        let mut lines = vec![format!(
            "restored the journal: {}, {} under way, {}",
            count(about.runs, "run", "runs"),
            about.live_runs,
            count(about.datasets, "dataset", "datasets")
        )];
        let remote = self.about.stores.iter().any(|(kind, _)| kind == REMOTE);
        for (kind, folder, found) in &self.stores {
            let folder = folder.display();
            lines.push(match found {
                StoreFound::Itself => format!("{kind}: {folder} is the store that the journal knows"),
                StoreFound::None if remote => format!(
                    "{kind}: {folder} holds no store. Put it there or mount it; if it is lost, start once with --accept-store \
                     and the same object store (key store): what is needed is fetched from the object store"
                ),
                StoreFound::None => format!(
                    "{kind}: {folder} holds no store. Put it there or mount it; if it is lost, start once with --accept-store"
                ),
                StoreFound::Other(id) => format!(
                    "{kind}: {folder} holds another store ({id}). Put the right one there; to use this one, start once with \
                     --accept-store"
                ),
            });
        }
        if let Some(folder) = &self.tls {
            lines.push(format!(
                "certificates and keys: in {}; move them to their place, or set",
                folder.display()
            ));
            lines.extend(certificates::settings(folder, &about.tls));
        }
        if !about.tls.is_empty() {
            lines.push(format!(
                "tokens that were revoked and workers that were denied since the backup was made, {}, are valid again: compare \
                 `fovea token list` and `fovea worker denied` with what you know",
                utc(about.created_at_ms)
            ));
        }
        lines.push("start the coordinator: runs under way wait for workers and go on".into());
        lines
    }
}
