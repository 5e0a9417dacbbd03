//! What a run brings forth: committed steps, epochs' results, checkpoints.

use std::collections::BTreeSet;

use super::{Effect, EpochResult, Phase, Run, StepReport};
use crate::checkpoint::CheckpointInfo;
use crate::metrics::{self, Score};
use crate::retention;

impl Run {
    /// A step was committed. The same step may be told again: after a lost acknowledgement, or because a
    /// lost worker was the only one to have committed it.
    pub(super) fn step_committed(&mut self, report: StepReport, out: &mut Vec<Effect>) {
        if report.step > self.furthest {
            self.furthest = report.step;
            self.futile = 0;
            self.stale = 0;
            self.failures = 0;
        }
        if self.epoch_of(report.step) >= self.next_epoch() {
            self.losses
                .insert(report.step, (report.loss, report.images));
        }
        if self.progress.is_none_or(|p| report.step >= p.step) {
            self.vitals.step_took(report.phases.total_ms());
            self.progress = Some(report);
            out.push(Effect::PublishStep(report));
        }
    }

    /// The epoch of the step that ends at `step`: that of its predecessor.
    fn epoch_of(&self, step: u64) -> u32 {
        (step.saturating_sub(1) / self.extent.steps_per_epoch.max(1)) as u32
    }

    pub(super) fn scored(&mut self, epoch: u32, scores: Vec<Score>, out: &mut Vec<Effect>) {
        if self.epochs.iter().any(|e| e.epoch == epoch) {
            return;
        }
        let classes = self.spec.model.classes;
        let valid = |s: &Score| {
            s.label < classes
                && s.probabilities.len() == classes as usize
                && u64::from(s.sample) < self.extent.validation_samples
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
            validation: metrics::evaluate(&all, classes as usize, self.spec.positive_class()),
        };
        self.epochs.push(result.clone());
        self.epochs.sort_by_key(|e| e.epoch);
        self.expire(out);
        out.extend([Effect::Persist, Effect::PublishEpoch(result)]);
    }

    pub(super) fn checkpoint_stored(&mut self, info: CheckpointInfo, out: &mut Vec<Effect>) {
        if self.is_void(&info) {
            // It was still being written when the run was sent back.
            if !self.checkpoints.contains(&info) {
                out.push(Effect::RemoveCheckpoint(info));
            }
            return;
        }
        let same_step = self.checkpoints.iter().find(|c| c.step == info.step);
        if let Some(there) = same_step.filter(|c| c.generation != info.generation) {
            if there.generation > info.generation {
                // It was long in the making, and the step was taken again meanwhile.
                out.push(Effect::RemoveCheckpoint(info));
                return;
            }
            out.push(Effect::RemoveCheckpoint(there.clone()));
        }
        self.checkpoints.retain(|c| c.step != info.step);
        self.checkpoints.push(info.clone());
        self.checkpoints.sort_by_key(|c| c.step);
        self.expire(out);
        out.extend([Effect::Persist, Effect::PublishCheckpoint(info)]);
        self.settle(out);
    }

    /// Lets go of checkpoints that need not be kept.
    fn expire(&mut self, out: &mut Vec<Effect>) {
        let (void, valid): (Vec<_>, Vec<_>) = self
            .checkpoints
            .iter()
            .cloned()
            .partition(|c| self.is_void(c));
        let wanted = self.rewound.map(|to| to.step);
        let mut gone = retention::expired(&valid, &self.epochs, &self.spec.checkpoint, wanted);
        // What the run was sent back from stays until there is something newer than where it was sent.
        let overtaken = valid.last().map(|c| c.step) > wanted;
        if overtaken && self.spec.checkpoint.keep_last > 0 {
            gone.extend(void.iter().map(|c| c.step));
        }
        // Somebody may be reading what a generation is about to start from.
        if let Phase::Forming { roster, .. } = &self.phase {
            gone.retain(|step| *step != roster.start_step);
        }
        for step in gone {
            if let Some(at) = self.checkpoints.iter().position(|c| c.step == step) {
                out.push(Effect::RemoveCheckpoint(self.checkpoints.remove(at)));
            }
        }
    }

    /// A stored checkpoint is no longer what it was: the one before it counts.
    pub(super) fn checkpoint_damaged(
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
        let before = self.start_checkpoint().map_or(0, |c| c.step);
        let message = format!(
            "the checkpoint of step {step} is damaged ({reason}) and was put aside; step {before} counts"
        );
        out.extend([Effect::Persist, Effect::QuarantineCheckpoint(info)]);
        // Whoever was about to start from it cannot.
        if let Phase::Forming { roster, .. } = &self.phase
            && roster.start_step == step
        {
            let members = self.present();
            self.regroup(now, members, false, BTreeSet::new(), message, out);
            return;
        }
        out.push(Effect::Log {
            warning: true,
            message: message.clone(),
        });
        self.last_checkpoint_spoiled(step, &message, out);
    }
}
