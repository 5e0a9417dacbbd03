//! Shared by the integration tests: a coordinator in this process, a tiny dataset, fake workers. Each test file uses its own
//! part of it.
#![allow(dead_code)]

mod photographs;
#[path = "../../../tests/src/ports.rs"]
mod ports;
#[path = "../../../tests/src/faults/disk.rs"]
pub mod small_disk;
mod worker;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fovea_coordinator::{Config, Coordinator, ServeError};
use fovea_core::googlenet::{FlatLayout, HEAD, weight_layer_names};
use fovea_core::plan::ShardPlan;
use fovea_dataset::Dataset;
use fovea_proto::pb::admin_client::AdminClient;
use fovea_proto::pb::checkpoints_client::CheckpointsClient;
use fovea_proto::pb::cluster_client::ClusterClient;
use fovea_proto::pb::datasets_client::DatasetsClient;
use fovea_proto::pb::groups_client::GroupsClient;
use fovea_proto::pb::runs_client::RunsClient;
use fovea_proto::pb::workers_client::WorkersClient;
use fovea_proto::{MESSAGE_BYTES, connect_with, pb};
use fovea_security::Tls;
use fovea_service::Shutdown;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

// Not every test file makes a dataset.
#[allow(unused_imports)]
pub use photographs::*;
#[allow(unused_imports)]
pub use ports::free_port;
// Nor has every one workers.
#[allow(unused_imports)]
pub use worker::*;

/// The longest wait for anything; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at that no event reports.
pub const POLL: Duration = Duration::from_millis(5);

/// Waits for a future that must complete in time.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Polls for a condition that no event reports, such as a file.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let poll = async {
        while !holds() {
            tokio::time::sleep(POLL).await;
        }
    };
    soon(what, poll).await;
}

/// A coordinator in this process, with threads of its own so that it can be killed.
pub struct Server {
    pub address: String,
    pub channel: Channel,
    /// Where the dashboard is, if `http_listen` was set.
    pub http: String,
    data_dir: PathBuf,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), ServeError>>,
    /// None once it was killed.
    runtime: Option<Runtime>,
}

impl Server {
    /// Starts one on `data_dir` and any port.
    pub async fn start(data_dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(data_dir, || (), None, change).await
    }

    /// The same, connected with this certificate. `change` gives it one of its own.
    pub async fn start_for(
        client: &Tls,
        data_dir: &Path,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::start_on(data_dir, || (), Some(client), change).await
    }

    /// The same, but its threads have no rights to the files of others: as any user's, where the test is root's.
    pub async fn start_unprivileged(data_dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let folder = data_dir.parent().unwrap();
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        Self::start_on(data_dir, give_up_rights, None, change).await
    }

    /// The same; each of its threads calls `on_thread_start` first.
    pub async fn start_on_threads(data_dir: &Path, on_thread_start: fn()) -> Self {
        Self::start_on(data_dir, on_thread_start, None, |_| {}).await
    }

    async fn start_on(
        data_dir: &Path,
        on_thread_start: fn(),
        client: Option<&Tls>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config {
            data_dir: data_dir.to_owned(),
            listen: "127.0.0.1:0".into(),
            forming_grace_ms: 0,
            // A machine of tests may have little space.
            min_free_mib: 64,
            // A late heartbeat on a busy machine must not count as a lost worker.
            timeout_ms: 20_000,
            ..Config::default()
        };
        change(&mut config);
        config.validate().unwrap();
        let listener = std::net::TcpListener::bind(&config.listen).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let http = (!config.http_listen.is_empty()).then(|| {
            let listener = std::net::TcpListener::bind(&config.http_listen).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let http_address = http
            .as_ref()
            .map(|http| http.local_addr().unwrap().to_string());
        let shutdown = Shutdown::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(on_thread_start)
            .enable_all()
            .build()
            .unwrap();
        let asked = shutdown.clone();
        let task = runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let mut coordinator = Coordinator::open(config).await?;
            if let Some(http) = http {
                coordinator = coordinator.with_dashboard(TcpListener::from_std(http).unwrap());
            }
            coordinator.serve(listener, asked).await
        });
        let channel = connect_with(&address, client, PATIENCE).await.unwrap();
        Self {
            address,
            channel,
            http: http_address.unwrap_or_default(),
            data_dir: data_dir.to_owned(),
            shutdown,
            task,
            runtime: Some(runtime),
        }
    }

    /// Ends it as SIGKILL would: nothing is drained, nothing written, every connection breaks. When this returns, its folder
    /// is free.
    pub async fn kill(mut self) {
        let runtime = self.runtime.take().expect("it lives");
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE))
            .await
            .unwrap();
        // The journal's thread is not the runtime's: it closes the database on its own.
        let folder = self.data_dir.canonicalize().unwrap();
        eventually("the end of its files' use", || !is_open_in(&folder)).await;
    }

    pub fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone())
    }

    pub fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone())
    }

    pub fn datasets(&self) -> DatasetsClient<Channel> {
        DatasetsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub fn workers(&self) -> WorkersClient<Channel> {
        WorkersClient::new(self.channel.clone())
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub fn checkpoints(&self) -> CheckpointsClient<Channel> {
        CheckpointsClient::new(self.channel.clone())
    }

    /// Asks it to stop; the answer comes when it has.
    pub fn ask_to_stop(&self) {
        self.shutdown.request();
    }

    pub async fn stopped(mut self) -> Result<(), ServeError> {
        soon("the coordinator's end", &mut self.task).await.unwrap()
    }

    pub async fn stop(self) {
        self.ask_to_stop();
        self.stopped().await.unwrap();
    }

    pub async fn submit(&self, spec: pb::RunSpec) -> Result<pb::Run, Status> {
        let request = pb::SubmitRequest { spec: Some(spec) };
        let reply = self.runs().submit(request).await?.into_inner();
        Ok(reply.run.expect("an accepted run"))
    }

    pub async fn run(&self, id: &str) -> pb::Run {
        let request = pb::GetRunRequest { run_id: id.into() };
        self.runs().get(request).await.unwrap().into_inner()
    }

    /// The run once people see that `holds`. A reason to wait is refreshed each second, and no event tells of it.
    pub async fn run_when(
        &self,
        id: &str,
        what: &str,
        holds: impl Fn(&pb::Run) -> bool,
    ) -> pb::Run {
        let seen = async {
            loop {
                let run = self.run(id).await;
                if holds(&run) {
                    return run;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        soon(what, seen).await
    }

    pub async fn watch(&self, id: &str) -> Watch {
        let request = pb::WatchRequest { run_id: id.into() };
        Watch(self.runs().watch(request).await.unwrap().into_inner())
    }

    pub async fn upload(&self, dataset: &Path) -> Result<pb::Dataset, Status> {
        let reply = self
            .datasets()
            .create(tokio_stream::iter(parts(dataset)))
            .await?;
        Ok(reply.into_inner().dataset.unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whether this process has a file open in `folder`.
fn is_open_in(folder: &Path) -> bool {
    // Where the system has no such list, nothing is known to be open.
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return false;
    };
    // A file that has been closed since then has no name.
    open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|file| file.starts_with(folder))
}

/// Takes the rights to the files of others from this thread and those that it will start.
fn give_up_rights() {
    // SAFETY: the call touches no memory. It changes this thread only; one that is not root's has no such rights anyway.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::setfsuid(65_534)
    };
}

/// A stream of a run's events.
pub struct Watch(pub Streaming<pb::RunEvent>);

impl Watch {
    /// The next event; None at the stream's end.
    pub async fn next(&mut self) -> Option<pb::run_event::Event> {
        let message = soon("an event of the run", self.0.message()).await.unwrap();
        message.map(|m| m.event.expect("an event"))
    }

    /// Reads until the run is in `phase`.
    pub async fn until(&mut self, phase: pb::Phase) -> pb::Run {
        loop {
            match self.next().await {
                Some(pb::run_event::Event::Run(run)) if run.phase() == phase => return run,
                Some(_) => {}
                None => panic!("the stream ended before {phase:?}"),
            }
        }
    }
}

/// Asserts that a call was refused with this code and a message that contains `named`.
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, named: &str) {
    let status = result.expect_err(named);
    assert_eq!(status.code(), code, "{named}: {status:?}");
    assert!(status.message().contains(named), "{named}: {status:?}");
}

/// The messages that upload a dataset.
pub fn parts(dataset: &Path) -> Vec<pb::CreateDatasetRequest> {
    use pb::create_dataset_request::Part;
    let read = |file: &str| std::fs::read(dataset.join(file)).unwrap();
    let manifest = read("manifest.json");
    let parsed = fovea_dataset::Manifest::parse(&manifest).unwrap();
    let mut parts = vec![Part::Header(pb::DatasetFiles {
        manifest: manifest.into(),
        index: read("index.csv").into(),
    })];
    for (pack, entry) in parsed.packs.iter().enumerate() {
        // Small pieces, so that there are several.
        for data in read(&entry.file).chunks(5000) {
            parts.push(Part::Piece(pb::PackPiece {
                pack: pack as u32,
                data: data.to_vec().into(),
            }));
        }
    }
    parts
        .into_iter()
        .map(|part| pb::CreateDatasetRequest { part: Some(part) })
        .collect()
}

/// The samples that `step` of the assignment's run uses, by the run's plan over the prepared `dataset`.
pub fn samples(dataset: &Path, at: &pb::Assignment, step: u64) -> Vec<u32> {
    let dataset = Dataset::open(dataset).unwrap();
    let index = dataset.index();
    let patients: Vec<u32> = index.train().iter().map(|s| s.patient).collect();
    let spec = at.spec.as_ref().unwrap();
    let train = spec.train.as_ref().unwrap();
    let plan = ShardPlan::new(
        &patients,
        index.validation().len() as u32,
        train.virtual_ranks.unwrap(),
        train.batch.unwrap(),
        spec.seed.unwrap(),
        train.rotate.unwrap(),
    )
    .unwrap();
    let position = plan.position(step - 1);
    (0..plan.virtual_ranks())
        .flat_map(|rank| {
            plan.epoch_order(rank, position.epoch)
                .batch(position.step_in_epoch)
        })
        .map(|draw| draw.sample)
        .collect()
}

/// A run with 2 virtual ranks and 2 steps in each of 2 epochs, of which only the head is trained.
pub fn spec() -> pb::RunSpec {
    pb::RunSpec {
        name: "r".into(),
        dataset: "tiny".into(),
        model: Some(pb::ModelSpec {
            frozen: Some(pb::LayerList { names: frozen() }),
            ..Default::default()
        }),
        train: Some(pb::TrainSpec {
            epochs: Some(2),
            virtual_ranks: Some(2),
            batch: Some(6),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The same of one worker, with 3 epochs, which keeps two checkpoints.
pub fn small_spec() -> pb::RunSpec {
    let mut spec = spec();
    let train = spec.train.as_mut().unwrap();
    train.batch = Some(1);
    train.epochs = Some(3);
    spec.workers = Some(pb::WorkersSpec {
        min: Some(1),
        max: Some(1),
        ..Default::default()
    });
    spec.checkpoint = Some(pb::CheckpointSpec {
        keep_last: Some(2),
        keep_best: Some(pb::BestBy::None.into()),
        ..Default::default()
    });
    spec
}

pub fn frozen() -> Vec<String> {
    let mut layers = weight_layer_names();
    layers.retain(|name| name != HEAD);
    layers
}

/// Bytes of the state of `spec()`, a different one for every `seed`.
pub fn state(seed: u32) -> Vec<u8> {
    let elements = FlatLayout::new(2, &frozen()).unwrap().state_len() as u32;
    (0..elements)
        .flat_map(|i| ((i % 1000 + seed) as f32).to_le_bytes())
        .collect()
}
