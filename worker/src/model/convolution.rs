//! libtorch's convolution with stride 1, forward and backward, outside of its autograd.

use std::ffi::{c_int, c_void};

use tch::Tensor;

use super::raw::by_channel;
use crate::shim;

/// `conv2d(x, weight)` without a bias, padded so that the map keeps its size; weights as wide as high, an odd number.
/// `x` is `[batch, height, width, from]`, `weight` `[to, from, k, k]`; the result is by pixel, too, and contiguous.
pub fn forward(x: &Tensor, weight: &Tensor) -> Tensor {
    let pad = padding(weight);
    let y = by_channel(x).conv2d::<Tensor>(weight, None, [1, 1], [pad; 2], [1, 1], 1);
    y.permute([0, 2, 3, 1]).contiguous()
}

/// [`forward`] without padding, so that the map gets smaller; weights of any width.
pub fn valid(x: &Tensor, weight: &Tensor) -> Tensor {
    let y = by_channel(x).conv2d::<Tensor>(weight, None, [1, 1], [0, 0], [1, 1], 1);
    y.permute([0, 2, 3, 1]).contiguous()
}

/// Gradients by `x` (by pixel, as `gradient` is) and by `weight`, as far as they are needed.
///
/// # Panics
/// If libtorch refuses. Within a [`Backward`](super::autograd::Backward), the panic becomes an error of the backward pass.
pub fn backward(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    needed: [bool; 2],
) -> [Option<Tensor>; 2] {
    backward_padded(gradient, x, weight, padding(weight), needed)
}

/// The gradient by `weight` of [`valid`]. Arguments and panics as for [`backward`].
pub fn backward_valid(gradient: &Tensor, x: &Tensor, weight: &Tensor) -> Tensor {
    let [_, by_weight] = backward_padded(gradient, x, weight, 0, [false, true]);
    by_weight.expect("a gradient that was requested")
}

fn backward_padded(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    padding: i64,
    needed: [bool; 2],
) -> [Option<Tensor>; 2] {
    let [gradient, x] = [gradient, x].map(by_channel);
    let mut results = [std::ptr::null_mut(); 2];
    // SAFETY: valid tensors, of which nothing is kept, and two places for the results.
    let code = unsafe {
        fovea_convolution_backward(
            gradient.as_ptr().cast(),
            x.as_ptr().cast(),
            weight.as_ptr().cast(),
            padding,
            needed.as_ptr(),
            results.as_mut_ptr(),
        )
    };
    shim::check("fovea_convolution_backward", code).unwrap_or_else(|error| panic!("{error}"));
    // SAFETY: null, or fresh tensors, which are ours.
    let [x, weight] =
        results.map(|at| (!at.is_null()).then(|| unsafe { Tensor::from_ptr(at.cast()) }));
    [x.map(|x| x.permute([0, 2, 3, 1]).contiguous()), weight]
}

fn padding(weight: &Tensor) -> i64 {
    weight.size()[2] / 2
}

// See `convolution.cpp`.
unsafe extern "C" {
    fn fovea_convolution_backward(
        gradient: *const c_void,
        x: *const c_void,
        weight: *const c_void,
        padding: i64,
        needed: *const bool,
        results: *mut *mut c_void,
    ) -> c_int;
}
