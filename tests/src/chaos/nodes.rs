//! The processes: one coordinator, and places for workers.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fovea_client::Client;

use super::Report;
use crate::faults::{Partition, census};
use crate::launch;
use crate::process::{Process, binary};

/// The environment variable by which our processes are known, wherever they are.
const MARK: &str = "FOVEA_TEST_MARK";

/// A coordinator and workers, each on a host of its own where there is a network to cut.
pub struct Nodes<'a> {
    dir: PathBuf,
    net: Option<&'a Partition>,
    mark: String,
    listen: String,
    pub coordinator: Process,
    /// By place.
    pub workers: Vec<Option<Process>>,
    started: usize,
}

impl<'a> Nodes<'a> {
    /// Starts all of them below `dir`.
    pub fn start(dir: &Path, workers: usize, net: Option<&'a Partition>) -> Self {
        let mark = format!("{}-{}", std::process::id(), dir.display());
        let host = net.map_or(Ipv4Addr::LOCALHOST, |net| net.address(0));
        let listen = format!("{host}:0");
        let (coordinator, listen) = coordinator(dir, &listen, &mark, 0);
        let mut nodes = Self {
            dir: dir.to_owned(),
            net,
            mark,
            listen,
            coordinator,
            workers: (0..workers).map(|_| None).collect(),
            started: 0,
        };
        for place in 0..workers {
            nodes.start_worker(place);
        }
        nodes
    }

    /// "NAME=value" of the environment of all our processes.
    pub fn marker(&self) -> String {
        format!("{MARK}={}", self.mark)
    }

    /// Starts a worker at a place where none is.
    pub fn start_worker(&mut self, place: usize) {
        self.started += 1;
        let number = self.started;
        let mut command = launch::worker(&self.dir, &self.listen, &format!("w{place}"));
        command.env(MARK, &self.mark);
        if let Some(net) = self.net {
            let listen = format!("{}:0", net.address(place + 1));
            command.args(["--listen", &listen]);
            command = net.command(place + 1, &command);
        }
        let log = self.dir.join(format!("worker-{place}-{number}.log"));
        self.workers[place] = Some(Process::start(command, log));
    }

    /// Starts the coordinator again, at its address.
    pub fn restart_coordinator(&mut self) {
        self.started += 1;
        (self.coordinator, _) = coordinator(&self.dir, &self.listen, &self.mark, self.started);
    }

    /// The network that can be cut, if there is one.
    pub fn net(&self) -> Option<&'a Partition> {
        self.net
    }

    /// The folder of the coordinator's checkpoints.
    pub fn store(&self) -> PathBuf {
        self.dir.join("coordinator-data/checkpoints")
    }

    /// Places where a worker runs.
    pub fn running(&mut self) -> Vec<usize> {
        (0..self.workers.len())
            .filter(|&place| {
                self.workers[place]
                    .as_mut()
                    .is_some_and(Process::is_running)
            })
            .collect()
    }

    /// Connects, waiting for the coordinator to answer.
    pub async fn client(&self) -> Client {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let address = format!("http://{}", self.listen);
            match Client::connect(&address, Duration::from_secs(5)).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < end, "{error}\n{}", self.coordinator.log()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn add_dataset(&self, folder: &Path) {
        let output = Command::new(binary("fovea"))
            .args(["--coordinator", &format!("http://{}", self.listen)])
            .args(["dataset", "add"])
            .arg(folder)
            .output()
            .expect("fovea starts");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{complaint}");
    }

    /// Unfinished files below all data folders.
    pub fn temporary_files(&self) -> Vec<PathBuf> {
        census::temporary_files(&self.dir).expect("the folders can be read")
    }

    /// Generations that broke off in the middle of things, by what the workers logged.
    pub fn broken_generations(&self) -> usize {
        let mut broken = BTreeSet::new();
        let files = std::fs::read_dir(&self.dir).expect("the folder can be read");
        for file in files.flatten() {
            let name = file.file_name();
            if !name.to_string_lossy().starts_with("worker-") || !file.path().is_file() {
                continue;
            }
            let log = std::fs::read_to_string(file.path()).expect("a log can be read");
            for line in log.lines() {
                let broke = line.contains("interrupted, keeping the state")
                    || line.contains("a new generation") && line.contains("at_boundary=false");
                let span = line
                    .split_once("run{")
                    .and_then(|(_, rest)| rest.split_once(" rank="));
                if let (true, Some((generation, _))) = (broke, span) {
                    broken.insert(generation.to_owned());
                }
            }
        }
        broken.len()
    }

    /// Notes memory and open files.
    pub fn measure(&mut self, report: &mut Report) {
        let files = |pid| census::open_files(pid).map_or(0, |files| files.len());
        let pid = self.coordinator.pid();
        report.measured(true, census::rss_kb(pid).unwrap_or(0), files(pid));
        for worker in self.workers.iter().flatten() {
            let pid = worker.pid();
            report.measured(false, census::rss_kb(pid).unwrap_or(0), files(pid));
        }
    }

    /// Asks everybody to stop, and sees them stop.
    pub fn stop_all(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            worker.signal(libc::SIGTERM);
        }
        for worker in self.workers.iter_mut().flatten() {
            worker.wait(Duration::from_secs(60));
        }
        self.coordinator.signal(libc::SIGTERM);
        let status = self.coordinator.wait(Duration::from_secs(90));
        assert!(status.success(), "{status}:\n{}", self.coordinator.log());
    }

    pub fn stop(mut self) {
        self.stop_all();
    }
}

fn coordinator(dir: &Path, listen: &str, mark: &str, number: usize) -> (Process, String) {
    let environment = [("FOVEA_ALLOW_INSECURE", "true"), (MARK, mark)];
    launch::coordinator(
        dir,
        listen,
        &format!("coordinator-{number}.log"),
        &environment,
    )
}
