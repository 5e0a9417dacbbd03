//! Starting the programs, and finding out where the coordinator listens.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::ports::free_port;
use crate::process::{Process, binary};

/// User and group `nobody`: not root, so that file permissions hold for it.
const NOBODY: u32 = 65534;
/// The longest that a coordinator may take to serve or to refuse.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// The free space that a coordinator of a test keeps, in MiB (`min_free_mib`): less than by default, since a machine of tests may have
/// little.
pub const MIN_FREE_MIB: u64 = 64;

/// How a coordinator is started.
#[derive(Debug, Clone)]
pub struct CoordinatorOptions {
    dir: PathBuf,
    /// Where to listen: a port that stays free while the coordinator is stopped.
    pub listen: String,
    /// More variables of its environment.
    pub environment: Vec<(String, String)>,
    /// More flags.
    pub flags: Vec<OsString>,
    /// Run it as `nobody`. Takes root and `setpriv` of util-linux.
    pub unprivileged: bool,
    /// Its soft and hard limit of open file descriptors. Takes `prlimit` of util-linux.
    pub open_files: Option<u32>,
}

/// What became of a start.
#[derive(Debug)]
pub enum Started {
    /// It serves at this `host:port`.
    Serving(Process, String),
    /// It ended before that.
    Ended(Process, ExitStatus),
}

impl CoordinatorOptions {
    /// A coordinator with its data in `dir`/coordinator-data, on any port of this machine.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            listen: format!("127.0.0.1:{}", free_port()),
            environment: Vec::new(),
            flags: Vec::new(),
            unprivileged: false,
            open_files: None,
        }
    }

    /// The folder of its data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("coordinator-data")
    }

    /// Starts it with its output in the file `log` of its folder, and waits until it serves.
    ///
    /// # Panics
    /// If it ends instead, or does neither in time.
    pub fn start(&self, log: &str) -> (Process, String) {
        match self.try_start(log) {
            Started::Serving(process, address) => (process, address),
            Started::Ended(process, status) => {
                panic!("the coordinator ended with {status}:\n{}", process.log())
            }
        }
    }

    /// The same for a coordinator that may refuse to start.
    ///
    /// # Panics
    /// If it neither serves nor ends in time.
    pub fn try_start(&self, log: &str) -> Started {
        // Not in `dir` itself: whoever runs unprivileged must be able to write there.
        let folder = self.dir.join("coordinator-run");
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::create_dir_all(self.data_dir()).expect("a folder can be made");
        let file = folder.join("address");
        let _ = fs::remove_file(&file);
        if self.unprivileged {
            self.hand_over(&folder);
        }
        let mut command = self.command();
        command
            .args(["--listen", &self.listen])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--address-file")
            .arg(&file)
            .args(&self.flags)
            .env("FOVEA_MIN_FREE_MIB", MIN_FREE_MIB.to_string())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(command, self.dir.join(log));
        let end = Instant::now() + STARTS_WITHIN;
        loop {
            if let Ok(text) = fs::read_to_string(&file)
                && !text.trim().is_empty()
            {
                return Started::Serving(process, text.trim().to_owned());
            }
            if let Some(status) = process.status() {
                return Started::Ended(process, status);
            }
            assert!(
                Instant::now() < end,
                "the coordinator neither serves nor ends:\n{}",
                process.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn command(&self) -> Command {
        let program = binary("fovea-coordinator");
        let mut words: Vec<OsString> = Vec::new();
        if let Some(limit) = self.open_files {
            words.extend(["prlimit".into(), format!("--nofile={limit}:{limit}").into()]);
        }
        if self.unprivileged {
            let id = NOBODY.to_string();
            let setpriv = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
            words.extend(setpriv.map(OsString::from));
            words.push(self.readable_copy(&program).into());
        } else {
            words.push(program.into());
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// The checkout may lie in a folder that only root can enter.
    fn readable_copy(&self, program: &Path) -> PathBuf {
        let copy = self.dir.join("fovea-coordinator");
        if !copy.exists() {
            // Rather not a copy: a program that was being written when another process was started cannot be run
            // for a moment.
            fs::hard_link(program, &copy)
                .or_else(|_| fs::copy(program, &copy).map(drop))
                .expect("the program can be copied");
        }
        copy
    }

    /// Gives the coordinator's folders to `nobody`, and lets it enter those above.
    /// Gives a file to the user that an unprivileged coordinator runs as.
    ///
    /// # Panics
    /// If this is not root.
    pub fn own(&self, path: &Path) {
        chown_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    fn hand_over(&self, folder: &Path) {
        let enter = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&self.dir, enter).expect("the folder is ours");
        for path in [folder, &self.data_dir()] {
            chown_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

fn chown_all(path: &Path) -> std::io::Result<()> {
    chown(path, Some(NOBODY), Some(NOBODY))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            chown_all(&entry?.path())?;
        }
    }
    Ok(())
}

/// The command that starts a worker, this `program`, on a device of the caller's choice with its data in `dir`, for the
/// coordinator at this URL.
pub fn worker_on(
    device: &str,
    program: &Path,
    dir: &Path,
    coordinator: &str,
    name: &str,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--coordinator", coordinator])
        .arg("--data-dir")
        .arg(dir.join("worker-data"))
        .args(["--name", name, "--device", device])
        // Comparing them takes a while at each first start: tests of them say so.
        .env("FOVEA_GPU_KERNELS", "off");
    command
}
