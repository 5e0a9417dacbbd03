//! Audits that go on beside the runs, so that a problem is noticed without anybody asking.
//!
//! Each run's ledger is read once, in pages; from then on only what is new. `fovea runs audit` reads all of it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fovea_core::ledger::Auditor;
use fovea_core::run::Run;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::blocking::blocking;
use crate::catalogue::Datasets;
use crate::cluster::WeakCluster;
use crate::journal::Journal;
use crate::services::plan;

/// How often runs are audited.
const EVERY: Duration = Duration::from_secs(30);
/// Steps that are read at a time.
const PAGE: usize = 2_000;
/// Audits of so many runs are kept.
const KEPT: usize = 100;

/// What an audit says so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audited {
    /// Steps up to this one were audited.
    pub step: u64,
    /// Problems found, 100 at most.
    pub problems: usize,
}

/// The audits of runs that are live, or were since the start, by number. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audits(Arc<Mutex<BTreeMap<u64, Audited>>>);

impl Audits {
    /// That of the run of this number.
    pub(crate) fn of(&self, number: u64) -> Option<Audited> {
        self.lock().get(&number).copied()
    }

    fn put(&self, number: u64, audited: Audited) {
        let mut all = self.lock();
        all.insert(number, audited);
        while all.len() > KEPT {
            all.pop_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Audited>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Audits live runs until `closing`.
pub(crate) fn start(
    cluster: WeakCluster,
    journal: Journal,
    datasets: Datasets,
    closing: CancellationToken,
) -> (Audits, JoinHandle<()>) {
    let audits = Audits::default();
    let mut task = Task {
        audits: audits.clone(),
        journal,
        datasets,
        under_way: BTreeMap::new(),
    };
    let body = async move {
        let mut look = interval(EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = look.tick() => {}
            }
            let Some(cluster) = cluster.upgrade() else {
                return;
            };
            let Ok(live) = cluster.live().await else {
                return;
            };
            drop(cluster);
            let mut runs: BTreeMap<u64, Arc<Run>> = BTreeMap::new();
            for handle in live {
                runs.insert(handle.number, handle.shown().run);
            }
            tokio::select! {
                () = closing.cancelled() => return,
                () = task.audit_all(runs) => {}
            }
        }
    };
    (audits, tokio::spawn(body))
}

/// An audit that goes on.
#[derive(Debug)]
struct UnderWay {
    /// Of the run when it began. Another lineage has another ledger.
    lineage: u64,
    auditor: Auditor,
    /// The step to read next.
    next: u64,
}

struct Task {
    audits: Audits,
    journal: Journal,
    datasets: Datasets,
    under_way: BTreeMap<u64, UnderWay>,
}

impl Task {
    /// Audits what is new of these live runs, and of those that have ended since.
    async fn audit_all(&mut self, mut live: BTreeMap<u64, Arc<Run>>) {
        let known = self.under_way.keys().copied();
        let ended: Vec<u64> = known.filter(|number| !live.contains_key(number)).collect();
        for number in ended {
            match self.journal.run(number).await {
                Ok(Some(run)) => {
                    live.insert(number, Arc::new(run));
                }
                // It was removed.
                Ok(None) | Err(_) => {
                    self.under_way.remove(&number);
                }
            }
        }
        for (number, run) in live {
            // An evaluation trains on nothing.
            if run.spec.evaluate.is_none() {
                self.audit(number, &run).await;
            }
            if run.is_terminal() {
                self.under_way.remove(&number);
            }
        }
    }

    async fn audit(&mut self, number: u64, run: &Run) {
        let lineage = run.lineage;
        let known = self.under_way.remove(&number);
        let mut under_way = match known.filter(|known| known.lineage == lineage) {
            Some(known) => known,
            None => {
                let dataset = self.datasets.now().find(&run.dataset_digest);
                let Ok(dataset) = dataset else { return };
                let spec = run.spec.clone();
                // It takes some milliseconds for a large dataset.
                let made = blocking(move || plan(&dataset, &spec)).await;
                let Ok(Ok((plan, _))) = made else { return };
                UnderWay {
                    lineage,
                    auditor: Auditor::new(plan),
                    next: 1,
                }
            }
        };
        loop {
            let train_samples = run.extent.train_samples;
            let read = self
                .journal
                .steps(number, train_samples, under_way.next, PAGE);
            let entries = match read.await {
                Ok((entries, _)) => entries,
                Err(error) => {
                    debug!(run_id = %run.id, %error, "audit.unread: {error}");
                    break;
                }
            };
            let Some(last) = entries.last() else { break };
            under_way.next = last.step + 1;
            let mut auditor = under_way.auditor;
            let pushed = blocking(move || {
                entries.into_iter().for_each(|entry| auditor.push(entry));
                auditor
            });
            match pushed.await {
                Ok(auditor) => under_way.auditor = auditor,
                Err(_) => return,
            }
        }
        let step = under_way.next - 1;
        let audit = under_way.auditor.clone().finish(step);
        let problems = audit.problems.len();
        let before = self.audits.of(number).map_or(0, |audited| audited.problems);
        if problems > before
            && let Some(first) = audit.problems.first()
        {
            warn!(
                run_id = %run.id,
                problems,
                "audit.problem: {} has used its samples otherwise than planned: {first}; `fovea runs audit {}` lists all",
                run.id,
                run.id
            );
        }
        self.audits.put(number, Audited { step, problems });
        self.under_way.insert(number, under_way);
    }
}
