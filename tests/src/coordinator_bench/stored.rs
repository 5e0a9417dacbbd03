//! A coordinator with long ledgers: how long until it serves, and what an audit of a very long run costs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_proto::pb::runs_client::RunsClient;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::cluster::{channel, dataset_digest, spec};
use super::worker::Fleet;
use super::{Latency, Samples, ledgers, memory_kb, round};
use crate::launch::CoordinatorOptions;
use crate::process::Process;

/// Workers that train a run during the audit, to see whether the coordinator loses them.
const WORKERS: u32 = 2;
/// Longest wait for anything but the audit.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long the ledgers are.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StoredOptions {
    /// Runs, a tenth of them paused and the others completed.
    pub stored_runs: u64,
    /// Steps in the ledger of each, rounded up to whole epochs.
    pub stored_steps: u64,
    /// Steps in the ledger of one more run, which is audited; rounded up to whole epochs.
    pub audit_steps: u64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct StoredFigures {
    name: &'static str,
    #[serde(flatten)]
    options: StoredOptions,
    journal_mib: u64,
    /// From the start of the process until its health is SERVING. The first start may migrate the journal.
    first_start_s: f64,
    second_start_s: f64,
    /// Resident memory when it served for the second time.
    rss_kb: u64,
    audit_s: f64,
    audit_problems: usize,
    /// Peak of resident memory during the audit.
    audit_peak_rss_kb: u64,
    /// Acknowledgements of a running run's steps while the audit went on.
    step_acknowledgement: Latency,
    /// Workers of that run whose session ended, and generations beyond the first: must be 0.
    lost_sessions: u64,
    generations_beyond_the_first: u64,
}

/// Writes a data folder below `dir` and measures a coordinator on it.
pub async fn measure(dir: &Path, prepared: &Path, options: StoredOptions) -> StoredFigures {
    let coordinator = CoordinatorOptions::new(dir);
    let samples = Samples::open(prepared);
    let data_dir = coordinator.data_dir();
    let StoredOptions {
        stored_runs,
        stored_steps,
        audit_steps,
    } = options;
    let (stored_steps, audit_steps) = ledgers::write(
        &data_dir,
        prepared,
        &samples,
        stored_runs,
        stored_steps,
        audit_steps,
    );
    let options = StoredOptions {
        stored_runs,
        stored_steps,
        audit_steps,
    };
    let journal = std::fs::metadata(data_dir.join("journal.db")).expect("it was written");
    let (mut process, address, first_start_s) = start(&coordinator, "coordinator-first.log").await;
    assert_eq!(
        dataset_digest(&address).await,
        samples.dataset.manifest().digest
    );
    process.signal(libc::SIGTERM);
    let status = process.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", process.log());
    let (mut process, address, second_start_s) = start(&coordinator, "coordinator.log").await;
    let pid = process.pid();
    let rss_kb = memory_kb(pid, "VmRSS");

    let (_go, going) = watch::channel(true);
    let fleet = Fleet::new(&address, samples.plan(WORKERS), samples.validation, going);
    let fleet = Arc::new(fleet);
    let mut sessions = JoinSet::new();
    for number in 0..WORKERS {
        sessions.spawn(Arc::clone(&fleet).worker(number as usize));
    }
    let mut runs = RunsClient::new(channel(&address).await);
    let spec = Some(spec(WORKERS));
    let accepted = runs.submit(pb::SubmitRequest { spec }).await;
    let run = accepted.expect("the run is accepted").into_inner().run;
    let run_id = run.expect("an accepted run").id;
    let end = Instant::now() + PATIENCE;
    while acknowledged(&fleet).len() < 3 {
        assert!(Instant::now() < end, "the run does not take steps");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fleet
        .counts
        .acknowledged
        .lock()
        .expect("no holder panics")
        .clear();

    let begun = Instant::now();
    let request = pb::AuditRequest {
        run_id: format!("old-{}", stored_runs + 1),
    };
    let report = runs.audit(request).await.expect("an audit").into_inner();
    let audit_s = begun.elapsed().as_secs_f64();
    assert_eq!(report.steps, audit_steps, "{report:?}");
    let peak = memory_kb(pid, "VmHWM");
    // At least one step during the audit or just after it.
    while acknowledged(&fleet).is_empty() {
        assert!(Instant::now() < end, "the run does not take steps any more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let request = pb::GetRunRequest { run_id };
    let run = runs.get(request).await.expect("the run").into_inner();
    let figures = StoredFigures {
        name: "coordinator-stored",
        options,
        journal_mib: journal.len() >> 20,
        first_start_s: round(first_start_s),
        second_start_s: round(second_start_s),
        rss_kb,
        audit_s: round(audit_s),
        audit_problems: report.problems.len(),
        audit_peak_rss_kb: peak,
        step_acknowledgement: Latency::of(acknowledged(&fleet)),
        lost_sessions: fleet.counts.lost_sessions.load(Ordering::Relaxed),
        generations_beyond_the_first: run.generation.saturating_sub(1),
    };
    sessions.shutdown().await;
    process.kill();
    figures
}

fn acknowledged(fleet: &Fleet) -> Vec<Duration> {
    let times = fleet.counts.acknowledged.lock();
    times.expect("no holder panics").clone()
}

/// Starts a coordinator and waits until its health is SERVING: the process, its address, and how many seconds that took.
async fn start(coordinator: &CoordinatorOptions, log: &str) -> (Process, String, f64) {
    let begun = Instant::now();
    let (process, address) = tokio::task::block_in_place(|| coordinator.start(log));
    let mut health = HealthClient::new(channel(&address).await);
    loop {
        let reply = health.check(HealthCheckRequest::default()).await;
        if reply.is_ok_and(|reply| reply.into_inner().status() == ServingStatus::Serving) {
            return (process, address, begun.elapsed().as_secs_f64());
        }
        assert!(begun.elapsed() < PATIENCE, "it never serves");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
