//! Making a backup: a checked copy of the journal, then the archive, piece by piece.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fovea_proto::NO_ROOM;
use tempfile::NamedTempFile;

use super::certificates::{self, Content};
use super::{ABOUT, About, JOURNAL, TEMPORARY};
use crate::journal::{CopyError, JournalError, Snapshot, inspect};
use crate::store::free_bytes;

/// Size of a tar's blocks; every entry begins at a multiple.
const BLOCK: u64 = 512;

/// Why there is no backup. The journal is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// No room for the copy.
    #[error(
        "backup: {NO_ROOM}: the copy of the journal takes {} MiB in {}, and {} MiB are free; free room there",
        needed.div_ceil(1 << 20), folder.display(), free >> 20
    )]
    Full {
        folder: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error("backup: cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The copy is not whole: the disk does not give back what was written to it.
    #[error("backup: the copy of the journal is not whole ({0}); check the disk of data_dir")]
    Copy(JournalError),
    /// The coordinator stops.
    #[error("backup: the coordinator is shutting down; try again when it is back")]
    Closed,
}

/// A backup whose journal has been copied and checked. Dropping it removes the copy.
#[derive(Debug)]
pub(crate) struct Backup {
    pub about: About,
    description: Vec<u8>,
    copy: NamedTempFile,
    tls: Vec<Content>,
}

impl Backup {
    /// Copies the journal into `folder` and checks the copy, and reads the files of TLS, each with its name in the archive.
    /// Waits for the disk.
    pub(crate) fn make(
        snapshot: Snapshot,
        folder: &Path,
        tls: &[(&'static str, PathBuf)],
        created_at_ms: u64,
    ) -> Result<Self, BackupError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| BackupError::Io {
                action,
                path,
                source,
            }
        };
        let tls = tls
            .iter()
            .map(|(name, path)| certificates::read(name, path).map_err(io("read", path)))
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = snapshot.bytes();
        let full = |free| BackupError::Full {
            folder: folder.to_owned(),
            needed: bytes,
            free,
        };
        let free = free_bytes(folder).map_err(io("examine", folder))?;
        if free < bytes {
            return Err(full(free));
        }
        let copy = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .map_err(io("make a file in", folder))?;
        let sha256 = match snapshot.copy(&mut copy.as_file()) {
            Ok(sha256) => sha256,
            Err(CopyError::Closed) => return Err(BackupError::Closed),
            Err(CopyError::Read(error)) => return Err(io("copy the journal in", folder)(error)),
            Err(CopyError::Write(error)) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(full(0));
            }
            Err(CopyError::Write(error)) => return Err(io("write", copy.path())(error)),
        };
        let content = inspect(copy.path()).map_err(BackupError::Copy)?;
        let entries = tls.iter().map(|content| content.entry.clone()).collect();
        let about = About::new(created_at_ms, content, bytes, sha256, entries);
        let description = serde_json::to_vec_pretty(&about)
            .map_err(io::Error::from)
            .map_err(io("describe", copy.path()))?;
        Ok(Self {
            about,
            description,
            copy,
            tls,
        })
    }

    /// Size of the archive: each entry has a block before it and ends with a block, and so does the archive, with two.
    pub(crate) fn archive_bytes(&self) -> u64 {
        let entry = |bytes: u64| BLOCK + bytes.next_multiple_of(BLOCK);
        let tls = self.tls.iter().map(|content| entry(content.entry.bytes));
        let described = entry(self.description.len() as u64);
        described + entry(self.about.journal_bytes) + tls.sum::<u64>() + 2 * BLOCK
    }

    /// Writes the archive to `out`. Waits for the disk, and for `out`.
    pub(crate) fn write(mut self, out: impl Write) -> io::Result<()> {
        let seconds = self.about.created_at_ms / 1000;
        let header = |bytes: u64| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes);
            header.set_mode(0o600);
            header.set_mtime(seconds);
            header
        };
        let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 18, out));
        let description = &self.description[..];
        let mut entry = header(description.len() as u64);
        archive.append_data(&mut entry, ABOUT, description)?;
        let mut journal: &File = self.copy.as_file_mut();
        journal.seek(SeekFrom::Start(0))?;
        let mut entry = header(self.about.journal_bytes);
        archive.append_data(&mut entry, JOURNAL, journal.take(self.about.journal_bytes))?;
        for content in &self.tls {
            let mut entry = header(content.entry.bytes);
            archive.append_data(&mut entry, &content.entry.name, &content.bytes[..])?;
        }
        archive.into_inner()?.flush()
    }
}
