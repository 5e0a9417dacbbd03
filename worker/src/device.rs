//! The interface of a device to the training loop, in plain types.
//!
//! The loop (`training`) knows no tensors, and an implementation knows no run. One OS thread owns the device; nothing
//! here is shared.

mod buffer;
mod features;
mod flat;
mod fused;
mod gradients;
mod images;
mod torch;

use std::ops::{AddAssign, Range};
use std::sync::Arc;
use std::time::Duration;

use fovea_core::googlenet::FlatLayout;
use fovea_core::metrics::Score;
use fovea_core::run::Trouble;
use xxhash_rust::xxh3::Xxh3;

use crate::trouble;

pub use buffer::Buffer;
pub use features::{CacheCounts, FeatureCache, Image, Split};
pub use flat::{Buckets, Flat, Ready};
pub use images::{HeldImages, ImageStore, Located};
pub use torch::{MEANS, TorchDevice};

const _: () = assert!(
    cfg!(target_endian = "little"),
    "digests are of little-endian floats, and taken of the memory as it is"
);

/// Some images with their labels and dropout.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Ordinals of the samples in their split.
    pub samples: Vec<u32>,
    /// By how many quarter turns each image is rotated: sample and turns together name the pixels.
    pub quarter_turns: Vec<u8>,
    /// Class index of each sample.
    pub labels: Vec<u32>,
    /// How often the loss of a sample of each class counts; empty if each counts once.
    pub class_weights: Arc<[f32]>,
    /// Width and height of the images.
    pub size: usize,
    /// Their pixels.
    pub pixels: Pixels,
    /// Dropout multipliers, [`Network::dropout_units`] for each sample; empty when nothing is dropped.
    ///
    /// [`Network::dropout_units`]: fovea_core::googlenet::Network::dropout_units
    pub dropout: Vec<f32>,
    /// In place of them, for a device that draws the multipliers itself ([`Device::draws_dropout`]): the seed of each sample's stream.
    pub dropout_seeds: Vec<[u8; 32]>,
}

/// The pixels of a batch: bytes of rows, pixels, then blue, green, red.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// `[samples, size, size, 3]`, rotated already.
    Turned(Vec<u8>),
    /// Not rotated, and only of those samples that are `given`: the device holds the others.
    Upright {
        /// One for each sample.
        given: Vec<bool>,
        /// `[given samples, size, size, 3]`
        bytes: Vec<u8>,
    },
}

impl Default for Pixels {
    fn default() -> Self {
        Self::Turned(Vec::new())
    }
}

impl Pixels {
    /// Adds those of another batch. What is of the other kind must be empty.
    fn extend(&mut self, others: Pixels) {
        match (&mut *self, others) {
            (Self::Turned(bytes), Self::Turned(others)) => bytes.extend(others),
            (
                Self::Upright { given, bytes },
                Self::Upright {
                    given: others_given,
                    bytes: others,
                },
            ) => {
                given.extend(others_given);
                bytes.extend(others);
            }
            (Self::Turned(bytes), others) if bytes.is_empty() => *self = others,
            (_, others) => assert_eq!(others, Self::default(), "pixels of two kinds"),
        }
    }
}

impl Batch {
    /// All of them, one after the other. They are of the same size.
    pub fn joined(batches: Vec<Batch>) -> Batch {
        let mut batches = batches.into_iter();
        let mut all = batches.next().unwrap_or_default();
        for batch in batches {
            let Batch {
                samples,
                quarter_turns,
                labels,
                class_weights,
                size,
                pixels,
                dropout,
                dropout_seeds,
            } = batch;
            // They are the run's; an empty batch may not know them.
            if !class_weights.is_empty() {
                all.class_weights = class_weights;
            }
            // Those without samples may not know.
            all.size = all.size.max(size);
            all.samples.extend(samples);
            all.quarter_turns.extend(quarter_turns);
            all.labels.extend(labels);
            all.pixels.extend(pixels);
            all.dropout.extend(dropout);
            all.dropout_seeds.extend(dropout_seeds);
        }
        all
    }
}

/// Times of the phases of one virtual rank's part of a step, or of several.
#[derive(Debug, Clone, Copy, Default)]
pub struct PhaseTimes {
    /// Time to bring the batch to the device.
    pub load: Duration,
    /// Time of the forward pass, from bytes on, and the loss.
    pub forward: Duration,
    /// Time of the backward pass, the flat gradient included.
    pub backward: Duration,
}

impl AddAssign for PhaseTimes {
    fn add_assign(&mut self, other: Self) {
        self.load += other.load;
        self.forward += other.forward;
        self.backward += other.backward;
    }
}

/// XXH3-128 of a state's little-endian floats. It tells apart states that differ by accident, in a
/// time that a step does not notice; it is not for those who mean to deceive.
pub fn state_digest(state: &[f32]) -> u128 {
    digest_of([state])
}

/// The digest of the parts' concatenation.
fn digest_of<'a>(parts: impl IntoIterator<Item = &'a [f32]>) -> u128 {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(bytemuck::cast_slice(part));
    }
    hash.digest128()
}

/// A device failed.
#[derive(Debug, thiserror::Error)]
#[error("the device failed while {doing}: {reason}")]
pub struct DeviceError {
    /// The operation.
    pub doing: &'static str,
    /// The library's message.
    pub reason: String,
}

impl DeviceError {
    /// What kind of trouble of this worker it is.
    pub fn trouble(&self) -> Trouble {
        trouble::of_device(&self.reason)
    }
}

/// Turns an error of libtorch into one that says what was being done.
fn failed(doing: &'static str) -> impl Fn(tch::TchError) -> DeviceError {
    move |error| DeviceError {
        doing,
        reason: error.to_string(),
    }
}

/// What an update found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Whether gradient and loss are finite. If not, it did nothing.
    pub finite: bool,
    /// What lay behind the gradient in the sum.
    pub behind: Vec<f32>,
}

/// An update that is in a GPU's queue. What the device is asked for later comes after it.
pub struct Queued(Box<dyn FnOnce() -> Result<Found, DeviceError>>);

impl Queued {
    /// `wait` waits for it.
    pub fn new(wait: impl FnOnce() -> Result<Found, DeviceError> + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Waits until the GPU has come so far, and no further.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn wait(self) -> Result<Found, DeviceError> {
        (self.0)()
    }
}

/// GoogLeNet and its optimizer on one device.
pub trait Device {
    /// Where each parameter lies in the flat buffers.
    fn layout(&self) -> &FlatLayout;

    /// Sets the whole state: trainable parameters, their velocities, frozen parameters
    /// (`layout().state_len()` elements).
    fn load(&mut self, state: &[f32]) -> Result<(), DeviceError>;

    /// Copies a range of the state, counted as in [`Device::load`].
    fn read(&mut self, range: Range<usize>) -> Result<Vec<f32>, DeviceError>;

    /// [`state_digest`] of the whole state, without a copy of it where the device allows.
    fn digest(&mut self) -> Result<u128, DeviceError>;

    /// Zeros for a gradient and `behind` more, in the memory that this device computes in.
    fn gradient_buffer(&self, behind: usize) -> Flat;

    /// Computes the gradient of the *sum* of the losses over `batch`, those of auxiliary heads included, into `into`, and the
    /// sum of the classifier's (the cross-entropy, in nats) into the element right behind the gradient. Each bucket is finished as early as it can be; on a GPU the
    /// computation is queued by then, and need not be done.
    fn gradient(
        &mut self,
        batch: &Batch,
        into: &mut dyn Buckets,
    ) -> Result<PhaseTimes, DeviceError>;

    /// Takes one step of Caffe's SGD with learning rate `rate` and the *mean* gradient: `scale` times the
    /// gradient in `sum`, which it may overwrite. If one of its elements is not finite it does nothing and
    /// returns false.
    fn update(&mut self, sum: &mut Flat, scale: f32, rate: f64) -> Result<bool, DeviceError>;

    /// [`Device::update`] without a wait for the GPU, where the device can: it does nothing, too, if the sum of the losses right behind the
    /// gradient is not finite. None: it has not begun, and must be asked for by [`Device::update`].
    fn queue_update(
        &mut self,
        sum: &mut Flat,
        scale: f32,
        rate: f64,
    ) -> Result<Option<Queued>, DeviceError> {
        let _ = (sum, scale, rate);
        Ok(None)
    }

    /// Scores validation images: the probability of each class, and -ln P(label).
    fn score(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError>;

    /// [`Device::score`], and with each score its map.
    fn score_mapped(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError>;

    /// Makes room for the photographs themselves, where the device keeps them: `expected` of `size` px, those `wanted`,
    /// of a training and a validation split of these numbers of samples. The loader need not give those that are held.
    fn hold_images(
        &mut self,
        size: usize,
        splits: [usize; 2],
        expected: usize,
        wanted: &dyn Fn(&Image) -> bool,
    ) -> Option<Arc<HeldImages>> {
        let _ = (size, splits, expected, wanted);
        None
    }

    /// What computes the trained layers where there is a choice, for the fingerprint: `fused` or `composed`. Empty where there is none.
    fn path(&self) -> &'static str {
        ""
    }

    /// Whether it draws the dropout multipliers itself, given [`Batch::dropout_seeds`].
    fn draws_dropout(&self) -> bool {
        false
    }

    /// Forgets what it may have kept of images other than those `wanted`, to make room: when other workers
    /// host virtual ranks now, their images are not used here any more.
    fn keep_cached(&mut self, wanted: &dyn Fn(&Image) -> bool) {
        let _ = wanted;
    }
}

#[cfg(test)]
mod cache_tests;

#[cfg(test)]
mod tests {
    use super::*;

    /// As the reference implementation has it: digests are compared between processes and versions.
    #[test]
    fn digests_are_xxh3_128() {
        assert_eq!(state_digest(&[]), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn parts_are_digested_as_one() {
        let state: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let (a, b) = state.split_at(33_333);
        assert_eq!(digest_of([a, &[], b]), state_digest(&state));
        assert_ne!(digest_of([b, a]), state_digest(&state));
    }
}
