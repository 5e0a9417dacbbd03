//! Child processes that never outlive the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A program of this workspace, as `cargo build --release` left it.
///
/// # Panics
/// If it is not there, with what to do.
pub fn binary(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("a program knows where it is");
    // Programs lie in target/<profile>, tests in target/<profile>/deps.
    let folders = program.ancestors().skip(1).take(2);
    let mut paths = folders.map(|folder| folder.join(name));
    let path = paths
        .find(|path| path.exists())
        .unwrap_or_else(|| Path::new("target/release").join(name));
    assert!(
        path.exists(),
        "{} is not built; run `make test`, which builds the programs first",
        path.display()
    );
    path
}

/// A running program; killed when dropped.
///
/// Every call is allowed after the program has ended: a test that kills at random need not keep count.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Known once it has been waited for; from then on its id may be another process's.
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output going to `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).expect("the log can be made");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
        Self {
            child,
            log,
            status: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs, or would if it were not stopped.
    pub fn is_running(&mut self) -> bool {
        self.status().is_none()
    }

    /// Sends it a signal. Returns whether there was a process to send it to.
    pub fn signal(&self, signal: i32) -> bool {
        if self.status.is_some() {
            return false;
        }
        // Safety: a plain system call on a child that has not been waited for yet.
        unsafe { libc::kill(self.child.id() as i32, signal) == 0 }
    }

    /// Kills it with SIGKILL, also when it is stopped, and waits until it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(libc::SIGKILL);
        let status = self.child.wait().expect("a child can be waited for");
        *self.status.insert(status)
    }

    /// Stops all its threads (SIGSTOP), as an overloaded or suspended machine would. Returns whether there
    /// was a process to stop.
    pub fn stop(&self) -> bool {
        self.signal(libc::SIGSTOP)
    }

    /// Lets it go on after `stop`. Returns whether there was a process to go on.
    pub fn cont(&self) -> bool {
        self.signal(libc::SIGCONT)
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "still running after {deadline:?}; log:\n{}",
                self.log()
            );
            // Only a signal handler would be notified of a child's end; so this polls.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended; None while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- end of {}", self.log.display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
