//! Memory for gradients, on the device that computes them.

use std::ops::Range;

use tch::kind::Element;
use tch::{Device, Kind, Tensor, no_grad};

/// 32-bit floats of a fixed number.
#[derive(Debug)]
pub enum Buffer {
    /// In the process's memory.
    Host(Vec<f32>),
    /// In a tensor: contiguous f32 of one dimension, usually in a GPU's memory. Writing to it is queued
    /// behind the work queued on the GPU before; reading from it waits for that work.
    Tensor(Tensor),
}

impl Buffer {
    /// `len` zeros on `device`.
    pub fn zeros(len: usize, device: Device) -> Self {
        match device {
            Device::Cpu => Self::Host(vec![0.0; len]),
            device => Self::Tensor(Tensor::zeros([len as i64], (Kind::Float, device))),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(values) => values.len(),
            Self::Tensor(tensor) => tensor.numel(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those in the process's memory.
    pub fn host(&self) -> Option<&[f32]> {
        match self {
            Self::Host(values) => Some(values),
            Self::Tensor(_) => None,
        }
    }

    /// The tensor that they are in, if they are not in the process's memory.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Host(_) => None,
            Self::Tensor(tensor) => Some(tensor),
        }
    }

    /// Overwrites the elements from `at` on.
    ///
    /// # Panics
    /// If they reach beyond the end.
    pub fn write(&mut self, at: usize, values: &[f32]) {
        match self {
            Self::Host(own) => own[at..at + values.len()].copy_from_slice(values),
            Self::Tensor(tensor) => no_grad(|| {
                let mut place = tensor.narrow(0, at as i64, values.len() as i64);
                place.copy_(&sent(values, tensor.device()));
            }),
        }
    }

    /// A copy of a range.
    ///
    /// # Panics
    /// If the range reaches beyond the end.
    pub fn read(&self, range: Range<usize>) -> Vec<f32> {
        match self {
            Self::Host(own) => own[range].to_vec(),
            Self::Tensor(tensor) => {
                let part = tensor.narrow(0, range.start as i64, range.len() as i64);
                let mut values = vec![0.0; range.len()];
                part.to_device(Device::Cpu)
                    .copy_data(&mut values, range.len());
                values
            }
        }
    }

    /// Sets the elements of `range` to zero.
    pub fn clear(&mut self, range: Range<usize>) {
        match self {
            Self::Host(own) => own[range].fill(0.0),
            Self::Tensor(tensor) => no_grad(|| {
                let _ = tensor
                    .narrow(0, range.start as i64, range.len() as i64)
                    .zero_();
            }),
        }
    }
}

/// Numbers in a tensor on `device`. The host continues while the GPU fetches them: libtorch's plain copy would wait until
/// the GPU has done all work queued before.
pub(super) fn sent<T: Element>(values: &[T], device: Device) -> Tensor {
    let host = Tensor::from_slice(values);
    match device {
        Device::Cpu => host,
        // The driver copies them before the call returns.
        device => host.to_device_(device, T::KIND, true, false),
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(values: Vec<f32>) -> Self {
        Self::Host(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_memory_do_the_same() {
        let tensor = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0]);
        for mut buffer in [
            Buffer::from(vec![1.0, 2.0, 3.0, 4.0, 5.0]),
            Buffer::Tensor(tensor),
        ] {
            buffer.write(1, &[-0.0, 7.5]);
            buffer.clear(4..5);
            assert_eq!(buffer.read(0..5), [1.0, -0.0, 7.5, 4.0, 0.0]);
            assert!(buffer.read(1..2)[0].is_sign_negative());
            assert_eq!((buffer.len(), buffer.is_empty()), (5, false));
            assert!(buffer.read(2..2).is_empty());
        }
    }
}
