//! A run's results: committed steps, evaluated epochs, checkpoints.

use std::collections::BTreeSet;

use super::membership::Cause;
use super::{Effect, EpochMaps, EpochResult, EpochScores, FormationReason, Phase, Run, StepReport};
use crate::checkpoint::CheckpointInfo;
use crate::metrics::{self, Score};
use crate::retention;

impl Run {
    /// A step was committed. The same step may be reported again: after a lost acknowledgement, or because only a lost
    /// worker had committed it.
    pub(super) fn step_committed(&mut self, report: StepReport, out: &mut Vec<Effect>) {
        if report.step > self.furthest {
            self.furthest = report.step;
            self.futile = 0;
            self.stale = 0;
            self.failures = 0;
            self.availability.reset_retries();
        }
        if self.epoch_of(report.step) >= self.next_epoch() {
            self.losses
                .insert(report.step, (report.loss, report.images));
        }
        if self.progress.is_none_or(|p| report.step >= p.step) {
            self.liveness.step_took(report.phases.total_ms());
            self.progress = Some(report);
            out.push(Effect::PublishStep(report));
        }
    }

    /// The epoch of the step that ends at `step`: that of its predecessor.
    fn epoch_of(&self, step: u64) -> u32 {
        (step.saturating_sub(1) / self.extent.steps_per_epoch.max(1)) as u32
    }

    pub(super) fn scored(&mut self, epoch: u32, scores: Vec<Score>, out: &mut Vec<Effect>) {
        let Err(at) = self.epochs.binary_search_by_key(&epoch, |e| e.epoch) else {
            return;
        };
        let classes = self.spec.model.classes;
        let mapped = self.spec.evaluate.as_ref().is_some_and(|e| e.maps);
        let valid = |s: &Score| {
            s.label < classes
                && s.probabilities.len() == classes as usize
                && u64::from(s.sample) < self.extent.validation_samples
                && s.map.is_some() == mapped
        };
        let gathered = self.scores.entry(epoch).or_default();
        gathered.extend(scores.into_iter().filter(valid).map(|s| (s.sample, s)));
        if (gathered.len() as u64) < self.extent.validation_samples {
            return;
        }
        let all: Vec<Score> = self
            .scores
            .remove(&epoch)
            .unwrap_or_default()
            .into_values()
            .collect();
        let step = (u64::from(epoch) + 1) * self.extent.steps_per_epoch;
        let (mut sum, mut samples) = (0.0, 0u64);
        for (loss, n) in self.losses.range(..=step).map(|(_, taken)| taken) {
            sum += loss * f64::from(*n);
            samples += u64::from(*n);
        }
        self.losses = self.losses.split_off(&(step + 1));
        let result = EpochResult {
            epoch,
            step,
            train_loss: (samples > 0).then(|| sum / samples as f64),
            validation: metrics::evaluate(&all, self.spec.scheme()),
        };
        let scores = EpochScores {
            epoch,
            step,
            classes,
            maps: EpochMaps::of(&all),
            probabilities: all.into_iter().flat_map(|s| s.probabilities).collect(),
        };
        self.epochs.insert(at, result.clone());
        self.expire(out);
        out.extend([
            Effect::Persist,
            Effect::KeepScores(scores),
            Effect::PublishEpoch(result),
        ]);
        self.hold_if_due(out);
    }

    /// A checkpoint is on disk.
    pub(super) fn checkpoint_stored(&mut self, info: CheckpointInfo, out: &mut Vec<Effect>) {
        if self.is_void(&info) {
            // It was still being written when the run was rewound.
            if !self.checkpoints.contains(&info) {
                out.push(Effect::RemoveCheckpoint(info));
            }
            return;
        }
        self.availability.forget(&info);
        let same_step = self.checkpoints.iter().find(|c| c.step == info.step);
        if let Some(there) = same_step.filter(|c| c.generation != info.generation) {
            if there.generation > info.generation {
                // It took long to store, and meanwhile the step was taken again.
                out.push(Effect::RemoveCheckpoint(info));
                return;
            }
            out.push(Effect::RemoveCheckpoint(there.clone()));
        }
        self.checkpoints.retain(|c| c.step != info.step);
        let at = self.checkpoints.partition_point(|c| c.step < info.step);
        self.checkpoints.insert(at, info.clone());
        self.expire(out);
        out.extend([Effect::Persist, Effect::PublishCheckpoint(info)]);
        self.settle(out);
    }

    /// Removes the checkpoints that need not be kept. One that cannot be read now is neither removed nor does it count as
    /// one for whose sake older ones may go.
    fn expire(&mut self, out: &mut Vec<Effect>) {
        let readable = |c: &&CheckpointInfo| self.availability.is_readable(c);
        let (void, valid): (Vec<_>, Vec<_>) = self
            .checkpoints
            .iter()
            .filter(readable)
            .cloned()
            .partition(|c| self.is_void(c));
        let wanted = self.rewinds.last().map(|to| to.step);
        let mut gone: BTreeSet<u64> =
            retention::expired(&valid, &self.epochs, &self.spec.checkpoint, wanted)
                .into_iter()
                .collect();
        // Void checkpoints stay until there is a checkpoint newer than the one that the run was rewound to.
        let overtaken = valid.last().map(|c| c.step) > wanted;
        if overtaken && self.spec.checkpoint.keep_last > 0 {
            gone.extend(void.iter().map(|c| c.step));
        }
        // Workers may be reading the one that a forming generation starts from.
        if let Phase::Forming { roster, .. } = &self.phase {
            gone.remove(&roster.start_step);
        }
        let (gone, kept) = std::mem::take(&mut self.checkpoints)
            .into_iter()
            .partition(|c| gone.contains(&c.step));
        self.checkpoints = kept;
        out.extend(Vec::into_iter(gone).map(Effect::RemoveCheckpoint));
    }

    /// A stored checkpoint was read in full and is not what was written: it is put aside, and the one before it counts.
    pub(super) fn checkpoint_corrupt(
        &mut self,
        now: u64,
        step: u64,
        generation: u64,
        reason: &str,
        out: &mut Vec<Effect>,
    ) {
        let this = |c: &CheckpointInfo| (c.step, c.generation) == (step, generation);
        let Some(at) = self.checkpoints.iter().position(this) else {
            return;
        };
        let info = self.checkpoints.remove(at);
        self.availability.forget(&info);
        let before = self.newest_valid().map_or(0, |c| c.step);
        let why = format!(
            "checkpoint {step} is corrupt ({reason}) and was put aside; checkpoint {before} is now the newest"
        );
        let log = format!("checkpoint.corrupt: {why}");
        out.extend([Effect::Persist, Effect::QuarantineCheckpoint(info)]);
        // A generation that was about to start from it cannot.
        if let Phase::Forming { roster, .. } = &self.phase
            && roster.start_step == step
        {
            let members = self.present();
            let cause = Cause {
                kind: FormationReason::CheckpointUnusable,
                log,
                reason: why,
            };
            self.regroup(now, members, false, BTreeSet::new(), cause, out);
            return;
        }
        out.push(Effect::Log {
            warning: true,
            message: log,
        });
        self.last_checkpoint_spoiled(step, &why, out);
    }
}
