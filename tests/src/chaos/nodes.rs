//! The processes of a chaos test: one coordinator, and a fixed number of places for workers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fovea_client::Client;
use fovea_client::credentials::Credentials;
use fovea_proto::pb;
use fovea_proto::pb::checkpoints_client::CheckpointsClient;
use fovea_proto::pb::runs_client::RunsClient;
use fovea_security::{Role, Tls};
use tonic::transport::Channel;

use super::scraper::Census;
use super::{ChaosOptions, Report};
use crate::certificates::{Certificates, environment};
use crate::faults::{Partition, inspect, packs_below};
use crate::launch::{self, CoordinatorOptions, Started};
use crate::ports::free_port;
use crate::process::{Process, binary};

/// The environment variable that all processes of a test carry, by which they are found wherever they are.
const MARK: &str = "FOVEA_TEST_MARK";

/// A coordinator and workers, each on a host of its own where there is a network to cut.
pub struct Nodes<'a> {
    dir: PathBuf,
    net: Option<&'a Partition>,
    mark: String,
    options: CoordinatorOptions,
    /// None without TLS.
    certificates: Option<Certificates>,
    /// The coordinator; replaced by a restart.
    pub coordinator: Process,
    /// By place.
    pub workers: Vec<Option<Process>>,
    /// Who was there when.
    pub census: Census,
    /// Where the coordinator's metrics are: `host:port`.
    ops: String,
    started: usize,
}

impl<'a> Nodes<'a> {
    /// Starts all of them below `dir`, the coordinator as `nobody` if it is to be `unprivileged`.
    pub fn start(
        dir: &Path,
        chaos: &ChaosOptions,
        net: Option<&'a Partition>,
        unprivileged: bool,
    ) -> Self {
        let mark = format!("{}-{}", std::process::id(), dir.display());
        let mut options = CoordinatorOptions::new(dir);
        if let Some(net) = net {
            // Nobody else is in that network.
            options.listen = format!("{}:7070", net.address(0));
        }
        options.unprivileged = unprivileged;
        let ops = match net {
            Some(net) => format!("{}:7072", net.address(0)),
            None => format!("127.0.0.1:{}", free_port()),
        };
        options.environment = vec![
            (MARK.into(), mark.clone()),
            ("FOVEA_OPS_LISTEN".into(), ops.clone()),
        ];
        let certificates = chaos
            .secure
            .then(|| Certificates::create(dir.join("certificates")));
        match &certificates {
            Some(made) => {
                let files = made.coordinator();
                if unprivileged {
                    options.own(&files.key);
                }
                options.environment.extend(environment(&files));
            }
            None => options
                .environment
                .push(("FOVEA_ALLOW_INSECURE".into(), "true".into())),
        }
        let (coordinator, address) = options.start("coordinator-0.log");
        options.listen = address;
        let census = Census::default();
        census.serving();
        let mut nodes = Self {
            dir: dir.to_owned(),
            net,
            mark,
            options,
            certificates,
            coordinator,
            workers: (0..chaos.workers).map(|_| None).collect(),
            census,
            ops,
            started: 0,
        };
        for place in 0..chaos.workers {
            nodes.start_worker(place);
        }
        nodes
    }

    /// "NAME=value" in the environment of all processes of this test.
    pub fn marker(&self) -> String {
        format!("{MARK}={}", self.mark)
    }

    /// Starts a worker in a place that has none.
    pub fn start_worker(&mut self, place: usize) {
        self.started += 1;
        let number = self.started;
        let name = format!("w{place}");
        let program = binary("fovea-worker");
        let mut command = launch::worker_on("cpu", &program, &self.dir, &self.url(), &name);
        command.env(MARK, &self.mark);
        if let Some(made) = &self.certificates {
            command.envs(environment(&made.member(Role::Worker, &name)));
        }
        if let Some(net) = self.net {
            let listen = format!("{}:0", net.address(place + 1));
            command.args(["--listen", &listen]);
            command = net.command(place + 1, &command);
        }
        let log = self.dir.join(format!("worker-{place}-{number}.log"));
        let process = Process::start(command, log.clone());
        self.census.worker(process.pid(), log);
        self.workers[place] = Some(process);
    }

    /// Kills the coordinator.
    pub fn kill_coordinator(&mut self) {
        self.census.going_down();
        self.coordinator.kill();
    }

    /// Starts the coordinator again, at its address.
    pub fn restart_coordinator(&mut self) {
        self.started += 1;
        let log = format!("coordinator-{}.log", self.started);
        (self.coordinator, _) = self.options.start(&log);
        self.census.serving();
    }

    /// Where the coordinator's metrics are: `host:port`.
    pub fn ops(&self) -> String {
        self.ops.clone()
    }

    /// Tries to start the coordinator again.
    pub fn try_restart_coordinator(&mut self) -> Started {
        self.started += 1;
        let log = format!("coordinator-{}.log", self.started);
        self.options.try_start(&log)
    }

    /// The network that can be cut, if there is one.
    pub fn net(&self) -> Option<&'a Partition> {
        self.net
    }

    /// The folder of the coordinator's checkpoints.
    pub fn store(&self) -> PathBuf {
        self.options.data_dir().join("checkpoints")
    }

    /// The packs that the workers have cached.
    pub fn cached_packs(&self) -> Vec<PathBuf> {
        packs_below(&self.dir.join("worker-data"))
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

    /// The coordinator's address with its scheme.
    fn url(&self) -> String {
        let scheme = if self.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.options.listen)
    }

    /// An admin's certificate, with TLS.
    fn admin(&self) -> Option<Tls> {
        self.certificates.as_ref().map(Certificates::admin_tls)
    }

    /// Connects, and waits for the coordinator to answer.
    pub async fn client(&self) -> Client {
        let end = Instant::now() + Duration::from_secs(30);
        let credentials = match self.admin() {
            Some(tls) => Credentials::Certificate(tls),
            None => Credentials::Nothing,
        };
        loop {
            match Client::connect_as(&self.url(), &credentials, Duration::from_secs(5)).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < end, "{error}\n{}", self.coordinator.log()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn channel(&self) -> Channel {
        let (tls, patience) = (self.admin(), Duration::from_secs(30));
        let connected = fovea_proto::connect_with(&self.url(), tls.as_ref(), patience).await;
        connected.unwrap_or_else(|e| panic!("{e}\n{}", self.coordinator.log()))
    }

    /// Reads the stored checkpoints of a run again: the step of each, and what is wrong with it.
    pub async fn verify_checkpoints(&self, run: &str) -> Vec<(u64, String)> {
        let request = pb::VerifyCheckpointsRequest {
            run_id: run.into(),
            step: None,
        };
        let mut client = CheckpointsClient::new(self.channel().await);
        let reply = client.verify(request).await.expect("a verification");
        let verified = reply.into_inner().checkpoints.into_iter();
        verified
            .map(|one| (one.checkpoint.map_or(0, |c| c.step), one.problem))
            .collect()
    }

    /// Deletes an ended run with its checkpoints.
    pub async fn delete_run(&self, run: &str) {
        let request = pb::DeleteRunRequest {
            run_id: run.into(),
            with_checkpoints: true,
        };
        if let Err(status) = RunsClient::new(self.channel().await).delete(request).await {
            panic!("run {run} cannot be deleted: {status}");
        }
    }

    /// Uploads a prepared dataset.
    pub fn add_dataset(&self, folder: &Path) {
        let output = Command::new(binary("fovea"))
            .args(["--coordinator", &self.url()])
            .envs(
                self.certificates
                    .iter()
                    .flat_map(|made| environment(&made.admin())),
            )
            .args(["dataset", "add"])
            .arg(folder)
            .output()
            .expect("fovea starts");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
    }

    /// Unfinished files below all data folders.
    pub fn temporary_files(&self) -> Vec<PathBuf> {
        inspect::temporary_files(&self.dir).expect("the folders can be read")
    }

    /// Generations that were interrupted in the middle of a step, by the workers' logs.
    pub fn interrupted_generations(&self) -> usize {
        let mut interrupted = BTreeSet::new();
        for line in self.worker_logs().iter().flat_map(|log| log.lines()) {
            // `assignment.interrupted`, or `assignment.replaced` in the middle of a step.
            let replaced = ["a new generation", "assignment.replaced: "];
            let is_one = line.contains("interrupted")
                || line.contains("at_boundary=false") && replaced.iter().any(|r| line.contains(r));
            let span = line
                .split_once("run{")
                .and_then(|(_, rest)| rest.split_once(" rank="));
            if let (true, Some((generation, _))) = (is_one, span) {
                interrupted.insert(generation.to_owned());
            }
        }
        interrupted.len()
    }

    /// Lines of the workers' logs that hold `text`.
    pub fn log_lines(&self, text: &str) -> usize {
        let logs = self.worker_logs();
        let lines = logs.iter().flat_map(|log| log.lines());
        lines.filter(|line| line.contains(text)).count()
    }

    fn worker_logs(&self) -> Vec<String> {
        let files = fs::read_dir(&self.dir).expect("the folder can be read");
        let logs = files.flatten().filter(|file| {
            file.file_name().to_string_lossy().starts_with("worker-") && file.path().is_file()
        });
        logs.map(|file| fs::read_to_string(file.path()).expect("a log can be read"))
            .collect()
    }

    /// Notes memory and open files.
    pub fn measure(&mut self, report: &mut Report) {
        let files = |pid| inspect::open_files(pid).map_or(0, |files| files.len());
        let pid = self.coordinator.pid();
        report.measured(true, inspect::rss_kb(pid).unwrap_or(0), files(pid));
        for worker in self.workers.iter().flatten() {
            let pid = worker.pid();
            report.measured(false, inspect::rss_kb(pid).unwrap_or(0), files(pid));
        }
    }

    /// Asks all processes to stop, and waits for their end.
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

    /// The same for nodes that are not needed any more.
    pub fn stop(mut self) {
        self.stop_all();
    }
}
