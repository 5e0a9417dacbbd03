//! Reports that the coordinator has not acknowledged yet: committed steps and epochs' scores.
//!
//! All workers of a generation have the same reports. All keep them, and only rank 0 sends them as they happen. In a
//! new session or a new generation every worker sends all that it keeps: a coordinator that was away misses nothing,
//! and a step that only a lost worker had reported is not lost with it.
//!
//! They are kept until they are acknowledged, so their number is limited: when [`Reports::is_full`] holds, the agent
//! pauses training. No report is ever dropped.

use std::collections::{BTreeMap, BTreeSet};

use fovea_core::metrics::Score;
use fovea_core::run::StepReport;

/// At most so many steps are kept.
const MAX_STEPS: usize = 100_000;
/// At most so many bytes are kept, estimated.
const MAX_BYTES: usize = 64 << 20;
/// Memory of a step without its samples, and of a score without its probabilities: the value and its place in a map.
const OVERHEAD: usize = 160;

/// A report for the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A committed step and the samples that it used.
    Step(StepReport, Vec<u32>),
    /// Scores after an epoch.
    Scores(u32, Vec<Score>),
}

/// The reports of one run.
#[derive(Debug, Default)]
pub struct Reports {
    /// The run and its lineage.
    of: Option<(String, u64)>,
    /// The newest generation, under which they are sent.
    generation: u64,
    /// The first epoch whose result is not acknowledged.
    next_epoch: u32,
    steps: BTreeMap<u64, (StepReport, Vec<u32>)>,
    scores: BTreeMap<u32, Vec<Score>>,
    /// Those that are to be sent.
    due_steps: BTreeSet<u64>,
    due_scores: BTreeSet<u32>,
    /// Estimated memory of all that is kept, in bytes.
    bytes: usize,
}

impl Reports {
    /// A generation of a run begins: all reports of the same run and lineage are to be sent, all others are void. The
    /// results of epochs before `next_epoch` are known.
    pub fn begin(&mut self, run: &str, generation: u64, lineage: u64, next_epoch: u32) {
        if self
            .of
            .as_ref()
            .is_none_or(|(r, l)| (&**r, *l) != (run, lineage))
        {
            *self = Self {
                of: Some((run.to_owned(), lineage)),
                ..Self::default()
            };
        }
        self.generation = generation;
        self.next_epoch = self.next_epoch.max(next_epoch);
        self.scores = self.scores.split_off(&self.next_epoch);
        self.measure();
        self.send_again();
    }

    /// The first epoch whose result is not acknowledged.
    pub fn next_epoch(&self) -> u32 {
        self.next_epoch
    }

    /// All reports are to be sent once more.
    pub fn send_again(&mut self) {
        self.due_steps = self.steps.keys().copied().collect();
        self.due_scores = self.scores.keys().copied().collect();
    }

    /// A step was committed. One that was taken again replaces the older report. `send` if this worker is to send it
    /// now.
    pub fn step(&mut self, report: StepReport, samples: Vec<u32>, send: bool) {
        self.bytes += step_bytes(&samples);
        if let Some((_, replaced)) = self.steps.insert(report.step, (report, samples)) {
            self.bytes = self.bytes.saturating_sub(step_bytes(&replaced));
        }
        if send {
            self.due_steps.insert(report.step);
        }
    }

    /// The validation split was scored after `epoch`.
    pub fn scores(&mut self, epoch: u32, scores: Vec<Score>, send: bool) {
        self.bytes += scores_bytes(&scores);
        if let Some(replaced) = self.scores.insert(epoch, scores) {
            self.bytes = self.bytes.saturating_sub(scores_bytes(&replaced));
        }
        if send {
            self.due_scores.insert(epoch);
        }
    }

    /// The coordinator has steps up to `step` and the results of epochs before `next_epoch` of `run`.
    pub fn acknowledge(&mut self, run: &str, step: u64, next_epoch: u32) {
        if self.of.as_ref().is_some_and(|(r, _)| r == run) {
            self.steps = self.steps.split_off(&(step + 1));
            self.due_steps = self.due_steps.split_off(&(step + 1));
            self.next_epoch = self.next_epoch.max(next_epoch);
            self.scores = self.scores.split_off(&self.next_epoch);
            self.due_scores = self.due_scores.split_off(&self.next_epoch);
            self.measure();
        }
    }

    /// Whether no more reports should be added before some are acknowledged.
    pub fn is_full(&self) -> bool {
        self.steps.len() >= MAX_STEPS || self.bytes >= MAX_BYTES
    }

    /// Steps that are not acknowledged.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Estimated memory of all reports, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn measure(&mut self) {
        let steps = self.steps.values().map(|(_, samples)| step_bytes(samples));
        let scores = self.scores.values().map(|scores| scores_bytes(scores));
        self.bytes = steps.chain(scores).sum();
    }

    /// Whether a report is to be sent.
    pub fn is_due(&self) -> bool {
        !self.due_steps.is_empty() || !self.due_scores.is_empty()
    }

    /// The next report to send, with run and generation; it is then no longer due. Scores follow all steps.
    pub fn take_due(&mut self) -> Option<(&str, u64, Report)> {
        let (run, _) = self.of.as_ref()?;
        if let Some(step) = self.due_steps.pop_first() {
            let (report, samples) = self.steps.get(&step)?.clone();
            return Some((run, self.generation, Report::Step(report, samples)));
        }
        let epoch = self.due_scores.pop_first()?;
        let scores = self.scores.get(&epoch)?.clone();
        Some((run, self.generation, Report::Scores(epoch, scores)))
    }
}

fn step_bytes(samples: &[u32]) -> usize {
    OVERHEAD + size_of_val(samples)
}

fn scores_bytes(scores: &[Score]) -> usize {
    let each = |score: &Score| {
        let map = score
            .map
            .as_ref()
            .map_or(0, |map| size_of_val(&map.values[..]));
        OVERHEAD + size_of_val(&score.probabilities[..]) + map
    };
    scores.iter().map(each).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: u64, loss: f64) -> StepReport {
        StepReport {
            step,
            loss,
            images: 1,
            images_per_s: 1.0,
            learning_rate: 0.1,
            phases: fovea_core::run::StepPhases::default(),
        }
    }

    /// The reports that are due, in a word each.
    fn due(reports: &mut Reports) -> Vec<String> {
        std::iter::from_fn(|| {
            reports
                .take_due()
                .map(|(run, generation, report)| match report {
                    Report::Step(r, samples) => {
                        format!("{run}.{generation} step {} {} {samples:?}", r.step, r.loss)
                    }
                    Report::Scores(epoch, _) => format!("{run}.{generation} epoch {epoch}"),
                })
        })
        .collect()
    }

    fn some(send: bool) -> Reports {
        let mut reports = Reports::default();
        reports.begin("a", 1, 0, 0);
        for step in 1..=3 {
            reports.step(report(step, 0.5), vec![step as u32], send);
        }
        reports.scores(0, Vec::new(), send);
        reports
    }

    #[test]
    fn rank_0_sends_at_once_and_all_send_again_until_it_is_acknowledged() {
        let all = |g: u64| {
            let step = move |s: u64| format!("a.{g} step {s} 0.5 [{s}]");
            let steps = (1..=3).map(step);
            steps.chain([format!("a.{g} epoch 0")]).collect::<Vec<_>>()
        };
        let mut first = some(true);
        assert_eq!(due(&mut first), all(1));
        assert!(!first.is_due());
        let mut other = some(false);
        assert!(!other.is_due());
        for reports in [&mut first, &mut other] {
            reports.send_again();
            assert!(reports.is_due());
            assert_eq!(due(reports), all(1));
            reports.begin("a", 2, 0, 0);
            assert_eq!(due(reports), all(2));
            reports.acknowledge("a", 2, 0);
            reports.send_again();
            assert_eq!(due(reports), all(2)[2..]);
            reports.acknowledge("a", 3, 1);
            reports.send_again();
            assert_eq!(due(reports), [""; 0]);
            assert_eq!(reports.next_epoch(), 1);
        }
    }

    #[test]
    fn a_step_taken_again_replaces_the_older_entry() {
        let mut reports = some(true);
        due(&mut reports);
        reports.step(report(2, 0.7), vec![9], true);
        assert_eq!(due(&mut reports), ["a.1 step 2 0.7 [9]"]);
    }

    #[test]
    fn another_run_or_lineage_makes_all_void_and_its_acknowledgements_nothing() {
        let mut reports = some(true);
        reports.acknowledge("b", 3, 1);
        assert!(reports.is_due());
        reports.begin("a", 2, 1, 0);
        assert!(!reports.is_due());
        let mut reports = some(true);
        reports.begin("b", 2, 0, 4);
        assert!(!reports.is_due());
        assert_eq!(reports.next_epoch(), 4);
        assert_eq!(due(&mut Reports::default()), [""; 0]);
    }

    #[test]
    fn they_are_full_at_the_limit_and_hold_all_until_they_are_acknowledged() {
        let mut reports = Reports::default();
        reports.begin("a", 1, 0, 0);
        for step in 1..=MAX_STEPS as u64 {
            assert!(!reports.is_full());
            reports.step(report(step, 0.5), vec![1, 2], true);
        }
        assert!(reports.is_full());
        reports.step(report(MAX_STEPS as u64 + 1, 0.5), vec![1], true);
        assert_eq!(reports.steps(), MAX_STEPS + 1, "nothing is dropped");
        reports.acknowledge("a", 2, 0);
        assert!(!reports.is_full());

        // Steps of many samples are full by their bytes, and taking one again does not count twice.
        let mut reports = Reports::default();
        reports.begin("a", 1, 0, 0);
        let samples = vec![0; MAX_BYTES / 4 / 2];
        for _ in 0..5 {
            reports.step(report(1, 0.5), samples.clone(), true);
        }
        assert!(!reports.is_full());
        reports.step(report(2, 0.5), samples, true);
        assert!(reports.is_full());
        reports.acknowledge("a", 2, 0);
        assert_eq!(reports.bytes(), 0);
    }
}
