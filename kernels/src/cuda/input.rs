//! From stored photographs to the input of the first convolution.

use super::{Address, Call, arguments, one_each};

/// Channels of a block of 2x2 pixels with 4 channels each.
pub const BLOCK_CHANNELS: usize = 16;

/// Elements of conv1's filter over blocks: 4x4 blocks.
pub const BLOCK_FILTER: usize = 4 * 4 * BLOCK_CHANNELS;

/// Elements of conv1's filter: 3 channels, 7x7 pixels.
pub const FILTER: usize = 3 * 7 * 7;

/// Rows and columns of blocks of a photograph of `side` pixels. The convolution over them, of 4x4 blocks without padding, has
/// three less: as many as conv1 has.
pub fn blocks(side: usize) -> usize {
    side.div_ceil(2) + 3
}

/// Photographs as blocks of 2x2 pixels, rotated, without their means.
#[derive(Debug, Clone, Copy)]
pub struct Photographs {
    /// Stored ones: bytes `[any number][side][side][3]`.
    pub held: Address,
    /// Those that came with the batch, in the same form.
    pub fresh: Address,
    /// i32 `[count]`: row of `held`, or -1 - row of `fresh`.
    pub place: Address,
    /// u8 `[count]`: quarter turns, as numpy's rot90 counts them.
    pub turns: Address,
    /// Their number.
    pub count: usize,
    /// Width and height in pixels.
    pub side: usize,
}

/// `out` becomes `[count][blocks][blocks][16]`.
pub fn input_blocks(photographs: Photographs, out: Address) -> Call {
    let Photographs {
        held,
        fresh,
        place,
        turns,
        count,
        side,
    } = photographs;
    let (grid, block) = one_each(count * blocks(side).pow(2));
    let arguments = arguments![held, fresh, place, turns, out, count, side];
    Call::new("input_blocks", grid, block, arguments)
}

/// conv1's filters, f32 `[filters][3][7][7]`, over blocks: `[filters][4][4][16]`, which must be zero before.
pub fn conv1_filters(filters: Address, out: Address, count: usize) -> Call {
    let (grid, block) = one_each(count * FILTER);
    let arguments = arguments![filters, out, count * FILTER];
    Call::new("conv1_filters", grid, block, arguments)
}

/// Their gradient: of `[filters][4][4][16]` f32 `[filters][3][7][7]`.
pub fn conv1_filter_gradient(by_blocks: Address, gradient: Address, count: usize) -> Call {
    let (grid, block) = one_each(count * FILTER);
    let arguments = arguments![by_blocks, gradient, count * FILTER];
    Call::new("conv1_filter_gradient", grid, block, arguments)
}
