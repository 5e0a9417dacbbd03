//! Local response normalisation of tensors, with a gradient and fused with what lies beside it in the stem.
//!
//! See [`fovea_kernels::lrn`] for the definition and its source. All functions take and give `[batch, channels, height,
//! width]` in f32, channels-last in memory.

use fovea_core::googlenet::{LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE};
use fovea_kernels::{Shape, Threads, lrn as kernels};
use tch::{Device, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::raw::{Fresh, by_channel, by_pixel, shape_of, threads, values};

// The kernels are compiled for GoogLeNet's parameters.
const _: () = assert!(
    kernels::SIZE == LRN_SIZE
        && kernels::ALPHA == LRN_ALPHA
        && kernels::BETA == LRN_BETA
        && kernels::K == LRN_K
);

/// `lrn(x)`: by our kernel on the CPU, composed of libtorch's operations elsewhere.
pub fn lrn(x: &Tensor) -> Tensor {
    if x.device() != Device::Cpu {
        return composed(x);
    }
    let y = no_grad(|| map(x, |shape| shape, kernels::lrn));
    match autograd::records(&[x]) {
        true => autograd::attach(y, &[x], Lrn(x.detach())),
        false => y,
    }
}

/// ReLU, max pooling 3x3 with stride 2 (rounding up), then normalisation, as after conv1. On the CPU, without a gradient.
pub fn relu_pool_lrn(x: &Tensor) -> Tensor {
    map(x, Shape::pooled, kernels::relu_pool_lrn)
}

/// ReLU, normalisation, then max pooling 3x3 with stride 2 (rounding up), as after conv2. On the CPU, without a gradient.
pub fn relu_lrn_pool(x: &Tensor) -> Tensor {
    map(x, Shape::pooled, kernels::relu_lrn_pool)
}

/// The gradient by `x` of a loss whose gradient by [`lrn`]`(x)` is `gradient`. On the CPU.
pub fn lrn_backward(x: &Tensor, gradient: &Tensor) -> Tensor {
    let (count, shape) = shape_of(x);
    let (x, gradient) = (by_pixel(x), by_pixel(gradient));
    let mut out = Fresh::empty([count, shape.height, shape.width, shape.channels]);
    // SAFETY: `x` and `gradient` are activations, which nobody changes during the backward pass.
    let (x, gradient) = unsafe { (values(&x), values(&gradient)) };
    kernels::lrn_backward(threads(), shape, x, gradient, out.values_mut());
    by_channel(&out.into_tensor())
}

type Kernel = fn(Threads, Shape, &[f32], &mut [f32]);

/// Applies `kernel` to `x`, whose images it turns into images of the shape `to`.
fn map(x: &Tensor, to: fn(Shape) -> Shape, kernel: Kernel) -> Tensor {
    let (count, shape) = shape_of(x);
    let to = to(shape);
    let x = by_pixel(x);
    let mut out = Fresh::empty([count, to.height, to.width, to.channels]);
    // SAFETY: `x` is an activation, which nobody changes meanwhile.
    kernel(threads(), shape, unsafe { values(&x) }, out.values_mut());
    by_channel(&out.into_tensor())
}

/// The normalisation's input.
struct Lrn(Tensor);

impl Backward for Lrn {
    fn backward(&self, gradient: &Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        vec![Some(no_grad(|| lrn_backward(&self.0, gradient)))]
    }
}

/// [`lrn`] composed of libtorch's operations.
pub fn composed(x: &Tensor) -> Tensor {
    let (channels, reach) = (x.size()[1], (LRN_SIZE / 2) as i64);
    // Zeros before and after the channels, then shifted sums: every step goes through memory in order, which pooling
    // over an extra dimension does not.
    let squares = x.square().constant_pad_nd([0, 0, 0, 0, reach, reach]);
    let shifted = |shift| squares.narrow(1, shift, channels);
    let sum = (1..=2 * reach).fold(shifted(0), |sum, shift| sum + shifted(shift));
    let scale = sum * (LRN_ALPHA / LRN_SIZE as f64) + LRN_K;
    x * scale.pow_tensor_scalar(-LRN_BETA)
}
