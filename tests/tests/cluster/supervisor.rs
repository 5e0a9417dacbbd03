//! What the programs tell a service manager such as systemd: that they have started, live and stop.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use fovea_tests::{Process, binary};

/// The longest that a start, or a stop, takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Collects notifications until `word` has come, and returns all of them.
fn until(socket: &UnixDatagram, word: &str) -> BTreeSet<String> {
    let end = Instant::now() + DEADLINE;
    let mut sent = BTreeSet::new();
    let mut bytes = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{word:?} was not sent: {sent:?}");
        socket
            .set_read_timeout(Some(left))
            .expect("a timeout can be set");
        if let Ok(length) = socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]);
            sent.extend(text.lines().map(str::to_owned));
        }
        if sent.contains(word) {
            return sent;
        }
    }
}

/// `stopping`: whether it takes long enough to stop that this is certainly sent.
fn notifies(program: &str, arguments: &[&str], stopping: bool) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket can be made");
    let mut command = Command::new(binary(program));
    command
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(arguments)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "900000");
    let mut process = Process::start(command, dir.path().join("log"));
    until(&socket, "READY=1");
    let first = until(&socket, "WATCHDOG=1");
    assert!(!first.contains("STOPPING=1"), "{first:?}");
    // One that stands still is silent; what it had sent before is taken first.
    assert!(process.stop());
    let mut bytes = [0; 4096];
    let silence = Some(Duration::from_millis(900));
    socket
        .set_read_timeout(silence)
        .expect("a timeout can be set");
    while socket.recv(&mut bytes).is_ok() {}
    assert!(process.cont());
    until(&socket, "WATCHDOG=1");
    assert!(process.signal(libc::SIGTERM));
    if stopping {
        until(&socket, "STOPPING=1");
    }
    assert!(process.wait(DEADLINE).success());
}

#[test]
fn a_coordinator_tells_its_service_manager_how_it_is() {
    notifies("fovea-coordinator", &["--listen", "127.0.0.1:0"], true);
}

#[test]
fn a_worker_has_started_also_without_its_coordinator() {
    // Nobody listens there.
    notifies(
        "fovea-worker",
        &["--device", "cpu", "--coordinator", "http://127.0.0.1:9"],
        false,
    );
}
