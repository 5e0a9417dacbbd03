//! deploy/systemd under a systemd of its own, in a container on a copy of this machine's file system: the units, SIGKILL, the
//! watchdogs, a reboot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fovea_tests::{Process, free_port};

use crate::client::{Client, until};
use crate::site::{certificates, must, root, site};

/// Makes the watchdogs of the units quick: a program that hangs is killed after 4 s. Heartbeats may be late on a machine that
/// does other things, too.
const QUICK: &str =
    "[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\nEnvironment=FOVEA_TIMEOUT_MS=5000\n";

/// A machine with systemd that ends with the test.
struct Guest {
    dir: PathBuf,
    /// systemd-nspawn; replaced by a reboot.
    machine: Process,
    boots: u32,
}

impl Guest {
    /// Boots a guest with these files in /etc, and the services in `enabled`.
    fn boot(dir: &Path, files: &[(&str, String)], enabled: &[&str]) -> Self {
        let dirs = ["upper", "work", "root"].map(|name| dir.join(name));
        for path in &dirs {
            fs::create_dir(path).expect("a folder can be made");
        }
        let [upper, work, guest] = &dirs;
        let options = format!(
            "lowerdir=/,upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        must(
            Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o", &options])
                .arg(guest),
        );
        // Nothing of what this machine runs.
        let units = guest.join("etc/systemd/system");
        for entry in fs::read_dir(&units).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|kind| kind == "wants") {
                fs::remove_dir_all(path).expect("a folder can be removed");
            }
        }
        for (path, text) in files {
            let path = guest.join("etc").join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        fs::create_dir_all(guest.join("opt/fovea")).expect("a folder can be made");
        must(
            Command::new("systemctl")
                .arg(format!("--root={}", guest.display()))
                .arg("enable")
                .args(enabled),
        );
        Self {
            dir: dir.to_owned(),
            machine: nspawn(dir, 0),
            boots: 0,
        }
    }

    /// Runs a command in the guest; None while it is not up.
    fn try_run(&self, arguments: &[&str]) -> Option<String> {
        // The container's first process is the only child of nspawn.
        let pid = self.machine.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let leader = children.split_whitespace().next()?;
        let out = Command::new("nsenter")
            .args(["--target", leader, "--all"])
            .args(arguments)
            .output()
            .expect("nsenter starts");
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments)
            .unwrap_or_else(|| panic!("{arguments:?} failed in the guest"))
    }

    fn wait_active(&self, units: &[&str]) {
        // One by one: `is-active` succeeds if any of several is.
        for unit in units {
            until(&format!("{unit} is active"), || {
                self.try_run(&["systemctl", "is-active", unit])
            });
        }
    }

    /// Its main process.
    fn pid(&self, unit: &str) -> String {
        self.run(&["systemctl", "show", "--property=MainPID", "--value", unit])
    }

    /// Sends the unit a signal after which systemd starts it again.
    fn restarts_after(&self, unit: &str, signal: &str) {
        let before = self.pid(unit);
        self.run(&[
            "systemctl",
            "kill",
            "--kill-who=main",
            "--signal",
            signal,
            unit,
        ]);
        until(&format!("{unit} is started again after {signal}"), || {
            let now = self.pid(unit);
            (now.trim() != "0" && now != before).then_some(())
        });
        self.wait_active(&[unit]);
    }

    fn log(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--output=cat"])
    }

    fn reboot(&mut self) {
        let _ = self.try_run(&["systemctl", "reboot"]);
        // Where /run is no tmpfs, nspawn ends instead of booting again: then that is for us to do.
        let end = self.machine.wait(crate::client::DEADLINE);
        self.boots += 1;
        eprintln!("the guest ended with {end}; booting it again");
        self.machine = nspawn(&self.dir, self.boots);
    }
}

fn nspawn(dir: &Path, boot: u32) -> Process {
    let mut command = Command::new("systemd-nspawn");
    command
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "0")
        .args(["--boot", "--register=no", "--keep-unit", "--quiet"])
        .arg("--console=read-only")
        .arg(format!("--machine=fovea-{}", std::process::id()))
        .arg(format!("--bind-ro={}:/opt/fovea", site().prefix.display()))
        .arg("--directory")
        .arg(dir.join("root"));
    Process::start(command, dir.join(format!("boot-{boot}.log")))
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(log) = self.try_run(&["journalctl", "--no-pager", "--unit=fovea*"])
        {
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(150)..].join("\n"));
        }
        let _ = self.try_run(&["systemctl", "poweroff", "--force", "--force"]);
        self.machine.kill();
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.dir.join("root"))
            .status();
    }
}

/// An example file of deploy/ with some keys changed.
fn example(name: &str, changes: &[(&str, String)]) -> String {
    let text = fs::read_to_string(root().join("deploy").join(name)).expect("an example");
    let mut table: toml::Table = text.parse().expect("TOML");
    for (key, value) in changes {
        let old = table.insert((*key).to_owned(), toml::Value::String(value.clone()));
        assert!(old.is_some(), "{key} is not in {name}");
    }
    table.to_string()
}

fn unit(name: &str) -> String {
    fs::read_to_string(root().join("deploy/systemd").join(name)).expect("a unit")
}

#[test]
#[ignore = "boots a systemd: `make test-deploy` runs it"]
fn systemd_restarts_what_dies_or_hangs_and_the_weights_stay() {
    let site = site();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let address = format!("127.0.0.1:{}", free_port());
    let certs = dir.path().join("certs");
    certificates(&certs, "guest");
    let pem = |name: &str| fs::read_to_string(certs.join(name)).expect("`fovea certs` made it");
    let files = [
        ("fovea/ca.pem", pem("ca.pem")),
        ("fovea/fovea-coordinator.pem", pem("coordinator.pem")),
        ("fovea/fovea-coordinator.key", pem("coordinator.key")),
        ("fovea/fovea-worker.pem", pem("worker-guest.pem")),
        ("fovea/fovea-worker.key", pem("worker-guest.key")),
        (
            "systemd/system/fovea-coordinator.service.d/tls.conf",
            unit("tls.conf"),
        ),
        (
            "systemd/system/fovea-worker@.service.d/tls.conf",
            unit("tls.conf"),
        ),
        (
            "fovea/coordinator.toml",
            example("coordinator.toml", &[("listen", address.clone())]),
        ),
        (
            "fovea/worker.toml",
            example(
                "worker.toml",
                &[
                    ("coordinator", format!("https://{address}")),
                    ("device", "cpu".into()),
                ],
            ),
        ),
        (
            "systemd/system/fovea-coordinator.service",
            unit("fovea-coordinator.service"),
        ),
        (
            "systemd/system/fovea-worker@.service",
            unit("fovea-worker@.service"),
        ),
        (
            "systemd/system/fovea-coordinator.service.d/quick.conf",
            QUICK.into(),
        ),
        (
            "systemd/system/fovea-worker@.service.d/quick.conf",
            QUICK.into(),
        ),
    ];
    let units = [
        "fovea-coordinator.service",
        "fovea-worker@0.service",
        "fovea-worker@1.service",
    ];
    let mut guest = Guest::boot(dir.path(), &files, &units);
    guest.wait_active(&units);
    let client = Client::new(site.prefix.join("bin/fovea"), format!("https://{address}"))
        .with_certificates(&certs);
    let run = client.submit(&site.dataset, &site.run_file);
    client.progresses(&run, 5, 2);
    for unit in &units[..2] {
        guest.restarts_after(unit, "SIGKILL");
        client.progresses(&run, 5, 2);
    }
    // Stopped programs send nothing to the watchdog.
    for unit in &units[..2] {
        guest.restarts_after(unit, "SIGSTOP");
        client.progresses(&run, 5, 2);
    }
    assert_eq!(guest.log().matches("Watchdog timeout").count(), 2);
    guest.reboot();
    guest.wait_active(&units);
    client.progresses(&run, 5, 2);
    let log = guest.log();
    // The coordinator stops before the workers, so it can checkpoint.
    assert!(log.contains("coordinator.stopped"), "{log}");
    client.completes(&run, &site.expected, dir.path());
}
