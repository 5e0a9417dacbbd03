//! Local response normalisation across channels, its gradient, and its fusions with the ReLU and the pooling before or
//! after it: one pass over the data where libtorch takes many.
//!
//! `y = x / s^beta` with `s = k + alpha/size * (sum of x^2 over size neighbouring channels)`. Source: BVLC/caffe
//! `lrn_layer.cpp`, ACROSS_CHANNELS. The parameters are GoogLeNet's and fixed: [`SIZE`], [`ALPHA`], [`BETA`], [`K`].
//!
//! All functions take dense f32 batches `[images, height, width, channels]`. Inner loops run along channels, which lie next
//! to each other, and vectorise.

use crate::simd::for_this_processor;
use crate::threads::share_out;
use crate::{Shape, Threads, check};

/// Channels in the window over which squares are summed.
pub const SIZE: usize = 5;
/// Factor of the mean square.
pub const ALPHA: f64 = 1e-4;
/// Exponent of the scale. The kernels compute with 3/4 whatever stands here; a test compares the two.
pub const BETA: f64 = 0.75;
/// What is added to the mean square.
pub const K: f64 = 1.0;

/// `out = lrn(x)`. `x` and `out` are batches of images of `shape`.
///
/// # Panics
/// If a length is not that of whole images of `shape`, or the numbers of images differ.
#[track_caller]
pub fn lrn(threads: Threads, shape: Shape, x: &[f32], out: &mut [f32]) {
    map("lrn", threads, shape, shape, x, out, lrn_image);
}

/// `out = lrn(max_pool(relu(x)))`, as after conv1. `x` holds images of `shape`, `out` of [`shape.pooled()`](Shape::pooled):
/// the window is 3x3 with stride 2, rounding up. NaN stays NaN.
///
/// # Panics
/// As [`lrn`], and if an image is below 2x2 pixels.
#[track_caller]
pub fn relu_pool_lrn(threads: Threads, shape: Shape, x: &[f32], out: &mut [f32]) {
    let to = shape.pooled();
    map(
        "relu_pool_lrn",
        threads,
        shape,
        to,
        x,
        out,
        relu_pool_lrn_image,
    );
}

/// `out = max_pool(lrn(relu(x)))`, as after conv2. Shapes and pooling as in [`relu_pool_lrn`].
///
/// # Panics
/// As [`relu_pool_lrn`].
#[track_caller]
pub fn relu_lrn_pool(threads: Threads, shape: Shape, x: &[f32], out: &mut [f32]) {
    let to = shape.pooled();
    map(
        "relu_lrn_pool",
        threads,
        shape,
        to,
        x,
        out,
        relu_lrn_pool_image,
    );
}

/// `out` becomes the gradient by `x` of a loss whose gradient by `lrn(x)` is `gradient`:
///
/// `g s^-b - 2 b alpha/size x * (sum over the window of g x s^(-b-1))`, with `s` the scale that `x` is divided by to
/// the power `b`.
///
/// # Panics
/// As [`lrn`].
#[track_caller]
pub fn lrn_backward(threads: Threads, shape: Shape, x: &[f32], gradient: &[f32], out: &mut [f32]) {
    const NAME: &str = "lrn_backward";
    let images = check::images(NAME, "x", x.len(), shape);
    check::dense(NAME, "gradient", gradient.len(), images, shape);
    check::dense(NAME, "out", out.len(), images, shape);
    let len = shape.len();
    let work = x
        .chunks(len)
        .zip(gradient.chunks(len))
        .zip(out.chunks_mut(len));
    share_out(threads, work, |((x, gradient), out)| {
        lrn_backward_image(shape, x, gradient, out)
    });
}

/// Applies `image` to every image of `x`, which has the shape `from`, giving images of the shape `to`.
#[track_caller]
fn map(
    name: &str,
    threads: Threads,
    from: Shape,
    to: Shape,
    x: &[f32],
    out: &mut [f32],
    image: fn(Shape, &[f32], &mut [f32]),
) {
    let images = check::images(name, "x", x.len(), from);
    check::dense(name, "out", out.len(), images, to);
    let work = x.chunks(from.len()).zip(out.chunks_mut(to.len()));
    share_out(threads, work, |(x, out)| image(from, x, out));
}

const RATE: f32 = (ALPHA / SIZE as f64) as f32;
const BASE: f32 = K as f32;
const REACH: usize = SIZE / 2;

for_this_processor!(
    lrn_image, lrn_any, (shape: Shape, x: &[f32], out: &mut [f32])
);
for_this_processor!(
    lrn_backward_image, lrn_backward_any, (shape: Shape, x: &[f32], gradient: &[f32], out: &mut [f32])
);
for_this_processor!(
    relu_pool_lrn_image, relu_pool_lrn_any, (shape: Shape, x: &[f32], out: &mut [f32])
);
for_this_processor!(
    relu_lrn_pool_image, relu_lrn_pool_any, (shape: Shape, x: &[f32], out: &mut [f32])
);

#[inline(always)]
fn lrn_any(shape: Shape, x: &[f32], out: &mut [f32]) {
    let mut window = Window::new(shape.channels);
    for (x, out) in x
        .chunks_exact(shape.channels)
        .zip(out.chunks_exact_mut(shape.channels))
    {
        normalise(x, &mut window, out);
    }
}

#[inline(always)]
fn lrn_backward_any(shape: Shape, x: &[f32], gradient: &[f32], out: &mut [f32]) {
    let c = shape.channels;
    let mut squares = Window::new(c);
    let mut terms = Window::new(c);
    // 2 * beta * alpha / n, beta being 3/4.
    let factor = 1.5 * RATE;
    for ((x, g), out) in x
        .chunks_exact(c)
        .zip(gradient.chunks_exact(c))
        .zip(out.chunks_exact_mut(c))
    {
        squares.square(x);
        for ((((out, term), sum), x), g) in out
            .iter_mut()
            .zip(&mut terms.values[REACH..])
            .zip(squares.sums(c))
            .zip(x)
            .zip(g)
        {
            let root = inverse_fourth_root(BASE + RATE * sum);
            let square = root * root;
            *out = g * (square * root);
            *term = *out * x * (square * square);
        }
        for ((out, sum), x) in out.iter_mut().zip(terms.sums(c)).zip(x) {
            *out -= factor * x * sum;
        }
    }
}

#[inline(always)]
fn relu_pool_lrn_any(shape: Shape, x: &[f32], out: &mut [f32]) {
    let c = shape.channels;
    let row = shape.width * c;
    let mut window = Window::new(c);
    let mut tallest = vec![0.0; row];
    let mut pooled = vec![0.0; out.len() / shape.pooled().height];
    for (y, out) in out.chunks_exact_mut(pooled.len()).enumerate() {
        // The maximum of three rows, then of three columns. ReLU comes last, because it commutes with the maximum.
        let rows = &x[2 * y * row..((2 * y + 3) * row).min(x.len())];
        tallest.copy_from_slice(&rows[..row]);
        for more in rows[row..].chunks_exact(row) {
            raise(&mut tallest, more);
        }
        pool_columns(&tallest, c, &mut pooled);
        for value in &mut pooled {
            *value = rectified(*value);
        }
        for (x, out) in pooled.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            normalise(x, &mut window, out);
        }
    }
}

#[inline(always)]
fn relu_lrn_pool_any(shape: Shape, x: &[f32], out: &mut [f32]) {
    let c = shape.channels;
    let row = shape.width * c;
    let out_row = out.len() / shape.pooled().height;
    let mut window = Window::new(c);
    let mut rectified_pixel = vec![0.0; c];
    let mut normalised = vec![0.0; row];
    let mut tallest = vec![0.0; row];
    // The last row of one window is the first row of the next one.
    let mut last = vec![0.0; row];
    for (y, x) in x.chunks_exact(row).enumerate() {
        for (x, out) in x.chunks_exact(c).zip(normalised.chunks_exact_mut(c)) {
            for (r, x) in rectified_pixel.iter_mut().zip(x) {
                *r = rectified(*x);
            }
            normalise(&rectified_pixel, &mut window, out);
        }
        if y % 2 == 1 {
            tallest.copy_from_slice(&last);
            raise(&mut tallest, &normalised);
            if y + 1 == shape.height {
                pool_columns(&tallest, c, &mut out[y / 2 * out_row..][..out_row]);
            }
            continue;
        }
        if y > 0 {
            raise(&mut tallest, &normalised);
            pool_columns(&tallest, c, &mut out[(y / 2 - 1) * out_row..][..out_row]);
        }
        std::mem::swap(&mut last, &mut normalised);
    }
}

/// The maximum of three neighbouring pixels, for every second pixel.
#[inline(always)]
fn pool_columns(row: &[f32], c: usize, out: &mut [f32]) {
    for (x, out) in out.chunks_exact_mut(c).enumerate() {
        let pixels = &row[2 * x * c..((2 * x + 3) * c).min(row.len())];
        out.copy_from_slice(&pixels[..c]);
        for more in pixels[c..].chunks_exact(c) {
            raise(out, more);
        }
    }
}

#[inline(always)]
fn raise(most: &mut [f32], more: &[f32]) {
    // Groups are stored as a whole: the compiler turns a conditional store into a masked one, which takes many times
    // as long on some processors.
    const GROUP: usize = 8;
    let (groups, rest) = most.as_chunks_mut::<GROUP>();
    let (more_groups, more_rest) = more.as_chunks::<GROUP>();
    for (most, more) in groups.iter_mut().zip(more_groups) {
        let mut larger = [0.0; GROUP];
        for l in 0..GROUP {
            larger[l] = larger_of(most[l], more[l]);
        }
        *most = larger;
    }
    for (most, more) in rest.iter_mut().zip(more_rest) {
        *most = larger_of(*most, *more);
    }
}

/// NaN wins, so that it reaches the result.
#[inline(always)]
fn larger_of(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// NaN stays NaN.
#[inline(always)]
fn rectified(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn normalise(x: &[f32], window: &mut Window, out: &mut [f32]) {
    window.square(x);
    for ((out, sum), x) in out.iter_mut().zip(window.sums(x.len())).zip(x) {
        let root = inverse_fourth_root(BASE + RATE * sum);
        *out = x * (root * root * root);
    }
}

/// `s^(-1/4)` for `s >= 1`, with a relative error of about 1e-7, by multiplications and additions alone: divisions and
/// roots take several times as long. The first guess comes from the bits of the number (about its logarithm, times
/// -1/4; within 4 %). Each of Newton's steps for `r^-4 = s` squares the error. NaN stays NaN.
#[inline(always)]
fn inverse_fourth_root(s: f32) -> f32 {
    // 5/4 of the bits of 1, less an offset that makes the largest error of the guess equal on both sides.
    const GUESS: u32 = 0x4f58_cae4;
    let mut r = f32::from_bits(GUESS - (s.to_bits() >> 2));
    for _ in 0..3 {
        let square = r * r;
        r *= 1.25 - 0.25 * s * (square * square);
    }
    r
}

/// One value for each channel of a pixel, with zeros beyond both ends.
struct Window {
    values: Vec<f32>,
}

impl Window {
    #[inline(always)]
    fn new(channels: usize) -> Window {
        Window {
            values: vec![0.0; channels + 2 * REACH],
        }
    }

    #[inline(always)]
    fn square(&mut self, x: &[f32]) {
        for (square, x) in self.values[REACH..].iter_mut().zip(x) {
            *square = x * x;
        }
    }

    /// The sum over the window around each channel. It iterates over slices of one length, because indexing would be
    /// checked element by element and not vectorise.
    #[inline(always)]
    fn sums(&self, channels: usize) -> impl Iterator<Item = f32> {
        let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|shift| &self.values[shift..shift + channels]);
        a.iter()
            .zip(b)
            .zip(c)
            .zip(d)
            .zip(e)
            .map(|((((a, b), c), d), e)| (a + e) + (b + d) + c)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{close, exact, noise, refused, shape};

    /// The scale that each value is divided by to the power beta.
    fn scales(shape: Shape, x: &[f64]) -> Vec<f64> {
        let c = shape.channels;
        let scale = |at: usize| {
            let (pixel, channel) = (at / c * c, at % c);
            let window = channel.saturating_sub(SIZE / 2)..(channel + SIZE / 2 + 1).min(c);
            let sum: f64 = window.map(|i| x[pixel + i] * x[pixel + i]).sum();
            K + ALPHA / SIZE as f64 * sum
        };
        (0..x.len()).map(scale).collect()
    }

    fn defined_lrn(shape: Shape, x: &[f64]) -> Vec<f64> {
        let scales = scales(shape, x);
        let y = x.iter().zip(scales);
        y.map(|(x, scale)| x * scale.powf(-BETA)).collect()
    }

    /// From the derivative of the definition, term by term.
    fn defined_backward(shape: Shape, x: &[f64], gradient: &[f64]) -> Vec<f64> {
        let c = shape.channels;
        let scales = scales(shape, x);
        let mut out = vec![0.0; x.len()];
        for at in 0..x.len() {
            let (pixel, channel) = (at / c * c, at % c);
            out[at] += gradient[at] * scales[at].powf(-BETA);
            // y[at] depends on every x in its window by way of the scale.
            for i in channel.saturating_sub(SIZE / 2)..(channel + SIZE / 2 + 1).min(c) {
                let scale = 2.0 * ALPHA / SIZE as f64 * x[pixel + i];
                out[pixel + i] -=
                    gradient[at] * x[at] * BETA * scales[at].powf(-BETA - 1.0) * scale;
            }
        }
        out
    }

    fn defined_pool(shape: Shape, x: &[f64]) -> Vec<f64> {
        let to = shape.pooled();
        let mut out = vec![f64::NEG_INFINITY; x.len() / shape.len() * to.len()];
        for (at, most) in out.iter_mut().enumerate() {
            let (image, at) = (at / to.len(), at % to.len());
            let (pixel, channel) = (at / to.channels, at % to.channels);
            let (top, left) = (2 * (pixel / to.width), 2 * (pixel % to.width));
            for y in top..(top + 3).min(shape.height) {
                for x_at in left..(left + 3).min(shape.width) {
                    let pixel = image * shape.pixels() + y * shape.width + x_at;
                    *most = most.max(x[pixel * shape.channels + channel]);
                }
            }
        }
        out
    }

    fn relu(x: &[f64]) -> Vec<f64> {
        x.iter().map(|x| x.max(0.0)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn normalisation_and_its_gradient_are_those_of_the_definition(
            threads in 1usize..4, count in 1usize..4, height in 1usize..6, width in 1usize..6,
            channels in 1usize..40, seed in 0u64..1000,
        ) {
            let (shape, threads) = (shape(height, width, channels), Threads::new(threads));
            // Large values, so that the scale is far from 1.
            let x: Vec<f32> = noise(count * shape.len(), seed).iter().map(|x| x * 1000.0).collect();
            let gradient = noise(x.len(), seed + 1);
            let mut out = vec![f32::NAN; x.len()];
            lrn(threads, shape, &x, &mut out);
            close(&out, &defined_lrn(shape, &exact(&x)), 1e-6);
            out.fill(f32::NAN);
            lrn_backward(threads, shape, &x, &gradient, &mut out);
            close(&out, &defined_backward(shape, &exact(&x), &exact(&gradient)), 1e-5);
        }

        #[test]
        fn fused_kernels_compute_what_they_fuse(
            threads in 1usize..4, count in 1usize..4, height in 2usize..9, width in 2usize..9,
            channels in 1usize..40, seed in 0u64..1000,
        ) {
            let (shape, threads) = (shape(height, width, channels), Threads::new(threads));
            let x: Vec<f32> = noise(count * shape.len(), seed).iter().map(|x| x * 1000.0).collect();
            let mut out = vec![f32::NAN; count * shape.pooled().len()];
            relu_pool_lrn(threads, shape, &x, &mut out);
            let pooled = relu(&defined_pool(shape, &exact(&x)));
            close(&out, &defined_lrn(shape.pooled(), &pooled), 1e-6);
            out.fill(f32::NAN);
            relu_lrn_pool(threads, shape, &x, &mut out);
            close(&out, &defined_pool(shape, &defined_lrn(shape, &relu(&exact(&x)))), 1e-6);
        }
    }

    /// A sum over the outputs with uneven weights changes as the gradient says.
    #[test]
    fn the_gradient_is_the_slope_of_the_definition() {
        let shape = shape(1, 2, 7);
        let x: Vec<f64> = exact(&noise(14, 5)).iter().map(|x| x * 300.0).collect();
        let weights = exact(&noise(14, 6));
        let loss = |x: &[f64]| -> f64 {
            let y = defined_lrn(shape, x);
            y.iter().zip(&weights).map(|(y, weight)| y * weight).sum()
        };
        let gradient = defined_backward(shape, &x, &weights);
        for at in 0..14 {
            let moved = |step: f64| {
                let mut x = x.clone();
                x[at] += step;
                loss(&x)
            };
            let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            assert!(
                (slope - gradient[at]).abs() < 1e-7,
                "{slope} {}",
                gradient[at]
            );
        }
    }

    #[test]
    fn nan_reaches_the_result() {
        let shape = shape(4, 4, 8);
        let mut x = noise(shape.len(), 1);
        x[5 * 8 + 3] = f32::NAN;
        let mut out = vec![0.0; shape.pooled().len()];
        for kernel in [relu_pool_lrn, relu_lrn_pool] {
            kernel(Threads::ONE, shape, &x, &mut out);
            assert!(out.iter().any(|y| y.is_nan()));
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let shape = shape(4, 4, 8);
        let x = vec![1.0; 2 * 128];
        let call = |kernel: Kernel, shape, x: usize, out: usize| {
            let x = vec![1.0; x];
            move || kernel(Threads::ONE, shape, &x, &mut vec![0.0; out])
        };
        type Kernel = fn(Threads, Shape, &[f32], &mut [f32]);
        call(lrn, shape, 256, 256)();
        refused(
            call(lrn, shape, 256, 128),
            "lrn: out holds 128 values, expected 2 images of 4x4x8",
        );
        refused(call(lrn, shape, 250, 250), "lrn: x holds 250 values");
        refused(
            call(lrn, shape.with_channels(0), 0, 0),
            "lrn: x holds 0 values",
        );
        refused(
            call(relu_pool_lrn, shape, 256, 256),
            "relu_pool_lrn: out holds 256 values, expected 2 images of 2x2x8",
        );
        refused(
            call(relu_lrn_pool, shape, 128, 64),
            "relu_lrn_pool: out holds 64 values",
        );
        let flat = Shape { height: 1, ..shape };
        refused(call(relu_lrn_pool, flat, 32, 32), "1x4x8 is too small");
        let mut out = vec![0.0; 256];
        refused(
            || lrn_backward(Threads::ONE, shape, &x, &x[..128], &mut out),
            "lrn_backward: gradient holds 128 values, expected 2 images of 4x4x8",
        );
    }

    #[test]
    fn the_fourth_root_is_within_2e_7() {
        let mut worst: f64 = 0.0;
        for i in 0..400_000 {
            let s = 1.0f32 + (i as f32 / 1000.0).exp2() * 1e-6;
            let exact = f64::from(s).powf(-0.25);
            worst = worst.max((f64::from(inverse_fourth_root(s)) - exact).abs() / exact);
            if s > 1e30 {
                break;
            }
        }
        assert!(worst < 2e-7, "{worst}");
        assert!(inverse_fourth_root(f32::NAN).is_nan());
    }
}
