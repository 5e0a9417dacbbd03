//! NCCL's shared memory that a killed process left behind.
//!
//! NCCL exchanges data through files `nccl-*` in `/dev/shm`, and removes their names when all ranks have them open. A
//! process that is killed before that leaves them, and their memory stays used until the machine, or the pod whose volume
//! it is, goes. The worker removes those of its own user at its start, if nobody uses them.
//!
//! Whether somebody does is asked twice. `/proc` shows which files each process has open or mapped, but not those of
//! processes that this one may not read, or of another PID namespace. The kernel grants a write lease on a file only if
//! nobody else has it open or mapped, whoever and wherever that is. Where there are no leases, whatever cannot be read
//! counts as in use.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fovea_core::count::count;
use tracing::{debug, info, warn};

/// Begins the name of every segment.
const PREFIX: &[u8] = b"nccl-";

/// Number of `fcntl`'s command that chooses the signal of a broken lease.
const F_SETSIG: libc::c_int = 10;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Files.
    pub segments: usize,
    /// Their memory, bytes.
    pub bytes: u64,
}

/// What the kernel says about a file's users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// Nobody but this call has it open or mapped.
    Granted,
    /// Somebody has.
    Refused,
    /// There are no leases on this file system.
    Unknown,
}

/// What `/proc` shows.
#[derive(Debug, Default)]
struct Users {
    /// Names of the segments that processes have open or mapped, in any folder.
    names: HashSet<OsString>,
    /// Some process could not be read.
    incomplete: bool,
}

/// Removes the stale segments of this process's user in `folder`, given the folder of processes (`/proc`). Logs how many
/// bytes became free.
pub fn sweep(folder: &Path, processes: &Path) -> Swept {
    // Before the processes are looked at: whoever made a file that is listed has it open or mapped by then.
    let segments = own_segments(folder);
    if segments.is_empty() {
        return Swept::default();
    }
    let users = users(processes);
    let mut swept = Swept::default();
    for path in segments {
        match remove_stale(&path, &users) {
            Ok(Some(bytes)) => {
                swept.segments += 1;
                swept.bytes += bytes;
            }
            Ok(None) => debug!(path = %path.display(), "an NCCL segment is in use, or may be"),
            // Whoever made it has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(
                path = %path.display(),
                "segments.not_removed: {} of an earlier process cannot be removed: {error}. Remove it by hand",
                path.display()
            ),
        }
    }
    if swept.segments > 0 {
        info!(
            segments = swept.segments,
            bytes = swept.bytes,
            "segments.removed: {} of earlier processes in {}; {} bytes are free again",
            count(swept.segments, "stale NCCL segment", "stale NCCL segments"),
            folder.display(),
            swept.bytes
        );
    }
    swept
}

/// Whether a segment is used by nobody. `seen`: a process has it open or mapped. `incomplete`: some process could not be
/// read.
fn is_stale(seen: bool, incomplete: bool, lease: Lease) -> bool {
    !seen
        && match lease {
            Lease::Granted => true,
            Lease::Refused => false,
            Lease::Unknown => !incomplete,
        }
}

/// Removes the segment unless it is in use, and returns its bytes.
fn remove_stale(path: &Path, users: &Users) -> io::Result<Option<u64>> {
    let seen = path.file_name().is_some_and(|n| users.names.contains(n));
    if seen {
        return Ok(None);
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if !is_stale(seen, users.incomplete, lease(&file)) {
        return Ok(None);
    }
    let bytes = file.metadata()?.blocks() * 512;
    // The lease is held until the file is closed: nobody opens it in between.
    fs::remove_file(path)?;
    Ok(Some(bytes))
}

/// Asks for a write lease on a file, which is held until the file is closed.
fn lease(file: &File) -> Lease {
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open. The signal that announces that somebody wants to open the file would end the
    // process; SIGURG is ignored.
    let set = unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) };
    if set != 0 {
        return Lease::Unknown;
    }
    // SAFETY: the descriptor is open.
    match unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK as libc::c_int) } {
        0 => Lease::Granted,
        _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Lease::Refused,
        _ => Lease::Unknown,
    }
}

/// The segments in `folder` that belong to this process's user.
fn own_segments(folder: &Path) -> Vec<PathBuf> {
    // SAFETY: it takes nothing and cannot fail.
    let own = unsafe { libc::geteuid() };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| is_segment(&entry.file_name()))
        .filter(|entry| {
            let found = entry.metadata();
            found.is_ok_and(|found| found.is_file() && found.uid() == own)
        })
        .map(|entry| entry.path())
        .collect()
}

fn is_segment(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX)
}

/// Which segments the processes below `folder` use.
fn users(folder: &Path) -> Users {
    let mut users = Users::default();
    let Ok(entries) = fs::read_dir(folder) else {
        users.incomplete = true;
        return users;
    };
    for entry in entries {
        let Ok(entry) = entry else {
            users.incomplete = true;
            continue;
        };
        let is_process = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        if is_process && let Err(error) = add_users(&entry.path(), &mut users.names) {
            // One that has ended meanwhile uses nothing.
            let ended = error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH);
            users.incomplete |= !ended;
        }
    }
    users
}

/// Adds the segments that one process uses. Descriptors first: a file may be mapped and closed between the two, but not
/// the other way round without being opened anew.
fn add_users(process: &Path, names: &mut HashSet<OsString>) -> io::Result<()> {
    let mut add = |path: &Path| {
        if let Some(name) = path.file_name().filter(|name| is_segment(name)) {
            names.insert(name.to_owned());
        }
    };
    for entry in fs::read_dir(process.join("fd"))? {
        match fs::read_link(entry?.path()) {
            Ok(target) => add(&target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // A line ends with the path of the mapped file, if there is one.
    for line in fs::read(process.join("maps"))?.split(|byte| *byte == b'\n') {
        if let Some(start) = line.iter().position(|byte| *byte == b'/') {
            add(Path::new(OsStr::from_bytes(&line[start..])));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::{collect_log, logged};

    /// Two blocks of memory in a file of that name.
    fn segment(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, vec![1; 8192]).unwrap();
        path
    }

    /// A folder like `/proc` with one process.
    fn process(folder: &Path, maps: &str) -> PathBuf {
        let process = folder.join("17");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("maps"), maps).unwrap();
        // No process.
        fs::create_dir_all(folder.join("self")).unwrap();
        process
    }

    #[test]
    fn segments_that_nobody_uses_are_removed() {
        collect_log();
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shm");
        fs::create_dir(&folder).unwrap();
        let stale = [
            segment(&folder, "nccl-a1b2c3"),
            segment(&folder, "nccl-d4e5f6"),
        ];
        let other = segment(&folder, "sem.nccl-a1b2c3");
        fs::create_dir(folder.join("nccl-folder")).unwrap();
        symlink(&other, folder.join("nccl-link")).unwrap();
        let bytes: u64 = stale
            .iter()
            .map(|path| fs::metadata(path).unwrap().blocks() * 512)
            .sum();
        let swept = sweep(&folder, Path::new("/proc"));
        assert_eq!(swept, Swept { segments: 2, bytes });
        assert!(bytes >= 2 * 8192);
        assert!(stale.iter().all(|path| !path.exists()));
        assert!(other.exists() && folder.join("nccl-folder").exists());
        assert!(folder.join("nccl-link").is_symlink());
        let line = format!(
            "segments.removed: 2 stale NCCL segments of earlier processes in {}; {bytes} bytes",
            folder.display()
        );
        assert!(logged(&line));
        assert_eq!(sweep(&folder, Path::new("/proc")), Swept::default());
        // No such folder, as where /dev/shm is not mounted.
        assert_eq!(
            sweep(&dir.path().join("none"), Path::new("/proc")),
            Swept::default()
        );
    }

    #[test]
    fn a_segment_that_a_process_has_open_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let path = segment(folder, "nccl-open");
        let file = File::open(&path).unwrap();
        assert_eq!(sweep(folder, Path::new("/proc")), Swept::default());
        // One that /proc does not show, as in another PID namespace: the kernel knows.
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(sweep(folder, empty.path()), Swept::default());
        drop(file);
        assert_eq!(sweep(folder, empty.path()).segments, 1);
    }

    #[test]
    fn a_segment_that_proc_shows_as_used_stays() {
        for mapped in [true, false] {
            let (dir, proc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let used = segment(dir.path(), "nccl-used");
            let stale = segment(dir.path(), "nccl-stale");
            // In the view of another mount namespace.
            let path = "/run/other/nccl-used";
            let maps =
                format!("7f0-7f1 rw-s 00000000 00:1a 77     {path}\n7f1-7f2 rw-p 0 00:00 0\n");
            let process = process(proc.path(), if mapped { &maps } else { "" });
            if !mapped {
                symlink(path, process.join("fd/3")).unwrap();
            }
            assert_eq!(sweep(dir.path(), proc.path()).segments, 1);
            assert!(used.exists() && !stale.exists(), "mapped: {mapped}");
        }
    }

    #[test]
    fn a_process_that_cannot_be_read_counts_as_a_user() {
        let proc = tempfile::tempdir().unwrap();
        let process = process(proc.path(), "");
        assert!(!users(proc.path()).incomplete);
        fs::remove_dir(process.join("fd")).unwrap();
        fs::write(process.join("fd"), "no folder").unwrap();
        assert!(users(proc.path()).incomplete);
        assert!(users(&process.join("fd")).incomplete);
        // One that has ended.
        fs::remove_dir_all(&process).unwrap();
        fs::create_dir(&process).unwrap();
        assert!(!users(proc.path()).incomplete);

        for (seen, incomplete, lease, stale) in [
            (false, false, Lease::Granted, true),
            // The kernel knows of all users.
            (false, true, Lease::Granted, true),
            (false, false, Lease::Refused, false),
            (false, true, Lease::Refused, false),
            (false, false, Lease::Unknown, true),
            (false, true, Lease::Unknown, false),
            (true, false, Lease::Granted, false),
            (true, false, Lease::Unknown, false),
        ] {
            let found = is_stale(seen, incomplete, lease);
            assert_eq!(found, stale, "{seen} {incomplete} {lease:?}");
        }
    }
}
