//! The program: options, exit codes, SIGTERM, SIGKILL, health and reflection.

mod data_folder;
mod listening;
mod stopping;

use crate::common;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::*;
use fovea_coordinator::{Config, Listeners, OnStop, serve};
use fovea_proto::pb;
use fovea_proto::pb::runs_client::RunsClient;
use tonic::transport::Channel;

/// A test that fails must not leave a process behind.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fovea-coordinator"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOVEA_")) {
        command.env_remove(name);
    }
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A coordinator in a process of its own.
struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Process {
    fn start(data_dir: &Path, more: &[&str]) -> Self {
        let address_file = data_dir.with_extension("address");
        let _ = std::fs::remove_file(&address_file);
        let mut child = program()
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--address-file")
            .arg(&address_file)
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut process = Self {
            child,
            log,
            address: String::new(),
        };
        let line = process.until("coordinator.listening");
        let address = std::fs::read_to_string(&address_file).unwrap();
        process.address = address.trim().to_owned();
        assert!(line.contains(&process.address), "{line}");
        process
    }

    /// Reads the log until a line has `text`.
    fn until(&mut self, text: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.log.read_line(&mut line).unwrap() > 0,
                "ended before {text:?}"
            );
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Its exit code and the rest of its log; when it ends by itself.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    async fn channel(&self) -> Channel {
        fovea_proto::connect(&self.address, PATIENCE).await.unwrap()
    }
}

#[test]
fn options_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (code, out, _) = output(program().arg("--version"));
    assert_eq!(code, Some(0));
    assert!(out.contains('('), "the commit is missing: {out}");
    let (code, out, _) = output(program().arg("--help"));
    assert_eq!(code, Some(0));
    assert!(
        out.contains("Exit codes") && out.contains("FOVEA_"),
        "{out}"
    );

    // Layers: file < environment < flags.
    let file = dir.path().join("c.toml");
    std::fs::write(
        &file,
        "log_level = 'warn'\nlisten = '127.0.0.1:1'\nmax_uploads = 2",
    )
    .unwrap();
    let (code, out, err) = output(
        program()
            .arg("--config")
            .arg(&file)
            .env("FOVEA_LISTEN", "127.0.0.1:2")
            .env("FOVEA_TIMEOUT_MS", "9000")
            .env("FOVEA_ALLOW_INSECURE", "true")
            .env("FOVEA_ON_STOP", "checkpoint")
            .args(["--listen", "127.0.0.1:3", "--on-stop", "hand-over"])
            .arg("--dump-config"),
    );
    assert_eq!(code, Some(0), "{err}");
    let dumped: Config = toml::from_str(&out).unwrap();
    assert_eq!(dumped.listen, "127.0.0.1:3");
    assert_eq!((dumped.timeout_ms, dumped.max_uploads), (9000, 2));
    assert!(dumped.allow_insecure);
    assert_eq!(dumped.on_stop, OnStop::HandOver);
    assert_eq!(dumped.log_level, "warn");

    let refused = |code: i32, named: &str, command: &mut Command| {
        let (found, _, err) = output(command);
        assert_eq!(found, Some(code), "{named}: {err}");
        assert!(err.contains(named), "{named}: {err}");
    };
    refused(2, "--lisen", program().arg("--lisen"));
    std::fs::write(&file, "lisen = 'x'").unwrap();
    refused(2, "lisen", program().arg("--config").arg(&file));
    let choice = "on_stop is \"handover\"; use \"checkpoint\" or \"hand-over\"";
    refused(2, choice, program().env("FOVEA_ON_STOP", "handover"));
    refused(2, choice, program().args(["--on-stop", "handover"]));
    refused(2, "c.missing", program().args(["--config", "c.missing"]));
    refused(
        2,
        "allow_insecure",
        program().args(["--listen", "0.0.0.0:0"]),
    );
    refused(2, "log_level", program().args(["--log-level", "a=b=c"]));
    refused(2, "timeout_ms", program().env("FOVEA_TIMEOUT_MS", "soon"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(
        3,
        &address,
        program()
            .args(["--listen", &address])
            .arg("--data-dir")
            .arg(&data),
    );
    // A variable that has no effect, but looks as if it were to have one.
    refused(
        3,
        "did you mean FOVEA_DRAIN_TIMEOUT_S?",
        program()
            .env("FOVEA_DRAIN_TIMOUT_S", "5")
            .args(["--listen", &address])
            .arg("--data-dir")
            .arg(&data),
    );
    std::fs::write(&data, "a file").unwrap();
    refused(
        4,
        "data_dir",
        program()
            .args(["--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&data),
    );
}

impl Process {
    /// One that does not lose a silent worker, and drains for so many seconds.
    fn start_patient(data_dir: &Path, drain: &str) -> Self {
        let text = format!("drain_timeout_s = {drain}\ntimeout_ms = 600000\nforming_grace_ms = 0");
        Self::start_with(data_dir, &text)
    }

    /// One with this configuration file.
    fn start_with(data_dir: &Path, text: &str) -> Self {
        let file = data_dir.with_extension("toml");
        std::fs::write(&file, text).unwrap();
        Self::start(data_dir, &["--config", file.to_str().unwrap()])
    }
}
