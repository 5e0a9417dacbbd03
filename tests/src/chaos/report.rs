//! What a rampage saw, as one JSON line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SIGKILL of a worker; another one takes its place later.
    KillWorker,
    /// SIGKILL of all workers; others take their places.
    KillAllWorkers,
    /// SIGSTOP of a worker, longer than its heartbeat may stay away, then SIGCONT.
    StopWorker,
    /// SIGSTOP and SIGCONT so fast that nobody need notice.
    BriefStop,
    /// The thread that computes stands still; the heart goes on beating.
    StallDevice,
    /// It stands still while it waits for another's, which is late.
    StallWaiting,
    /// SIGTERM of a worker.
    LeaveWorker,
    /// One more worker, where there is room.
    JoinWorker,
    /// SIGKILL of the coordinator, which returns.
    KillCoordinator,
    /// SIGKILL of the coordinator and of a worker.
    KillBoth,
    /// The cable of a worker is pulled: nothing breaks, nothing arrives.
    Partition,
    /// No room for checkpoints for a while.
    FullDisk,
    /// The newest checkpoint is damaged and all workers die, so that it would be needed.
    CorruptCheckpoint,
    /// A person pauses the run and resumes it.
    PauseResume,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::KillWorker,
        Self::KillAllWorkers,
        Self::StopWorker,
        Self::BriefStop,
        Self::StallDevice,
        Self::StallWaiting,
        Self::LeaveWorker,
        Self::JoinWorker,
        Self::KillCoordinator,
        Self::KillBoth,
        Self::Partition,
        Self::FullDisk,
        Self::CorruptCheckpoint,
        Self::PauseResume,
    ];

    /// The field's comparison: a worker dies at once and others are there to go on.
    fn is_plain_kill(self) -> bool {
        self == Self::KillWorker
    }
}

/// What was seen.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u32>,
    /// Faults that could not be made, by reason.
    pub skipped: BTreeMap<String, u32>,
    /// From a worker's SIGKILL to the next committed step, with survivors: ms.
    pub recovery_ms: Quantiles,
    /// From each kind of fault to the next committed step: ms.
    pub by_kind_ms: BTreeMap<Kind, Quantiles>,
    /// Runs completed and compared.
    pub runs: u32,
    /// Their committed steps.
    pub steps: u64,
    /// Their generations: each change of workers costs at most the step in flight.
    pub generations: u64,
    /// Steps that were broken off and taken again: one for each generation that its workers logged as broken
    /// off, and one for each time that all workers were killed.
    pub steps_retried: u64,
    /// Committed steps that were committed again, because all that had committed them died.
    pub steps_repeated: u64,
    /// Whether every ledger equals its plan.
    pub audit: &'static str,
    /// Whether every run ended in the undisturbed one's bits.
    pub bit_identical: bool,
    /// Processes left over.
    pub orphans: usize,
    /// Temporary files left over.
    pub temporary_files: usize,
    /// Most memory and open files: coordinator, then any worker.
    pub peak_rss_kb: [u64; 2],
    pub peak_open_files: [usize; 2],
    /// Wall time.
    pub seconds: u64,
    #[serde(skip)]
    times: BTreeMap<Kind, Vec<u64>>,
    #[serde(skip)]
    coordinator_rss: Vec<u64>,
}

/// Of a number of times.
#[derive(Debug, Default, Serialize)]
pub struct Quantiles {
    n: usize,
    p50: u64,
    p99: u64,
    max: u64,
}

impl Report {
    /// A fault was made, and so long after it the next step was committed, if one was to come.
    pub fn made(&mut self, kind: Kind, took: Option<Duration>) {
        *self.faults.entry(kind).or_default() += 1;
        if let Some(took) = took {
            let times = self.times.entry(kind).or_default();
            times.push(took.as_millis() as u64);
            times.sort_unstable();
            let quantiles = Quantiles::of(times);
            if kind.is_plain_kill() {
                self.recovery_ms = Quantiles::of(times);
            }
            self.by_kind_ms.insert(kind, quantiles);
        }
        if matches!(kind, Kind::KillAllWorkers | Kind::CorruptCheckpoint) {
            // Nobody is left to log it.
            self.steps_retried += 1;
        }
    }

    /// Times of plain kills, sorted.
    pub fn kills_ms(&self) -> &[u64] {
        self.times.get(&Kind::KillWorker).map_or(&[], Vec::as_slice)
    }

    pub(super) fn measured(&mut self, coordinator: bool, rss_kb: u64, files: usize) {
        let at = usize::from(!coordinator);
        self.peak_rss_kb[at] = self.peak_rss_kb[at].max(rss_kb);
        self.peak_open_files[at] = self.peak_open_files[at].max(files);
        if coordinator {
            self.coordinator_rss.push(rss_kb);
        }
    }

    /// Memory must not grow with the number of faults.
    pub(super) fn check_memory(&self) {
        const COORDINATOR_KB: u64 = 600_000;
        const WORKER_KB: u64 = 2_500_000;
        const FILES: usize = 500;
        let [coordinator, worker] = self.peak_rss_kb;
        assert!(
            coordinator < COORDINATOR_KB,
            "the coordinator took {coordinator} kB"
        );
        assert!(worker < WORKER_KB, "a worker took {worker} kB");
        let most = self.peak_open_files.iter().max();
        assert!(
            most.is_some_and(|n| *n < FILES),
            "open files: {:?}",
            self.peak_open_files
        );
    }
}

impl Quantiles {
    fn of(sorted: &[u64]) -> Self {
        let at = |share: f64| {
            let index = (sorted.len() as f64 * share).ceil() as usize;
            sorted.get(index.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self {
            n: sorted.len(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}
