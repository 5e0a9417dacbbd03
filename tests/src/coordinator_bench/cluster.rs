//! Many workers and runs at one coordinator: its processor time, memory, and how fast it answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fovea_proto::pb::datasets_client::DatasetsClient;
use fovea_proto::pb::runs_client::RunsClient;
use fovea_proto::{MESSAGE_BYTES, connect, pb};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::worker::Fleet;
use super::{Latency, SEED, Samples, cpu_time, memory_kb, raise_open_files, round};
use crate::launch::CoordinatorOptions;
use crate::process::binary;

/// Longest wait for workers to join and for runs to form.
const PATIENCE: Duration = Duration::from_secs(300);
/// Connections that are being opened at the same time.
const JOINING: usize = 64;
/// After the last run has formed, before anything is measured.
const SETTLE: Duration = Duration::from_secs(5);
const LIST_EVERY: Duration = Duration::from_millis(500);
const COMMAND_EVERY: Duration = Duration::from_secs(15);
const MEMORY_EVERY: Duration = Duration::from_secs(30);

/// How large a cluster, and for how long.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ClusterOptions {
    /// Workers without a run.
    pub idle_workers: usize,
    /// Running runs.
    pub runs: usize,
    /// Workers of each run, which has as many virtual ranks.
    pub workers_per_run: usize,
    /// How long to measure.
    pub seconds: u64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct ClusterFigures {
    name: &'static str,
    #[serde(flatten)]
    options: ClusterOptions,
    /// Processor cores of this machine, which the simulated workers share with the coordinator.
    machine_cores: usize,
    /// Processor time by wall time.
    coordinator_cores: f64,
    simulator_cores: f64,
    /// Until the last worker had joined.
    join_s: f64,
    /// From the first submission until the last run took steps.
    form_s: f64,
    steps: u64,
    steps_per_s: f64,
    /// From sending a committed step to its acknowledgement, which comes when it is in the journal.
    step_acknowledgement: Latency,
    /// Runs.List of the newest 100 runs, over an open connection.
    list: Latency,
    /// `fovea runs` as a command: start, connect, list, print.
    fovea_runs_command: Latency,
    /// Resident memory of the coordinator by seconds since the measurement began.
    rss_kb: BTreeMap<u64, u64>,
    /// Workers whose session ended, runs that formed again: must be 0.
    lost_sessions: u64,
    generations_beyond_the_first: u64,
    /// Why the first sessions ended.
    reasons: Vec<String>,
}

/// Starts a coordinator with its data in `dir`, and measures it.
pub async fn measure(dir: &Path, prepared: &Path, options: ClusterOptions) -> ClusterFigures {
    let workers = options.idle_workers + options.runs * options.workers_per_run;
    raise_open_files(workers as u64 + 200);
    let (mut coordinator, address) = CoordinatorOptions::new(dir).start("coordinator.log");
    let pid = coordinator.pid();
    add_dataset(&address, prepared);
    let samples = Samples::open(prepared);
    let (go, going) = watch::channel(false);
    let fleet = Fleet::new(
        &address,
        samples.plan(options.workers_per_run as u32),
        samples.validation,
        going,
    );
    let fleet = Arc::new(fleet);

    let begun = Instant::now();
    let mut sessions = JoinSet::new();
    let counts = &fleet.counts;
    for number in 0..workers {
        sessions.spawn(Arc::clone(&fleet).worker(number));
        let enough = || counts.joined.load(Ordering::Relaxed) as usize + JOINING > number;
        until("workers join", || enough() || lost(&fleet) > 0).await;
    }
    let joined = || counts.joined.load(Ordering::Relaxed) as usize == workers;
    until("all workers join", || joined() || lost(&fleet) > 0).await;
    let join_s = begun.elapsed().as_secs_f64();
    eprintln!("{workers} workers have joined within {join_s:.1} s");
    let reasons = counts.reasons.lock().expect("no holder panics").clone();
    assert!(joined(), "workers could not join: {reasons:?}");

    let mut runs =
        RunsClient::new(channel(&address).await).max_decoding_message_size(MESSAGE_BYTES);
    let begun = Instant::now();
    for _ in 0..options.runs {
        let spec = Some(spec(options.workers_per_run as u32));
        let accepted = runs.submit(pb::SubmitRequest { spec }).await;
        accepted.expect("the run is accepted");
    }
    let end = Instant::now() + PATIENCE;
    while running(&mut runs).await < options.runs {
        assert!(Instant::now() < end, "not all runs have formed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let form_s = begun.elapsed().as_secs_f64();
    eprintln!("{} runs have formed within {form_s:.1} s", options.runs);
    go.send_replace(true);
    tokio::time::sleep(SETTLE).await;

    // From here on everything counts.
    counts
        .acknowledged
        .lock()
        .expect("no holder panics")
        .clear();
    let steps_before = counts.steps.load(Ordering::Relaxed);
    let (cpu_before, own_before) = (cpu_time(pid), cpu_time(std::process::id()));
    let begun = Instant::now();
    let end = begun + Duration::from_secs(options.seconds);
    let (mut list, mut command, mut rss_kb) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut ticks = tokio::time::interval(LIST_EVERY);
    let (mut command_at, mut memory_at) = (begun, begun);
    while Instant::now() < end {
        ticks.tick().await;
        let asked = Instant::now();
        running(&mut runs).await;
        list.push(asked.elapsed());
        if Instant::now() >= command_at {
            command_at += COMMAND_EVERY;
            command.push(runs_command(&address).await);
        }
        if Instant::now() >= memory_at {
            memory_at += MEMORY_EVERY;
            rss_kb.insert(begun.elapsed().as_secs(), memory_kb(pid, "VmRSS"));
        }
    }
    rss_kb.insert(begun.elapsed().as_secs(), memory_kb(pid, "VmRSS"));
    let wall = begun.elapsed().as_secs_f64();
    let cores = |now: Duration, before: Duration| round((now - before).as_secs_f64() / wall);
    let coordinator_cores = cores(cpu_time(pid), cpu_before);
    let simulator_cores = cores(cpu_time(std::process::id()), own_before);
    let steps = counts.steps.load(Ordering::Relaxed) - steps_before;
    let acknowledged = counts
        .acknowledged
        .lock()
        .expect("no holder panics")
        .clone();
    let reply = runs.list(pb::ListRunsRequest::default()).await;
    let listed = reply.expect("a list").into_inner().runs;
    let generations = listed.iter().map(|run| run.generation.saturating_sub(1));
    let figures = ClusterFigures {
        name: "coordinator-cluster",
        options,
        machine_cores: std::thread::available_parallelism().map_or(0, usize::from),
        coordinator_cores,
        simulator_cores,
        join_s: round(join_s),
        form_s: round(form_s),
        steps,
        steps_per_s: round(steps as f64 / wall),
        step_acknowledgement: Latency::of(acknowledged),
        list: Latency::of(list),
        fovea_runs_command: Latency::of(command),
        rss_kb,
        lost_sessions: lost(&fleet),
        generations_beyond_the_first: generations.sum(),
        reasons: counts.reasons.lock().expect("no holder panics").clone(),
    };
    sessions.shutdown().await;
    coordinator.kill();
    figures
}

fn lost(fleet: &Fleet) -> u64 {
    fleet.counts.lost_sessions.load(Ordering::Relaxed)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) async fn channel(address: &str) -> Channel {
    let connected = connect(address, Duration::from_secs(30)).await;
    connected.expect("the coordinator answers")
}

pub(super) fn add_dataset(address: &str, prepared: &Path) {
    let output = Command::new(binary("fovea"))
        .args(["--coordinator", &format!("http://{address}")])
        .args(["dataset", "add"])
        .arg(prepared)
        .output()
        .expect("fovea starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
}

/// How many of the newest 100 runs are running.
async fn running(runs: &mut RunsClient<Channel>) -> usize {
    let reply = runs.list(pb::ListRunsRequest::default()).await;
    let runs = reply.expect("a list").into_inner().runs;
    let is_running = |run: &&pb::Run| run.phase() == pb::Phase::Running;
    runs.iter().filter(is_running).count()
}

/// How long `fovea runs` takes.
async fn runs_command(address: &str) -> Duration {
    let begun = Instant::now();
    let output = tokio::process::Command::new(binary("fovea"))
        .args(["--coordinator", &format!("http://{address}"), "runs"])
        .output()
        .await
        .expect("fovea starts");
    assert!(output.status.success(), "{output:?}");
    begun.elapsed()
}

/// A run that takes exactly so many workers, longer than any measurement, with a checkpoint at its end only.
pub(super) fn spec(workers: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: "bench".into(),
        dataset: "synthetic".into(),
        seed: Some(SEED),
        train: Some(pb::TrainSpec {
            epochs: Some(10_000),
            virtual_ranks: Some(workers),
            batch: Some(1),
            digest_every: Some(0),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(workers),
            max: Some(workers),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A client of the Datasets service, to see that the dataset is there.
pub(super) async fn dataset_digest(address: &str) -> String {
    let mut client = DatasetsClient::new(channel(address).await);
    let reply = client.list(pb::ListDatasetsRequest {}).await;
    let datasets = reply.expect("a list").into_inner().datasets;
    let first = datasets.into_iter().next();
    first.expect("the dataset is there").digest
}
