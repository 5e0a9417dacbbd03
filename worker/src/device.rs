//! What a training loop asks of a device, in plain types.
//!
//! The loop (`training`) knows no tensors, and an implementation knows no run: it computes what it is
//! told to. One OS thread owns the device; nothing here is shared.

mod cpu;

use std::ops::Range;
use std::time::Duration;

use fovea_core::googlenet::FlatLayout;
use fovea_core::metrics::Score;

pub use cpu::CpuDevice;

/// Some images with what belongs to them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Ordinals of the samples in their split.
    pub samples: Vec<u32>,
    /// Class index of each sample.
    pub labels: Vec<u32>,
    /// Width and height of the images.
    pub size: usize,
    /// `[samples, size, size, 3]` bytes: rows, pixels, then blue, green, red.
    pub pixels: Vec<u8>,
    /// `[samples, 1024]` dropout multipliers; empty when nothing is dropped.
    pub dropout: Vec<f32>,
}

/// One virtual rank's part of a step.
#[derive(Debug, Clone, Copy, Default)]
pub struct MicroBatch {
    /// Sum of the cross-entropy over the samples, in nats.
    pub loss_sum: f32,
    /// Time to bring the batch to the device.
    pub load: Duration,
    /// Time of the forward pass and the loss.
    pub forward: Duration,
    /// Time of the backward pass, the flat gradient included.
    pub backward: Duration,
}

/// A device failed.
#[derive(Debug, thiserror::Error)]
#[error("the device failed while {doing}: {reason}")]
pub struct DeviceError {
    /// What was being done.
    pub doing: &'static str,
    /// What the library said.
    pub reason: String,
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

    /// Computes the gradient of the *sum* of the losses over `batch` and overwrites `gradient`
    /// (`layout().trainable_len()` elements) with it.
    fn gradient(&mut self, batch: &Batch, gradient: &mut [f32]) -> Result<MicroBatch, DeviceError>;

    /// Takes one step of Caffe's SGD with the *mean* gradient, which it may overwrite, and learning rate
    /// `rate`.
    fn update(&mut self, gradient: &mut [f32], rate: f64) -> Result<(), DeviceError>;

    /// Scores validation images: softmax probabilities and cross-entropy.
    fn score(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError>;
}
