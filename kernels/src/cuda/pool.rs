//! 3x3 max pooling, forward.

use super::{Address, Batch, Call, arguments, block_for};
use crate::pool::Stride;

/// `y` becomes the largest value of each window of `x`, whose shape is `images`; the first of equal ones; NaN wins. `places`
/// becomes bytes as many as `y` has values: the place of each maximum in its window, 0 to 8, row by row.
///
/// # Panics
/// If the channels do not fit, or the images are too small for stride 2.
pub fn pool(
    stride: Stride,
    images: Batch,
    x: Address,
    y: Address,
    places: Option<Address>,
) -> Call {
    let shape = images.shape;
    let to = Batch {
        shape: stride.pooled(shape),
        ..images
    };
    let kernel = match stride {
        Stride::One => "pool_stride1",
        Stride::Two => "pool_stride2",
    };
    let block = block_for(shape.channels);
    let grid = [to.quads().div_ceil(block[1]), 1];
    let arguments = arguments![x, y, places, images.count, shape.height, shape.width];
    Call::new(kernel, grid, block, arguments)
}
