//! The metrics for Prometheus, read at each scrape.
//!
//! ```text
//!  cluster (sessions, live runs) ──┐
//!  journal (runs and ledgers)    ──┼──> Source::read ──> Figures ──> /metrics
//!  disk, certificate, audits     ──┘
//! ```
//!
//! Nothing is kept that can be stale, except what [`DiskSpace`] saw last: a series lasts as long as its run is live or among the last ones, or its worker
//! connected. Counters of runs come from the journal, so that they go on where they were after a kill. Labels are ids that this
//! program made or checked, never people's texts.

mod images;
mod runs;
mod table;

use std::sync::Arc;

use fovea_core::memory::Memory;
use fovea_core::priority::Priority;
use fovea_security::Tls;
use fovea_service::ops::{Figures, Histogram};
use fovea_traces::Traces;
use tokio::sync::Mutex;

use crate::audits::Audits;
use crate::clock::Clock;
use crate::cluster::{Cluster, WeakCluster, WorkerState, WorkerView};
use crate::config::Config;
use crate::error::ApiError;
use crate::journal::{Journal, Stats};
use crate::messages::Load;
use crate::services::Context;
use crate::space::DiskSpace;
use images::Images;

pub(crate) use table::{RECOVERY_BOUNDS, STEP_SECONDS};

/// The states of workers as label values, in the order of the protocol.
const STATES: [&str; 7] = [
    "idle",
    "preparing",
    "training",
    "waiting",
    "barred",
    "left_out",
    "leaving",
];

/// Where the figures are read. It does not keep the cluster going.
#[derive(Debug)]
pub(crate) struct Source {
    cluster: WeakCluster,
    journal: Journal,
    space: DiskSpace,
    tls: Option<Tls>,
    config: Arc<Config>,
    clock: Clock,
    audits: Audits,
    recovery_seconds: Arc<Histogram>,
    traces: Traces,
    /// Also lets one scrape wait for another.
    images: Mutex<Images>,
}

impl Source {
    /// What these say.
    pub(crate) fn new(context: &Context, audits: Audits, recovery_seconds: Arc<Histogram>) -> Self {
        Self {
            cluster: context.runs.cluster.downgrade(),
            journal: context.runs.journal.clone(),
            space: context.space.clone(),
            tls: context.tls.clone(),
            config: Arc::clone(&context.config),
            clock: context.clock,
            audits,
            recovery_seconds,
            traces: context.traces.clone(),
            images: Mutex::default(),
        }
    }

    /// The cluster that the figures are of.
    pub(crate) fn cluster(&self) -> &WeakCluster {
        &self.cluster
    }

    /// The figures now.
    ///
    /// # Errors
    /// The journal cannot be read, or the coordinator stops.
    pub(crate) async fn read(&self) -> Result<Figures, ApiError> {
        let mut images = self.images.lock().await;
        let cluster = self.cluster.upgrade().ok_or(ApiError::ShuttingDown)?;
        let mut figures = Figures::default();
        self.runs(&cluster, &mut images, &mut figures).await?;
        self.workers(&cluster, &mut figures).await?;
        self.itself(&mut figures).await;
        Ok(figures)
    }

    async fn runs(
        &self,
        cluster: &Cluster,
        images: &mut Images,
        figures: &mut Figures,
    ) -> Result<(), ApiError> {
        let runs = runs::shown(cluster, &self.journal).await?;
        images.update(&self.journal, &runs).await?;
        for priority in Priority::ALL {
            let queued = runs.iter().filter(|run| run.waits_at(priority)).count();
            figures.add(&table::QUEUE_RUNS, &[priority.as_str()], queued as f64);
        }
        for run in &runs {
            run.add(figures);
            let id = run.id();
            figures.add(&table::IMAGES, &[id], images.of(run) as f64);
            if let Some(audited) = self.audits.of(run.number()) {
                figures.add(&table::AUDITED_STEP, &[id], audited.step as f64);
                figures.add(&table::AUDIT_PROBLEMS, &[id], audited.problems as f64);
            }
        }
        let recovery = self.recovery_seconds.counts();
        figures.add_counts(&table::RECOVERY_SECONDS, &[], recovery);
        Ok(())
    }

    async fn workers(&self, cluster: &Cluster, figures: &mut Figures) -> Result<(), ApiError> {
        let workers = cluster.workers().await?;
        for state in STATES {
            let count = workers.iter().filter(|w| state_of(&w.state) == state);
            figures.add(&table::WORKERS, &[state], count.count() as f64);
        }
        let now = self.clock.now();
        for worker in &workers {
            add_worker(figures, worker, now);
        }
        Ok(())
    }

    async fn itself(&self, figures: &mut Figures) {
        let Stats {
            commits,
            writes,
            commit_time,
        } = self.journal.stats();
        figures.add(&table::JOURNAL_COMMITS, &[], commits as f64);
        figures.add(&table::JOURNAL_WRITES, &[], writes as f64);
        let seconds = commit_time.as_secs_f64();
        figures.add(&table::JOURNAL_COMMIT_SECONDS, &[], seconds);
        let blocked = self.journal.blocked().borrow().is_some();
        figures.add(&table::JOURNAL_BLOCKED, &[], f64::from(u8::from(blocked)));
        let dropped = self.traces.dropped() as f64;
        figures.add(&table::TRACES_DROPPED, &[], dropped);
        // A store that is away has no room to tell of.
        let free = self.space.known().await.map(|space| space.free as f64);
        figures.add_some(&table::STORE_FREE, &[], free);
        let reserve = self.config.min_free_mib << 20;
        figures.add(&table::STORE_RESERVE, &[], reserve as f64);
        let until = self.tls.as_ref().map(|tls| tls.certificate().until);
        let until = until.map(|until| until.unix_timestamp() as f64);
        figures.add_some(&table::CERTIFICATE_EXPIRY, &[], until);
    }
}

fn state_of(state: &WorkerState) -> &'static str {
    STATES[match state {
        WorkerState::Idle => 0,
        WorkerState::Preparing(_) => 1,
        WorkerState::Training(_) => 2,
        WorkerState::Waiting { .. } => 3,
        WorkerState::Barred { .. } => 4,
        WorkerState::LeftOut => 5,
        WorkerState::Leaving(_) => 6,
    }]
}

/// A worker's figures at `now` on the clock.
fn add_worker(figures: &mut Figures, worker: &WorkerView, now: u64) {
    let id: &[&str] = &[worker.id.as_str()];
    let since = |at: u64| now.saturating_sub(at) as f64 / 1e3;
    figures.add(&table::WORKER_CONNECTED, id, since(worker.since));
    figures.add(&table::WORKER_SILENT, id, since(worker.heard));
    let Load {
        step_ms,
        wait_ratio,
        gpu_used,
        resident,
    } = worker.load;
    let seconds = step_ms.map(|ms| ms / 1e3);
    figures.add_some(&table::WORKER_STEP_SECONDS, id, seconds);
    figures.add_some(&table::WORKER_WAIT_RATIO, id, wait_ratio);
    let bytes = |bytes: u64| bytes as f64;
    figures.add_some(&table::WORKER_RESIDENT, id, resident.map(bytes));
    figures.add_some(&table::WORKER_GPU_USED, id, gpu_used.map(bytes));
    let Memory { gpu, .. } = worker.memory;
    figures.add_some(&table::WORKER_GPU, id, (gpu > 0).then_some(gpu as f64));
}

#[cfg(test)]
mod tests;
