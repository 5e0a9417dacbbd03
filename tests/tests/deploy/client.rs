//! The command line of Fovea, as a person uses it, against a cluster that an engine runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fovea_tests::tensors;
use serde_json::Value;

/// The longest that anything takes, on a machine that does other things, too.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// The longest that the rest of a run takes there.
const RUN: Duration = Duration::from_secs(1800);

/// The pause between two polls.
const POLL: Duration = Duration::from_millis(200);

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, ask)
}

fn within<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited for {deadline:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// A person at the command line.
#[derive(Debug)]
pub struct Client {
    program: PathBuf,
    /// `http://host:port`, or `file:PATH` of a file that holds it.
    coordinator: String,
    /// A folder with an admin's certificate; None without TLS.
    certs: Option<PathBuf>,
}

impl Client {
    pub fn new(program: PathBuf, coordinator: String) -> Self {
        Self {
            program,
            coordinator,
            certs: None,
        }
    }

    /// As the admin whose files [`crate::site::certificates`] made.
    pub fn with_certificates(self, certs: &Path) -> Self {
        Self {
            certs: Some(certs.to_owned()),
            ..self
        }
    }

    /// Whatever comes of it.
    pub fn try_fovea(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(["--coordinator", &self.coordinator]);
        if let Some(certs) = &self.certs {
            command
                .env("FOVEA_TLS_CERTIFICATE", certs.join("admin.pem"))
                .env("FOVEA_TLS_KEY", certs.join("admin.key"))
                .env("FOVEA_TLS_CA", certs.join("ca.pem"));
        }
        command.args(arguments).output().expect("fovea starts")
    }

    /// Standard output; tried again while the coordinator cannot be reached (exit code 3).
    pub fn fovea(&self, arguments: &[&str]) -> String {
        until(&format!("fovea {arguments:?}"), || {
            let out = self.try_fovea(arguments);
            let error = String::from_utf8_lossy(&out.stderr);
            match out.status.code() {
                Some(0) => Some(String::from_utf8_lossy(&out.stdout).into_owned()),
                Some(3) => None,
                _ => panic!("fovea {arguments:?}: {}: {error}", out.status),
            }
        })
    }

    /// The run as it is now.
    pub fn run(&self, id: &str) -> Value {
        let text = self.fovea(&["--json", "run", id]);
        let line = text.lines().next().expect("a line");
        serde_json::from_str(line).expect("JSON")
    }

    /// Adds the dataset, submits the run, and returns its id.
    pub fn submit(&self, dataset: &Path, run_file: &Path) -> String {
        self.fovea(&["dataset", "add", dataset.to_str().expect("UTF-8")]);
        let text = self.fovea(&["--json", "submit", run_file.to_str().expect("UTF-8")]);
        let line = text.lines().next().expect("a line");
        let submitted: Value = serde_json::from_str(line).expect("JSON");
        submitted["id"].as_str().expect("the run's id").to_owned()
    }

    /// Waits until the run has taken `steps` more steps than now, with so many workers.
    pub fn progresses(&self, id: &str, steps: u64, workers: usize) {
        let step = |run: &Value| run["progress"]["step"].as_u64().unwrap_or(0);
        let first = step(&self.run(id));
        until(
            &format!("{steps} steps after {first} with {workers} workers"),
            || {
                let run = self.run(id);
                assert_ne!(run["phase"], "failed", "{run}");
                assert_ne!(
                    run["phase"], "completed",
                    "the run is too short for this test"
                );
                let has = run["workers"].as_array().map_or(0, Vec::len);
                (step(&run) >= first + steps && has == workers).then_some(())
            },
        );
    }

    /// Waits for the end of the run: with the tensors of an undisturbed one and a clean audit.
    pub fn completes(&self, id: &str, expected: &BTreeMap<String, Vec<u8>>, scratch: &Path) {
        let run = within(RUN, "the end of the run", || {
            let run = self.run(id);
            let ended = ["completed", "failed", "cancelled"];
            let phase = run["phase"].as_str().expect("a phase");
            ended.contains(&phase).then_some(run)
        });
        assert_eq!(run["phase"], "completed", "{run}");
        let audit = self.fovea(&["runs", "audit", id]);
        assert!(audit.contains("problems    none"), "{audit}");
        let file = scratch.join("model.safetensors");
        let path = file.to_str().expect("UTF-8");
        self.fovea(&["checkpoint", "get", id, "newest", "--overwrite", "-o", path]);
        let found = tensors(&fs::read(&file).expect("the checkpoint was written"));
        assert!(
            &found == expected,
            "the weights are not those of an undisturbed run"
        );
    }
}
