//! Local response normalisation composed of libtorch's operations, for other devices than CPUs.

use fovea_core::googlenet::{LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE};
use tch::Tensor;

/// `x / (k + alpha/size * sum of x^2 over size neighbouring channels)^beta`, with a gradient.
///
/// `x` is `[batch, channels, height, width]`. Source: BVLC/caffe `lrn_layer.cpp`, ACROSS_CHANNELS.
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
