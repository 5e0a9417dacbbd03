//! A coordinator and workers as real processes, and a client to follow what they do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fovea_proto::pb::run_event::Event;
use fovea_proto::{MESSAGE_BYTES, connect_with, pb};
use fovea_security::Role;
use tonic::transport::Channel;

use crate::certificates::{self, Certificates};
use crate::launch::{self, CoordinatorOptions};
use crate::process::{Process, binary};

/// Longer than anything in these tests takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// A running cluster in a folder of its own.
pub struct Cluster {
    dir: PathBuf,
    /// How the coordinator is started; its address stays the same.
    pub options: CoordinatorOptions,
    address: String,
    /// Of a cluster with TLS.
    certificates: Option<Certificates>,
    /// The coordinator; replaced by a restart.
    pub coordinator: Process,
    /// The workers in the order of their start.
    pub workers: Vec<Process>,
    started: usize,
    worker: PathBuf,
}

impl Cluster {
    /// Starts a coordinator and `workers` workers below `dir`.
    pub fn start(dir: &Path, workers: usize) -> Self {
        Self::start_with(dir, workers, CoordinatorOptions::new(dir))
    }

    /// The same with TLS, and with the key to sign certificates. Tests talk to it as an admin.
    pub fn start_secure(dir: &Path, workers: usize) -> Self {
        let made = Certificates::create(dir.join("certs"));
        let mut options = CoordinatorOptions::new(dir);
        options
            .environment
            .extend(certificates::environment(&made.coordinator()));
        let ca_key = made.ca_key().display().to_string();
        options
            .environment
            .push(("FOVEA_TLS_CA_KEY".into(), ca_key));
        let mut cluster = Self::start_with(dir, 0, options);
        cluster.certificates = Some(made);
        for _ in 0..workers {
            cluster.add_worker();
        }
        cluster
    }

    /// The same with a coordinator that is started with `options`, which must name `dir`.
    pub fn start_with(dir: &Path, workers: usize, mut options: CoordinatorOptions) -> Self {
        let (coordinator, address) = options.start("coordinator.log");
        options.listen.clone_from(&address);
        let mut cluster = Self {
            dir: dir.to_owned(),
            options,
            address,
            certificates: None,
            coordinator,
            workers: Vec::new(),
            started: 0,
            worker: binary("fovea-worker"),
        };
        for _ in 0..workers {
            cluster.add_worker();
        }
        cluster
    }

    /// Workers are started from this program from now on.
    pub fn set_worker(&mut self, program: &Path) {
        self.worker = program.to_owned();
    }

    /// Starts one more worker.
    pub fn add_worker(&mut self) {
        self.add_worker_on("cpu", &[]);
    }

    /// Starts one more worker, which knows the coordinator by another address.
    pub fn add_worker_through(&mut self, coordinator: &str) {
        let address = std::mem::replace(&mut self.address, coordinator.to_owned());
        self.add_worker();
        self.address = address;
    }

    /// Where the coordinator listens: `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Starts one more worker on the CPU, with its data below a folder of its own.
    pub fn add_worker_in(&mut self, dir: &Path) {
        self.start_worker("cpu", dir, &[]);
    }

    /// Starts one more worker on `device`, with more in its environment.
    pub fn add_worker_on(&mut self, device: &str, variables: &[(&str, &str)]) {
        let dir = self.dir.clone();
        self.start_worker(device, &dir, variables);
    }

    fn start_worker(&mut self, device: &str, dir: &Path, variables: &[(&str, &str)]) {
        let number = self.started;
        self.started += 1;
        let name = format!("w{number}");
        let mut command = launch::worker_on(device, &self.worker, dir, &self.url(), &name);
        if let Some(made) = &self.certificates {
            command.envs(certificates::environment(&made.member(Role::Worker, &name)));
        }
        command.envs(variables.iter().copied());
        let log = self.dir.join(format!("worker-{number}.log"));
        self.workers.push(Process::start(command, log));
    }

    /// Starts the coordinator again, at the same address with the same data.
    pub fn restart_coordinator(&mut self) {
        (self.coordinator, _) = self.options.start("coordinator-again.log");
    }

    /// The certificates of a cluster with TLS.
    ///
    /// # Panics
    /// If it has none.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("a cluster with TLS")
    }

    /// The coordinator's address with its scheme.
    pub fn url(&self) -> String {
        match self.certificates {
            Some(_) => format!("https://{}", self.address),
            None => format!("http://{}", self.address),
        }
    }

    /// The folder of the coordinator's checkpoints.
    pub fn checkpoint_store(&self) -> PathBuf {
        self.options.data_dir().join("checkpoints")
    }

    /// The folder of the workers' data.
    pub fn worker_data(&self) -> PathBuf {
        self.dir.join("worker-data")
    }

    /// Runs `fovea` against this cluster, whatever comes of it.
    pub fn try_fovea(&self, args: &[&str]) -> Output {
        Command::new(binary("fovea"))
            .args(["--coordinator", &self.url()])
            .envs(
                self.certificates
                    .iter()
                    .flat_map(|c| certificates::environment(&c.admin())),
            )
            .args(args)
            .output()
            .expect("fovea starts")
    }

    /// Runs `fovea` against this cluster and returns its standard output.
    ///
    /// # Panics
    /// If it fails.
    pub fn fovea(&self, args: &[&str]) -> String {
        let output = self.try_fovea(args);
        assert!(
            output.status.success(),
            "fovea {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `fovea` against this cluster again and again until its standard output is such that `holds`.
    ///
    /// # Panics
    /// If it fails, or if that takes too long.
    pub fn fovea_until(&self, args: &[&str], holds: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let text = self.fovea(args);
            if holds(&text) {
                return text;
            }
            assert!(
                Instant::now() < end,
                "fovea {args:?} after {DEADLINE:?}: {text}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A channel to the coordinator.
    pub async fn channel(&self) -> Channel {
        let end = Instant::now() + Duration::from_secs(20);
        let tls = self.certificates.as_ref().map(Certificates::admin_tls);
        loop {
            match connect_with(&self.address, tls.as_ref(), Duration::from_secs(5)).await {
                Ok(channel) => return channel,
                Err(e) => assert!(Instant::now() < end, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client of the Runs service.
    pub async fn runs(&self) -> pb::runs_client::RunsClient<Channel> {
        pb::runs_client::RunsClient::new(self.channel().await)
    }

    /// Submits a run.
    pub async fn submit(&self, spec: pb::RunSpec) -> pb::Run {
        let request = pb::SubmitRequest { spec: Some(spec) };
        let response = self.runs().await.submit(request).await;
        response
            .expect("the run is accepted")
            .into_inner()
            .run
            .expect("the response holds the run")
    }

    /// The run as it is now.
    pub async fn run(&self, run_id: &str) -> pb::Run {
        let request = pb::GetRunRequest {
            run_id: run_id.to_owned(),
        };
        let reply = self.runs().await.get(request).await;
        reply.expect("the run is there").into_inner()
    }

    /// Asks for the run again and again until `holds`.
    pub async fn run_until(&self, run_id: &str, holds: impl Fn(&pb::Run) -> bool) -> pb::Run {
        let end = Instant::now() + DEADLINE;
        loop {
            let run = self.run(run_id).await;
            if holds(&run) {
                return run;
            }
            assert!(
                Instant::now() < end,
                "run {run_id} after {DEADLINE:?}: {:?} {:?} {:?}",
                run.phase(),
                run.progress.map(|p| p.step),
                run.reason
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Follows a run until `done` says that an event was the one waited for.
    pub async fn watch(&self, run_id: &str, mut done: impl FnMut(&Event) -> bool) -> Event {
        let follow = async {
            let request = pb::WatchRequest {
                run_id: run_id.to_owned(),
            };
            let mut events = self
                .runs()
                .await
                .watch(request)
                .await
                .expect("the run can be watched")
                .into_inner();
            while let Some(event) = events.message().await.expect("the stream goes on") {
                let event = event.event.expect("an event says something");
                if done(&event) {
                    return event;
                }
            }
            panic!("the stream ended before the awaited event");
        };
        tokio::time::timeout(DEADLINE, follow)
            .await
            .unwrap_or_else(|_| {
                panic!("run {run_id}: the awaited event did not come within {DEADLINE:?}")
            })
    }

    /// Waits until `step` steps are committed.
    pub async fn wait_step(&self, run_id: &str, step: u64) {
        self.watch(run_id, |event| match event {
            Event::Step(report) => report.step >= step,
            Event::Run(run) => run.progress.as_ref().is_some_and(|p| p.step >= step),
            _ => false,
        })
        .await;
    }

    /// Waits until the run has ended, and returns it.
    pub async fn wait_end(&self, run_id: &str) -> pb::Run {
        let ended = [
            pb::Phase::Completed,
            pb::Phase::Failed,
            pb::Phase::Cancelled,
        ];
        let event = self
            .watch(
                run_id,
                |event| matches!(event, Event::Run(run) if ended.contains(&run.phase())),
            )
            .await;
        let Event::Run(run) = event else {
            unreachable!("only a run ends the wait")
        };
        run
    }

    /// Waits until the run has completed.
    ///
    /// # Panics
    /// If it ends otherwise.
    pub async fn wait_completed(&self, run_id: &str) -> pb::Run {
        let run = self.wait_end(run_id).await;
        assert_eq!(run.phase(), pb::Phase::Completed, "{}", run.reason);
        run
    }

    /// The bytes of a checkpoint.
    pub async fn checkpoint(&self, run_id: &str, step: u64) -> Vec<u8> {
        let channel = self.channel().await;
        let mut client = pb::checkpoints_client::CheckpointsClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES);
        let request = pb::GetCheckpointRequest {
            run_id: run_id.to_owned(),
            step: Some(step),
        };
        let mut chunks = client
            .get(request)
            .await
            .expect("the checkpoint is there")
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await.expect("the stream goes on") {
            if let Some(pb::checkpoint_chunk::Part::Data(data)) = chunk.part {
                bytes.extend_from_slice(&data);
            }
        }
        bytes
    }
}

/// The tensors of a checkpoint file by name, as bytes: what must be equal to the bit. The file's header
/// also holds what may differ, such as the run's id.
pub fn tensors(checkpoint: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let file = safetensors::SafeTensors::deserialize(checkpoint).expect("it is a safetensors file");
    file.iter()
        .map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec()))
        .collect()
}
