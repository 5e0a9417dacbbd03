//! Local response normalisation with a gradient: `x / (k + alpha/size * sum of x^2 over size neighbouring
//! channels)^beta`. Source: BVLC/caffe `lrn_layer.cpp`, ACROSS_CHANNELS.
//!
//! `x` is `[batch, channels, height, width]` in f32.

use fovea_core::googlenet::{LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE};
use tch::{Device, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::kernels;

/// By our own kernels on the CPU, composed of libtorch's operations elsewhere.
pub fn lrn(x: &Tensor) -> Tensor {
    if x.device() != Device::Cpu {
        return composed(x);
    }
    let y = no_grad(|| kernels::lrn(x));
    match autograd::records(&[x]) {
        true => autograd::attach(y, &[x], Lrn(x.detach())),
        false => y,
    }
}

/// With its input.
struct Lrn(Tensor);

impl Backward for Lrn {
    fn backward(&self, gradient: &Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        vec![Some(no_grad(|| kernels::lrn_backward(&self.0, gradient)))]
    }
}

/// Of libtorch's operations.
pub fn composed(x: &Tensor) -> Tensor {
    let (channels, reach) = (x.size()[1], (LRN_SIZE / 2) as i64);
    // Zeros before and after the channels, then shifted sums: every step is elementwise in the memory's
    // order, which pooling over an extra dimension is not.
    let squares = x.square().constant_pad_nd([0, 0, 0, 0, reach, reach]);
    let shifted = |shift| squares.narrow(1, shift, channels);
    let sum = (1..=2 * reach).fold(shifted(0), |sum, shift| sum + shifted(shift));
    let scale = sum * (LRN_ALPHA / LRN_SIZE as f64) + LRN_K;
    x * scale.pow_tensor_scalar(-LRN_BETA)
}
