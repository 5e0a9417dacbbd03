//! The lines shown for a run while it is followed: pure, from updates to text.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::run::{EpochResult, StepReport};

use super::format::{bytes, clock, rate, share, split_event, without_event};
use super::workers::left_out_line;
use crate::view::{Phase, RunInfo};
use crate::watch::{Cause, Update};
use fovea_core::count::{count, plural};

/// Shortest time between two progress lines where no bar is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// Steps that an epoch's line waits for its checkpoint to be stored.
const STEPS_TO_WAIT: u32 = 20;

/// Turns the updates of a run into lines.
///
/// Invariant: every checkpoint that is stored while this watches is shown once, either in the row of
/// the epoch that it closes or as a line of its own, whichever of row and checkpoint comes first.
pub struct Narrator {
    /// Whether steps are shown as lines, because there is no bar.
    steps_as_lines: bool,
    run: Option<RunInfo>,
    progress: Option<StepReport>,
    shown_phase: Option<(Phase, u64, String)>,
    last_note: String,
    heading: bool,
    /// SHA-256 by step: a checkpoint that was taken again has another one.
    stored: BTreeMap<u64, String>,
    /// Steps of those of them that were shown as a line.
    lined: BTreeSet<u64>,
    /// Steps at which an epoch ends whose row was shown.
    rows: BTreeSet<u64>,
    /// An evaluated epoch whose checkpoint is still on its way, and the steps since.
    waiting: Option<(EpochResult, u32)>,
    /// A checkpoint that waits for the row of the epoch that it closes, and the steps since.
    held: Option<(CheckpointInfo, u32)>,
    last_progress: Option<Instant>,
}

impl Narrator {
    pub fn new(steps_as_lines: bool) -> Self {
        Self {
            steps_as_lines,
            run: None,
            progress: None,
            shown_phase: None,
            last_note: String::new(),
            heading: false,
            stored: BTreeMap::new(),
            lined: BTreeSet::new(),
            rows: BTreeSet::new(),
            waiting: None,
            held: None,
            last_progress: None,
        }
    }

    /// Whether it is an evaluation, as far as is known.
    pub fn is_evaluation(&self) -> bool {
        let run = self.run.as_ref();
        run.is_some_and(|run| run.spec.evaluate.is_some())
    }

    /// The run as it was reported last.
    pub fn run(&self) -> Option<&RunInfo> {
        self.run.as_ref()
    }

    /// The lines that an update brings.
    pub fn on(&mut self, update: &Update, now: Instant) -> Vec<String> {
        match update {
            Update::Run(run) => self.on_run(run),
            Update::Step(step) => self.on_step(step, now),
            // Its figures are those of `fovea evaluate`.
            Update::Epoch(_) if self.is_evaluation() => Vec::new(),
            Update::Epoch(epoch) => {
                let mut lines = self.flush_row();
                let due = self.run.as_ref().is_some_and(|r| {
                    let epochs = r.steps_per_epoch.max(1);
                    r.spec.checkpoint_due(epoch.step, epochs, r.total_steps)
                });
                self.waiting = Some((epoch.clone(), 0));
                if !due || self.stored.contains_key(&epoch.step) {
                    lines.extend(self.flush_row());
                }
                lines
            }
            Update::Checkpoint(info) => self.on_checkpoint(info),
            Update::Note(text) => {
                let mut lines = self.flush_row();
                self.last_note.clone_from(text);
                lines.push(note_line(text));
                lines
            }
            Update::Reconnecting {
                cause,
                reason,
                attempt,
                wait,
            } => {
                let wait = wait.as_secs_f64();
                match cause {
                    // The first attempt usually succeeds.
                    Cause::Away if *attempt == 1 => Vec::new(),
                    Cause::Away => vec![format!(
                        "the coordinator is away ({reason}); attempt {attempt} in {wait:.1} s"
                    )],
                    Cause::Limit => vec![format!(
                        "the coordinator refused this watch, it is at a limit: {reason}; attempt \
                         {attempt} in {wait:.1} s"
                    )],
                }
            }
        }
    }

    /// What still waits: the row of an epoch, shown without its checkpoint, or a checkpoint, shown
    /// without the row.
    pub fn flush(&mut self) -> Vec<String> {
        let mut lines = self.flush_row();
        lines.extend(self.flush_held());
        lines
    }

    /// The row of the epoch that waits for its checkpoint.
    fn flush_row(&mut self) -> Vec<String> {
        let Some((epoch, _)) = self.waiting.take() else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        if !self.heading {
            self.heading = true;
            lines.push(epoch_heading(&epoch).into());
        }
        let epochs = self.run.as_ref().map_or(0, |r| r.spec.train.epochs);
        let stored = self.stored.contains_key(&epoch.step) && !self.lined.contains(&epoch.step);
        lines.push(epoch_line(&epoch, epochs, stored));
        self.rows.insert(epoch.step);
        self.held.take_if(|(info, _)| info.step == epoch.step);
        lines
    }

    /// The line of the checkpoint that waits for its epoch's row.
    fn flush_held(&mut self) -> Option<String> {
        let (info, _) = self.held.take()?;
        Some(self.checkpoint_line(&info))
    }

    fn checkpoint_line(&mut self, info: &CheckpointInfo) -> String {
        self.lined.insert(info.step);
        format!(
            "checkpoint of step {} stored ({})",
            info.step,
            bytes(info.bytes)
        )
    }

    /// The bar's content: (committed steps, steps in all, text).
    pub fn bar(&self) -> (u64, u64, String) {
        let Some(run) = &self.run else {
            return (0, 0, String::new());
        };
        let step = self.progress.map_or(0, |p| p.step);
        let text = match (run.phase, &self.progress) {
            (Phase::Running | Phase::Finishing, _) if run.spec.evaluate.is_some() => {
                format!(
                    "scoring {}",
                    count(run.validation_samples, "image", "images")
                )
            }
            (Phase::Running | Phase::Finishing, Some(p)) => progress_text(run, p),
            (Phase::Running, None) => "the first step".into(),
            (Phase::Queued, _) if !run.reason.is_empty() => {
                format!("waiting: {}", without_event(&run.reason))
            }
            (Phase::Queued, _) => "waiting for workers".into(),
            (Phase::Forming, _) => "workers fetch data and connect".into(),
            (phase, _) => phase.as_str().into(),
        };
        // An evaluation takes no step.
        let total = match run.spec.evaluate {
            None => run.total_steps,
            Some(_) => 0,
        };
        (step, total, text)
    }

    fn on_run(&mut self, run: &RunInfo) -> Vec<String> {
        self.progress = run.progress.or(self.progress);
        let before_any = self.run.is_none();
        if before_any {
            // Those of the first snapshot are old. Later ones are reported one by one.
            let old = run.checkpoints.iter().map(|c| (c.step, c.sha256.clone()));
            self.stored.extend(old);
        }
        self.run = Some(run.clone());
        let now = (run.phase, run.generation, run.reason.clone());
        if self.shown_phase.as_ref() == Some(&now) {
            return Vec::new();
        }
        let before = self.shown_phase.replace(now);
        let first_run = before.as_ref().is_none_or(|(_, g, _)| *g == 0);
        let mut lines = match run.phase {
            Phase::Running | Phase::Forming | Phase::Finishing => Vec::new(),
            _ => self.flush(),
        };
        // The reason may just have been shown, as a note or with the previous phase.
        let known = !run.reason.is_empty()
            && (self.last_note.contains(without_event(&run.reason))
                || before.is_some_and(|(_, _, reason)| reason == run.reason));
        lines.extend(phase_line(run, first_run, known));
        if before_any {
            // Later ones are reported by notes.
            let left_out = run.left_out.iter();
            lines.extend(left_out.map(|l| format!("left out: {}", left_out_line(l))));
        }
        // After other lines the headings are repeated.
        if self.heading && !lines.is_empty() {
            self.heading = false;
        }
        lines
    }

    fn on_checkpoint(&mut self, info: &CheckpointInfo) -> Vec<String> {
        let before = self.stored.insert(info.step, info.sha256.clone());
        if before.as_ref() == Some(&info.sha256) {
            return Vec::new();
        }
        self.lined.remove(&info.step);
        let waits = |e: &(EpochResult, u32)| e.0.step == info.step;
        if self.waiting.as_ref().is_some_and(waits) {
            return self.flush_row();
        }
        let closes_epoch = self.run.as_ref().is_some_and(|r| at_epoch(r, info.step));
        if closes_epoch && before.is_none() && !self.rows.contains(&info.step) {
            // The row is about to come.
            let older = self.flush_held();
            self.held = Some((info.clone(), 0));
            return older.into_iter().collect();
        }
        vec![self.checkpoint_line(info)]
    }

    fn on_step(&mut self, step: &StepReport, now: Instant) -> Vec<String> {
        self.progress = Some(*step);
        let mut lines = Vec::new();
        let too_long = |steps: &mut u32| {
            *steps += 1;
            *steps > STEPS_TO_WAIT
        };
        if self.waiting.as_mut().is_some_and(|(_, s)| too_long(s)) {
            lines.extend(self.flush_row());
        }
        if self.held.as_mut().is_some_and(|(_, s)| too_long(s)) {
            lines.extend(self.flush_held());
        }
        let due = self
            .last_progress
            .is_none_or(|then| now.duration_since(then) >= PROGRESS_EVERY);
        if self.steps_as_lines && due {
            self.last_progress = Some(now);
            if let Some(run) = &self.run {
                lines.push(format!(
                    "step {}/{}  {}",
                    step.step,
                    run.total_steps,
                    progress_text(run, step)
                ));
            }
        }
        lines
    }
}

/// How far an evaluation is.
pub fn scored_line(run: &RunInfo) -> String {
    let RunInfo {
        id,
        scored,
        validation_samples: of,
        ..
    } = run;
    let percent = 100 * scored / of.max(&1);
    format!(
        "{id}: {scored} of {} scored ({percent} %)",
        count(*of, "image", "images")
    )
}

/// The results of a completed run, or where a run was paused.
pub fn summary(run: &RunInfo) -> Vec<String> {
    if let Some(evaluate) = &run.spec.evaluate {
        return vec![format!(
            "{} {}: {} of {} ({}) scored with step {} of {}",
            run.id,
            run.phase.as_str(),
            count(run.validation_samples, "image", "images"),
            run.spec.dataset,
            evaluate.part,
            evaluate.step,
            evaluate.run
        )];
    }
    let mut lines = vec![match run.phase {
        Phase::Paused => paused_line(run, &format!("fovea resume {}", run.id)),
        phase => format!(
            "{} {}: {} in {}",
            run.id,
            phase.as_str(),
            count(run.total_steps, "step", "steps"),
            count(run.spec.train.epochs, "epoch", "epochs"),
        ),
    }];
    if let Some(epoch) = run.last_epoch() {
        let v = &epoch.validation;
        lines.push(format!(
            "validation AUC {}, {}accuracy {:.3}, sensitivity {}, specificity {} ({} held out, {} positive)",
            share(v.auc),
            if has_grades(epoch) {
                format!("kappa {}, ", share(v.quadratic_kappa))
            } else {
                String::new()
            },
            v.accuracy,
            share(v.sensitivity),
            share(v.specificity),
            count(v.samples, "image", "images"),
            v.positives,
        ));
    }
    if let Some(checkpoint) = run.checkpoints.last() {
        lines.push(format!(
            "checkpoint of step {}: {}, sha256 {}",
            checkpoint.step,
            bytes(checkpoint.bytes),
            checkpoint.sha256
        ));
    }
    lines
}

/// Where a run is paused, and which command continues it.
pub fn paused_line(run: &RunInfo, resume: &str) -> String {
    format!(
        "{} is paused at step {}/{}; continue it with: {resume}",
        run.id,
        run.step(),
        run.total_steps
    )
}

/// Whether there are more classes than two, so that it matters how far off a prediction is.
fn has_grades(result: &EpochResult) -> bool {
    result.validation.confusion.len() > 2
}

/// The headings of [`epoch_line`].
pub fn epoch_heading(result: &EpochResult) -> &'static str {
    if has_grades(result) {
        "  epoch  train loss  val loss    AUC   kappa  accuracy  sensitivity  specificity  checkpoint"
    } else {
        "  epoch  train loss  val loss    AUC  accuracy  sensitivity  specificity  checkpoint"
    }
}

/// One epoch's results under [`epoch_heading`].
pub fn epoch_line(result: &EpochResult, epochs: u32, stored: bool) -> String {
    let v = &result.validation;
    let train_loss = result
        .train_loss
        .map_or_else(|| "-".into(), |l| format!("{l:.4}"));
    let kappa = if has_grades(result) {
        format!("  {:>6}", share(v.quadratic_kappa))
    } else {
        String::new()
    };
    format!(
        "{:>7}  {train_loss:>10}  {:>8.4}  {:>5}{kappa}  {:>8.3}  {:>11}  {:>11}  {}",
        format!("{}/{epochs}", result.epoch + 1),
        v.loss,
        share(v.auc),
        v.accuracy,
        share(v.sensitivity),
        share(v.specificity),
        if stored {
            format!("step {}", result.step)
        } else {
            "-".into()
        },
    )
}

/// An event of the run. Its name, by which docs/events.md lists it, is dim on a terminal.
fn note_line(message: &str) -> String {
    match split_event(message) {
        (Some(event), text) => format!("{} {text}", console::style(format!("{event}:")).dim()),
        (None, text) => format!("note: {text}"),
    }
}

/// The line for a change of phase. `reason_known` leaves out a reason that was shown before, which is
/// all that most phases have to show.
fn phase_line(run: &RunInfo, first_time: bool, reason_known: bool) -> Option<String> {
    let id = &run.id;
    let reason = without_event(&run.reason);
    let workers = run.workers.len() as u64;
    match run.phase {
        Phase::Forming => Some(format!(
            "{id}: {} {} data and {} (generation {}){}",
            count(workers, "worker", "workers"),
            plural(workers, "fetches", "fetch"),
            plural(workers, "connects", "connect"),
            run.generation,
            if reason_known || reason.is_empty() {
                String::new()
            } else {
                format!(": {reason}")
            },
        )),
        _ if reason_known => None,
        // At first this is how it should be: workers come when the run is there.
        Phase::Queued if first_time && reason.starts_with("needs ") => {
            Some(format!("{id}: waiting for workers to join ({reason})"))
        }
        Phase::Queued if !reason.is_empty() => Some(format!("{id} waits: {reason}")),
        Phase::Queued => Some(match run.spec.workers.min {
            0 | 1 => format!("{id}: queued"),
            min => format!("{id}: queued (needs {min} workers)"),
        }),
        Phase::Running if run.spec.evaluate.is_some() && reason.is_empty() => Some(format!(
            "{id}: scoring {} with {}",
            count(run.validation_samples, "image", "images"),
            count(workers, "worker", "workers"),
        )),
        Phase::Running if !reason.is_empty() => Some(format!("{id}: {reason}")),
        Phase::Running if first_time || run.step() == 0 => Some(format!(
            "{id}: training on {} with {}, {} of {}; {} held out",
            count(run.train_samples, "image", "images"),
            count(workers, "worker", "workers"),
            count(run.spec.train.epochs, "epoch", "epochs"),
            count(run.steps_per_epoch, "step", "steps"),
            run.validation_samples,
        )),
        Phase::Running => Some(format!(
            "{id}: continues from step {} on {}",
            run.step(),
            count(workers, "worker", "workers")
        )),
        Phase::Finishing if !reason.is_empty() => Some(format!("{id}: stopping: {reason}")),
        Phase::Finishing | Phase::Paused | Phase::Completed | Phase::Failed | Phase::Cancelled => {
            None
        }
    }
}

fn progress_text(run: &RunInfo, step: &StepReport) -> String {
    let epoch = (step.step.saturating_sub(1) / run.steps_per_epoch.max(1) + 1)
        .min(u64::from(run.spec.train.epochs));
    // A rate that is all but zero would show years.
    let left = run
        .time_left(step)
        .filter(|left| left.as_secs() < 10_000_000);
    let eta = left.map_or_else(|| "-".into(), clock);
    format!(
        "epoch {epoch}/{}  loss {:.4}  {}  ETA {eta}",
        run.spec.train.epochs,
        step.loss,
        rate(step.images_per_s),
    )
}

fn at_epoch(run: &RunInfo, step: u64) -> bool {
    run.steps_per_epoch > 0 && step.is_multiple_of(run.steps_per_epoch)
}

#[cfg(test)]
pub(super) mod tests;
