//! A run's spans: what its phases, steps and results say of formations, recoveries, evaluations and checkpoints.
//!
//! Those that are open are in memory: what a coordinator that is killed had begun, nobody ends.

use std::collections::BTreeMap;

use fovea_core::run::{EpochResult, FormationReason, Phase, Run, StepReport};
use fovea_traces::{Context, Span, Traces, Work, names};

use super::assembly::AssemblyKey;

/// The spans of one run that are open.
#[derive(Debug, Default)]
pub(super) struct Spans {
    traces: Traces,
    /// A generation has run that no recovery has replaced yet.
    ran: bool,
    recovery: Option<Span>,
    /// With the generation.
    formation: Option<(u64, Span)>,
    /// With the epoch.
    evaluation: Option<(u32, Span)>,
    checkpoints: BTreeMap<AssemblyKey, Span>,
}

/// What spans of its present generation are about.
fn work(run: &Run) -> Work<'_> {
    Work {
        run: run.id.as_str(),
        lineage: run.lineage,
        generation: run.generation,
    }
}

fn text(reason: Option<FormationReason>) -> &'static str {
    reason.map_or("", FormationReason::as_str)
}

impl Spans {
    pub(super) fn new(traces: Traces) -> Self {
        Self {
            traces,
            ..Self::default()
        }
    }

    /// The run is in this phase now.
    pub(super) fn phase(&mut self, run: &Run) {
        if !self.traces.are_on() {
            return;
        }
        match &run.phase {
            Phase::Forming { roster, reason, .. } => {
                let same = |(generation, _): &(u64, Span)| *generation == roster.generation;
                if self.formation.as_ref().is_some_and(same) {
                    return;
                }
                self.interrupt("another generation forms");
                let why = reason.as_deref().unwrap_or_default();
                self.recover(run, why);
                let recovery = self.recovery.as_ref().and_then(Span::context);
                let own = Context::formation(work(run));
                let of = recovery.map_or(own, |recovery| own.within(recovery));
                let mut span = self
                    .traces
                    .begin(names::FORMATION, run.id.as_str(), of)
                    .child_of(recovery)
                    .with(names::GENERATION, roster.generation)
                    .with(names::WORKERS, roster.members.len() as u64)
                    .with(names::REASON, text(run.formations.last()));
                if !why.is_empty() {
                    span.set(names::CAUSE, why);
                }
                self.formation = Some((roster.generation, span));
            }
            Phase::Running { roster, .. } => {
                self.ran = true;
                if let Some((_, span)) = self.formation.take() {
                    span.with(names::STEP, roster.start_step).end();
                }
                self.evaluate(run, roster.start_step);
            }
            Phase::Finishing { .. } => {}
            Phase::Queued { reason } => {
                let why = reason.as_deref().unwrap_or("the run is queued");
                self.interrupt(why);
                self.recover(run, why);
            }
            Phase::Completed => {
                self.interrupt("the run is complete");
                self.ran = false;
                if let Some(span) = self.recovery.take() {
                    span.end();
                }
            }
            Phase::Paused | Phase::Cancelled | Phase::Failed { .. } => {
                let why = format!("the run is {}", run.phase_name());
                self.interrupt(&why);
                self.ran = false;
                if let Some(span) = self.recovery.take() {
                    span.fail(&why);
                }
            }
        }
    }

    /// What was under way in the generation before comes to nothing.
    fn interrupt(&mut self, why: &str) {
        let formation = self.formation.take().map(|(_, span)| span);
        let evaluation = self.evaluation.take().map(|(_, span)| span);
        for span in formation.into_iter().chain(evaluation) {
            span.fail(why);
        }
    }

    /// A recovery begins, if a generation that ran has lost a worker.
    fn recover(&mut self, run: &Run, why: &str) {
        let reason = run.formations.last();
        let fault = reason.is_some_and(FormationReason::is_fault);
        if self.ran && fault && self.recovery.is_none() {
            let of = Context::recovery(work(run));
            let span = self
                .traces
                .begin(names::RECOVERY, run.id.as_str(), of)
                .with(names::GENERATION, run.generation)
                .with(names::REASON, text(reason))
                .with(names::CAUSE, why);
            self.recovery = Some(span);
            self.ran = false;
        }
    }

    /// A step was committed.
    pub(super) fn step(&mut self, run: &Run, report: &StepReport) {
        let Phase::Running { roster, .. } = &run.phase else {
            // A step of the generation before, which is reported again.
            return;
        };
        if report.step <= roster.start_step {
            return;
        }
        if let Some(span) = self.recovery.take() {
            span.with(names::STEP, report.step).end();
        }
        self.evaluate(run, report.step);
    }

    /// At this step an evaluation begins, if an epoch without a result ends there.
    fn evaluate(&mut self, run: &Run, step: u64) {
        let per_epoch = run.extent.steps_per_epoch.max(1);
        if !self.traces.are_on() || step == 0 || !step.is_multiple_of(per_epoch) {
            return;
        }
        let epoch = u32::try_from(step / per_epoch - 1).unwrap_or(u32::MAX);
        let same = |(open, _): &(u32, Span)| *open == epoch;
        if epoch < run.next_epoch() || self.evaluation.as_ref().is_some_and(same) {
            return;
        }
        let of = Context::evaluation(work(run), epoch);
        let span = self
            .traces
            .begin(names::EVALUATION, run.id.as_str(), of)
            .with(names::GENERATION, run.generation)
            .with(names::EPOCH, u64::from(epoch))
            .with(names::STEP, step);
        self.evaluation = Some((epoch, span));
    }

    /// An epoch's result is known.
    pub(super) fn evaluated(&mut self, result: &EpochResult) {
        let Some((_, mut span)) = self.evaluation.take_if(|(epoch, _)| *epoch == result.epoch)
        else {
            return;
        };
        span.set(names::SAMPLES, result.validation.samples);
        if let Some(auc) = result.validation.auc {
            span.set(names::AUC, auc);
        }
        span.end();
    }

    /// The context of the formation of this generation, for its workers.
    pub(super) fn formation(&self, generation: u64) -> Option<Context> {
        let formation = self.formation.as_ref();
        formation
            .filter(|(of, _)| *of == generation)
            .and_then(|(_, span)| span.context())
    }

    /// The first slice of a checkpoint comes.
    pub(super) fn assembling(&mut self, run: &Run, key: AssemblyKey) {
        if !self.traces.are_on() {
            return;
        }
        let of = Work {
            generation: key.generation,
            ..work(run)
        };
        let of = Context::checkpoint(of, key.step);
        let span = self
            .traces
            .begin(names::CHECKPOINT, run.id.as_str(), of)
            .with(names::GENERATION, key.generation)
            .with(names::STEP, key.step);
        self.checkpoints.insert(key, span);
    }

    /// A checkpoint is stored.
    pub(super) fn assembled(&mut self, key: AssemblyKey, bytes: u64) {
        if let Some(span) = self.checkpoints.remove(&key) {
            span.with(names::BYTES, bytes).end();
        }
    }

    /// A checkpoint was not stored.
    pub(super) fn not_assembled(&mut self, key: AssemblyKey, why: &str) {
        if let Some(span) = self.checkpoints.remove(&key) {
            span.fail(why);
        }
    }

    /// Only these are still assembled; the generations of the others are over.
    pub(super) fn assemblies(&mut self, under_way: impl Fn(&AssemblyKey) -> bool) {
        let over: Vec<AssemblyKey> = self
            .checkpoints
            .keys()
            .filter(|key| !under_way(key))
            .copied()
            .collect();
        for key in over {
            self.not_assembled(key, "its generation is over");
        }
    }
}
