//! The training loop: one generation of a run on this worker's virtual ranks.
//!
//! It decides nothing about membership and knows neither gRPC nor tensors. It draws batches, has the
//! device compute a gradient for each hosted virtual rank, reduces them over all workers in the order
//! of the virtual ranks, and updates. Everything that the workers must agree on travels in the
//! reduction itself, so it needs no other message: the loss, the number of samples, and the wish of
//! any worker to stop.

mod control;

use std::time::{Duration, Instant};

use fovea_core::metrics::Score;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::slice_of;
use fovea_core::run::{Outcome, StepPhases, StepReport};
use fovea_core::spec::RunSpec;

pub use control::Control;

use crate::collective::{Collective, CollectiveError};
use crate::data::DataError;
use crate::device::{Batch, Device, DeviceError};
use crate::loader::{Item, Loader};

/// Elements after the gradient in the reduced buffer: sum of losses, number of samples, votes to stop.
/// Small whole numbers are exact in 32-bit floats, so the sums are, too.
const TAIL: usize = 3;

/// Steps whose times are averaged for the reported speed.
const SPEED_WINDOW: f64 = 8.0;

/// What happens during training.
#[derive(Debug)]
pub enum TrainingEvent {
    /// A step is committed; told by rank 0 only.
    Step(StepReport),
    /// Scores of this worker's part of the validation split.
    Scores {
        /// 0-based epoch.
        epoch: u32,
        /// One for each sample.
        scores: Vec<Score>,
    },
    /// This worker's slice of a checkpoint, copied aside. Training goes on.
    Snapshot(Snapshot),
}

/// A slice of the state at a step boundary.
#[derive(Debug)]
pub struct Snapshot {
    /// Committed steps.
    pub step: u64,
    /// First element of the slice in the state.
    pub offset: u64,
    /// The slice.
    pub values: Vec<f32>,
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
    /// The device.
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
}

impl TrainingError {
    /// How the worker lets go of the run because of it.
    pub fn outcome(&self, control: &Control) -> Outcome {
        if control.aborted() {
            return Outcome::Aborted;
        }
        let fatal = match self {
            // Every worker sees the same numbers, and would again.
            Self::NotFinite { .. } => true,
            Self::Collective(_) | Self::Data(_) | Self::Device(_) => false,
        };
        Outcome::Failed {
            reason: self.to_string(),
            fatal,
        }
    }
}

/// One generation of a run on this worker.
pub struct Training<'a> {
    /// The run.
    pub spec: &'a RunSpec,
    /// Its data order.
    pub plan: &'a ShardPlan,
    /// This worker's rank, and how many workers there are.
    pub rank: usize,
    /// Workers in the generation.
    pub ranks: usize,
    /// Virtual ranks hosted here.
    pub hosted: usize,
    /// Committed steps to start from.
    pub start_step: u64,
    /// Steps in the whole run.
    pub total_steps: u64,
    /// The device, its state loaded.
    pub device: &'a mut dyn Device,
    /// The reduction, connected.
    pub collective: &'a mut dyn Collective,
    /// Batches from `start_step` on.
    pub loader: Loader,
    /// Orders from outside.
    pub control: &'a Control,
}

impl Training<'_> {
    /// Trains until all steps are done, or a stop or an error.
    pub fn run(mut self, emit: &mut dyn FnMut(TrainingEvent)) -> Result<Outcome, TrainingError> {
        let len = self.device.layout().trainable_len() + TAIL;
        let mut parts = vec![vec![0f32; len]; self.hosted];
        let mut sum = vec![0f32; len];
        let mut speed = Speed::default();
        let mut step = self.start_step;
        if step >= self.total_steps {
            return Ok(Outcome::Completed { step });
        }
        loop {
            let begun = Instant::now();
            let taken = self.step(step, &mut parts, &mut sum)?;
            step += 1;
            let images_per_s = speed.add(taken.images, begun.elapsed());
            if self.rank == 0 {
                emit(TrainingEvent::Step(StepReport {
                    step,
                    loss: taken.loss,
                    images: taken.images,
                    images_per_s,
                    learning_rate: taken.rate,
                    phases: taken.phases,
                }));
            }
            let per_epoch = self.plan.steps_per_epoch();
            if step.is_multiple_of(per_epoch) {
                let scores = self.validate(step)?;
                let epoch = self.plan.position(step - 1).epoch;
                emit(TrainingEvent::Scores { epoch, scores });
            }
            let done = step == self.total_steps;
            if taken.stop || done || self.spec.checkpoint_due(step, per_epoch, self.total_steps) {
                emit(TrainingEvent::Snapshot(self.snapshot(step)?));
            }
            if done {
                return Ok(Outcome::Completed { step });
            }
            if taken.stop {
                return Ok(Outcome::Stopped { step });
            }
        }
    }

    /// Takes the step after `committed` steps: load, gradient, reduce, update.
    fn step(
        &mut self,
        committed: u64,
        parts: &mut [Vec<f32>],
        sum: &mut [f32],
    ) -> Result<Taken, TrainingError> {
        let (mut load, mut forward, mut backward) =
            (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let stop = f32::from(u8::from(self.control.stopping()));
        let len = sum.len() - TAIL;
        for (slot, part) in parts.iter_mut().enumerate() {
            if self.control.aborted() {
                return Err(CollectiveError::Aborted.into());
            }
            let waiting = Instant::now();
            let batch = self.train_batch()?;
            load += waiting.elapsed();
            let (gradient, tail) = part.split_at_mut(len);
            let mut loss_sum = 0.0;
            if batch.samples.is_empty() {
                gradient.fill(0.0);
            } else {
                let micro = self.device.gradient(&batch, gradient)?;
                loss_sum = micro.loss_sum;
                load += micro.load;
                forward += micro.forward;
                backward += micro.backward;
            }
            // One vote for each worker is enough.
            let vote = if slot == 0 { stop } else { 0.0 };
            tail.copy_from_slice(&[loss_sum, batch.samples.len() as f32, vote]);
        }

        let reducing = Instant::now();
        self.collective.reduce(parts, sum)?;
        let reduce = reducing.elapsed();

        let updating = Instant::now();
        let (gradient, tail) = sum.split_at_mut(len);
        let (loss_sum, images, votes) = (tail[0], tail[1], tail[2]);
        // All workers hold the same bits here, so all decide the same.
        for (what, finite) in [
            ("loss", loss_sum.is_finite()),
            ("gradient", all_finite(gradient)),
        ] {
            if !finite {
                let step = committed + 1;
                return Err(TrainingError::NotFinite { what, step });
            }
        }
        let mean = 1.0 / images.max(1.0);
        for g in gradient.iter_mut() {
            *g *= mean;
        }
        let rate = self.spec.schedule(self.total_steps).rate(committed);
        self.device.update(gradient, rate)?;
        Ok(Taken {
            loss: f64::from(loss_sum) / f64::from(images.max(1.0)),
            images: images as u32,
            stop: votes > 0.0,
            rate,
            phases: StepPhases {
                load_ms: ms(load),
                forward_ms: ms(forward),
                backward_ms: ms(backward),
                reduce_ms: ms(reduce),
                optimizer_ms: ms(updating.elapsed()),
            },
        })
    }

    fn train_batch(&mut self) -> Result<Batch, DataError> {
        match self.loader.next_item()? {
            Item::Train(batch) => Ok(batch),
            Item::Validation(_) | Item::EpochEnd => Err(DataError::Ended),
        }
    }

    fn validate(&mut self, step: u64) -> Result<Vec<Score>, TrainingError> {
        let mut scores: Vec<Score> = Vec::new();
        loop {
            if self.control.aborted() {
                return Err(CollectiveError::Aborted.into());
            }
            match self.loader.next_item()? {
                Item::Validation(batch) => scores.extend(self.device.score(&batch)?),
                Item::EpochEnd => {
                    let finite = |s: &Score| s.loss.is_finite();
                    if scores.iter().all(finite) {
                        return Ok(scores);
                    }
                    let what = "validation loss";
                    return Err(TrainingError::NotFinite { what, step });
                }
                Item::Train(_) => return Err(DataError::Ended.into()),
            }
        }
    }

    fn snapshot(&mut self, step: u64) -> Result<Snapshot, DeviceError> {
        let slice = slice_of(
            self.device.layout().state_len() as u64,
            self.ranks,
            self.rank,
        );
        let values = self.device.read(slice.start as usize..slice.end as usize)?;
        Ok(Snapshot {
            step,
            offset: slice.start,
            values,
        })
    }
}

/// What a step did.
struct Taken {
    loss: f64,
    images: u32,
    stop: bool,
    rate: f64,
    phases: StepPhases,
}

/// Images a second over the last few steps, exponentially weighted.
#[derive(Default)]
struct Speed {
    images: f64,
    seconds: f64,
}

impl Speed {
    fn add(&mut self, images: u32, took: Duration) -> f64 {
        let keep = 1.0 - 1.0 / SPEED_WINDOW;
        self.images = self.images * keep + f64::from(images);
        self.seconds = self.seconds * keep + took.as_secs_f64();
        self.images / self.seconds.max(1e-9)
    }
}

/// Whether every number is finite. x * 0 is 0 for finite x and NaN otherwise, and the sum keeps the NaN:
/// no branch, so the loop is vectorized.
fn all_finite(values: &[f32]) -> bool {
    values
        .chunks(4096)
        .all(|chunk| chunk.iter().map(|x| x * 0.0).sum::<f32>() == 0.0)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
