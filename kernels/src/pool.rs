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
