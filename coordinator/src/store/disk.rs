//! The few file operations that the stores make, each in one place.
//!
//! Everything that touches a store's files goes through these functions. So new files and folders are
//! private (0600 and 0700: checkpoints and packs are made from patients' data), and a test can make any
//! single operation fail (`fault_tests`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// One kind of file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Open a file to read it.
    Open,
    /// Read from an open file.
    Read,
    /// List a folder.
    List,
    /// Ask for size, device and inode.
    Stat,
    /// Create a file.
    Create,
    /// Write into an open file.
    Write,
    /// Reserve a file's blocks.
    Allocate,
    /// Flush a file or a folder to the disk.
    Sync,
    /// Rename a file or folder.
    Rename,
    /// Remove a file or an empty folder.
    Remove,
    /// Make a folder.
    MakeFolder,
}

impl Operation {
    /// The operation changes the disk.
    #[cfg(test)]
    pub(super) fn changes(self) -> bool {
        match self {
            Self::Open | Self::Read | Self::List | Self::Stat => false,
            Self::Create
            | Self::Write
            | Self::Allocate
            | Self::Sync
            | Self::Rename
            | Self::Remove
            | Self::MakeFolder => true,
        }
    }
}

/// Fails when the test that runs on this thread has asked for it.
#[cfg(test)]
fn gate(operation: Operation, path: Option<&Path>) -> io::Result<()> {
    super::fault::gate(operation, path)
}

#[cfg(not(test))]
#[inline]
fn gate(_: Operation, _: Option<&Path>) -> io::Result<()> {
    Ok(())
}

/// Which file or folder a path or an open file leads to. It stays the same when the file is renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
}

/// Opens a regular file to read it, and gives its size in bytes.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    gate(Operation::Open, Some(path))?;
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok((file, about.len()))
}

/// Reads some bytes; 0 at the end of the file.
pub(super) fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    gate(Operation::Read, None)?;
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads to the end: the bytes, and their SHA-256 in hex.
pub(super) fn hash(file: &mut File, progress: &mut impl FnMut(u64)) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        match read(file, &mut buffer)? {
            0 => return Ok((bytes, hex::encode(hash.finalize()))),
            n => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
                progress(bytes);
            }
        }
    }
}

/// Fills the buffer from the byte `at` of the file.
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    gate(Operation::Read, None)?;
    file.read_exact_at(buffer, at)
}

/// Reads a whole file of at most `most` bytes.
pub(super) fn read_whole(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, size) = open(path)?;
    gate(Operation::Read, Some(path))?;
    let too_long = |size| {
        let problem = format!("it has {size} bytes; at most {most} are read");
        Err(io::Error::other(problem))
    };
    if size > most {
        return too_long(size);
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return too_long(bytes.len() as u64);
    }
    Ok(bytes)
}

/// Makes the next reads of the file come from the disk where the kernel allows it, not from its cache.
pub(super) fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: the call touches no memory; the descriptor is open for as long as `file` is borrowed. It is
    // advice: when it fails, reads are merely served from the cache.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Names of what lies in a folder, sorted. Names that are not UTF-8 are left out: the stores write none.
pub(super) fn list(folder: &Path) -> io::Result<Vec<String>> {
    gate(Operation::List, Some(folder))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Size of a file in bytes, with its key.
pub(super) fn stat(path: &Path) -> io::Result<(u64, FileKey)> {
    gate(Operation::Stat, Some(path))?;
    let about = fs::metadata(path)?;
    Ok((about.len(), key(&about)))
}

/// Whether something lies at the path. An error other than "not found" is an error, not an absence.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    match stat(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The key of an open file.
pub(super) fn key_of(file: &File) -> io::Result<FileKey> {
    gate(Operation::Stat, None)?;
    Ok(key(&file.metadata()?))
}

fn key(about: &fs::Metadata) -> FileKey {
    FileKey {
        device: about.dev(),
        inode: about.ino(),
    }
}

/// Creates a file that must not be there yet, to write and read it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    gate(Operation::Create, Some(path))?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Writes all bytes from the byte `at` of the file on.
pub(super) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    if let Err(error) = gate(Operation::Write, None) {
        // A disk that fills up takes a part first.
        file.write_all_at(&bytes[..bytes.len() / 2], at)?;
        return Err(error);
    }
    file.write_all_at(bytes, at)
}

/// Gives the file its size and reserves its blocks, so that a full disk is noticed now.
pub(super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    gate(Operation::Allocate, None)?;
    #[cfg(target_os = "linux")]
    if bytes > 0 {
        let length =
            libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        loop {
            // SAFETY: the call touches no memory; the descriptor is open while `file` is borrowed.
            if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // This file system cannot reserve blocks: a full disk is noticed by the writes.
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => break,
                _ => return Err(error),
            }
        }
    }
    file.set_len(bytes)
}

/// Flushes a file's content and size to the disk.
pub(super) fn sync(file: &File) -> io::Result<()> {
    gate(Operation::Sync, None)?;
    file.sync_all()
}

/// Flushes a folder's entries to the disk, so that renames and new files last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    gate(Operation::Sync, Some(folder))?;
    File::open(folder)?.sync_all()
}

/// Checks the rights to list a folder and to remove what is in it, and that its file system can be written.
pub(super) fn check_changeable(folder: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    gate(Operation::Stat, Some(folder))?;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    let rights = libc::R_OK | libc::W_OK | libc::X_OK;
    // SAFETY: `path` ends with a zero byte and lives during the call, which writes no memory.
    let result =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), rights, libc::AT_EACCESS) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Renames; what is at the new path is replaced.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    gate(Operation::Rename, Some(from))?;
    fs::rename(from, to)
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    gate(Operation::Remove, Some(path))?;
    fs::remove_file(path)
}

/// Removes a file that may be gone already. Returns the bytes that it had.
pub(super) fn remove_if_there(path: &Path) -> io::Result<u64> {
    let size = match stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        result => result?.0,
    };
    match remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        result => result.map(|()| size),
    }
}

/// Removes a folder with everything in it, or a single file. Returns the bytes that the files had.
pub(super) fn remove_tree(path: &Path) -> io::Result<u64> {
    let about = fs::symlink_metadata(path)?;
    if !about.is_dir() {
        return remove_if_there(path);
    }
    let mut bytes = 0;
    for name in list(path)? {
        bytes += remove_tree(&path.join(name))?;
    }
    remove_folder(path)?;
    Ok(bytes)
}

/// Removes an empty folder.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    gate(Operation::Remove, Some(path))?;
    fs::remove_dir(path)
}

/// Makes a folder that must not be there yet.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    gate(Operation::MakeFolder, Some(path))?;
    DirBuilder::new().mode(0o700).create(path)
}

/// Creates a file with these bytes and flushes it. When that fails, the file is removed.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = create(path)?;
    let written = allocate(&file, bytes.len() as u64)
        .and_then(|()| write_all_at(&file, bytes, 0))
        .and_then(|()| sync(&file));
    if written.is_err() {
        // The first error is the one to report.
        let _ = remove(path);
    }
    written
}

/// Bytes that an unprivileged process can still write on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    Ok(space(path)?.0)
}

/// The same, and the size of the file system.
pub(super) fn space(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::ffi::OsStrExt;
    gate(Operation::Stat, Some(path))?;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all fields of the struct are numbers, for which zero is a value.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte, and both pointers live during the call.
    if unsafe { libc::statvfs(path.as_ptr(), &mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize as u64);
    Ok((bytes(about.f_bavail as u64), bytes(about.f_blocks as u64)))
}

/// The error says that the disk or the quota is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// The error says that the process or the system lacks descriptors or memory: nothing about the file.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
    )
}
