//! Max pooling 3x3 with a gradient, on the CPU in f32 and bfloat16: one pass each way, and one byte for each
//! maximum's place where libtorch keeps eight.

mod lanes;

use std::marker::PhantomData;

use tch::{Device, Kind, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::kernels::{by_pixel, share_out};
use super::raw::{numbers, numbers_mut};
use super::rows::Shape;
pub use lanes::{Bf16, Number};

/// Channels are taken so many at a time.
const LANES: usize = 8;
/// Height and width of the window.
const WINDOW: usize = 3;

/// How the window moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// Stride 1, padding 1: the map keeps its size.
    ByOne,
    /// Stride 2 without padding, rounding up.
    ByTwo,
}

impl Moves {
    fn stride(self) -> usize {
        match self {
            Moves::ByOne => 1,
            Moves::ByTwo => 2,
        }
    }

    fn pad(self) -> usize {
        match self {
            Moves::ByOne => 1,
            Moves::ByTwo => 0,
        }
    }

    fn pooled(self, shape: Shape) -> Shape {
        match self {
            Moves::ByOne => shape,
            Moves::ByTwo => shape.pooled(),
        }
    }
}

/// The largest of each window; padding never wins. `x` is `[batch, channels, height, width]`.
pub fn max_pool(x: &Tensor, moves: Moves) -> Tensor {
    let ours = x.device() == Device::Cpu && x.size()[1] % LANES as i64 == 0;
    match x.kind() {
        Kind::Float if ours => pooled::<f32>(x, moves),
        Kind::BFloat16 if ours => pooled::<Bf16>(x, moves),
        _ => {
            let (stride, pad) = (moves.stride() as i64, moves.pad() as i64);
            x.max_pool2d([3, 3], [stride; 2], [pad; 2], [1, 1], true)
        }
    }
}

fn pooled<N: Number>(x: &Tensor, moves: Moves) -> Tensor {
    let (y, kept) = no_grad(|| forward::<N>(x, moves));
    match autograd::records(&[x]) {
        true => autograd::attach(y, &[x], kept),
        false => y,
    }
}

/// What the backward pass needs.
#[derive(Debug)]
pub struct MaxPool<N> {
    from: Shape,
    moves: Moves,
    /// By output: which of the window's nine places was the largest, row by row.
    places: Vec<u8>,
    number: PhantomData<N>,
}

/// As [`max_pool`], without a graph.
pub fn forward<N: Number>(x: &Tensor, moves: Moves) -> (Tensor, MaxPool<N>) {
    let (images, channels, height, width) = x.size4().expect("a batch of images");
    let from = Shape {
        height: height as usize,
        width: width as usize,
        channels: channels as usize,
    };
    let to = moves.pooled(from);
    let x = by_pixel(x);
    let size = [images, to.height as i64, to.width as i64, channels];
    let y = Tensor::empty(size, (N::KIND, Device::Cpu));
    let mut places = vec![0; y.numel()];
    // SAFETY: `x` is a contiguous tensor of such numbers on the CPU that lives to the end of this function,
    // `y` is new and has no other user, and every element of it is written.
    let (xs, ys) = unsafe { (numbers::<N>(&x), numbers_mut::<N>(&y)) };
    let work = xs
        .chunks(from.len())
        .zip(ys.chunks_mut(to.len()))
        .zip(places.chunks_mut(to.len()));
    share_out(work.collect(), |((x, y), places)| {
        pool(from, moves, x, y, places)
    });
    let kept = MaxPool {
        from,
        moves,
        places,
        number: PhantomData,
    };
    (y.permute([0, 3, 1, 2]), kept)
}

impl MaxPool<f32> {
    /// Adds the gradient by x to `sum`. Both are by pixel and contiguous.
    pub fn add_back(&self, gradient: &Tensor, sum: &Tensor) {
        let (from, to) = (self.from, self.moves.pooled(self.from));
        // SAFETY: contiguous f32 tensors on the CPU; nobody else uses `sum` meanwhile.
        let (gs, sums) = unsafe { (numbers::<f32>(gradient), numbers_mut::<f32>(sum)) };
        let work = sums
            .chunks_mut(from.len())
            .zip(gs.chunks(to.len()))
            .zip(self.places.chunks(to.len()));
        share_out(work.collect(), |((sums, gradient), places)| {
            pool_back(from, self.moves, gradient, places, sums)
        });
    }
}

impl<N: Number> Backward for MaxPool<N> {
    fn backward(&self, gradient: &Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let gradient = no_grad(|| by_pixel(gradient));
        let (from, to) = (self.from, self.moves.pooled(self.from));
        let size = [
            gradient.size()[0],
            from.height as i64,
            from.width as i64,
            from.channels as i64,
        ];
        let x = Tensor::empty(size, (N::KIND, Device::Cpu));
        // SAFETY: as in `forward`.
        let (gs, xs) = unsafe { (numbers::<N>(&gradient), numbers_mut::<N>(&x)) };
        let work = xs
            .chunks_mut(from.len())
            .zip(gs.chunks(to.len()))
            .zip(self.places.chunks(to.len()));
        share_out(work.collect(), |((x, gradient), places)| {
            N::sum_into(x, |sums| {
                pool_back(from, self.moves, gradient, places, sums)
            });
        });
        vec![Some(no_grad(|| x.permute([0, 3, 1, 2])))]
    }
}

/// Pools the image `x` into `y`, and notes which place of each window won.
fn pool<N: Number>(from: Shape, moves: Moves, x: &[N], y: &mut [N], places: &mut [u8]) {
    let groups = y
        .chunks_exact_mut(LANES)
        .zip(places.chunks_exact_mut(LANES));
    let groups = groups.map(|(y, places)| (as_lanes_mut(y), as_lanes_mut(places)));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been found to have AVX2.
        return unsafe { lanes::avx2::pool(Windows::new(from, moves), x, groups) };
    }
    lanes::any::pool(Windows::new(from, moves), x, groups);
}

/// Adds each gradient to `sums` where the maximum was.
fn pool_back<N: Number>(
    from: Shape,
    moves: Moves,
    gradient: &[N],
    places: &[u8],
    sums: &mut [f32],
) {
    let groups = gradient.chunks_exact(LANES).zip(places.chunks_exact(LANES));
    let groups = groups.map(|(gradient, places)| (as_lanes(gradient), as_lanes(places)));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        return unsafe { lanes::avx2::pool_back(Windows::new(from, moves), groups, sums) };
    }
    lanes::any::pool_back(Windows::new(from, moves), groups, sums);
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
    moves: Moves,
    pixel: usize,
    channel: usize,
    /// Where each pixel of the window begins, and its place there, row by row; at the edges fewer than nine.
    window: [(usize, u8); WINDOW * WINDOW],
    count: usize,
}

impl Windows {
    fn new(from: Shape, moves: Moves) -> Self {
        let mut windows = Self {
            from,
            moves,
            pixel: 0,
            channel: 0,
            window: Default::default(),
            count: 0,
        };
        windows.look();
        windows
    }

    fn look(&mut self) {
        let to = self.moves.pooled(self.from);
        let top = self.pixel / to.width * self.moves.stride();
        let left = self.pixel % to.width * self.moves.stride();
        self.count = 0;
        for place in 0..WINDOW * WINDOW {
            let y = (top + place / WINDOW).wrapping_sub(self.moves.pad());
            let x = (left + place % WINDOW).wrapping_sub(self.moves.pad());
            if y < self.from.height && x < self.from.width {
                let pixel = y * self.from.width + x;
                self.window[self.count] = (pixel * self.from.channels, place as u8);
                self.count += 1;
            }
        }
    }

    /// Where the next group's numbers begin, and their places in the window.
    #[inline(always)]
    fn next_group(&mut self) -> impl Iterator<Item = (usize, u8)> {
        if self.channel == self.from.channels {
            self.channel = 0;
            self.pixel += 1;
            self.look();
        }
        let channel = self.channel;
        self.channel += LANES;
        let window = &self.window[..self.count];
        window.iter().map(move |(at, place)| (at + channel, *place))
    }
}
