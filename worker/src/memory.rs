//! How much memory this worker may use: that of the machine, within the limits of its control groups, and its GPU's.
//!
//! A process that exceeds the limit of its control group is killed. So the worker tells the coordinator what it may use,
//! which assigns no run that needs more, and its caches shrink to what is left beside a run.

use std::path::{Path, PathBuf};

use fovea_core::memory::{Memory, Need, Place, mib};
use fovea_core::spec::RunSpec;
use procfs::process::Status;
use procfs::{FromRead, Meminfo, ProcessCGroups};
use tracing::{info, warn};

/// Memory of this machine that the process uses or could have, in bytes: what is available, and what the control groups of
/// the process (version 1 or 2, with those above them) leave it. None if the system does not say.
pub fn host() -> Option<u64> {
    host_of(Path::new("/"))
}

/// [`host`] with the system's files below `root`.
fn host_of(root: &Path) -> Option<u64> {
    let meminfo = Meminfo::from_file(root.join("proc/meminfo")).ok()?;
    let own = Status::from_file(root.join("proc/self/status")).ok();
    let own = own.and_then(|status| status.rssanon).unwrap_or(0) << 10;
    let free = meminfo.mem_available.unwrap_or(meminfo.mem_free);
    let machine = meminfo.mem_total.min(free + own);
    let groups = groups_of(root).into_iter();
    let left = groups
        .filter_map(|group| group.left())
        .map(|left| left + own);
    Some(left.fold(machine, u64::min))
}

/// A control group with a limit on memory.
struct Group {
    limit: PathBuf,
    usage: PathBuf,
    stat: PathBuf,
    /// Pages of files in `stat`, which the kernel drops when memory is short.
    files: &'static str,
}

impl Group {
    /// What the limit leaves beside what the group uses, without pages of files; None without a limit.
    fn left(&self) -> Option<u64> {
        let number = |path: &Path| -> Option<u64> {
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        // "max" is no number.
        let limit = number(&self.limit)?;
        let used = number(&self.usage).unwrap_or(0);
        let stat = std::fs::read_to_string(&self.stat).unwrap_or_default();
        let of_files = stat.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == self.files).then(|| value.trim().parse::<u64>().ok())?
        });
        let used = used.saturating_sub(of_files.unwrap_or(0));
        Some(limit.saturating_sub(used))
    }
}

/// The control groups of this process and those above them. In a container the root of the file system is often the group
/// itself, whatever its path outside is.
fn groups_of(root: &Path) -> Vec<Group> {
    let Ok(groups) = ProcessCGroups::from_file(root.join("proc/self/cgroup")) else {
        return Vec::new();
    };
    let mounts = root.join("sys/fs/cgroup");
    let mut found = Vec::new();
    for group in groups {
        let path = Path::new(group.pathname.trim_start_matches('/')).to_owned();
        let first = group.controllers.iter().any(|name| name == "memory");
        let unified = group.controllers.iter().all(String::is_empty);
        for path in path.ancestors() {
            if first {
                let dir = mounts.join("memory").join(path);
                found.push(Group {
                    limit: dir.join("memory.limit_in_bytes"),
                    usage: dir.join("memory.usage_in_bytes"),
                    stat: dir.join("memory.stat"),
                    files: "total_cache",
                });
            } else if unified {
                let dir = mounts.join(path);
                found.push(Group {
                    limit: dir.join("memory.max"),
                    usage: dir.join("memory.current"),
                    stat: dir.join("memory.stat"),
                    files: "file",
                });
            }
        }
    }
    found
}

/// What this worker may use now, given its GPU's memory where it has one.
pub fn measure(gpu: Option<Gpu>) -> Memory {
    let Gpu { total, free } = gpu.unwrap_or_default();
    Memory {
        host: host().unwrap_or(0),
        gpu: total,
        gpu_free: free,
    }
}

/// A GPU's memory in bytes, when the worker started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gpu {
    /// All of it.
    pub total: u64,
    /// What other processes left.
    pub free: u64,
}

/// Bytes of the host's memory for the cache of activations: what is wanted, or what `host` leaves beside what the run
/// itself needs. Logs a limit that takes effect.
pub fn cache_budget(spec: &RunSpec, image_size: u32, wanted: u64, host: Option<u64>) -> u64 {
    let need = Need::of(spec, image_size, Place::Host).host;
    let Some(host) = host else {
        return wanted;
    };
    let left = host.saturating_sub(need);
    if host < need {
        warn!(
            need_mib = mib(need),
            have_mib = mib(host),
            "memory.short: the run needs about {} MiB, and this worker may use {} MiB: it goes on without a cache, and the \
             system may kill it. Give it more memory, or make train.batch smaller",
            mib(need),
            mib(host)
        );
    } else if left < wanted {
        info!(
            wanted_mib = mib(wanted),
            mib = mib(left),
            "memory.limited: the cache of activations (cache_mib) gets {} MiB of the {} MiB wanted: the run itself needs \
             about {} MiB of the {} MiB that this worker may use",
            mib(left),
            mib(wanted),
            mib(need),
            mib(host)
        );
    }
    wanted.min(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A system with 8 GiB, 6 GiB of them available, on which this process uses 1 GiB.
    fn system(cgroup: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let set = |text: String, key: &str, kib: u64| -> String {
            let line = |line: &str| match line.starts_with(key) {
                true => format!("{key} {kib} kB\n"),
                false => format!("{line}\n"),
            };
            text.lines().map(line).collect()
        };
        let meminfo = set(meminfo, "MemTotal:", 8 << 20);
        write("proc/meminfo", &set(meminfo, "MemAvailable:", 6 << 20));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        write("proc/self/status", &set(status, "RssAnon:", 1 << 20));
        write("proc/self/cgroup", cgroup);
        for (path, text) in files {
            write(path, text);
        }
        host_of(root.path())
    }

    #[test]
    fn what_is_available_counts_with_what_is_used_already() {
        assert_eq!(system("", &[]), Some(7168 * MIB));
        assert_eq!(system("0::/a\n", &[]), Some(7168 * MIB));
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let gib = |n: u64| (n << 30).to_string();
        let v2 = "sys/fs/cgroup/a/b/";
        let files = |max: &str, used: u64, cached: u64| {
            [
                (format!("{v2}memory.max"), max.to_owned()),
                (format!("{v2}memory.current"), gib(used)),
                (
                    format!("{v2}memory.stat"),
                    format!("anon 1\nfile {}\nx 1\n", gib(cached)),
                ),
            ]
        };
        let of = |cgroup: &str, files: &[(String, String)]| {
            let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (&**p, &**t)).collect();
            system(cgroup, &files).map(|bytes| bytes / MIB)
        };
        // Of 4 GiB others use 1 and this process 1; 1 GiB are pages of files.
        assert_eq!(of("0::/a/b\n", &files(&gib(4), 3, 1)), Some(3 * 1024));
        assert_eq!(of("0::/a/b\n", &files("max\n", 3, 1)), Some(7168));
        // A limit above it is tighter.
        let above = |limit: u64, used: u64| {
            [
                files(&gib(4), 3, 1).to_vec(),
                vec![
                    ("sys/fs/cgroup/a/memory.max".to_owned(), gib(limit)),
                    ("sys/fs/cgroup/a/memory.current".to_owned(), gib(used)),
                ],
            ]
            .concat()
        };
        assert_eq!(of("0::/a/b\n", &above(4, 4)), Some(1024));
        assert_eq!(
            of("0::/a/b\n", &above(1, 4)),
            Some(1024),
            "what it uses is its own"
        );
        // In a container the group may be the root of what is mounted.
        let root = [("sys/fs/cgroup/memory.max".to_owned(), gib(2))];
        assert_eq!(of("0::/not/mounted\n", &root), Some(3 * 1024));
        // Version 1, where no limit is a very large one.
        let v1 = |limit: &str| {
            [
                (
                    "sys/fs/cgroup/memory/c/memory.limit_in_bytes".to_owned(),
                    limit.to_owned(),
                ),
                (
                    "sys/fs/cgroup/memory/c/memory.usage_in_bytes".to_owned(),
                    gib(3),
                ),
                (
                    "sys/fs/cgroup/memory/c/memory.stat".to_owned(),
                    format!("cache 0\ntotal_cache {}\n", gib(1)),
                ),
            ]
        };
        let both = "4:memory:/c\n0::/\n";
        assert_eq!(of(both, &v1(&gib(3))), Some(2 * 1024));
        assert_eq!(of(both, &v1("9223372036854771712\n")), Some(7168));
    }

    #[test]
    fn a_cache_shrinks_to_what_a_run_leaves() {
        let spec: RunSpec = toml::from_str("name = 'r'\ndataset = 'd'").unwrap();
        let need = Need::of(&spec, 224, Place::Host).host;
        let budget = |host| cache_budget(&spec, 224, 500, host);
        assert_eq!(budget(None), 500);
        assert_eq!(budget(Some(need + 501)), 500);
        assert_eq!(budget(Some(need + 499)), 499);
        assert_eq!(budget(Some(need)), 0);
        assert_eq!(budget(Some(need - 1)), 0);
    }
}
