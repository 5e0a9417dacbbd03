//! What the coordinator has not acknowledged yet: committed steps and epochs' scores.
//!
//! All workers of a generation know the same, so all keep it and only rank 0 tells it as it happens. What
//! is kept is told again by everybody in a new session or a new generation: a coordinator that was away
//! misses nothing, and a step that only a lost worker had told is not lost with it.

use std::collections::{BTreeMap, BTreeSet};

use fovea_core::metrics::Score;
use fovea_core::run::StepReport;

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A committed step and the samples that it used.
    Step(StepReport, Vec<u32>),
    /// Scores after an epoch.
    Scores(u32, Vec<Score>),
}

/// What is kept of one run.
#[derive(Debug, Default)]
pub struct Reports {
    /// The run and its lineage.
    of: Option<(String, u64)>,
    /// The newest generation, in which they are told.
    generation: u64,
    /// The first epoch whose result is not acknowledged.
    next_epoch: u32,
    steps: BTreeMap<u64, (StepReport, Vec<u32>)>,
    scores: BTreeMap<u32, Vec<Score>>,
    /// Which of them are to be told.
    due_steps: BTreeSet<u64>,
    due_scores: BTreeSet<u32>,
}

impl Reports {
    /// A generation of a run begins: everything kept of the same run and lineage is to be told, anything else
    /// is void. The results of epochs before `next_epoch` are known.
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
        self.tell_again();
    }

    /// The first epoch whose result is not acknowledged.
    pub fn next_epoch(&self) -> u32 {
        self.next_epoch
    }

    /// Everything kept is to be told once more.
    pub fn tell_again(&mut self) {
        self.due_steps = self.steps.keys().copied().collect();
        self.due_scores = self.scores.keys().copied().collect();
    }

    /// A step was committed; one taken again replaces the older entry. `others_tell` if it is not this
    /// worker's business to tell it now.
    pub fn step(&mut self, report: StepReport, samples: Vec<u32>, others_tell: bool) {
        self.steps.insert(report.step, (report, samples));
        if !others_tell {
            self.due_steps.insert(report.step);
        }
    }

    /// The validation split was scored after `epoch`.
    pub fn scores(&mut self, epoch: u32, scores: Vec<Score>, others_tell: bool) {
        self.scores.insert(epoch, scores);
        if !others_tell {
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
        }
    }

    /// Whether there is something to tell.
    pub fn is_due(&self) -> bool {
        !self.due_steps.is_empty() || !self.due_scores.is_empty()
    }

    /// The next thing to tell, with run and generation; it is then no more due. Scores follow all steps.
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

    /// What is told, in a word each.
    fn told(reports: &mut Reports) -> Vec<String> {
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

    fn some(others_tell: bool) -> Reports {
        let mut reports = Reports::default();
        reports.begin("a", 1, 0, 0);
        for step in 1..=3 {
            reports.step(report(step, 0.5), vec![step as u32], others_tell);
        }
        reports.scores(0, Vec::new(), others_tell);
        reports
    }

    #[test]
    fn rank_0_tells_at_once_and_all_tell_again_until_it_is_acknowledged() {
        let all = |g: u64| {
            let step = move |s: u64| format!("a.{g} step {s} 0.5 [{s}]");
            let steps = (1..=3).map(step);
            steps.chain([format!("a.{g} epoch 0")]).collect::<Vec<_>>()
        };
        let mut first = some(false);
        assert_eq!(told(&mut first), all(1));
        assert!(!first.is_due());
        let mut other = some(true);
        assert!(!other.is_due());
        for reports in [&mut first, &mut other] {
            reports.tell_again();
            assert!(reports.is_due());
            assert_eq!(told(reports), all(1));
            reports.begin("a", 2, 0, 0);
            assert_eq!(told(reports), all(2));
            reports.acknowledge("a", 2, 0);
            reports.tell_again();
            assert_eq!(told(reports), all(2)[2..]);
            reports.acknowledge("a", 3, 1);
            reports.tell_again();
            assert_eq!(told(reports), [""; 0]);
            assert_eq!(reports.next_epoch(), 1);
        }
    }

    #[test]
    fn a_step_taken_again_replaces_the_older_entry() {
        let mut reports = some(false);
        told(&mut reports);
        reports.step(report(2, 0.7), vec![9], false);
        assert_eq!(told(&mut reports), ["a.1 step 2 0.7 [9]"]);
    }

    #[test]
    fn another_run_or_lineage_makes_all_void_and_its_acknowledgements_nothing() {
        let mut reports = some(false);
        reports.acknowledge("b", 3, 1);
        assert!(reports.is_due());
        reports.begin("a", 2, 1, 0);
        assert!(!reports.is_due());
        let mut reports = some(false);
        reports.begin("b", 2, 0, 4);
        assert!(!reports.is_due());
        assert_eq!(reports.next_epoch(), 4);
        assert_eq!(told(&mut Reports::default()), [""; 0]);
    }
}
