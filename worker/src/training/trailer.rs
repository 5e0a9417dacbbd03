//! The trailer of the reduction's last bucket: everything that the workers agree on in a step, so that a step needs no
//! other message.
//!
//! ```text
//! gradient | sum of losses | samples | votes to stop | votes to yield | ordinals of the samples
//! ```
//!
//! There is a place for every sample of every virtual rank: its ordinal plus one, and 0 where there is
//! none. In any other virtual rank's part the place is 0, and x + 0 is x for positive x, so all workers
//! read the list of the very samples that were added up. Whole numbers up to 2^24 are exact in 32-bit
//! floats.

use fovea_core::spec::RunSpec;

use crate::device::Buffer;

/// Most training samples of a dataset: their ordinals must be exact in 32-bit floats.
pub const MOST_SAMPLES: u64 = (1 << 24) - 2;

/// Where [`crate::device::Device::gradient`] puts it.
const LOSS: usize = 0;
const SAMPLES: usize = 1;
const STOP: usize = 2;
/// After the other vote.
const YIELD: usize = STOP + 1;
const ORDINALS: usize = 4;

/// The layout of a trailer.
#[derive(Debug, Clone, Copy)]
pub struct Trailer {
    gradient: usize,
    batch: usize,
    virtual_ranks: usize,
}

/// A trailer after the reduction: the same on all workers.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSummary {
    /// Sum of the losses, in nats.
    pub loss_sum: f32,
    /// Number of samples.
    pub images: u32,
    /// Whether any worker votes to stop.
    pub stop: bool,
    /// Whether any worker votes to yield.
    pub give_way: bool,
    /// Ordinals of the samples, virtual rank by virtual rank. None if they are impossible: then the
    /// numbers did not arrive as they were sent.
    pub samples: Option<Vec<u32>>,
}

impl Trailer {
    /// The trailer behind a bucket's `gradient` elements.
    pub fn new(gradient: usize, spec: &RunSpec) -> Self {
        Self {
            gradient,
            batch: spec.train.batch as usize,
            virtual_ranks: spec.train.virtual_ranks as usize,
        }
    }

    /// Elements of the whole bucket.
    pub fn buffer_len(&self) -> usize {
        self.gradient + ORDINALS + self.virtual_ranks * self.batch
    }

    /// Writes which samples the virtual ranks from `first` on use, one after the other; no loss yet, and no votes.
    pub fn write(&self, part: &mut Buffer, first: u32, samples: &[&[u32]]) {
        let mut trailer = vec![0.0; self.buffer_len() - self.gradient];
        trailer[SAMPLES] = samples.iter().map(|s| s.len()).sum::<usize>() as f32;
        let places = trailer[ORDINALS + first as usize * self.batch..].chunks_mut(self.batch);
        for (places, samples) in places.zip(samples) {
            for (place, &sample) in places.iter_mut().zip(*samples) {
                *place = (sample + 1) as f32;
            }
        }
        part.write(self.gradient, &trailer);
    }

    /// Writes this worker's votes: one part carries them.
    pub fn vote(&self, parts: &mut [Buffer], stop: bool, give_way: bool) {
        for (slot, part) in parts.iter_mut().enumerate() {
            let vote = |wish: bool| f32::from(u8::from(wish && slot == 0));
            part.write(self.gradient + STOP, &[vote(stop), vote(give_way)]);
        }
    }

    /// Reads the sum of all parts, over a training split of `train_samples`.
    pub fn read(&self, sum: &Buffer, train_samples: u64) -> StepSummary {
        let trailer = sum.read(self.gradient..self.buffer_len());
        Self::summary(&trailer, train_samples)
    }

    /// The same of what lies behind the gradient.
    pub fn summary(trailer: &[f32], train_samples: u64) -> StepSummary {
        let places = trailer[ORDINALS..].iter().filter(|&&place| place != 0.0);
        let ordinal = |&place: &f32| {
            let whole =
                place.fract() == 0.0 && place >= 1.0 && f64::from(place) <= train_samples as f64;
            whole.then(|| place as u32 - 1)
        };
        let images = trailer[SAMPLES] as u32;
        StepSummary {
            loss_sum: trailer[LOSS],
            images,
            stop: trailer[STOP] > 0.0,
            give_way: trailer[YIELD] > 0.0,
            samples: places
                .map(ordinal)
                .collect::<Option<Vec<u32>>>()
                .filter(|samples| samples.len() == images as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer() -> Trailer {
        Trailer {
            gradient: 2,
            batch: 3,
            virtual_ranks: 2,
        }
    }

    fn sum(parts: &[Buffer]) -> Buffer {
        let mut sum = parts[0].read(0..parts[0].len());
        for part in &parts[1..] {
            let part = part.read(0..part.len());
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        sum.into()
    }

    fn part(trailer: &Trailer, fill: f32) -> Buffer {
        vec![fill; trailer.buffer_len()].into()
    }

    #[test]
    fn the_samples_of_all_come_in_the_order_of_virtual_ranks() {
        let trailer = trailer();
        let mut parts = [part(&trailer, 9.0), part(&trailer, 9.0)];
        let last = MOST_SAMPLES as u32 - 1;
        trailer.write(&mut parts[0], 0, &[&[last, 0, 7]]);
        parts[0].write(trailer.gradient + LOSS, &[0.5]);
        trailer.write(&mut parts[1], 1, &[&[4]]);
        parts[1].write(trailer.gradient + LOSS, &[0.25]);
        trailer.vote(&mut parts, false, true);
        let summary = trailer.read(&sum(&parts), MOST_SAMPLES);
        let expected = StepSummary {
            loss_sum: 0.75,
            images: 4,
            stop: false,
            give_way: true,
            samples: Some(vec![last, 0, 7, 4]),
        };
        assert_eq!(summary, expected);
        // An empty batch leaves no trace of the one before.
        trailer.write(&mut parts[0], 0, &[&[]]);
        trailer.vote(&mut parts, true, false);
        let summary = trailer.read(&sum(&parts), MOST_SAMPLES);
        assert_eq!((summary.stop, summary.give_way), (true, false));
        assert_eq!(summary.samples, Some(vec![4]));
    }

    #[test]
    fn one_part_may_hold_the_samples_of_several_virtual_ranks() {
        let trailer = trailer();
        let mut both = part(&trailer, 9.0);
        trailer.write(&mut both, 0, &[&[5, 0], &[4]]);
        both.write(trailer.gradient + LOSS, &[1.5]);
        trailer.vote(std::slice::from_mut(&mut both), false, false);
        let summary = trailer.read(&both, 6);
        assert_eq!((summary.images, summary.samples), (3, Some(vec![5, 0, 4])));
    }

    #[test]
    fn what_cannot_be_is_noticed() {
        let trailer = trailer();
        let mut good = part(&trailer, 0.0);
        trailer.write(&mut good, 1, &[&[4, 5]]);
        assert!(trailer.read(&good, 6).samples.is_some());
        assert_eq!(trailer.read(&good, 5).samples, None, "there is no sample 5");
        for wrong in [0.5, -1.0, f32::NAN, 0.0] {
            let mut bad: Buffer = good.read(0..good.len()).into();
            bad.write(2 + ORDINALS + 3, &[wrong]);
            assert_eq!(trailer.read(&bad, 6).samples, None, "{wrong}");
        }
    }
}
