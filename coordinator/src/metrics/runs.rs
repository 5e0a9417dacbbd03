//! Figures of runs: of all that have not ended, and of the last ones.

use std::collections::BTreeMap;

use fovea_core::metrics::Evaluation;
use fovea_core::priority::Priority;
use fovea_core::run::{Discarded, FormationReason, Phase, Run};
use fovea_service::ops::Figures;

use super::table;
use crate::cluster::Cluster;
use crate::error::ApiError;
use crate::journal::Journal;
use crate::run::RunHandle;

/// So many of the last runs are shown, whether they have ended or not.
const LAST: usize = 20;

/// The reason of generations that an older version formed.
const UNRECORDED: &str = "unrecorded";

const PHASES: [&str; 8] = [
    "queued",
    "forming",
    "running",
    "finishing",
    "paused",
    "completed",
    "failed",
    "cancelled",
];

/// A run of the scrape.
pub(super) struct ShownRun {
    /// As it was written last, with its ledger's head at the same moment: counters come from these.
    written: Run,
    head: u64,
    /// Its actor, if it is live.
    live: Option<RunHandle>,
}

/// The runs to show, newest first.
///
/// # Errors
/// The journal cannot be read, or the coordinator stops.
pub(super) async fn shown(cluster: &Cluster, journal: &Journal) -> Result<Vec<ShownRun>, ApiError> {
    let live = cluster.live().await?;
    let mut live: BTreeMap<u64, RunHandle> = live.into_iter().map(|l| (l.number, l)).collect();
    let mut shown = Vec::new();
    for (written, head) in journal.overview(u64::MAX, LAST).await.map_err(unreadable)? {
        let live = live.remove(&written.number);
        shown.push(ShownRun {
            written,
            head,
            live,
        });
    }
    for (number, handle) in live.into_iter().rev() {
        // An ended one that somebody has just asked for is no live run.
        if handle.shown().run.is_terminal() {
            continue;
        }
        let found = journal.overview(number.saturating_add(1), 1).await;
        let found = found.map_err(unreadable)?.pop();
        if let Some((written, head)) = found.filter(|(run, _)| run.number == number) {
            shown.push(ShownRun {
                written,
                head,
                live: Some(handle),
            });
        }
    }
    Ok(shown)
}

fn unreadable(error: crate::journal::JournalError) -> ApiError {
    ApiError::Unavailable(error.to_string())
}

impl ShownRun {
    pub(super) fn id(&self) -> &str {
        self.written.id.as_str()
    }

    pub(super) fn number(&self) -> u64 {
        self.written.number
    }

    pub(super) fn lineage(&self) -> u64 {
        self.written.lineage
    }

    /// The last step up to which the ledger has no gap.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn discarded(&self) -> Discarded {
        self.written.discarded
    }

    /// Whether it is queued with this priority.
    pub(super) fn waits_at(&self, priority: Priority) -> bool {
        let queued = match &self.live {
            Some(live) => matches!(live.shown().run.phase, Phase::Queued { .. }),
            None => matches!(self.written.phase, Phase::Queued { .. }),
        };
        queued && self.written.priority() == priority
    }

    /// Adds its figures.
    pub(super) fn add(&self, figures: &mut Figures) {
        let (id, now) = (self.id(), self.live.as_ref().map(RunHandle::shown));
        let run = now.as_ref().map_or(&self.written, |now| &*now.run);
        for phase in PHASES {
            let is = f64::from(u8::from(run.phase_name() == phase));
            figures.add(&table::RUN_PHASE, &[id, phase], is);
        }
        let waiting = now.as_ref().is_some_and(|now| now.waiting.is_some());
        let waiting = f64::from(u8::from(waiting));
        figures.add(&table::RUN_WAITING, &[id], waiting);
        let workers = run.roster().map_or(0, |roster| roster.members.len());
        figures.add(&table::RUN_WORKERS, &[id], workers as f64);
        let planned = run.extent.total_steps as f64;
        figures.add(&table::RUN_PLANNED_STEPS, &[id], planned);
        // Both of the same moment, so that a rewind between two reads cannot show.
        let steps = self.head + self.written.discarded.steps;
        figures.add(&table::STEPS, &[id], steps as f64);
        add_formations(figures, &self.written);
        let failures = self.written.checkpoint_failures as f64;
        figures.add(&table::CHECKPOINT_FAILURES, &[id], failures);
        if let Some(live) = &self.live {
            let seconds = live.step_seconds();
            figures.add_counts(&table::RUN_STEP_SECONDS, &[id], seconds);
        }
        let progress = now.as_ref().map_or(run.progress, |now| now.progress);
        let step = progress.map_or(0, |newest| newest.step);
        figures.add(&table::RUN_STEP, &[id], step as f64);
        if let Some(newest) = progress {
            figures.add(&table::TRAIN_LOSS, &[id], newest.loss);
            figures.add(&table::LEARNING_RATE, &[id], newest.learning_rate);
            if matches!(run.phase, Phase::Running { .. }) {
                figures.add(&table::IMAGES_PER_SECOND, &[id], newest.images_per_s);
            }
        }
        if let Some(newest) = run.epochs.last() {
            add_validation(figures, id, &newest.validation);
        }
        add_checkpoint(figures, run);
    }
}

/// Generations by reason, all of them, so that a first one shows as an increase.
fn add_formations(figures: &mut Figures, run: &Run) {
    let id = run.id.as_str();
    let formations = &run.formations;
    for reason in FormationReason::ALL {
        let count = formations.count(reason) as f64;
        figures.add(&table::GENERATIONS, &[id, reason.as_str()], count);
    }
    // Those of a version that did not count reasons. An evaluation begins with the number of its checkpoint's generation.
    let before = run.generation.saturating_sub(formations.total());
    if before > 0 && run.spec.evaluate.is_none() {
        let labels = [id, UNRECORDED];
        figures.add(&table::GENERATIONS, &labels, before as f64);
    }
}

fn add_validation(figures: &mut Figures, id: &str, validation: &Evaluation) {
    let Evaluation {
        samples: _,
        positives: _,
        loss,
        accuracy,
        auc,
        sensitivity,
        specificity,
        quadratic_kappa,
        confusion: _,
    } = validation;
    for (metric, value) in [
        ("auc", *auc),
        ("kappa", *quadratic_kappa),
        ("loss", Some(*loss)),
        ("accuracy", Some(*accuracy)),
        ("sensitivity", *sensitivity),
        ("specificity", *specificity),
    ] {
        figures.add_some(&table::VALIDATION, &[id, metric], value);
    }
}

/// The newest checkpoint, and how often there is to be one.
fn add_checkpoint(figures: &mut Figures, run: &Run) {
    let id: &[&str] = &[run.id.as_str()];
    let mut valid = run.checkpoints.iter().filter(|c| !run.is_void(c));
    let newest = valid.next_back();
    let step = newest.map_or(0, |newest| newest.step);
    figures.add(&table::CHECKPOINT_STEP, id, step as f64);
    if let Some(newest) = newest {
        let stored = newest.stored_at_ms as f64 / 1e3;
        figures.add(&table::CHECKPOINT_STORED, id, stored);
        figures.add(&table::CHECKPOINT_BYTES, id, newest.bytes as f64);
    }
    let spec = &run.spec.checkpoint;
    let by_epochs = u64::from(spec.every_epochs) * run.extent.steps_per_epoch;
    let intervals = [by_epochs, spec.every_steps].into_iter();
    let interval = intervals.filter(|steps| *steps > 0).min();
    let interval = interval.map(|steps| steps as f64);
    figures.add_some(&table::CHECKPOINT_INTERVAL, id, interval);
}
