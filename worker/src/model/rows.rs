//! The arithmetic of the fused kernels, on plain slices of one image: `[height, width, channels]`.
//!
//! Inner loops run along channels, which lie next to each other, and vectorise.

use fovea_core::googlenet::{LRN_ALPHA, LRN_K, LRN_SIZE};

use super::simd::for_this_processor;

/// Of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Shape {
    /// Numbers in it.
    #[allow(clippy::len_without_is_empty)] // No image is empty.
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// After a pooling of 3x3 with stride 2, rounding up.
    pub fn pooled(self) -> Shape {
        Shape {
            height: pooled(self.height),
            width: pooled(self.width),
            channels: self.channels,
        }
    }
}

/// ceil((n - 3) / 2) + 1
fn pooled(n: usize) -> usize {
    assert!(n >= 2, "a map of {n} px is too small to be pooled 3x3");
    n / 2
}

const RATE: f32 = (LRN_ALPHA / LRN_SIZE as f64) as f32;
const BASE: f32 = LRN_K as f32;
const REACH: usize = LRN_SIZE / 2;

for_this_processor!(
    /// Normalises the pixels of `x` into `out`.
    lrn, lrn_any, (shape: Shape, x: &[f32], out: &mut [f32])
);
for_this_processor!(
    /// See [`super::kernels::lrn_backward`].
    lrn_backward, lrn_backward_any, (shape: Shape, x: &[f32], gradient: &[f32], out: &mut [f32])
);
for_this_processor!(
    /// ReLU, pooling, normalisation; `out` has the shape `shape.pooled()`.
    relu_pool_lrn, relu_pool_lrn_any, (shape: Shape, x: &[f32], out: &mut [f32])
);
for_this_processor!(
    /// ReLU, normalisation, pooling; `out` has the shape `shape.pooled()`.
    relu_lrn_pool, relu_lrn_pool_any, (shape: Shape, x: &[f32], out: &mut [f32])
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
        // Max over three rows, then over three columns. ReLU comes last: it commutes with max.
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
    // The last row of one window is the first row of the next: what is carried over.
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

/// Max over three neighbouring pixels, every second one.
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
    // Groups are stored as a whole: a store under a condition becomes a masked one, which takes many times as
    // long on some processors.
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

/// A NaN wins, so that it is seen in the end.
#[inline(always)]
fn larger_of(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// A NaN stays one.
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

/// `s^(-1/4)` for `s` from 1 on, to about 1e-7 of it, by multiplications and additions alone: divisions and
/// roots take several times as long. A first guess from the bits of the number (its logarithm, about, times
/// -1/4; within 4 %), then Newton's steps for `r^-4 = s`, each of which squares the error. A NaN stays one.
#[inline(always)]
fn inverse_fourth_root(s: f32) -> f32 {
    // 5/4 of the bits of 1, less what makes the guess's error as small as it can be on both sides.
    const GUESS: u32 = 0x4f58_cae4;
    let mut r = f32::from_bits(GUESS - (s.to_bits() >> 2));
    for _ in 0..3 {
        let square = r * r;
        r *= 1.25 - 0.25 * s * (square * square);
    }
    r
}

/// One value for each channel, with zeros beyond both ends.
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

    /// Over the window around each channel. An iterator over slices of one length: indexing would be
    /// checked element by element, and not vectorise.
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
    use super::*;

    #[test]
    fn the_root_is_the_root() {
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
