//! What the journal asks of the file system that it lies on: is it local, how much room is left, may its files be used, and are
//! they still at their place.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::JournalError;

/// Magic numbers of `statfs(2)` of file systems whose locks and fsync depend on another host. FUSE is among
/// them because sshfs, s3fs and GlusterFS are mounted by it, and `statfs` cannot tell them from others.
const NETWORK: &[(u32, &str)] = &[
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0BD0_0BD0, "Lustre"),
    (0x6573_5546, "FUSE, such as sshfs or GlusterFS"),
    (0x0119_7BEB, "GlusterFS"),
    (0x00C3_6400, "CephFS"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "kAFS"),
];

/// Refuses a folder on a network file system unless that is allowed.
pub(super) fn refuse_network(folder: &Path, allow_network: bool) -> Result<(), JournalError> {
    let stat = statfs(folder)
        .map_err(|e| JournalError::cannot("examine the file system of", folder, e))?;
    // The field's type differs between platforms; the magic numbers are 32 bits wide on all.
    judge(folder, stat.f_type as u32, allow_network)
}

fn judge(folder: &Path, magic: u32, allow_network: bool) -> Result<(), JournalError> {
    match NETWORK.iter().find(|(known, _)| *known == magic) {
        Some((_, kind)) if !allow_network => Err(JournalError::Network {
            folder: folder.to_owned(),
            kind,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Free room that this user may take, MiB.
pub(super) fn free_mib(folder: &Path) -> io::Result<u64> {
    let stat = statfs(folder)?;
    let bytes = u128::from(stat.f_bavail) * stat.f_bsize as u128;
    Ok(u64::try_from(bytes >> 20).unwrap_or(u64::MAX))
}

/// The folder that a file lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// The file whose name has `suffix` in addition.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The write-ahead log of the database at `path`.
pub(super) fn log_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// The URI by which SQLite reads the database alone: no lock, no log.
pub(super) fn immutable(path: &Path) -> OsString {
    let mut uri = b"file:".to_vec();
    for &byte in path.as_os_str().as_bytes() {
        // The characters that mean something in a URI.
        match byte {
            b'%' => uri.extend(b"%25"),
            b'?' => uri.extend(b"%3f"),
            b'#' => uri.extend(b"%23"),
            byte => uri.push(byte),
        }
    }
    uri.extend(b"?immutable=1");
    OsString::from_vec(uri)
}

/// Opens database and log for writing, as SQLite will, which does not say why it cannot. A missing database is created, for
/// its owner alone; SQLite gives the log the same permissions.
///
/// To be called while this process has no connection to the file: closing it frees the lock of that one.
pub(super) fn open_files(path: &Path) -> Result<(), JournalError> {
    let open = |path: &Path, create: bool| {
        let mut options = File::options();
        options.read(true).write(true).create(create).mode(0o600);
        options.open(path)
    };
    if let Err(error) = open(path, true) {
        return Err(JournalError::cannot("open", path, error));
    }
    let log = log_of(path);
    match open(&log, false) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::cannot("open", &log, error))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The rights that are missing where SQLite could not open or create a file, if that is why.
pub(super) fn denied(path: &Path) -> Option<JournalError> {
    let error = tempfile::tempfile_in(folder_of(path)).err()?;
    let rights = matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    );
    rights.then(|| JournalError::cannot("create a file in", folder_of(path), error))
}

/// Which files the database and its log are, to notice when others are at their place.
#[derive(Debug)]
pub(super) struct Place {
    files: Vec<(PathBuf, (u64, u64))>,
}

impl Place {
    /// Of the files that are there now.
    pub(super) fn of(path: &Path) -> Result<Self, JournalError> {
        let mut files = Vec::new();
        for file in [path.to_owned(), log_of(path)] {
            match identity(&file) {
                Ok(found) => files.push((file, found)),
                Err(error) => return Err(JournalError::cannot("examine", &file, error)),
            }
        }
        Ok(Self { files })
    }

    /// The database is still there.
    pub(super) fn check_database(&self) -> Result<(), JournalError> {
        self.files.iter().take(1).try_for_each(check_file)
    }

    /// Database and log are still there.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        self.files.iter().try_for_each(check_file)
    }
}

/// If the check itself fails, the file counts as in its place.
fn check_file((path, expected): &(PathBuf, (u64, u64))) -> Result<(), JournalError> {
    let there = match identity(path) {
        Ok(found) => found == *expected,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
    };
    if there {
        return Ok(());
    }
    Err(JournalError::Moved { path: path.clone() })
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = path.metadata()?;
    Ok((found.dev(), found.ino()))
}

fn statfs(folder: &Path) -> io::Result<libc::statfs> {
    let name = CString::new(folder.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::uninit();
    // SAFETY: `name` ends with a zero byte, and `stat` has room for what the call fills in.
    if unsafe { libc::statfs(name.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled `stat` in.
    Ok(unsafe { stat.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_unless_allowed() {
        let folder = Path::new("/data");
        for &(magic, kind) in NETWORK {
            let error = judge(folder, magic, false).unwrap_err();
            assert!(error.is_fatal());
            let text = error.to_string();
            assert!(text.contains("/data") && text.contains(kind), "{text}");
            assert!(text.contains("allow_network_data_dir = true"), "{text}");
            judge(folder, magic, true).unwrap();
        }
        // ext4, xfs, btrfs, tmpfs, overlayfs, zfs
        for local in [
            0xEF53,
            0x5846_5342,
            0x9123_683E,
            0x0102_1994,
            0x794C_7630,
            0x2FC1_2FC1,
        ] {
            judge(folder, local, false).unwrap();
        }
    }

    /// The magic number is asked of the real system, and a missing folder is an I/O error by name.
    #[test]
    fn the_system_is_asked() {
        let proc = statfs(Path::new("/proc")).unwrap();
        assert_eq!(proc.f_type as u32, 0x9FA0);
        assert!(free_mib(&std::env::temp_dir()).unwrap() > 0);
        let error = refuse_network(Path::new("/no/such/folder"), false).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}
