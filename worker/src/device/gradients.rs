//! Copies gradients from libtorch into the training loop's buckets, and checks that they are finite.

use tch::{Kind, Tensor, no_grad};

use super::{Buckets, Buffer, DeviceError, failed};
use crate::gpu::stream::Event;
use crate::model::Sink;
use crate::model::raw::values;

/// Puts gradients into the loop's buckets.
pub(super) struct IntoBuckets<'a> {
    pub(super) buckets: &'a mut dyn Buckets,
    pub(super) device: tch::Device,
    pub(super) problem: Option<String>,
}

impl Sink for IntoBuckets<'_> {
    fn put(&mut self, bucket: usize, at: usize, gradient: &Tensor) {
        let size = gradient.size();
        let len = gradient.numel();
        let bucket = over(self.buckets.bucket(bucket), at + len);
        // The gradient of a convolution's weight may come in channels-last order: copied by index, not by memory.
        no_grad(|| {
            let place = bucket.narrow(0, at as i64, len as i64);
            place.view(&size[..]).copy_(gradient);
        });
    }

    fn finished(&mut self, bucket: usize) {
        let ready = match self.device {
            tch::Device::Cuda(number) => Event::now(number).map(Some),
            _ => Ok(None),
        };
        let ready = ready.unwrap_or_else(|problem| {
            self.problem = Some(problem.to_string());
            None
        });
        self.buckets.finished(bucket, ready);
    }
}

/// Whether every number is finite.
pub(super) fn all_finite<'a>(
    mut tensors: impl Iterator<Item = &'a Tensor>,
) -> Result<bool, DeviceError> {
    let mut flags = Vec::new();
    let on_host = tensors.all(|tensor| match tensor.device() {
        // SAFETY: contiguous f32, and changed by nobody meanwhile.
        tch::Device::Cpu => finite(unsafe { values(tensor) }),
        _ => {
            flags.push(tensor.isfinite().all());
            true
        }
    });
    if flags.is_empty() || !on_host {
        return Ok(on_host);
    }
    // One synchronization with the GPU.
    let all = Tensor::stack(&flags, 0).all().f_int64_value(&[]);
    all.map(|all| all != 0)
        .map_err(failed("looking for numbers that are not finite"))
}

/// x * 0 is 0 for finite x and NaN otherwise, and the sum keeps the NaN: no branch, so the loop is vectorized.
fn finite(values: &[f32]) -> bool {
    values
        .chunks(4096)
        .all(|chunk| chunk.iter().map(|x| x * 0.0).sum::<f32>() == 0.0)
}

/// A tensor over the first `len` numbers of a buffer, wherever they are. It may not be used longer than the buffer
/// is borrowed.
pub(super) fn over(buffer: &mut Buffer, len: usize) -> Tensor {
    match buffer {
        Buffer::Host(values) => borrowed(&mut values[..len]),
        Buffer::Tensor(tensor) => tensor.narrow(0, 0, len as i64),
    }
}

/// A tensor over memory that Rust owns, so that the reduction and libtorch share one buffer.
fn borrowed(values: &mut [f32]) -> Tensor {
    // Safety: the memory is contiguous f32 of that length, and every tensor made here is dropped before
    // the borrow ends: callers pass it on by reference to calls that keep nothing of it.
    unsafe {
        Tensor::from_blob(
            values.as_mut_ptr().cast::<u8>(),
            &[values.len() as i64],
            &[1],
            Kind::Float,
            tch::Device::Cpu,
        )
    }
}
