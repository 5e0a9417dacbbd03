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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{noise, refused, shape, stored};
    use crate::{Bf16, Shape};

    /// Computes in some channels of wider tensors, and compares with the definition and with what lies beside.
    fn compare<N: Number>(
        threads: usize,
        count: usize,
        shape: Shape,
        beside: [usize; 2],
        seed: u64,
    ) {
        let threads = Threads::new(threads);
        let channels = shape.channels;
        let wide = shape.with_channels(beside[0] + channels + beside[1]);
        let part = beside[0]..beside[0] + channels;
        let random = |seed| stored::<N>(&noise(count * wide.len(), seed));
        let (x, gradient, before) = (random(seed), random(seed + 1), random(seed + 2));
        let bias = noise(channels, seed + 3);
        let view = |values| Images::dense(values, count, wide).channels(part.clone());

        let mut y = before.clone();
        let mut out = ImagesMut::dense(&mut y, count, wide);
        bias_relu(threads, view(&x), &bias, out.channels(part.clone()));
        let mut back = before.clone();
        let mut sums = vec![1.0; count * channels];
        let mut out = ImagesMut::dense(&mut back, count, wide);
        bias_relu_backward(
            threads,
            view(&gradient),
            view(&y),
            out.channels(part.clone()),
            &mut sums,
        );

        let mut expected_sums = vec![1.0; count * channels];
        for at in 0..count * wide.len() {
            let (image, channel) = (at / wide.len(), at % wide.channels);
            if !part.contains(&channel) {
                assert_eq!(
                    (y[at], back[at]),
                    (before[at], before[at]),
                    "beside the channels"
                );
                continue;
            }
            let channel = channel - part.start;
            let sum = x[at].to_f32() + bias[channel];
            assert_eq!(y[at], N::rounded(sum.max(0.0)));
            let passed = if y[at].to_f32() > 0.0 {
                gradient[at].to_f32()
            } else {
                0.0
            };
            assert_eq!(back[at], N::rounded(passed));
            expected_sums[image * channels + channel] += passed;
        }
        // In the order of the pixels, so to the bit.
        assert_eq!(sums, expected_sums);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn some_channels_are_rectified_and_the_others_stay(
            threads in 1usize..4, count in 1usize..4, height in 1usize..6, width in 1usize..6,
            channels in 1usize..40, before in 0usize..9, behind in 0usize..9, seed in 0u64..1000,
        ) {
            let shape = shape(height, width, channels);
            compare::<f32>(threads, count, shape, [before, behind], seed);
            compare::<Bf16>(threads, count, shape, [before, behind], seed);
        }
    }

    #[test]
    fn nan_stays_nan() {
        let shape = shape(1, 1, 3);
        let mut out = [0.0; 3];
        let view = ImagesMut::dense(&mut out, 1, shape);
        bias_relu(
            Threads::ONE,
            Images::dense(&[f32::NAN, -1.0, 2.0], 1, shape),
            &[0.0; 3],
            view,
        );
        assert!(out[0].is_nan());
        assert_eq!(out[1..], [0.0, 2.0]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (small, large) = (shape(2, 3, 4), shape(2, 3, 5));
        let values = [1.0f32; 60];
        let view = |count: usize, shape: Shape| {
            Images::dense(&values[..count * shape.len()], count, shape)
        };
        let call = |x, bias: usize, count: usize, shape: Shape| {
            let mut out = vec![0.0; count * shape.len()];
            bias_relu(
                Threads::ONE,
                x,
                &values[..bias],
                ImagesMut::dense(&mut out, count, shape),
            );
        };
        call(view(2, small), 4, 2, small);
        refused(
            || call(view(2, small), 4, 2, large),
            "bias_relu: out is 2 images of 2x3x5, but x is 2 images of 2x3x4",
        );
        refused(
            || call(view(2, small), 4, 1, small),
            "out is 1 images of 2x3x4",
        );
        refused(
            || call(view(2, small), 5, 2, small),
            "bias_relu: bias holds 5 values, expected 4 (channels of x)",
        );
        let call = |gradient, y, sums: usize| {
            let mut out = vec![0.0; 48];
            let out = ImagesMut::dense(&mut out, 2, small);
            bias_relu_backward(Threads::ONE, gradient, y, out, &mut vec![0.0; sums]);
        };
        call(view(2, small), view(2, small), 8);
        refused(
            || call(view(2, large), view(2, small), 8),
            "bias_relu_backward: gradient is",
        );
        refused(
            || call(view(2, large), view(2, large), 10),
            "bias_relu_backward: out is",
        );
        refused(
            || call(view(2, small), view(2, small), 7),
            "sums holds 7 values, expected 8",
        );
    }
}
