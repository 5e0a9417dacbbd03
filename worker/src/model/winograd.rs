//! The arithmetic of Winograd's minimal filtering F(4x4, 3x3) on plain slices: a 3x3 convolution with
//! stride 1 and padding 1, cut into tiles of 4x4 outputs.
//!
//! For one tile, with `d` its 6x6 inputs and `g` the 3x3 filter, the outputs are `A^T [(G g G^T) * (B^T d B)] A`,
//! `*` element by element: 36 multiplications for 16 outputs where the definition has 144. Summed over input
//! channels, each of the 36 places is a matrix product over tiles, which is done elsewhere. The backward pass
//! is the transposed of each of these linear maps. Source: A. Lavin, S. Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2015, section 4.3.
//!
//! Transformed tensors lie as `[tiles, 36, channels]`, filters as `[from, 36, to]`: what is made of a tile lies together.
//! As 36 planes it would be written to, and read from, as many places at a distance of a power of two or nearly so.
//! Inner loops run along channels, in groups of [`LANES`].

mod maps;

use super::pixels::{Pixels, PixelsMut};
use super::pool::{Bf16, Number};
use super::rows::Shape;
use super::simd::for_this_processor;
use maps::{a, at, b, bt, g, gt};

/// Channels are taken so many at a time; their number must be a multiple.
pub const LANES: usize = 16;
/// Places in a transformed tile.
pub const PLACES: usize = 36;
/// Outputs along a side of a tile.
const OUT: usize = 4;
/// Inputs along a side of a tile.
const IN: usize = 6;

/// Tiles of an image.
pub fn tiles(shape: Shape) -> usize {
    shape.height.div_ceil(OUT) * shape.width.div_ceil(OUT)
}

/// One image's part of a transformed batch. Parts of different images do not overlap.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Of the whole batch: `tiles * PLACES * channels` numbers.
    all: *mut f32,
    /// Tiles in the whole batch.
    tiles: usize,
    channels: usize,
    /// The image's first tile.
    first: usize,
}

// SAFETY: a part's functions touch only its own image's tiles, and `parts` hands out one for each image.
unsafe impl Send for Part {}

impl Part {
    /// One for each image, of `all`: `[images * tiles of an image, 36, channels]`.
    pub fn of(all: &mut [f32], images: usize, tiles: usize, channels: usize) -> Vec<Part> {
        assert_eq!(all.len(), PLACES * images * tiles * channels);
        let part = |image| Part {
            all: all.as_mut_ptr(),
            tiles: images * tiles,
            channels,
            first: image * tiles,
        };
        (0..images).map(part).collect()
    }

    /// The lanes at a place of a tile of this image.
    #[inline(always)]
    fn lanes(&mut self, place: usize, tile: usize, channel: usize) -> &mut Lanes {
        let at = ((self.first + tile) * PLACES + place) * self.channels + channel;
        debug_assert!(place < PLACES && self.first + tile < self.tiles);
        debug_assert!(channel + LANES <= self.channels);
        // SAFETY: in bounds by the line above, which holds as tiles and channels are counted by the same
        // shapes as the whole; and no other part has this tile.
        unsafe { &mut *self.all.add(at).cast::<Lanes>() }
    }

    /// The lanes at column `j` of a tile of this image.
    #[inline(always)]
    fn column(&mut self, j: usize, tile: usize, channel: usize) -> [Lanes; IN] {
        let mut column = [ZERO; IN];
        for (i, lanes) in column.iter_mut().enumerate() {
            *lanes = *self.lanes(i * IN + j, tile, channel);
        }
        column
    }
}

type Lanes = [f32; LANES];
type Square = [[Lanes; IN]; IN];
const ZERO: Lanes = [0.0; LANES];

/// How images are stored. The arithmetic is in f32 in any case.
pub trait Stored: Number {
    /// `B^T d B` of every tile of the image `x`.
    fn input(shape: Shape, x: &[Self], out: Part);

    /// `A^T m A` of every tile, the bias and ReLU: the image `out`, whose shape is given.
    fn output(shape: Shape, m: Part, bias: &[f32], out: PixelsMut<Self>);

    /// `A g A^T` of every tile, `g` being `gradient` where the output `y` is positive: the transposed of
    /// [`Stored::output`]. Adds the gradient of the bias to `bias`.
    fn output_back(
        shape: Shape,
        gradient: Pixels<Self>,
        y: Pixels<Self>,
        out: Part,
        bias: &mut [f32],
    );

    /// `B v B^T` of every tile, added up where they overlap: the transposed of [`Stored::input`].
    fn input_back(shape: Shape, v: Part, out: &mut [Self]);
}

impl Stored for f32 {
    fn input(shape: Shape, x: &[f32], out: Part) {
        input_f32(shape, x, out);
    }

    fn output(shape: Shape, m: Part, bias: &[f32], out: PixelsMut) {
        output_f32(shape, m, bias, out);
    }

    fn output_back(shape: Shape, gradient: Pixels, y: Pixels, out: Part, bias: &mut [f32]) {
        output_back_f32(shape, gradient, y, out, bias);
    }

    fn input_back(shape: Shape, v: Part, out: &mut [f32]) {
        input_back_f32(shape, v, out);
    }
}

impl Stored for Bf16 {
    fn input(shape: Shape, x: &[Bf16], out: Part) {
        input_bf16(shape, x, out);
    }

    fn output(shape: Shape, m: Part, bias: &[f32], out: PixelsMut<Bf16>) {
        output_bf16(shape, m, bias, out);
    }

    fn output_back(
        shape: Shape,
        gradient: Pixels<Bf16>,
        y: Pixels<Bf16>,
        out: Part,
        bias: &mut [f32],
    ) {
        output_back_bf16(shape, gradient, y, out, bias);
    }

    fn input_back(shape: Shape, v: Part, out: &mut [Bf16]) {
        // Rounded once, when all tiles are added up.
        Bf16::sum_into(out, |sums| f32::input_back(shape, v, sums));
    }
}

for_this_processor!(input_f32, input_any, (shape: Shape, x: &[f32], out: Part));
for_this_processor!(input_bf16, input_any, (shape: Shape, x: &[Bf16], out: Part));
for_this_processor!(
    output_f32, output_any, (shape: Shape, m: Part, bias: &[f32], out: PixelsMut)
);
for_this_processor!(
    output_bf16, output_any, (shape: Shape, m: Part, bias: &[f32], out: PixelsMut<Bf16>)
);
for_this_processor!(
    output_back_f32, output_back_any,
    (shape: Shape, gradient: Pixels, y: Pixels, out: Part, bias: &mut [f32])
);
for_this_processor!(
    output_back_bf16, output_back_any,
    (shape: Shape, gradient: Pixels<Bf16>, y: Pixels<Bf16>, out: Part, bias: &mut [f32])
);
for_this_processor!(input_back_f32, input_back_any, (shape: Shape, v: Part, out: &mut [f32]));
for_this_processor!(
    /// `G g G^T` of every filter: `weights` is `[to, from, 3, 3]`, `out` `[from, 36, to]`.
    filter, filter_any, (from: usize, weights: &[f32], out: &mut [f32])
);
for_this_processor!(
    /// `G^T u G` of every filter: the transposed of [`filter`], shapes as there.
    filter_back, filter_back_any, (from: usize, planes: &[f32], out: &mut [f32])
);

#[inline(always)]
fn input_any<N: Number>(shape: Shape, x: &[N], mut out: Part) {
    let (c, row) = (shape.channels, shape.width * shape.channels);
    for tile in 0..tiles(shape) {
        let (top, left) = corner(shape, tile);
        for channel in (0..c).step_by(LANES) {
            let mut square = [[ZERO; IN]; IN];
            // The window begins one pixel outside, for the padding.
            for (i, line) in square.iter_mut().enumerate() {
                let y = (top + i).wrapping_sub(1);
                if y >= shape.height {
                    continue;
                }
                let mut pixels = [ZERO; IN];
                for (j, pixel) in pixels.iter_mut().enumerate() {
                    let x_at = (left + j).wrapping_sub(1);
                    if x_at < shape.width {
                        let at = y * row + x_at * c + channel;
                        for (lane, x) in pixel.iter_mut().zip(&x[at..at + LANES]) {
                            *lane = x.to_f32();
                        }
                    }
                }
                *line = bt(pixels);
            }
            for j in 0..IN {
                let column = bt(column(&square, j));
                for (i, lanes) in column.into_iter().enumerate() {
                    *out.lanes(i * IN + j, tile, channel) = lanes;
                }
            }
        }
    }
}

#[inline(always)]
fn output_any<N: Number>(shape: Shape, mut m: Part, bias: &[f32], out: PixelsMut<N>) {
    let (c, width) = (shape.channels, shape.width);
    for tile in 0..tiles(shape) {
        let (top, left) = corner(shape, tile);
        let (down, across) = inside(shape, top, left);
        for channel in (0..c).step_by(LANES) {
            let bias: &Lanes = lanes_of(bias, channel);
            let mut half = [[ZERO; IN]; OUT];
            for j in 0..IN {
                let column = at(m.column(j, tile, channel));
                for (line, lanes) in half.iter_mut().zip(column) {
                    line[j] = lanes;
                }
            }
            for (i, line) in half.into_iter().enumerate().take(down) {
                for (j, lanes) in at(line).into_iter().enumerate().take(across) {
                    let to = ((top + i) * width + left + j) * out.stride + channel;
                    let out = &mut out.values[to..to + LANES];
                    for ((value, bias), out) in lanes.iter().zip(bias).zip(out) {
                        // A NaN stays one.
                        let sum = value + bias;
                        *out = N::rounded(if sum < 0.0 { 0.0 } else { sum });
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn output_back_any<N: Number>(
    shape: Shape,
    gradient: Pixels<N>,
    y: Pixels<N>,
    mut out: Part,
    bias: &mut [f32],
) {
    let c = shape.channels;
    for tile in 0..tiles(shape) {
        let (top, left) = corner(shape, tile);
        let (down, across) = inside(shape, top, left);
        for channel in (0..c).step_by(LANES) {
            let sums: &mut Lanes = (&mut bias[channel..channel + LANES])
                .try_into()
                .expect("a slice of that length");
            let mut half = [[ZERO; OUT]; IN];
            let mut lines = [[ZERO; OUT]; OUT];
            for (i, line) in lines.iter_mut().enumerate().take(down) {
                for (j, lanes) in line.iter_mut().enumerate().take(across) {
                    let pixel = (top + i) * shape.width + left + j;
                    let g = lanes_of(gradient.values, pixel * gradient.stride + channel);
                    let y = lanes_of(y.values, pixel * y.stride + channel);
                    for (((value, g), y), sum) in lanes.iter_mut().zip(g).zip(y).zip(&mut *sums) {
                        *value = g.where_positive(*y).to_f32();
                        *sum += *value;
                    }
                }
            }
            for j in 0..OUT {
                let column = a(column(&lines, j));
                for (line, lanes) in half.iter_mut().zip(column) {
                    line[j] = lanes;
                }
            }
            for (i, line) in half.into_iter().enumerate() {
                for (j, lanes) in a(line).into_iter().enumerate() {
                    *out.lanes(i * IN + j, tile, channel) = lanes;
                }
            }
        }
    }
}

#[inline(always)]
fn input_back_any(shape: Shape, mut v: Part, out: &mut [f32]) {
    let (c, row) = (shape.channels, shape.width * shape.channels);
    out.fill(0.0);
    for tile in 0..tiles(shape) {
        let (top, left) = corner(shape, tile);
        for channel in (0..c).step_by(LANES) {
            let mut square: Square = [[ZERO; IN]; IN];
            for j in 0..IN {
                let column = b(v.column(j, tile, channel));
                for (line, lanes) in square.iter_mut().zip(column) {
                    line[j] = lanes;
                }
            }
            for (i, line) in square.into_iter().enumerate() {
                let y = (top + i).wrapping_sub(1);
                if y >= shape.height {
                    continue;
                }
                for (j, lanes) in b(line).into_iter().enumerate() {
                    let x_at = (left + j).wrapping_sub(1);
                    if x_at < shape.width {
                        let to = y * row + x_at * c + channel;
                        for (sum, value) in out[to..to + LANES].iter_mut().zip(lanes) {
                            *sum += value;
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn filter_any(from: usize, weights: &[f32], out: &mut [f32]) {
    let to = weights.len() / (9 * from);
    for input in 0..from {
        for first in (0..to).step_by(LANES) {
            let mut taps = [[ZERO; 3]; 3];
            for lane in 0..LANES {
                let at = ((first + lane) * from + input) * 9;
                for (tap, weight) in taps.as_flattened_mut().iter_mut().zip(&weights[at..at + 9]) {
                    tap[lane] = *weight;
                }
            }
            let mut half = [[ZERO; 3]; IN];
            for j in 0..3 {
                let column = g(column(&taps, j));
                for (line, lanes) in half.iter_mut().zip(column) {
                    line[j] = lanes;
                }
            }
            for (i, line) in half.into_iter().enumerate() {
                for (j, lanes) in g(line).into_iter().enumerate() {
                    let at = (input * PLACES + i * IN + j) * to + first;
                    out[at..at + LANES].copy_from_slice(&lanes);
                }
            }
        }
    }
}

#[inline(always)]
fn filter_back_any(from: usize, planes: &[f32], out: &mut [f32]) {
    let to = out.len() / (9 * from);
    for input in 0..from {
        for first in (0..to).step_by(LANES) {
            let mut half = [[ZERO; IN]; 3];
            for j in 0..IN {
                let mut column = [ZERO; IN];
                for (i, lanes) in column.iter_mut().enumerate() {
                    *lanes = *lanes_of(planes, (input * PLACES + i * IN + j) * to + first);
                }
                let column = gt(column);
                for (line, lanes) in half.iter_mut().zip(column) {
                    line[j] = lanes;
                }
            }
            let taps = [gt(half[0]), gt(half[1]), gt(half[2])];
            for lane in 0..LANES {
                let at = ((first + lane) * from + input) * 9;
                for (weight, tap) in out[at..at + 9].iter_mut().zip(taps.as_flattened()) {
                    *weight = tap[lane];
                }
            }
        }
    }
}

/// First row and column of a tile's outputs.
#[inline(always)]
fn corner(shape: Shape, tile: usize) -> (usize, usize) {
    let across = shape.width.div_ceil(OUT);
    (tile / across * OUT, tile % across * OUT)
}

/// How many rows and columns of a tile's outputs lie in the image.
#[inline(always)]
fn inside(shape: Shape, top: usize, left: usize) -> (usize, usize) {
    (OUT.min(shape.height - top), OUT.min(shape.width - left))
}

#[inline(always)]
fn lanes_of<N>(values: &[N], at: usize) -> &[N; LANES] {
    values[at..at + LANES]
        .try_into()
        .expect("a slice of that length")
}

/// Column `j`.
#[inline(always)]
fn column<const ROWS: usize, const COLUMNS: usize>(
    lines: &[[Lanes; COLUMNS]; ROWS],
    j: usize,
) -> [Lanes; ROWS] {
    let mut column = [ZERO; ROWS];
    for (lanes, line) in column.iter_mut().zip(lines) {
        *lanes = line[j];
    }
    column
}
