//! Starting the programs, and finding out where the coordinator listens.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Process, binary};

/// Starts a coordinator with its data in `dir`, and waits until it says where it listens: `host:port`.
pub fn coordinator(
    dir: &Path,
    listen: &str,
    log: &str,
    environment: &[(&str, &str)],
) -> (Process, String) {
    let file = dir.join("address");
    let _ = std::fs::remove_file(&file);
    let mut command = Command::new(binary("fovea-coordinator"));
    command
        .args(["--listen", listen])
        .arg("--data-dir")
        .arg(dir.join("coordinator-data"))
        .arg("--address-file")
        .arg(&file)
        .envs(environment.iter().copied());
    let coordinator = Process::start(command, dir.join(log));
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match std::fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => return (coordinator, text.trim().to_owned()),
            Ok(_) | Err(_) => assert!(
                Instant::now() < end,
                "the coordinator did not start:\n{}",
                coordinator.log()
            ),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The command that starts a worker on the CPU with its data in `dir`.
pub fn worker(dir: &Path, coordinator: &str, name: &str) -> Command {
    worker_on("cpu", &binary("fovea-worker"), dir, coordinator, name)
}

/// The same of this `program`, on a device of the user's choice.
pub fn worker_on(
    device: &str,
    program: &Path,
    dir: &Path,
    coordinator: &str,
    name: &str,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--coordinator", &format!("http://{coordinator}")])
        .arg("--data-dir")
        .arg(dir.join("worker-data"))
        .args(["--name", name, "--device", device]);
    command
}
