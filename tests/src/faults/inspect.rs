//! Looking at processes and folders from outside: children, temporary files, memory, open files.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// What names of the coordinator's unfinished things start with (`TEMPORARY` in its `data_dir.rs`).
const COORDINATORS: &str = "tmp-";
/// What stands between the name and a number in the worker cache's (`temporary` in its `cache.rs`).
const WORKERS: &str = ".tmp-";

/// The processes whose parent is `pid`. One that has ended is among them until its parent waits for it.
pub fn children_of(pid: u32) -> Vec<u32> {
    processes()
        .filter(|child| parent(*child) == Some(pid))
        .collect()
}

/// The running processes, other than this one, whose environment has the entry `marker` ("NAME=value").
///
/// Children get it from [`Command::env`](std::process::Command::env) and hand it on, so it finds what a test
/// has started even when the parents in between are gone.
pub fn processes_with_env(marker: &str) -> Vec<u32> {
    processes()
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            // Of a process that has ended, or is another user's, there is nothing to read.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == marker.as_bytes())
        })
        .collect()
}

/// Files and folders at any depth below `dir` that the coordinator or a worker has named as unfinished. What
/// vanishes during the search is passed over, and so is a `dir` that is not there.
///
/// # Errors
/// What the system says.
pub fn temporary_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(COORDINATORS) || name.contains(WORKERS) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The resident memory of a process in kilobytes; none if it has ended.
pub fn rss_kb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// What a process has open, one entry a descriptor: paths, and things like `socket:[42]`. None if it has
/// ended.
pub fn open_files(pid: u32) -> Option<Vec<PathBuf>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Some(targets.collect())
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name before stands in parentheses and may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
