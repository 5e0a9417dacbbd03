//! Bias and ReLU of a convolution's output, and their gradients, from and to some channels of wider tensors: nothing
//! needs to be concatenated or taken apart.

use crate::images::{Pixels, PixelsMut};
use crate::simd::for_this_processor;
use crate::threads::share_out;
use crate::{Images, ImagesMut, Number, Threads, check};

/// `out = relu(x + bias)`, pixel by pixel. `bias` has one value for each channel. NaN stays NaN.
///
/// # Panics
/// If the shapes of `x`, `bias` and `out` do not fit.
#[track_caller]
pub fn bias_relu<N: Number>(threads: Threads, x: Images<N>, bias: &[f32], out: ImagesMut<N>) {
    const NAME: &str = "bias_relu";
    check::same(
        NAME,
        ("x", x.count(), x.shape()),
        ("out", out.count(), out.shape()),
    );
    check::length(
        NAME,
        "bias",
        bias.len(),
        x.shape().channels,
        "channels of x",
    );
    share_out(threads, x.each().zip(out.each()), |(x, out)| {
        bias_relu_image(x, bias, out)
    });
}

/// The gradients of [`bias_relu`] by its input and, image by image, by the bias.
///
/// `out` becomes `gradient` where the output `y` is positive and 0 elsewhere. `sums` is `[images, channels]`: the
/// sum of `out` over the pixels of each image is added to it.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn bias_relu_backward<N: Number>(
    threads: Threads,
    gradient: Images<N>,
    y: Images<N>,
    out: ImagesMut<N>,
    sums: &mut [f32],
) {
    const NAME: &str = "bias_relu_backward";
    let expected = ("y", y.count(), y.shape());
    check::same(
        NAME,
        expected,
        ("gradient", gradient.count(), gradient.shape()),
    );
    check::same(NAME, expected, ("out", out.count(), out.shape()));
    let channels = y.shape().channels;
    let len = y.count() * channels;
    check::length(NAME, "sums", sums.len(), len, "images of y times channels");
    let work = gradient.each().zip(y.each()).zip(out.each());
    let work = work.zip(sums.chunks_mut(channels));
    share_out(threads, work, |(((gradient, y), out), sums)| {
        bias_relu_backward_image(gradient, y, out, sums)
    });
}

for_this_processor!(
    bias_relu_image<N: Number>, bias_relu_any, (x: Pixels<N>, bias: &[f32], out: PixelsMut<N>)
);
for_this_processor!(
    bias_relu_backward_image<N: Number>, bias_relu_backward_any,
    (gradient: Pixels<N>, y: Pixels<N>, out: PixelsMut<N>, sums: &mut [f32])
);

#[inline(always)]
fn bias_relu_any<N: Number>(x: Pixels<N>, bias: &[f32], out: PixelsMut<N>) {
    let width = bias.len();
    let xs = x.values.chunks(x.stride);
    for (x, out) in xs.zip(out.values.chunks_mut(out.stride)) {
        for ((x, bias), out) in x[..width].iter().zip(bias).zip(&mut out[..width]) {
            let sum = x.to_f32() + bias;
            // A comparison with NaN is false, so NaN passes.
            *out = N::rounded(if sum < 0.0 { 0.0 } else { sum });
        }
    }
}

#[inline(always)]
fn bias_relu_backward_any<N: Number>(
    gradient: Pixels<N>,
    y: Pixels<N>,
    out: PixelsMut<N>,
    sums: &mut [f32],
) {
    let width = sums.len();
    let gradients = gradient.values.chunks(gradient.stride);
    let ys = y.values.chunks(y.stride);
    let outs = out.values.chunks_mut(out.stride);
    for ((g, y), out) in gradients.zip(ys).zip(outs) {
        let out = &mut out[..width];
        for ((g, y), out) in g[..width].iter().zip(&y[..width]).zip(&mut *out) {
            *out = g.where_positive(*y);
        }
        // In a loop of its own, because f32 sums may need wider vectors than the values that are added.
        for (sum, out) in sums.iter_mut().zip(out) {
            *sum += out.to_f32();
        }
    }
}
