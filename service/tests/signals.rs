//! Signals to a real process: this test binary, run again with only the test `child`.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fovea_service::{FORCED, LogFormat, Shutdown, init_logging};

/// How the child behaves once it was asked to stop.
const BEHAVIOUR: &str = "SIGNALS_TEST_CHILD";

/// The exit code of a child that hangs.
const HUNG: i32 = 9;

/// Nothing here takes nearly so long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "the child process of the other tests in this file; they run it"]
fn child() {
    let behaviour = std::env::var(BEHAVIOUR).expect("only the other tests run this");
    init_logging(LogFormat::Text, "info").unwrap();
    let shutdown = Shutdown::on_signals().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if behaviour == "hangs" {
        shutdown
            .exit_within(Duration::from_millis(200), HUNG, "stop_timeout_s")
            .unwrap();
        // The exit handlers must not be waited for either.
        extern "C" fn never_ends() {
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        // SAFETY: the handler is a function that lives for ever.
        assert_eq!(unsafe { libc::atexit(never_ends) }, 0);
    }
    println!("READY");
    runtime.block_on(shutdown.wait());
    println!("STOPPING");
    match behaviour.as_str() {
        "obeys" => {}
        // The only thread of the runtime is blocked.
        _ => std::thread::sleep(PATIENCE),
    }
}

/// A child process with its standard output; its log goes to standard error.
struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
}

/// A test that fails must not leave a process behind.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts the child; `hangup` is "default" or "ignore": what it inherits for SIGHUP.
    fn start(behaviour: &str, hangup: &str) -> Self {
        let mut child = Command::new("env")
            .arg(format!("--{hangup}-signal=HUP"))
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture"])
            .env(BEHAVIOUR, behaviour)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut process = Self { child, out, log };
        process.until("READY");
        process
    }

    /// Reads the standard output until a line has `text`.
    fn until(&mut self, text: &str) {
        assert!(has_line(&mut self.out, text), "ended before {text:?}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// How it ended, and its log.
    fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the child does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (status, log)
    }
}

/// Reads until a line has `text`; false if the stream ends before.
fn has_line(stream: &mut impl BufRead, text: &str) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).unwrap() == 0 {
            return false;
        }
        if line.contains(text) {
            return true;
        }
    }
}

#[test]
fn every_signal_is_a_request_to_stop() {
    for name in ["TERM", "INT", "HUP", "USR1", "USR2"] {
        let process = Process::start("obeys", "default");
        process.signal(name);
        let (status, log) = process.end();
        assert_eq!(status.code(), Some(0), "{name}: {status} {log}");
        let line = format!("shutdown.requested: received SIG{name}");
        assert!(log.contains(&line), "{name}: {log}");
    }
}

#[test]
fn a_second_signal_quits_at_once_even_if_the_program_hangs() {
    for (first, second) in [("TERM", "TERM"), ("HUP", "TERM"), ("USR1", "HUP")] {
        let mut process = Process::start("blocks", "default");
        process.signal(first);
        process.until("STOPPING");
        process.signal(second);
        let (status, log) = process.end();
        assert_eq!(status.code(), Some(FORCED), "{first}, {second}: {log}");
        assert!(log.contains("shutdown.forced: received SIG"), "{log}");
    }
}

#[test]
fn a_bunch_of_hangups_is_one_request() {
    // On a busy machine a signal may be more than a second late, and is a second request then.
    let repeated = (0..5).any(|_| {
        let mut process = Process::start("blocks", "default");
        process.signal("HUP");
        process.until("STOPPING");
        process.signal("HUP");
        let repeated = has_line(&mut process.log, "shutdown.repeated: received SIGHUP");
        if repeated {
            process.signal("KILL");
            assert_eq!(process.end().0.signal(), Some(9), "it went on");
        }
        repeated
    });
    assert!(repeated, "every second SIGHUP ended the program");
}

#[test]
fn nohup_is_respected() {
    let mut process = Process::start("obeys", "ignore");
    process.signal("HUP");
    process.signal("TERM");
    process.until("STOPPING");
    let (status, log) = process.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("received SIGTERM"), "{log}");
    assert!(!log.contains("SIGHUP"), "{log}");
}

#[test]
fn the_watchdog_ends_a_program_that_hangs() {
    let process = Process::start("hangs", "default");
    process.signal("USR2");
    let (status, log) = process.end();
    assert_eq!(status.code(), Some(HUNG), "{log}");
    let forced = log.lines().find(|line| line.contains("shutdown.forced"));
    let line = forced.unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains("0.2 s") && line.contains("stop_timeout_s") && line.contains("watchdog"),
        "{line}"
    );
}
