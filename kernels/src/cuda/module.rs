//! The forward pass of an inception module between its products and convolutions.

use super::{Address, Call, arguments, block_for};

/// Rows that a thread handles.
const ROWS: usize = 4;

/// Channels of a module's convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// 1x1
    pub one: usize,
    /// 3x3_reduce
    pub reduce3: usize,
    /// 3x3
    pub three: usize,
    /// 5x5_reduce
    pub reduce5: usize,
    /// 5x5
    pub five: usize,
    /// pool_proj
    pub pool: usize,
}

impl Widths {
    /// Of the convolutions that read the module's input, as one product: 1x1, 3x3_reduce, 5x5_reduce.
    pub fn joint(self) -> usize {
        self.one + self.reduce3 + self.reduce5
    }

    /// Of the module's output.
    pub fn out(self) -> usize {
        self.one + self.three + self.five + self.pool
    }
}

/// Tensors of [`split`].
#[derive(Debug, Clone, Copy)]
pub struct Split {
    /// `[rows][1x1 | 3x3_reduce | 5x5_reduce]`, without bias.
    pub joint: Address,
    /// Biases of 3x3_reduce and 5x5_reduce, f32.
    pub biases: [Address; 2],
    /// Become the two reductions, rectified: `[rows][reduce3]` and `[rows][reduce5]`.
    pub out: [Address; 2],
}

fn rows_at_once(rows: usize, channels: usize) -> ([usize; 2], [usize; 2]) {
    let block = block_for(channels);
    ([rows.div_ceil(block[1] * ROWS), 1], block)
}

/// The two reductions, by themselves, with bias and ReLU.
pub fn split(widths: Widths, rows: usize, tensors: Split) -> Call {
    let Split {
        joint,
        biases: [bias3, bias5],
        out: [three, five],
    } = tensors;
    let Widths {
        one,
        reduce3,
        reduce5,
        ..
    } = widths;
    let (grid, block) = rows_at_once(rows, reduce3 + reduce5);
    let arguments = arguments![
        joint, bias3, bias5, three, five, rows, one, reduce3, reduce5
    ];
    Call::new("split", grid, block, arguments)
}

/// Tensors of [`join`].
#[derive(Debug, Clone, Copy)]
pub struct Join {
    /// `[rows][joint]`, of which the first columns are the 1x1's.
    pub joint: Address,
    /// `[rows][three]`
    pub three: Address,
    /// `[rows][five]`
    pub five: Address,
    /// `[rows][pool]`
    pub pool: Address,
    /// Biases of 1x1, 3x3, 5x5 and pool_proj, f32.
    pub biases: [Address; 4],
    /// Becomes the module's output, `[rows][out]`.
    pub y: Address,
}

/// The four branches side by side, with bias and ReLU.
pub fn join(widths: Widths, rows: usize, tensors: Join) -> Call {
    let Join {
        joint,
        three,
        five,
        pool,
        biases: [bias1, bias3, bias5, bias_pool],
        y,
    } = tensors;
    let (grid, block) = rows_at_once(rows, widths.out());
    let arguments = arguments![
        joint,
        three,
        five,
        pool,
        bias1,
        bias3,
        bias5,
        bias_pool,
        y,
        rows,
        widths.joint(),
        widths.one,
        widths.three,
        widths.five,
        widths.pool,
    ];
    Call::new("join", grid, block, arguments)
}

/// `x`, `[rows][channels]`, becomes relu(x + bias), in place.
pub fn bias_relu(x: Address, bias: Address, rows: usize, channels: usize) -> Call {
    let (grid, block) = rows_at_once(rows, channels);
    Call::new("bias_relu", grid, block, arguments![x, bias, rows])
}
