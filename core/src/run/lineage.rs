//! Rewinds, and which checkpoints they make void.
//!
//! A run is rewound when what was computed after a checkpoint cannot count: a person resumes from an older one, states
//! differ without a majority, or nobody can account for the steps. Each rewind starts a new *lineage*. A checkpoint that
//! was taken before the rewind and lies after its step is void: a generation never starts from it. Voidness is
//! derived from the history of rewinds, so that a checkpoint that arrives late is judged in the same way.

use serde::{Deserialize, Deserializer, Serialize};

use super::{Effect, Run, StepPhases, StepReport};
use crate::checkpoint::CheckpointInfo;

/// The run was sent back to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewind {
    /// The lineage that began with it; 0 where the journal was written by a build that did not record it.
    #[serde(default)]
    pub lineage: u64,
    /// The newest generation at that time: its checkpoints, and those of older ones, belong to an older lineage.
    pub generation: u64,
    /// Committed steps that stayed valid.
    pub step: u64,
}

/// Reads the history. Older builds wrote the last rewind only, or null.
pub(super) fn read_history<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Rewind>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Journalled {
        History(Vec<Rewind>),
        Last(Option<Rewind>),
    }
    Ok(match Journalled::deserialize(deserializer)? {
        Journalled::History(history) => history,
        Journalled::Last(last) => last.into_iter().collect(),
    })
}

/// Lineages that a run may have: 2 to this power.
const BITS: u32 = 20;

/// The first lineage of a run that was submitted then (milliseconds since the Unix epoch). It tells the run from any
/// other of the same id: where an older journal was restored, ids may be given again, while checkpoints in the store
/// and reports of workers are still those of the other run.
pub(super) fn first(submitted_at_ms: u64) -> u64 {
    submitted_at_ms << BITS
}

/// Whether two lineages are of one run.
pub(super) fn of_one_run(one: u64, other: u64) -> bool {
    one >> BITS == other >> BITS
}

/// Adds a rewind, and drops those that it implies: whatever an earlier rewind to the same or a later step made void,
/// this one makes void, too. So both lineage and step grow along the history.
pub(super) fn push(history: &mut Vec<Rewind>, rewind: Rewind) {
    history.retain(|earlier| earlier.step < rewind.step);
    history.push(rewind);
}

/// Whether one of `history` came after `checkpoint` was taken, and went back to before its step.
pub(super) fn is_void(history: &[Rewind], checkpoint: &CheckpointInfo) -> bool {
    // Of the rewinds that came later, the first went back furthest.
    let first = if checkpoint.lineage == 0 {
        // Either it is of the first lineage, or a build stored it that did not record the lineage. The generation says
        // the same: no generation outlives a rewind.
        history.partition_point(|rewind| rewind.generation < checkpoint.generation)
    } else {
        history.partition_point(|rewind| rewind.lineage <= checkpoint.lineage)
    };
    history
        .get(first)
        .is_some_and(|rewind| checkpoint.step > rewind.step)
}

impl Run {
    /// Whether a rewind made this checkpoint void.
    pub fn is_void(&self, checkpoint: &CheckpointInfo) -> bool {
        is_void(&self.rewinds, checkpoint)
    }

    /// The newest checkpoint that is not void, whether it can be read now or not.
    pub(super) fn newest_valid(&self) -> Option<&CheckpointInfo> {
        self.checkpoints.iter().rev().find(|c| !self.is_void(c))
    }

    /// A step as the ledger knows it: without its times.
    pub(super) fn replayed(&self, step: u64, loss: f64, images: u32) -> StepReport {
        StepReport {
            step,
            loss,
            images,
            images_per_s: 0.0,
            learning_rate: self.spec.schedule(self.extent.total_steps).rate(step - 1),
            phases: StepPhases::default(),
        }
    }

    /// The newest step is `step` at most, as people see it.
    pub(super) fn go_back(&mut self, step: u64) {
        let Some(newest) = self.progress.filter(|newest| newest.step > step) else {
            return;
        };
        // What is not known any more of an older step is that of the newest, until the next one is taken.
        let (loss, images) = match self.losses.get(&step) {
            Some((loss, images)) => (*loss, *images),
            None => (newest.loss, newest.images),
        };
        self.progress = (step > 0).then(|| StepReport {
            step,
            loss,
            images,
            learning_rate: self.spec.schedule(self.extent.total_steps).rate(step - 1),
            ..newest
        });
    }

    /// Rewinds the run to a checkpoint (None: to the newest valid one): states that workers hold are void.
    pub(super) fn rewind(&mut self, step: Option<u64>, out: &mut Vec<Effect>) {
        let newest = self.newest_valid().map_or(0, |c| c.step);
        let step = step.unwrap_or(newest);
        self.lineage += 1;
        let rewind = Rewind {
            lineage: self.lineage,
            generation: self.generation,
            step,
        };
        push(&mut self.rewinds, rewind);
        self.epochs.retain(|e| e.step <= step);
        self.losses.retain(|s, _| *s <= step);
        self.go_back(step);
        // `furthest` stays: a run that is rewound again and again makes no progress, though it takes steps.
        out.push(Effect::Rewind { step });
    }
}
