//! One step: load, gradient, reduce, update.
//!
//! A GPU that queues its updates has what they found read while it computes the next step ([`Taken::Open`]), so that it does not wait
//! for the host. The step counts as taken from when its update is queued.

use std::time::{Duration, Instant};

use fovea_core::googlenet::FlatLayout;
use fovea_core::run::StepPhases;
use fovea_core::spec::Reduction;

use super::overlap::reduce_while;
use super::trailer::{StepSummary, Trailer};
use super::{State, Training, TrainingError};
use crate::collective::CollectiveError;
use crate::data::DataError;
use crate::device::{Batch, Buckets, Device, DeviceError, Flat, PhaseTimes, Queued};
use crate::loader::Item;

impl Training<'_> {
    /// The first half of the next step: load, gradient, reduce. It changes nothing.
    pub(super) fn reduce(
        &mut self,
        trailer: Trailer,
        sum: &mut Flat,
    ) -> Result<Reduced, TrainingError> {
        let begun = Instant::now();
        let committed = self.state.step;
        let mut took = PhaseTimes::default();
        let last = self.state.parts.len() - 1;
        for slot in 0..last {
            let batches = self.train_batches(&mut took)?;
            let State { device, parts, .. } = &mut *self.state;
            if parts.holds(slot, committed) {
                continue;
            }
            let rank = parts.rank(slot);
            let images = images_in(&batches);
            took += gradient(&mut **device, trailer, rank, batches, parts.begin(slot))?;
            parts.computed(slot, committed);
            self.progress.add_images(images);
            self.progress.tick();
        }

        let batches = self.train_batches(&mut took)?;
        let State { device, parts, .. } = &mut *self.state;
        let (rank, held) = (parts.rank(last), parts.holds(last, committed));
        if !held {
            parts.begin(last);
        }
        let busy = self.progress.waiting().busy();
        let mut reducing = Instant::now();
        let (computed, reduced) = reduce_while(
            self.collective,
            self.ranks > 1,
            parts.buffers(),
            sum,
            &mut |parts| trailer.vote(parts, self.control.stopping(), self.control.yielding()),
            |buckets| {
                let computed = if held {
                    for number in FlatLayout::BUCKET_ORDER {
                        buckets.finished(number, None);
                    }
                    Ok(PhaseTimes::default())
                } else {
                    self.progress.add_images(images_in(&batches));
                    gradient(&mut **device, trailer, rank, batches, buckets)
                };
                self.progress.tick();
                drop(busy);
                reducing = Instant::now();
                computed
            },
        );
        took += computed?;
        parts.computed(last, committed);
        // With a single worker the collective does not notice an abort.
        if self.control.aborted() {
            return Err(CollectiveError::Aborted.into());
        }
        reduced?;
        self.progress.tick();
        Ok(Reduced {
            begun,
            took,
            reduce: reducing.elapsed(),
        })
    }

    /// The other half: update. All of it or nothing.
    pub(super) fn update(
        &mut self,
        trailer: Trailer,
        sum: &mut Flat,
        reduced: Reduced,
    ) -> Result<Taken, TrainingError> {
        let updating = Instant::now();
        let committed = self.state.step;
        let step = committed + 1;
        let rate = self.spec.schedule(self.total_steps).rate(committed);
        // With peers the reduction has been waited for. What all must agree on is read before anything is changed, so that all leave at
        // the same point, and a sum that arrived garbled goes no further.
        let early = match self.ranks {
            1 => None,
            _ => Some(self.read(step, trailer, sum)?),
        };
        // As many as the samples of the sum.
        let in_step = self.plan.position(committed).step_in_epoch;
        let planned = 1.0 / self.plan.global_batch(in_step).max(1) as f32;
        let mut known = KnownAtOnce {
            step,
            rate,
            reduced,
            update: Duration::ZERO,
        };
        let device = &mut self.state.device;
        if let Some(queued) = device.queue_update(sum, planned, rate)? {
            self.state.step = step;
            known.update = updating.elapsed();
            return Ok(Taken::Open(OpenStep {
                known,
                summary: early,
                at: Instant::now(),
                queued,
            }));
        }
        let summary = match early {
            Some(summary) => summary,
            None => self.read(step, trailer, sum)?,
        };
        let images = summary.images.max(1) as f32;
        if !self.state.device.update(sum, 1.0 / images, rate)? {
            let what = "gradient";
            return Err(TrainingError::NotFinite { what, step });
        }
        self.state.step = step;
        known.update = updating.elapsed();
        Ok(Taken::Known(known.outcome(summary, Instant::now())))
    }

    /// What became of a step whose update was queued. If its numbers are not finite it was not taken.
    pub(super) fn close(&mut self, open: OpenStep) -> Result<StepOutcome, TrainingError> {
        let OpenStep {
            mut known,
            summary: early,
            mut at,
            queued,
        } = open;
        let step = known.step;
        let waiting = Instant::now();
        let found = queued.wait()?;
        let summary = match early {
            Some(summary) => Ok(summary),
            None => {
                at = Instant::now();
                known.update += waiting.elapsed();
                let summary = Trailer::summary(&found.behind, self.plan.train_samples());
                self.sound(step, summary).map_err(TrainingError::applied)
            }
        };
        let summary = summary.and_then(|summary| {
            let what = "gradient";
            let finite = found.finite.then_some(summary);
            finite.ok_or(TrainingError::NotFinite { what, step })
        });
        if let Err(TrainingError::NotFinite { .. }) = &summary {
            // The device has not done it.
            self.state.step = step - 1;
            self.state.parts.forget();
        }
        Ok(known.outcome(summary?, at))
    }

    /// What a step's sum says, from the device.
    fn read(&self, step: u64, trailer: Trailer, sum: &Flat) -> Result<StepSummary, TrainingError> {
        let others = &sum.buckets()[FlatLayout::OTHERS];
        self.sound(step, trailer.read(others, self.plan.train_samples()))
    }

    /// All workers hold the same bits here, so all decide the same.
    fn sound(&self, step: u64, summary: StepSummary) -> Result<StepSummary, TrainingError> {
        if !summary.loss_sum.is_finite() {
            let what = "loss";
            return Err(TrainingError::NotFinite { what, step });
        }
        match summary.samples {
            Some(_) => Ok(summary),
            None => {
                let what = "list of samples";
                Err(TrainingError::Garbled {
                    what,
                    step,
                    applied: false,
                })
            }
        }
    }

    /// An abort ends a step before it is reduced, also with a single worker.
    pub(super) fn go_on(&self) -> Result<(), CollectiveError> {
        match self.control.aborted() {
            true => Err(CollectiveError::Aborted),
            false => Ok(()),
        }
    }

    /// The batches of the next part: that of one virtual rank, or those of all that are hosted here.
    fn train_batches(&mut self, took: &mut PhaseTimes) -> Result<Vec<Batch>, TrainingError> {
        self.go_on()?;
        let waiting = Instant::now();
        let count = match self.spec.train.reduction {
            Reduction::Ordered => 1,
            Reduction::Fast => self.hosted.len(),
        };
        let next = |_| match self.loader.next_item()? {
            Item::Train(batch) => Ok(batch),
            Item::Validation(_) | Item::EpochEnd => Err(DataError::Ended),
        };
        let batches = (0..count).map(next).collect::<Result<_, _>>()?;
        took.load += waiting.elapsed();
        Ok(batches)
    }
}

fn images_in(batches: &[Batch]) -> usize {
    batches.iter().map(|batch| batch.samples.len()).sum()
}

/// Computes a part: the gradient of the batches of virtual ranks from `rank` on.
fn gradient(
    device: &mut dyn Device,
    trailer: Trailer,
    rank: u32,
    batches: Vec<Batch>,
    into: &mut dyn Buckets,
) -> Result<PhaseTimes, DeviceError> {
    let samples: Vec<&[u32]> = batches.iter().map(|b| &b.samples[..]).collect();
    trailer.write(into.bucket(FlatLayout::OTHERS), rank, &samples);
    let batch = Batch::joined(batches);
    if !batch.samples.is_empty() {
        return device.gradient(&batch, into);
    }
    let lens = device.layout().buckets().map(|range| range.len());
    for number in FlatLayout::BUCKET_ORDER {
        into.bucket(number).clear(0..lens[number]);
        into.finished(number, None);
    }
    Ok(PhaseTimes::default())
}

/// Times of a step's first half.
pub(super) struct Reduced {
    begun: Instant,
    took: PhaseTimes,
    reduce: Duration,
}

/// A step that was taken.
pub(super) enum Taken {
    /// Its results are here.
    Known(StepOutcome),
    /// [`Training::close`] gets them.
    Open(OpenStep),
}

/// A step whose results are not known yet.
pub(super) struct OpenStep {
    known: KnownAtOnce,
    /// What the sum said, if that was read.
    summary: Option<StepSummary>,
    /// When the update was queued.
    at: Instant,
    queued: Queued,
}

impl OpenStep {
    /// Committed steps with it.
    pub(super) fn step(&self) -> u64 {
        self.known.step
    }

    /// Whether a vote is known to end the generation there.
    pub(super) fn ends(&self) -> bool {
        let summary = self.summary.as_ref();
        summary.is_some_and(|summary| summary.stop || summary.give_way)
    }
}

/// What is known of a step without its results.
struct KnownAtOnce {
    step: u64,
    rate: f64,
    reduced: Reduced,
    update: Duration,
}

impl KnownAtOnce {
    /// `ended`: when it was taken, as far as the host could see.
    fn outcome(self, summary: StepSummary, ended: Instant) -> StepOutcome {
        let Reduced {
            begun,
            took,
            reduce,
        } = self.reduced;
        StepOutcome {
            step: self.step,
            begun,
            ended,
            loss: f64::from(summary.loss_sum) / f64::from(summary.images.max(1) as f32),
            images: summary.images,
            samples: summary.samples.unwrap_or_default(),
            stop: summary.stop,
            give_way: summary.give_way,
            rate: self.rate,
            phases: StepPhases {
                load_ms: ms(took.load),
                forward_ms: ms(took.forward),
                backward_ms: ms(took.backward),
                reduce_ms: ms(reduce),
                optimizer_ms: ms(self.update),
            },
        }
    }
}

/// The results of a step.
pub(super) struct StepOutcome {
    /// Committed steps with it.
    pub(super) step: u64,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    pub(super) loss: f64,
    pub(super) images: u32,
    pub(super) samples: Vec<u32>,
    pub(super) stop: bool,
    pub(super) give_way: bool,
    pub(super) rate: f64,
    pub(super) phases: StepPhases,
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
