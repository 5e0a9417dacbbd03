//! One child process and its log.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::error::Error;

/// Most lines of a log that are shown when its process ended early, and the bytes read to find them.
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 16 << 10;

/// The settings that the programs of a local cluster take from this process's environment. All others are those of a
/// cluster, such as where to listen: `fovea local` decides them, and one that is set for another program would break
/// its cluster.
pub const PASSED_ON: [&str; 11] = [
    "FOVEA_CACHE_DISK_MIB",
    "FOVEA_CACHE_MIB",
    "FOVEA_GPU_KERNELS",
    "FOVEA_IMAGES_MIB",
    "FOVEA_LOG_FORMAT",
    "FOVEA_LOG_LEVEL",
    "FOVEA_MIN_FREE_MIB",
    "FOVEA_PREFETCH",
    "FOVEA_PROFILE",
    "FOVEA_PROFILE_AFTER",
    "FOVEA_PROFILE_STEPS",
];

/// Whether an environment variable is a setting that a child must not see.
fn is_foreign(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("FOVEA_") && !PASSED_ON.contains(&&*name)
}

/// A child process. It is killed when this is dropped, and by the kernel when this process dies.
pub(super) struct Process {
    name: String,
    log: PathBuf,
    /// Offset in the log at which this process began to write.
    log_start: u64,
    child: Child,
}

impl Process {
    /// Starts `program` with its output appended to `log`.
    ///
    /// Call this on the main thread: the kernel kills the child when the *thread* that started it
    /// ends.
    pub fn spawn(name: &str, program: &Path, args: &[OsString], log: &Path) -> Result<Self, Error> {
        let open = || -> std::io::Result<_> {
            let file = OpenOptions::new().create(true).append(true).open(log)?;
            let start = file.metadata()?.len();
            Ok((file.try_clone()?, file, start))
        };
        let (out, err, log_start) = open().map_err(|e| Error::io(log, e))?;
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if is_foreign(&name) {
                command.env_remove(name);
            }
        }
        tie_to_us(&mut command);
        let child = command.spawn().map_err(|e| Error::io(program, e))?;
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            log_start,
            child,
        })
    }

    /// Waits for its end. Safe to drop and call again.
    pub async fn exited(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Its exit status, if it has ended.
    pub fn has_exited(&mut self) -> Option<std::io::Result<ExitStatus>> {
        self.child.try_wait().transpose()
    }

    /// Requests it to stop, with SIGTERM.
    pub fn terminate(&self) {
        // None once it has ended: another process may have its number by now.
        if let Some(pid) = self.child.id() {
            // SAFETY: kill has no memory effects; the child is ours and has not been waited for.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
        }
    }

    /// Waits for its end until `deadline`, then kills it and returns an error.
    pub async fn stopped_by(&mut self, deadline: Instant) -> Result<(), Error> {
        match tokio::time::timeout_at(deadline, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let _ = self.child.kill().await;
                Err(self.complaint("did not stop on request and was killed"))
            }
        }
    }

    /// The error for an unexpected end.
    pub fn ended(&self, status: &std::io::Result<ExitStatus>) -> Error {
        match status {
            Ok(status) => self.complaint(&format!("ended early ({status})")),
            Err(e) => self.complaint(&format!("cannot be watched: {e}")),
        }
    }

    /// An error about this process, with the end of its log.
    pub fn complaint(&self, what: &str) -> Error {
        let tail = self.tail();
        Error::Cluster(if tail.is_empty() {
            format!(
                "{} {what}; its log {} is empty",
                self.name,
                self.log.display()
            )
        } else {
            format!(
                "{} {what}; the end of its log {}:\n{tail}",
                self.name,
                self.log.display()
            )
        })
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines that it wrote to its log.
    pub fn tail(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = std::fs::File::open(&self.log)?;
            let end = file.metadata()?.len();
            let from = self.log_start.max(end.saturating_sub(TAIL_BYTES));
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..]
            .iter()
            .map(|line| format!("  {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Finds a program of Fovea's: in `bin_dir` if given, else beside this program, else in PATH.
pub(super) fn find_program(name: &str, bin_dir: Option<&Path>) -> Result<PathBuf, Error> {
    let mut places: Vec<PathBuf> = Vec::new();
    match bin_dir {
        Some(dir) => places.push(dir.to_owned()),
        None => {
            let own = std::env::current_exe().ok();
            places.extend(own.and_then(|p| p.parent().map(Path::to_owned)));
            let path = std::env::var_os("PATH").unwrap_or_default();
            places.extend(std::env::split_paths(&path));
        }
    }
    if let Some(found) = places.iter().map(|p| p.join(name)).find(|p| p.is_file()) {
        // Absolute, because a child may start in another folder.
        return std::path::absolute(&found).map_err(|e| Error::io(&found, e));
    }
    Err(Error::Cluster(match bin_dir {
        Some(dir) => format!("{name} is not in {} (--bin-dir)", dir.display()),
        None => format!(
            "{name} is neither beside fovea ({}) nor in PATH; build it (`make build`) or name its folder \
             with --bin-dir",
            places
                .first()
                .map_or(String::new(), |p| p.display().to_string())
        ),
    }))
}

/// Has the kernel kill the child when this process dies, and moves it to a process group of its own,
/// so that the terminal's signals (Ctrl-C, hangup) reach only this process, which stops the run first.
fn tie_to_us(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id() as libc::pid_t;
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl and getppid
        // are, and the closure neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The parent may have died just before.
                if libc::getppid() != parent {
                    return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
    }
}
