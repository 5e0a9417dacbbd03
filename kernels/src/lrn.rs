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
#[path = "lrn_tests.rs"]
mod tests;
