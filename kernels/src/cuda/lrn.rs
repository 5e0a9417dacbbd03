//! Local response normalisation across channels; see [`crate::lrn`] for its definition.

use super::{Address, Batch, Call, arguments, block_for};
use crate::Shape;

/// `y` becomes lrn(x); both `[rows][channels]`.
pub fn lrn(x: Address, y: Address, rows: usize, channels: usize) -> Call {
    let block = block_for(channels);
    let grid = [rows.div_ceil(block[1]), 1];
    Call::new("lrn", grid, block, arguments![x, y, rows])
}

/// `out` becomes the gradient by `x`, given that by lrn(x); all `[rows][channels]`.
pub fn lrn_gradient(
    x: Address,
    gradient: Address,
    out: Address,
    rows: usize,
    channels: usize,
) -> Call {
    let block = block_for(channels);
    let grid = [rows.div_ceil(block[1]), 1];
    Call::new(
        "lrn_gradient",
        grid,
        block,
        arguments![x, gradient, out, rows],
    )
}

/// relu(x + bias), pooled 3x3 with stride 2, then normalised, as after conv1. `x` is like `images`.
///
/// # Panics
/// If the channels do not fit, or the images are too small.
pub fn relu_pool_lrn(images: Batch, x: Address, bias: Address, y: Address) -> Call {
    let to = Batch {
        shape: images.shape.pooled(),
        ..images
    };
    let block = block_for(images.shape.channels);
    let grid = [to.rows().div_ceil(block[1]), 1];
    fused("relu_pool_lrn", grid, block, images, [x, bias, y])
}

/// relu(x + bias), normalised, then pooled 3x3 with stride 2, as after conv2. `x` is like `images`.
///
/// # Panics
/// As [`relu_pool_lrn`].
pub fn relu_lrn_pool(images: Batch, x: Address, bias: Address, y: Address) -> Call {
    let to = Batch {
        shape: images.shape.pooled(),
        ..images
    };
    let block = block_for(images.shape.channels);
    let grid = [to.quads().div_ceil(block[1]), 1];
    fused("relu_lrn_pool", grid, block, images, [x, bias, y])
}

fn fused(
    kernel: &'static str,
    grid: [usize; 2],
    block: [usize; 2],
    images: Batch,
    [x, bias, y]: [Address; 3],
) -> Call {
    let Shape { height, width, .. } = images.shape;
    let arguments = arguments![x, bias, y, images.count, height, width];
    Call::new(kernel, grid, block, arguments)
}
