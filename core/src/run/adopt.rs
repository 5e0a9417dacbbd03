//! Adopting checkpoints that a restored journal does not know.
//!
//! Each checkpoint carries the ledger since the checkpoint before it and the results of the epochs so far. When the
//! journal was restored from a backup that is older than the checkpoints in the store, the run takes those that follow
//! on from what it knows, without a gap.

use super::{EpochResult, Phase, Rewind, Run, lineage};
use crate::checkpoint::CheckpointInfo;
use crate::ledger::Entry;

/// A checkpoint that the store holds, with what its manifest says.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundCheckpoint {
    /// The checkpoint.
    pub info: CheckpointInfo,
    /// Results of the epochs up to its step.
    pub epochs: Vec<EpochResult>,
    /// The steps since the checkpoint before it, in order; the last is its own step.
    pub ledger: Vec<Entry>,
}

/// What [`Run::adopt`] took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adopted {
    /// The checkpoints, in order. Empty: nothing changed.
    pub infos: Vec<CheckpointInfo>,
    /// Cut the ledger after this step before `entries` are written: a rewind that the journal does not know replaced
    /// what came after it.
    pub rewind: Option<u64>,
    /// Ledger entries to write, in order of steps.
    pub entries: Vec<Entry>,
}

impl Run {
    /// Takes those of `found` that follow on from what the run knows: of the same or a later lineage, neither void nor
    /// listed, and without a gap in the ledger, which is known up to `ledger_head`. Write the run and the entries to the
    /// journal in one transaction afterwards.
    pub fn adopt(&mut self, mut found: Vec<FoundCheckpoint>, ledger_head: u64) -> Adopted {
        found.sort_by_key(|f| (f.info.lineage, f.info.step, f.info.generation));
        let mut adopted = Adopted::default();
        let mut head = ledger_head;
        for checkpoint in found {
            if self.follows(&checkpoint, head) {
                head = self.take_over(checkpoint, head, &mut adopted);
            }
        }
        // Whoever serves the run serves a generation that this journal does not know.
        let formed = self.roster().map(|r| r.generation);
        if formed.is_some_and(|generation| generation < self.generation) {
            self.liveness.await_nobody();
            self.phase = Phase::Queued {
                reason: Some("the journal was restored from an older backup".into()),
            };
        }
        adopted
    }

    /// Whether a checkpoint follows on from what the run knows.
    fn follows(&self, found: &FoundCheckpoint, head: u64) -> bool {
        let FoundCheckpoint { info, ledger, .. } = found;
        if info.step == 0 || info.step > self.extent.total_steps {
            return false;
        }
        if !lineage::of_one_run(info.lineage, self.lineage) {
            return false;
        }
        if info.lineage < self.lineage || self.is_void(info) {
            return false;
        }
        let there = self.checkpoints.iter().find(|c| c.step == info.step);
        let same_lineage = info.lineage == self.lineage;
        if same_lineage && there.is_some_and(|c| c.generation >= info.generation) {
            return false;
        }
        let contiguous = ledger.windows(2).all(|w| w[1].step == w[0].step + 1);
        let ends_there = ledger.last().is_some_and(|e| e.step == info.step);
        if same_lineage && info.step <= head {
            // The ledger has its steps already.
            return true;
        }
        let Some(first) = ledger.first().filter(|_| contiguous && ends_there) else {
            return false;
        };
        let before = first.step.saturating_sub(1);
        if same_lineage {
            return before <= head;
        }
        // The steps after a rewind replaced others of the same numbers, so the number alone does not tell whether
        // they follow on: the checkpoint before must be known.
        before == 0
            || self
                .checkpoints
                .iter()
                .any(|c| c.step == before && !self.is_void(c))
    }

    /// Takes a checkpoint that follows on. Returns the new end of the ledger.
    fn take_over(&mut self, found: FoundCheckpoint, mut head: u64, adopted: &mut Adopted) -> u64 {
        let FoundCheckpoint {
            info,
            epochs,
            ledger,
        } = found;
        if info.lineage > self.lineage {
            let step = ledger.first().map_or(0, |e| e.step.saturating_sub(1));
            self.lineage = info.lineage;
            let rewind = Rewind {
                lineage: info.lineage,
                generation: info.generation.saturating_sub(1),
                step,
            };
            lineage::push(&mut self.rewinds, rewind);
            self.epochs.retain(|e| e.step <= step);
            self.losses.retain(|s, _| *s <= step);
            self.go_back(step);
            adopted.entries.retain(|e| e.step <= step);
            adopted.infos.retain(|c| c.step <= step);
            adopted.rewind = Some(adopted.rewind.map_or(step, |earlier| earlier.min(step)));
            head = head.min(step);
        }
        for result in epochs.into_iter().filter(|e| e.step <= info.step) {
            if let Err(at) = self.epochs.binary_search_by_key(&result.epoch, |e| e.epoch) {
                self.epochs.insert(at, result);
            }
        }
        for entry in ledger.into_iter().filter(|e| e.step > head) {
            let images = entry.samples.len() as u32;
            self.losses.insert(entry.step, (entry.loss, images));
            self.progress = Some(self.replayed(entry.step, entry.loss, images));
            adopted.entries.push(entry);
        }
        // Losses are kept for epochs without a result only.
        let evaluated = u64::from(self.next_epoch()) * self.extent.steps_per_epoch;
        self.losses = self.losses.split_off(&(evaluated + 1));
        self.generation = self.generation.max(info.generation);
        self.furthest = self.furthest.max(info.step);
        self.checkpoints.retain(|c| c.step != info.step);
        let at = self.checkpoints.partition_point(|c| c.step < info.step);
        self.checkpoints.insert(at, info.clone());
        head = head.max(info.step);
        adopted.infos.push(info);
        head
    }
}
