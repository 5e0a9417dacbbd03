//! The arithmetic of Winograd's minimal filtering F(4x4, 3x3) on plain slices: a 3x3 convolution with
//! stride 1 and padding 1, cut into tiles of 4x4 outputs.
//!
//! For one tile, with `d` its 6x6 inputs and `g` the 3x3 filter, the outputs are `A^T [(G g G^T) * (B^T d B)] A`,
//! `*` element by element: 36 multiplications for 16 outputs where the definition has 144. Summed over input
//! channels, each of the 36 places is a matrix product over tiles, which `conv3x3` does. The backward pass is the
//! transpose of each of these linear maps. Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2015, section 4.3.
//!
//! Transformed images are `[tiles, 36, channels]` and transformed filters `[from, 36, to]`, so the values of a tile lie
//! together. Stored as 36 planes, they would be written to and read from 36 places whose distance is nearly a power of
//! two, which share few cache lines. Inner loops run along channels, in groups of [`LANES`].
//!
//! The functions here take one image and trust its shape: `conv3x3` checks it. Slices are bounds-checked in any case.

mod maps;

use crate::images::{Pixels, PixelsMut};
use crate::simd::for_this_processor;
use crate::{Number, Shape};
use maps::{a, at, b, bt, g, gt};

/// Channels computed at a time. The number of channels must be a multiple.
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

type Lanes = [f32; LANES];
type Square = [[Lanes; IN]; IN];
const ZERO: Lanes = [0.0; LANES];

for_this_processor!(
    /// `B^T d B` of every tile of the image `x`, into `out`: `[tiles, 36, channels]`.
    input<N: Number>, input_any, (shape: Shape, x: &[N], out: &mut [f32])
);
for_this_processor!(
    /// `A^T m A` of every tile of `m` (`[tiles, 36, channels]`), plus the bias, then ReLU: the image `out` of `shape`.
    output<N: Number>, output_any, (shape: Shape, m: &[f32], bias: &[f32], out: PixelsMut<N>)
);
for_this_processor!(
    /// `A g A^T` of every tile into `out` (`[tiles, 36, channels]`), `g` being `gradient` where the output `y` is
    /// positive: the transpose of [`output`]. The gradient of the bias is added to `bias`.
    output_backward<N: Number>, output_backward_any,
    (shape: Shape, gradient: Pixels<N>, y: Pixels<N>, out: &mut [f32], bias: &mut [f32])
);
for_this_processor!(
    input_backward_f32, input_backward_any, (shape: Shape, v: &[f32], out: &mut [f32])
);
for_this_processor!(
    /// `G g G^T` of every filter: `weights` is `[to, from, 3, 3]`, `out` is `[from, 36, to]`.
    filter, filter_any, (from: usize, weights: &[f32], out: &mut [f32])
);
for_this_processor!(
    /// `G^T u G` of every filter: the transpose of [`filter`], with the shapes exchanged.
    filter_backward, filter_backward_any, (from: usize, planes: &[f32], out: &mut [f32])
);

/// `B v B^T` of every tile of `v` (`[tiles, 36, channels]`), summed where tiles overlap: the transpose of [`input`].
/// Each value of `out` is rounded once, after all its tiles were added.
pub fn input_backward<N: Number>(shape: Shape, v: &[f32], out: &mut [N]) {
    N::sum_into(out, |sums| input_backward_f32(shape, v, sums));
}

/// The values of tile number `tile`: `[36, channels]`.
#[inline(always)]
fn tile_of(all: &[f32], tile: usize, channels: usize) -> &[f32] {
    let len = PLACES * channels;
    &all[tile * len..][..len]
}

/// As [`tile_of`], to be written.
#[inline(always)]
fn tile_of_mut(all: &mut [f32], tile: usize, channels: usize) -> &mut [f32] {
    let len = PLACES * channels;
    &mut all[tile * len..][..len]
}

/// Column `j` of a transformed tile, for the channels from `channel` on.
#[inline(always)]
fn tile_column(tile: &[f32], j: usize, channels: usize, channel: usize) -> [Lanes; IN] {
    let mut column = [ZERO; IN];
    for (i, lanes) in column.iter_mut().enumerate() {
        *lanes = *lanes_of(tile, (i * IN + j) * channels + channel);
    }
    column
}

#[inline(always)]
fn input_any<N: Number>(shape: Shape, x: &[N], out: &mut [f32]) {
    let (c, row) = (shape.channels, shape.width * shape.channels);
    for tile in 0..tiles(shape) {
        let (top, left) = corner(shape, tile);
        let out = tile_of_mut(out, tile, c);
        for channel in (0..c).step_by(LANES) {
            let mut square = [[ZERO; IN]; IN];
            // The window begins one pixel outside the image, for the padding.
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
                    *lanes_of_mut(out, (i * IN + j) * c + channel) = lanes;
                }
            }
        }
    }
}

#[inline(always)]
fn output_any<N: Number>(shape: Shape, m: &[f32], bias: &[f32], out: PixelsMut<N>) {
    let (c, width) = (shape.channels, shape.width);
    for tile in 0..tiles(shape) {
        let (top, left) = corner(shape, tile);
        let (down, across) = inside(shape, top, left);
        let m = tile_of(m, tile, c);
        for channel in (0..c).step_by(LANES) {
            let bias: &Lanes = lanes_of(bias, channel);
            let mut half = [[ZERO; IN]; OUT];
            for j in 0..IN {
                let column = at(tile_column(m, j, c, channel));
                for (line, lanes) in half.iter_mut().zip(column) {
                    line[j] = lanes;
                }
            }
            for (i, line) in half.into_iter().enumerate().take(down) {
                for (j, lanes) in at(line).into_iter().enumerate().take(across) {
                    let to = ((top + i) * width + left + j) * out.stride + channel;
                    let out = &mut out.values[to..to + LANES];
                    for ((value, bias), out) in lanes.iter().zip(bias).zip(out) {
                        // A comparison with NaN is false, so NaN passes.
                        let sum = value + bias;
                        *out = N::rounded(if sum < 0.0 { 0.0 } else { sum });
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn output_backward_any<N: Number>(
    shape: Shape,
    gradient: Pixels<N>,
    y: Pixels<N>,
    out: &mut [f32],
    bias: &mut [f32],
) {
    let c = shape.channels;
    for tile in 0..tiles(shape) {
        let (top, left) = corner(shape, tile);
        let (down, across) = inside(shape, top, left);
        let out = tile_of_mut(out, tile, c);
        for channel in (0..c).step_by(LANES) {
            let sums = lanes_of_mut(bias, channel);
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
                    *lanes_of_mut(out, (i * IN + j) * c + channel) = lanes;
                }
            }
        }
    }
}

#[inline(always)]
fn input_backward_any(shape: Shape, v: &[f32], out: &mut [f32]) {
    let (c, row) = (shape.channels, shape.width * shape.channels);
    out.fill(0.0);
    for tile in 0..tiles(shape) {
        let (top, left) = corner(shape, tile);
        let v = tile_of(v, tile, c);
        for channel in (0..c).step_by(LANES) {
            let mut square: Square = [[ZERO; IN]; IN];
            for j in 0..IN {
                let column = b(tile_column(v, j, c, channel));
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
fn filter_backward_any(from: usize, planes: &[f32], out: &mut [f32]) {
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
    values[at..]
        .first_chunk()
        .expect("channels are a multiple of LANES")
}

#[inline(always)]
fn lanes_of_mut<N>(values: &mut [N], at: usize) -> &mut [N; LANES] {
    values[at..]
        .first_chunk_mut()
        .expect("channels are a multiple of LANES")
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
