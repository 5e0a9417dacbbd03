//! 3x3 max pooling and its gradient, in f32 and bfloat16: one pass each way, and one byte for the place of each maximum
//! where libtorch keeps eight.

mod lanes;

use crate::number::GROUP as LANES;
use crate::threads::share_out;
use crate::{Number, Shape, Threads, check};

/// Height and width of the window.
const WINDOW: usize = 3;

/// How far the window stride, and the padding that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stride {
    /// Stride 1, padding 1: the image keeps its size.
    One,
    /// Stride 2 without padding, rounding up (see [`Shape::pooled`]).
    Two,
}

impl Stride {
    /// The distance of two windows, in pixels.
    pub fn pixels(self) -> usize {
        match self {
            Stride::One => 1,
            Stride::Two => 2,
        }
    }

    /// Pixels added on each side. They never win.
    pub fn padding(self) -> usize {
        match self {
            Stride::One => 1,
            Stride::Two => 0,
        }
    }

    /// The shape of what is pooled from an image of `shape`.
    ///
    /// # Panics
    /// If the image is too small (see [`Shape::pooled`]).
    #[track_caller]
    pub fn pooled(self, shape: Shape) -> Shape {
        match self {
            Stride::One => shape,
            Stride::Two => shape.pooled(),
        }
    }
}

/// Whether the kernels take images of so many channels: a multiple of 8.
pub fn fits(channels: usize) -> bool {
    channels > 0 && channels.is_multiple_of(LANES)
}

/// `y = max_pool(x)`: the largest value of each window; the first of several equal ones; NaN wins. `x` is a dense batch of
/// images of `shape`, `y` of [`stride.pooled(shape)`](Stride::pooled).
///
/// `places` becomes the place of each maximum in its window, 0 to 8, row by row: what [`max_pool_backward`] needs. It has
/// the length of `y`.
///
/// # Panics
/// If lengths do not fit `shape`, or the channels do not [fit](fits).
#[track_caller]
pub fn max_pool<N: Number>(
    threads: Threads,
    stride: Stride,
    shape: Shape,
    x: &[N],
    y: &mut [N],
    places: &mut [u8],
) {
    const NAME: &str = "max_pool";
    let to = pooled(NAME, stride, shape);
    let images = check::images(NAME, "x", x.len(), shape);
    check::dense(NAME, "y", y.len(), images, to);
    check::dense(NAME, "places", places.len(), images, to);
    let work = x.chunks(shape.len()).zip(y.chunks_mut(to.len()));
    let work = work.zip(places.chunks_mut(to.len()));
    share_out(threads, work, |((x, y), places)| {
        pool(shape, stride, x, y, places)
    });
}

/// The gradient of [`max_pool`] by `x`, which is a batch of images of `shape`: `out` becomes, for each value, the sum of
/// the gradients of the windows in which it won, rounded once.
///
/// # Panics
/// As [`max_pool`].
#[track_caller]
pub fn max_pool_backward<N: Number>(
    threads: Threads,
    stride: Stride,
    shape: Shape,
    gradient: &[N],
    places: &[u8],
    out: &mut [N],
) {
    backward(
        "max_pool_backward",
        stride,
        shape,
        threads,
        (gradient, places, out),
        |gradient, places, out| {
            N::sum_into(out, |sums| pool_back(shape, stride, gradient, places, sums));
        },
    );
}

/// As [`max_pool_backward`], but adds the gradient to what `sum` holds.
///
/// # Panics
/// As [`max_pool`].
#[track_caller]
pub fn max_pool_add_backward(
    threads: Threads,
    stride: Stride,
    shape: Shape,
    gradient: &[f32],
    places: &[u8],
    sum: &mut [f32],
) {
    backward(
        "max_pool_add_backward",
        stride,
        shape,
        threads,
        (gradient, places, sum),
        |gradient, places, sum| {
            pool_back(shape, stride, gradient, places, sum);
        },
    );
}

#[track_caller]
fn backward<N: Number>(
    name: &str,
    stride: Stride,
    shape: Shape,
    threads: Threads,
    (gradient, places, out): (&[N], &[u8], &mut [N]),
    image: impl Fn(&[N], &[u8], &mut [N]) + Sync,
) {
    let to = pooled(name, stride, shape);
    let images = check::images(name, "out", out.len(), shape);
    check::dense(name, "gradient", gradient.len(), images, to);
    check::dense(name, "places", places.len(), images, to);
    let work = out.chunks_mut(shape.len()).zip(gradient.chunks(to.len()));
    let work = work.zip(places.chunks(to.len()));
    share_out(threads, work, |((out, gradient), places)| {
        image(gradient, places, out)
    });
}

/// The shape after pooling, once `shape` has been checked.
#[track_caller]
fn pooled(name: &str, stride: Stride, shape: Shape) -> Shape {
    assert!(
        fits(shape.channels),
        "{name}: images of {shape}, but the channels must be a multiple of {LANES}"
    );
    stride.pooled(shape)
}

/// Pools the image `x` into `y`, and stores in `places` which place of each window won.
fn pool<N: Number>(from: Shape, stride: Stride, x: &[N], y: &mut [N], places: &mut [u8]) {
    let groups = y
        .chunks_exact_mut(LANES)
        .zip(places.chunks_exact_mut(LANES));
    let groups = groups.map(|(y, places)| (as_lanes_mut(y), as_lanes_mut(places)));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: a safe function whose only requirement is AVX2, which this processor has.
        return unsafe { lanes::avx2::pool(Windows::new(from, stride), x, groups) };
    }
    lanes::any::pool(Windows::new(from, stride), x, groups);
}

/// Adds each gradient to the value in `sums` that won.
fn pool_back<N: Number>(
    from: Shape,
    stride: Stride,
    gradient: &[N],
    places: &[u8],
    sums: &mut [f32],
) {
    let groups = gradient.chunks_exact(LANES).zip(places.chunks_exact(LANES));
    let groups = groups.map(|(gradient, places)| (as_lanes(gradient), as_lanes(places)));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: as in `pool`.
        return unsafe { lanes::avx2::pool_back(Windows::new(from, stride), groups, sums) };
    }
    lanes::any::pool_back(Windows::new(from, stride), groups, sums);
}

fn as_lanes<T>(values: &[T]) -> &[T; LANES] {
    values.try_into().expect("a slice of that length")
}

fn as_lanes_mut<T>(values: &mut [T]) -> &mut [T; LANES] {
    values.try_into().expect("a slice of that length")
}

/// The windows of an image, group of channels by group of channels.
struct Windows {
    from: Shape,
    stride: Stride,
    pixel: usize,
    channel: usize,
    /// Where each pixel of the window begins in the image, and its place in the window. At the edges there are fewer
    /// than nine.
    window: [(usize, u8); WINDOW * WINDOW],
    count: usize,
}

impl Windows {
    fn new(from: Shape, stride: Stride) -> Self {
        let mut windows = Self {
            from,
            stride,
            pixel: 0,
            channel: 0,
            window: Default::default(),
            count: 0,
        };
        windows.enter_pixel();
        windows
    }

    /// Finds the window of the output pixel `self.pixel`.
    fn enter_pixel(&mut self) {
        let to = self.stride.pooled(self.from);
        let top = self.pixel / to.width * self.stride.pixels();
        let left = self.pixel % to.width * self.stride.pixels();
        self.count = 0;
        for place in 0..WINDOW * WINDOW {
            let y = (top + place / WINDOW).wrapping_sub(self.stride.padding());
            let x = (left + place % WINDOW).wrapping_sub(self.stride.padding());
            if y < self.from.height && x < self.from.width {
                let pixel = y * self.from.width + x;
                self.window[self.count] = (pixel * self.from.channels, place as u8);
                self.count += 1;
            }
        }
    }

    /// Where the values of the next group of channels begin, and their places in the window.
    #[inline(always)]
    fn next_group(&mut self) -> impl Iterator<Item = (usize, u8)> {
        if self.channel == self.from.channels {
            self.channel = 0;
            self.pixel += 1;
            self.enter_pixel();
        }
        let channel = self.channel;
        self.channel += LANES;
        let window = &self.window[..self.count];
        window.iter().map(move |(at, place)| (at + channel, *place))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Bf16;
    use crate::testing::{bits, close, exact, noise, refused, rounding, shape, stored};

    /// The windows of every output value, as indices of input values in the order of the window's places.
    fn windows(stride: Stride, shape: Shape, images: usize) -> Vec<Vec<(usize, u8)>> {
        let to = stride.pooled(shape);
        let window = |at: usize| {
            let (image, at) = (at / to.len(), at % to.len());
            let (pixel, channel) = (at / to.channels, at % to.channels);
            let corner = |at: usize| (at * stride.pixels()) as isize - stride.padding() as isize;
            let (top, left) = (corner(pixel / to.width), corner(pixel % to.width));
            let places = (0..9u8).filter_map(|place| {
                let y = usize::try_from(top + isize::from(place) / 3).ok()?;
                let x = usize::try_from(left + isize::from(place) % 3).ok()?;
                let inside = y < shape.height && x < shape.width;
                let pixel = image * shape.pixels() + y * shape.width + x;
                inside.then_some((pixel * shape.channels + channel, place))
            });
            places.collect()
        };
        (0..images * to.len()).map(window).collect()
    }

    fn compare<N: Number>(threads: usize, stride: Stride, count: usize, shape: Shape, seed: u64) {
        let threads = Threads::new(threads);
        // Few different values, so that most windows have equal ones.
        let x: Vec<f32> = noise(count * shape.len(), seed);
        let x: Vec<N> = stored(&x.iter().map(|x| (x * 2.0).round()).collect::<Vec<_>>());
        let windows = windows(stride, shape, count);
        let mut y = stored::<N>(&vec![f32::NAN; windows.len()]);
        let mut places = vec![255; windows.len()];
        max_pool(threads, stride, shape, &x, &mut y, &mut places);
        let gradient = stored::<N>(&noise(windows.len(), seed + 1));
        let mut expected = vec![0.0; x.len()];
        for (at, window) in windows.iter().enumerate() {
            let mut best = window[0];
            for next in window {
                if x[next.0].to_f32() > x[best.0].to_f32() {
                    best = *next;
                }
            }
            assert_eq!((y[at], places[at]), (x[best.0], best.1));
            expected[best.0] += f64::from(gradient[at].to_f32());
        }
        let mut back = stored::<N>(&vec![f32::NAN; x.len()]);
        max_pool_backward(threads, stride, shape, &gradient, &places, &mut back);
        close(&back, &expected, 1e-6 + rounding::<N>());

        let gradient: Vec<f32> = gradient.iter().map(|g| g.to_f32()).collect();
        let mut sum = noise(x.len(), seed + 2);
        let added: Vec<f64> = exact(&sum)
            .iter()
            .zip(&expected)
            .map(|(a, b)| a + b)
            .collect();
        max_pool_add_backward(threads, stride, shape, &gradient, &places, &mut sum);
        close(&sum, &added, 1e-6);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn maxima_places_and_gradients_are_those_of_the_definition(
            threads in 1usize..4, count in 1usize..3, height in 1usize..8, width in 1usize..8,
            groups in 1usize..4, seed in 0u64..1000,
        ) {
            let shape = shape(height, width, groups * LANES);
            for stride in [Stride::One, Stride::Two] {
                if stride == Stride::Two && (height < 2 || width < 2) {
                    continue;
                }
                compare::<f32>(threads, stride, count, shape, seed);
                compare::<Bf16>(threads, stride, count, shape, seed);
            }
        }
    }

    #[test]
    fn nan_wins() {
        let shape = shape(3, 3, 8);
        let mut x = noise(shape.len(), 1);
        x[4 * 8 + 2] = f32::NAN;
        let (mut y, mut places) = (vec![0.0; 8], vec![0; 8]);
        max_pool(Threads::ONE, Stride::Two, shape, &x, &mut y, &mut places);
        assert!(y[2].is_nan() && places[2] == 4);
        assert_eq!(y.iter().filter(|y| y.is_nan()).count(), 1);
        assert_eq!(
            bits(&y[..1]),
            bits(&[(0..9).map(|i| x[i * 8]).fold(-1.0, f32::max)])
        );
    }

    /// A wrong place is a wrong gradient, and never a wrong memory access.
    #[test]
    fn places_that_no_window_has_are_no_ones_gradient() {
        let shape = shape(3, 3, 8);
        let mut out = vec![f32::NAN; shape.len()];
        max_pool_backward(
            Threads::ONE,
            Stride::Two,
            shape,
            &[1.0; 8],
            &[200; 8],
            &mut out,
        );
        assert_eq!(out, vec![0.0; shape.len()]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let shape = shape(4, 4, 8);
        let call = |stride, shape, x: usize, y: usize, places: usize| {
            let (x, mut y, mut places) = (vec![1.0f32; x], vec![0.0; y], vec![0; places]);
            move || max_pool(Threads::ONE, stride, shape, &x, &mut y, &mut places)
        };
        call(Stride::Two, shape, 256, 64, 64)();
        call(Stride::One, shape, 256, 256, 256)();
        refused(
            call(Stride::Two, shape, 250, 64, 64),
            "max_pool: x holds 250 values",
        );
        refused(
            call(Stride::Two, shape, 256, 256, 256),
            "max_pool: y holds 256 values, expected 2 images of 2x2x8",
        );
        refused(
            call(Stride::Two, shape, 256, 64, 63),
            "max_pool: places holds 63 values",
        );
        let odd = shape.with_channels(12);
        refused(
            call(Stride::One, odd, 192, 192, 192),
            "4x4x12, but the channels must be a multiple of 8",
        );
        let flat = Shape { width: 1, ..shape };
        refused(call(Stride::Two, flat, 32, 16, 16), "4x1x8 is too small");
        let mut out = vec![0.0f32; 128];
        refused(
            || {
                max_pool_backward(
                    Threads::ONE,
                    Stride::Two,
                    shape,
                    &[1.0; 40],
                    &[0; 32],
                    &mut out,
                )
            },
            "max_pool_backward: gradient holds 40 values, expected 1 images of 2x2x8",
        );
        refused(
            || {
                max_pool_add_backward(
                    Threads::ONE,
                    Stride::Two,
                    shape,
                    &[1.0; 32],
                    &[0; 40],
                    &mut out,
                )
            },
            "max_pool_add_backward: places holds 40 values",
        );
    }
}
