//! The result of a chaos test, as one JSON line. Every verdict in it is computed from what was compared.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Kind, Scrapes};

/// What was measured and compared.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Injected faults by kind.
    pub faults: BTreeMap<Kind, u32>,
    /// Faults that could not be injected at that moment, by reason.
    pub skipped: BTreeMap<String, u32>,
    /// Wanted kinds that were never injected; empty after a complete test.
    pub missing: Vec<Kind>,
    /// From a worker's SIGKILL to the next committed step, with survivors: ms.
    pub recovery_ms: Quantiles,
    /// From each kind of fault to the next committed step: ms. For a fault that lasts (a full disk, an unreadable
    /// store), its duration is part of it.
    pub by_kind_ms: BTreeMap<Kind, Quantiles>,
    /// Runs that ended and were compared.
    pub runs: u32,
    /// Their committed steps.
    pub steps: u64,
    /// Their generations: each change of workers costs at most the step in flight.
    pub generations: u64,
    /// Steps that were interrupted and taken again: one for each generation whose workers logged an interruption, and
    /// one for each time that all workers were killed.
    pub steps_retried: u64,
    /// Committed steps that were committed again, because all workers that had them were killed.
    pub steps_repeated: u64,
    /// `clean` if the ledger of every run in `runs` was audited without a problem; else what was found.
    pub audit: String,
    /// Whether the final tensors of every run in `runs` equal the undisturbed run's. False if none was compared.
    pub bit_identical: bool,
    /// Stored checkpoints that could not be read whole when their run had ended, those excepted that a fault damaged.
    pub checkpoints_lost: u32,
    /// Checkpoint files that were read again and compared with their digest.
    pub checkpoints_verified: u32,
    /// Corrupt packs that workers reported in their logs.
    pub corrupt_packs_detected: usize,
    /// Processes left over.
    pub orphans: usize,
    /// Temporary files left over.
    pub temporary_files: usize,
    /// Most memory and open files: coordinator, then any worker.
    pub peak_rss_kb: [u64; 2],
    pub peak_open_files: [usize; 2],
    /// What the coordinator's metrics showed, read once a second.
    pub scrapes: Scrapes,
    /// Wall time.
    pub seconds: u64,
    /// What is wrong; empty if the test has passed.
    pub failures: Vec<String>,
    #[serde(skip)]
    times: BTreeMap<Kind, Vec<u64>>,
    #[serde(skip)]
    compared: Vec<Comparison>,
}

/// What was compared when a run had ended.
#[derive(Debug)]
pub(super) struct Comparison {
    pub run: String,
    /// Names of tensors that differ from the undisturbed run's, missing ones included.
    pub differing: Vec<String>,
    /// What the audit found.
    pub audit_problems: Vec<String>,
    pub clean_epochs: u32,
    pub epochs: u32,
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
    /// A fault was injected, and so long after it the next step was committed, if one was to come.
    pub(super) fn injected(&mut self, kind: Kind, took: Option<Duration>) {
        *self.faults.entry(kind).or_default() += 1;
        if let Some(took) = took {
            let times = self.times.entry(kind).or_default();
            times.push(took.as_millis() as u64);
            times.sort_unstable();
            if kind == Kind::KillWorker {
                self.recovery_ms = Quantiles::of(times);
            }
            self.by_kind_ms.insert(kind, Quantiles::of(times));
        }
        if kind.kills_all_workers() {
            // No worker is left to log the interruption.
            self.steps_retried += 1;
        }
    }

    pub(super) fn skipped(&mut self, kind: Kind, reason: &str) {
        let entry = self.skipped.entry(format!("{kind:?}: {reason}"));
        *entry.or_default() += 1;
    }

    /// A run has ended and was compared.
    pub(super) fn compared(&mut self, comparison: Comparison) {
        let Comparison {
            run,
            differing,
            audit_problems,
            clean_epochs,
            epochs,
        } = &comparison;
        self.runs += 1;
        if !differing.is_empty() {
            let some = &differing[..differing.len().min(3)];
            self.failures.push(format!(
                "run {run}: {} tensors differ from the undisturbed run's, such as {some:?}",
                differing.len()
            ));
        }
        if !audit_problems.is_empty() {
            self.failures
                .push(format!("run {run}: audit: {}", audit_problems.join("; ")));
        }
        if clean_epochs != epochs {
            self.failures.push(format!(
                "run {run}: audit: {clean_epochs} of {epochs} epochs are clean"
            ));
        }
        self.compared.push(comparison);
    }

    /// All scrapes have been made.
    pub(super) fn scraped(&mut self, scrapes: Scrapes) {
        let was = |kind| self.faults.contains_key(&kind);
        let failures = scrapes.failures(was(Kind::KillCoordinator), was(Kind::KillWorker));
        self.failures.extend(failures);
        self.scrapes = scrapes;
    }

    /// Computes the verdicts.
    pub(super) fn finish(&mut self, wanted: &[Kind]) {
        let is_missing = |kind: &&Kind| !self.faults.contains_key(kind);
        self.missing = wanted.iter().filter(is_missing).copied().collect();
        if !self.missing.is_empty() {
            let text = format!(
                "never injected: {:?}; refused: {:?}",
                self.missing, self.skipped
            );
            self.failures.push(text);
        }
        self.bit_identical =
            !self.compared.is_empty() && self.compared.iter().all(|c| c.differing.is_empty());
        let problems: usize = self.compared.iter().map(|c| c.audit_problems.len()).sum();
        let unclean = self.compared.iter().map(|c| c.epochs - c.clean_epochs);
        let unclean: u32 = unclean.sum();
        self.audit = match (self.compared.len(), problems, unclean) {
            (0, ..) => "no run was audited".into(),
            (_, 0, 0) => "clean".into(),
            (runs, problems, unclean) => {
                format!("{problems} problems and {unclean} unclean epochs in {runs} runs")
            }
        };
        if self.compared.is_empty() {
            self.failures.push("no run was compared".into());
        }
        for (what, count) in [
            ("checkpoints are lost", self.checkpoints_lost as usize),
            ("processes are left over", self.orphans),
            ("temporary files are left over", self.temporary_files),
        ] {
            if count > 0 {
                self.failures.push(format!("{count} {what}"));
            }
        }
        self.check_memory();
    }

    pub(super) fn measured(&mut self, coordinator: bool, rss_kb: u64, files: usize) {
        let at = usize::from(!coordinator);
        self.peak_rss_kb[at] = self.peak_rss_kb[at].max(rss_kb);
        self.peak_open_files[at] = self.peak_open_files[at].max(files);
    }

    /// Memory must not grow with the number of faults.
    fn check_memory(&mut self) {
        const COORDINATOR_KB: u64 = 600_000;
        const WORKER_KB: u64 = 2_500_000;
        const FILES: usize = 500;
        let [coordinator, worker] = self.peak_rss_kb;
        for (who, kb, most) in [
            ("the coordinator", coordinator, COORDINATOR_KB),
            ("a worker", worker, WORKER_KB),
        ] {
            if kb > most {
                self.failures
                    .push(format!("{who} took {kb} kB; {most} kB are allowed"));
            }
        }
        if self.peak_open_files.iter().any(|files| *files > FILES) {
            let files = self.peak_open_files;
            self.failures
                .push(format!("open files: {files:?}; {FILES} are allowed"));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison() -> Comparison {
        Comparison {
            run: "chaos-1".into(),
            differing: Vec::new(),
            audit_problems: Vec::new(),
            clean_epochs: 3,
            epochs: 3,
        }
    }

    fn finished(compared: Vec<Comparison>) -> Report {
        let mut report = Report::default();
        report.injected(Kind::KillWorker, None);
        for comparison in compared {
            report.compared(comparison);
        }
        report.finish(&[Kind::KillWorker]);
        report
    }

    #[test]
    fn verdicts_follow_from_the_comparisons() {
        let report = finished(vec![comparison(), comparison()]);
        assert!(report.bit_identical && report.failures.is_empty());
        assert_eq!(report.audit, "clean");

        let report = finished(Vec::new());
        assert!(!report.bit_identical && !report.failures.is_empty());
        assert_eq!(report.audit, "no run was audited");

        let mut other = comparison();
        other.differing.push("conv1/7x7_s2.weight".into());
        let report = finished(vec![comparison(), other]);
        assert!(!report.bit_identical && report.audit == "clean");
        assert!(report.failures[0].contains("conv1/7x7_s2.weight"));

        let mut other = comparison();
        other.audit_problems.push("step 3 is there twice".into());
        let report = finished(vec![other]);
        assert!(report.bit_identical && report.audit.starts_with("1 problems"));
        assert!(!report.failures.is_empty());

        let mut other = comparison();
        other.clean_epochs = 2;
        let report = finished(vec![other]);
        assert!(report.audit.contains("1 unclean") && !report.failures.is_empty());
    }

    #[test]
    fn a_kind_that_was_never_injected_is_a_failure() {
        let mut report = finished(vec![comparison()]);
        report.skipped(Kind::FullDisk, "there is no checkpoint yet");
        report.failures.clear();
        report.finish(&[Kind::KillWorker, Kind::FullDisk]);
        assert_eq!(report.missing, [Kind::FullDisk]);
        assert!(report.failures[0].contains("no checkpoint yet"));
    }
}
