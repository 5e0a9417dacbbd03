//! The backward pass between products and convolutions.

use super::module::Widths;
use super::{Address, Argument, Batch, Call, arguments, block_for};
use crate::Shape;
use crate::pool::Stride;

/// Most blocks of a kernel that adds up over pixels: eight for each multiprocessor of an H100. It is fixed, because the
/// order of the additions depends on it.
const SUM_BLOCKS: usize = 1056;

/// Most biases of [`bias_gradients`]: GoogLeNet's trunk.
pub const MOST_BIASES: usize = 57;

/// Where the gradient by an output comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// From a module that reads it: by its product, and by its pooling with the places of the maxima.
    Module {
        /// Like the output.
        direct: Address,
        /// Like the output.
        pooled: Address,
        /// Like the output, bytes.
        places: Address,
    },
    /// From a pooling with stride 2, with the places of its maxima.
    Pool {
        /// Like the pooling's output.
        pooled: Address,
        /// Like the pooling's output, bytes.
        places: Address,
    },
    /// From the average over each image: f32 `[images][channels]`, the gradient by each pixel.
    Mean(Address),
}

/// Sums over pixels, which [`bias_gradients`] adds up: f32 `[blocks][channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Number of rows.
    pub blocks: usize,
    /// Columns.
    pub channels: usize,
}

impl Sums {
    /// Number of f32 values.
    pub fn len(self) -> usize {
        self.blocks * self.channels
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn of(things: usize, channels: usize) -> Self {
        let [_, at_once] = block_for(channels);
        let blocks = things.div_ceil(at_once).clamp(1, SUM_BLOCKS);
        Self { blocks, channels }
    }

    /// What [`branches`] leaves for a module's output of this shape.
    pub fn of_branches(images: Batch) -> Self {
        Self::of(images.quads(), images.shape.channels)
    }

    /// What [`reductions`] and [`masked`] leave for so many pixels and channels.
    pub fn of_rows(rows: usize, channels: usize) -> Self {
        // Four rows for a thread, as many pixels as with 2x2.
        Self::of(rows.div_ceil(4), channels)
    }
}

/// Tensors of [`branches`].
#[derive(Debug, Clone, Copy)]
pub struct Branches {
    /// The module's output.
    pub y: Address,
    /// Its first columns become the gradient by the 1x1: `[rows][1x1 | 3x3_reduce | 5x5_reduce]`.
    pub joint: Address,
    /// Become the gradients by 3x3, 5x5 and pool_proj.
    pub out: [Address; 3],
    /// Become [`Sums::of_branches`].
    pub sums: Address,
}

/// The gradient by a module's output of `count` images of `height` x `width`, masked by its ReLU, to its branches.
///
/// # Panics
/// If the channels do not fit.
pub fn branches(
    source: Source,
    widths: Widths,
    [count, height, width]: [usize; 3],
    tensors: Branches,
) -> Call {
    let Branches {
        y,
        joint,
        out: [three, five, pool],
        sums,
    } = tensors;
    let images = Batch {
        count,
        shape: Shape {
            height,
            width,
            channels: widths.out(),
        },
    };
    let (kernel, mut arguments) = match source {
        Source::Module {
            direct,
            pooled,
            places,
        } => ("branches_same", arguments![direct, pooled, places].to_vec()),
        Source::Pool { pooled, places } => ("branches_half", arguments![pooled, places].to_vec()),
        Source::Mean(mean) => ("branches_mean", arguments![mean].to_vec()),
    };
    let widths_joint = widths.joint();
    arguments.extend(arguments![
        y,
        joint,
        three,
        five,
        pool,
        sums,
        count,
        height,
        width,
        widths_joint,
        widths.one,
        widths.three,
        widths.five,
        widths.pool,
    ]);
    let grid = [Sums::of_branches(images).blocks, 1];
    let call = Call::new(kernel, grid, block_for(widths.out()), []);
    Call { arguments, ..call }
}

/// The gradient by a module's input from the module itself: `direct` plus what its pooling gives. All are like `images`.
pub fn plain_same(images: Batch, [direct, pooled, places]: [Address; 3], out: Address) -> Call {
    let Shape { height, width, .. } = images.shape;
    let arguments = arguments![direct, pooled, places, out, images.count, height, width];
    plain("plain_same", images, arguments)
}

/// The gradient by the input of a pooling with stride 2, which is like `images`.
pub fn plain_half(images: Batch, [pooled, places]: [Address; 2], out: Address) -> Call {
    let Shape { height, width, .. } = images.shape;
    let _ = Stride::Two.pooled(images.shape);
    let arguments = arguments![pooled, places, out, images.count, height, width];
    plain("plain_half", images, arguments)
}

fn plain<const N: usize>(kernel: &'static str, images: Batch, arguments: [Argument; N]) -> Call {
    let block = block_for(images.shape.channels);
    let grid = [images.quads().div_ceil(block[1]), 1];
    Call::new(kernel, grid, block, arguments)
}

/// Tensors of [`reductions`].
#[derive(Debug, Clone, Copy)]
pub struct Reductions {
    /// Gradients by 3x3_reduce and 5x5_reduce, as the convolutions after them give them.
    pub gradients: [Address; 2],
    /// Their outputs.
    pub outputs: [Address; 2],
    /// Its last columns become the gradients, masked: `[rows][1x1 | 3x3_reduce | 5x5_reduce]`.
    pub joint: Address,
    /// Become [`Sums::of_rows`].
    pub sums: Address,
}

/// The gradients by a module's two reductions, masked by their ReLUs.
pub fn reductions(widths: Widths, rows: usize, tensors: Reductions) -> Call {
    let Reductions {
        gradients: [gradient3, gradient5],
        outputs: [three, five],
        joint,
        sums,
    } = tensors;
    let Widths {
        one,
        reduce3,
        reduce5,
        ..
    } = widths;
    let grid = [Sums::of_rows(rows, reduce3 + reduce5).blocks, 1];
    let arguments = arguments![
        gradient3, gradient5, three, five, joint, sums, rows, one, reduce3, reduce5
    ];
    Call::new("reductions", grid, block_for(reduce3 + reduce5), arguments)
}

/// `gradient`, `[rows][channels]`, is masked by `y` in place; `sums` become [`Sums::of_rows`].
pub fn masked(gradient: Address, y: Address, sums: Address, rows: usize, channels: usize) -> Call {
    let grid = [Sums::of_rows(rows, channels).blocks, 1];
    let arguments = arguments![gradient, y, sums, rows];
    Call::new("masked", grid, block_for(channels), arguments)
}

/// Some columns of [`Sums`], and where their total goes.
#[derive(Debug, Clone, Copy)]
pub struct Bias {
    /// The sums.
    pub sums: Address,
    /// Their shape.
    pub shape: Sums,
    /// First column, and number of columns.
    pub columns: (usize, usize),
    /// First element of the result.
    pub to: usize,
}

/// The gradients by some biases into `out`, f32.
///
/// # Panics
/// If there are more than [`MOST_BIASES`], or columns that the sums do not have.
pub fn bias_gradients(biases: &[Bias], out: Address) -> Call {
    assert!(biases.len() <= MOST_BIASES, "{} biases", biases.len());
    // As `struct Biases` of the source: for each an address and four integers.
    let mut words = Vec::with_capacity(3 * MOST_BIASES);
    for bias in biases {
        let (first, columns) = bias.columns;
        assert!(first + columns <= bias.shape.channels, "{bias:?}");
        let numbers = [bias.shape.channels, bias.shape.blocks, columns, bias.to];
        let [width, blocks, columns, to] = numbers.map(|n| super::size(n) as u32);
        words.push(bias.sums.0 + 4 * first as u64);
        words.push(pair(width, blocks));
        words.push(pair(columns, to));
    }
    words.resize(3 * MOST_BIASES, 0);
    let widest = biases.iter().map(|bias| bias.columns.1).max();
    let grid = [widest.unwrap_or(0).div_ceil(32), biases.len()];
    let arguments = [Argument::Table(words.into()), out.into()];
    Call::new("bias_gradients", grid, [32, 32], arguments)
}

/// Two 32-bit numbers that follow each other in memory.
pub(super) fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}
