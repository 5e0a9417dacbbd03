//! The training loop: one generation of a run on this worker's virtual ranks.
//!
//! It decides nothing about membership and knows neither gRPC nor tensors. It draws batches, has the device compute a
//! gradient for each hosted virtual rank, reduces them over all workers in the order of the virtual ranks, and updates
//! the parameters. Everything that the workers must agree on in a step is part of the reduction itself (`trailer`): the
//! loss, the samples, and any worker's vote to stop or to yield.

pub(crate) mod control;
mod overlap;
mod parts;
mod scores;
mod step;
mod trailer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fovea_core::googlenet::FlatLayout;
use fovea_core::metrics::Score;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::slice_of;
use fovea_core::run::{Outcome, StepReport};
use fovea_core::spec::{Reduction, RunSpec};

pub use control::Control;
pub use parts::Parts;
pub use trailer::MOST_SAMPLES;

use crate::collective::{Collective, CollectiveError};
use crate::data::DataError;
use crate::device::{Device, DeviceError, Flat};
use crate::loader::{Item, Loader};
use crate::profile::Profile;
use crate::progress::Progress;
use step::{OpenStep, StepOutcome, Taken};
use trailer::Trailer;

/// Steps whose times are averaged for the reported speed.
const SPEED_WINDOW: f64 = 8.0;

/// An event of training. All workers of a generation emit the same events, except for their own slices.
#[derive(Debug)]
pub enum TrainingEvent {
    /// A step is committed.
    Step {
        /// Its figures.
        report: StepReport,
        /// Ordinals of the training samples that it used, virtual rank by virtual rank.
        samples: Vec<u32>,
    },
    /// Scores of the whole validation split.
    Scores {
        /// 0-based epoch.
        epoch: u32,
        /// One for each sample, in their order.
        scores: Vec<Score>,
    },
    /// The digest of the state, to be compared with the other workers'.
    Digest {
        /// Committed steps.
        step: u64,
        /// [`crate::device::state_digest`].
        digest: u128,
    },
    /// This worker's slice of a checkpoint, a copy. Training continues.
    Snapshot(Snapshot),
}

/// A slice of the state at a step boundary. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Committed steps.
    pub step: u64,
    /// First element of the slice in the state.
    pub offset: u64,
    /// The slice: little-endian floats.
    pub bytes: Bytes,
    /// Digest of the whole state.
    pub digest: u128,
}

/// A run's state on a device. Between calls it is at a step boundary.
pub struct State {
    /// The device that holds it.
    pub device: Box<dyn Device>,
    /// Committed steps.
    pub step: u64,
    /// Gradients that were computed with it.
    pub parts: Parts,
}

/// Why training stopped early.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A peer.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device. Its state is undefined afterwards.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Infinity or not-a-number.
    #[error(
        "the {what} is not finite in step {step}: training has diverged; lower train.learning_rate or \
         raise train.warmup_steps"
    )]
    NotFinite {
        /// Loss or gradient.
        what: &'static str,
        /// Step, 1-based.
        step: u64,
    },
    /// The result of the reduction, or a peer's message, is impossible.
    #[error(
        "the {what} of step {step} arrived garbled: is the memory or the network of a worker faulty?"
    )]
    Garbled {
        /// List of samples, or scores.
        what: &'static str,
        /// Step, 1-based.
        step: u64,
        /// Whether the state was changed by it before it was noticed.
        applied: bool,
    },
}

impl TrainingError {
    /// The same, of a step whose update is done.
    fn applied(mut self) -> Self {
        if let Self::Garbled { applied, .. } = &mut self {
            *applied = true;
        }
        self
    }
}

/// One generation of a run on this worker.
pub struct Training<'a> {
    /// The run.
    pub spec: &'a RunSpec,
    /// Its data order.
    pub plan: &'a ShardPlan,
    /// This worker's rank.
    pub rank: usize,
    /// Workers in the generation.
    pub ranks: usize,
    /// Virtual ranks hosted here.
    pub hosted: Range<u32>,
    /// The first epoch whose result is not known.
    pub next_epoch: u32,
    /// Committed steps of the newest checkpoint.
    pub stored_step: u64,
    /// Steps in the whole run.
    pub total_steps: u64,
    /// The state to continue from.
    pub state: &'a mut State,
    /// The reduction, connected.
    pub collective: &'a mut dyn Collective,
    /// Batches from the state's step onwards.
    pub loader: Loader,
    /// Requests to stop, yield or abort.
    pub control: &'a Control,
    /// Where work is counted.
    pub progress: &'a Progress,
    /// What records some steps.
    pub profile: Option<&'a mut Profile>,
}

/// Whether a generation that starts after `step` steps begins with the evaluation of the epoch that ended
/// there: its result is not known.
pub fn starts_with_evaluation(step: u64, steps_per_epoch: u64, next_epoch: u32) -> bool {
    step > 0
        && step.is_multiple_of(steps_per_epoch)
        && step / steps_per_epoch > u64::from(next_epoch)
}

impl Training<'_> {
    /// Trains until all steps are done, or a stop or an error.
    pub fn run(mut self, emit: &mut dyn FnMut(TrainingEvent)) -> Result<Outcome, TrainingError> {
        let State { device, parts, .. } = &mut *self.state;
        let gradient = device.layout().buckets()[FlatLayout::OTHERS].len();
        let trailer = Trailer::new(gradient, self.spec);
        let make = || device.gradient_buffer(trailer.buffer_len() - gradient);
        match self.spec.train.reduction {
            Reduction::Ordered => parts.arrange(self.hosted.clone(), &make),
            // Of the same virtual ranks only by chance.
            Reduction::Fast => {
                let first = self.hosted.start;
                parts.arrange(first..first + 1, &make);
                parts.forget();
            }
        }
        let mut sum = make();

        // What the generation before had not done at the boundary where it ended.
        let start = self.state.step;
        if starts_with_evaluation(start, self.plan.steps_per_epoch(), self.next_epoch) {
            self.evaluate(emit)?;
        }
        if start != self.stored_step && self.due(start).checkpoint {
            let digest = self.state.device.digest()?;
            emit(TrainingEvent::Snapshot(self.snapshot(digest)?));
        }
        let mut speed = Speed::default();
        let mut open = None;
        let ended = self.steps(trailer, &mut sum, &mut speed, &mut open, emit);
        if let Some(open) = open {
            // An error came in the step after it. It was taken all the same, unless its numbers are not finite.
            let taken = self.close(open)?;
            emit(speed.report(taken).1);
        }
        ended
    }

    /// Takes steps until all are done, or one ends the generation. After an error the last one may be `open`.
    fn steps(
        &mut self,
        trailer: Trailer,
        sum: &mut Flat,
        speed: &mut Speed,
        open: &mut Option<OpenStep>,
        emit: &mut dyn FnMut(TrainingEvent),
    ) -> Result<Outcome, TrainingError> {
        while self.state.step < self.total_steps {
            if let Some(profile) = &mut self.profile {
                profile.begin();
            }
            let reduced = self.reduce(trailer, sum)?;
            // The GPU has this step in its queue, and meanwhile the one before is read. A worker alone finds its votes there.
            if let Some(before) = open.take() {
                let taken = self.close(before)?;
                if let Some(outcome) = self.taken(taken, speed, emit)? {
                    return Ok(outcome);
                }
            }
            let taken = self.update(trailer, sum, reduced)?;
            if let Some(profile) = &mut self.profile {
                profile.end();
            }
            let taken = match taken {
                Taken::Known(taken) => taken,
                Taken::Open(step) if !self.due(step.step()).any() && !step.ends() => {
                    *open = Some(step);
                    continue;
                }
                Taken::Open(step) => self.close(step)?,
            };
            if let Some(outcome) = self.taken(taken, speed, emit)? {
                return Ok(outcome);
            }
        }
        let step = self.state.step;
        Ok(Outcome::Completed { step })
    }

    /// Reports a step, the newest that was taken, and does what is due after it. Returns an outcome if the generation ends there.
    fn taken(
        &mut self,
        taken: StepOutcome,
        speed: &mut Speed,
        emit: &mut dyn FnMut(TrainingEvent),
    ) -> Result<Option<Outcome>, TrainingError> {
        let (stop, give_way) = (taken.stop, taken.give_way);
        let (step, report) = speed.report(taken);
        emit(report);
        let due = self.due(step);
        // What is due at this boundary is then done by the next generation, which starts at it.
        let give_way = give_way && !stop && !due.end;
        let checkpoint = !give_way && (stop || due.end || due.checkpoint);
        let digest = match due.digest || checkpoint {
            true => self.state.device.digest()?,
            false => 0,
        };
        if due.digest {
            emit(TrainingEvent::Digest { step, digest });
        }
        if give_way {
            return Ok(Some(Outcome::Yielded { step }));
        }
        if due.evaluation {
            self.evaluate(emit)?;
        }
        if checkpoint {
            emit(TrainingEvent::Snapshot(self.snapshot(digest)?));
        }
        Ok((stop && !due.end).then_some(Outcome::Stopped { step }))
    }

    /// What is due after `step` steps.
    fn due(&self, step: u64) -> Due {
        let (per_epoch, total) = (self.plan.steps_per_epoch(), self.total_steps);
        Due {
            checkpoint: self.spec.checkpoint_due(step, per_epoch, total),
            digest: self.spec.digest_due(step, per_epoch, total),
            evaluation: step.is_multiple_of(per_epoch),
            end: step == total,
        }
    }

    /// Scores the validation split, each worker its part, and emits the scores of all.
    fn evaluate(&mut self, emit: &mut dyn FnMut(TrainingEvent)) -> Result<(), TrainingError> {
        let step = self.state.step;
        self.progress.evaluation_begins();
        let mine = scores::encode(&self.score()?);
        // Another worker may score more images, or more slowly.
        let all = self.collective.gather_patiently(&mine)?;
        self.progress.tick();
        self.progress.reset_scored();
        let what = "scores";
        let mut scores = Vec::new();
        for theirs in all {
            scores.extend(scores::decode(&theirs).ok_or(TrainingError::Garbled {
                what,
                step,
                applied: false,
            })?);
        }
        scores.sort_by_key(|score| score.sample);
        // Checked on all scores, so that all workers decide the same.
        if scores.iter().any(|score| !score.loss.is_finite()) {
            let what = "validation loss";
            return Err(TrainingError::NotFinite { what, step });
        }
        let epoch = self.plan.position(step - 1).epoch;
        emit(TrainingEvent::Scores { epoch, scores });
        Ok(())
    }

    /// Scores of the hosted virtual ranks' part of the validation split.
    fn score(&mut self) -> Result<Vec<Score>, TrainingError> {
        let maps = self.spec.evaluate.as_ref().is_some_and(|e| e.maps);
        let mut views: BTreeMap<u32, Vec<(u8, Score)>> = BTreeMap::new();
        loop {
            self.go_on()?;
            let batch = match self.loader.next_item()? {
                Item::Validation(batch) => batch,
                Item::EpochEnd => break,
                Item::Train(_) => return Err(DataError::Ended.into()),
            };
            let device = &mut self.state.device;
            let scores = match maps {
                true => device.score_mapped(&batch)?,
                false => device.score(&batch)?,
            };
            let known = views.len();
            for (turns, score) in batch.quarter_turns.into_iter().zip(scores) {
                views.entry(score.sample).or_default().push((turns, score));
            }
            self.progress.add_scored(views.len() - known);
            self.progress.tick();
        }
        Ok(views.into_values().map(Score::of_views).collect())
    }

    fn snapshot(&mut self, digest: u128) -> Result<Snapshot, DeviceError> {
        struct Floats(Vec<f32>);
        impl AsRef<[u8]> for Floats {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }

        let device = &mut self.state.device;
        let slice = slice_of(device.layout().state_len() as u64, self.ranks, self.rank);
        let values = device.read(slice.start as usize..slice.end as usize)?;
        Ok(Snapshot {
            step: self.state.step,
            offset: slice.start,
            bytes: Bytes::from_owner(Floats(values)),
            digest,
        })
    }
}

/// What is due at a step boundary.
struct Due {
    checkpoint: bool,
    digest: bool,
    evaluation: bool,
    end: bool,
}

impl Due {
    /// Whether the state is looked at there.
    fn any(&self) -> bool {
        self.checkpoint || self.digest || self.evaluation || self.end
    }
}

/// Images a second over the last few steps, exponentially weighted.
#[derive(Default)]
struct Speed {
    images: f64,
    seconds: f64,
    /// When the step before was known.
    before: Option<Instant>,
}

impl Speed {
    /// The number of a step, and the event that reports it.
    fn report(&mut self, taken: StepOutcome) -> (u64, TrainingEvent) {
        // A step that is known late overlaps the one before.
        let begun = self.before.map_or(taken.begun, |at| at.max(taken.begun));
        self.before = Some(taken.ended);
        let report = StepReport {
            step: taken.step,
            loss: taken.loss,
            images: taken.images,
            images_per_s: self.add(taken.images, taken.ended.saturating_duration_since(begun)),
            learning_rate: taken.rate,
            phases: taken.phases,
        };
        let samples = taken.samples;
        (taken.step, TrainingEvent::Step { report, samples })
    }

    fn add(&mut self, images: u32, took: Duration) -> f64 {
        let keep = 1.0 - 1.0 / SPEED_WINDOW;
        self.images = self.images * keep + f64::from(images);
        self.seconds = self.seconds * keep + took.as_secs_f64();
        self.images / self.seconds.max(1e-9)
    }
}

#[cfg(test)]
mod tests;
