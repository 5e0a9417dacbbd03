//! 1x1 convolution of f32 images and its gradients, as products of matrices: the pixels of a batch are the rows.

use crate::matrix::{Matrix, MatrixMut, product};
use crate::{Threads, check};

/// `out = conv2d(x, weight)` with a 1x1 filter. `x` is `[pixels, from]`, `weight` is `[to, from]`, `out` is `[pixels, to]`.
///
/// # Panics
/// If the lengths do not fit.
#[track_caller]
pub fn forward(
    threads: Threads,
    from: usize,
    to: usize,
    x: &[f32],
    weight: &[f32],
    out: &mut [f32],
) {
    let pixels = pixels(
        "pointwise::forward",
        from,
        to,
        ("x", x.len()),
        ("out", out.len()),
        weight.len(),
    );
    product(
        threads,
        MatrixMut::dense(out, pixels, to),
        Matrix::dense(x, pixels, from),
        Matrix::dense(weight, to, from).transposed(),
    );
}

/// The gradient of [`forward`] by `x`, given that by its output: `gradient` is `[pixels, to]`, `out` is `[pixels, from]`.
///
/// # Panics
/// If the lengths do not fit.
#[track_caller]
pub fn input_gradient(
    threads: Threads,
    from: usize,
    to: usize,
    gradient: &[f32],
    weight: &[f32],
    out: &mut [f32],
) {
    let pixels = pixels(
        "pointwise::input_gradient",
        from,
        to,
        ("out", out.len()),
        ("gradient", gradient.len()),
        weight.len(),
    );
    product(
        threads,
        MatrixMut::dense(out, pixels, from),
        Matrix::dense(gradient, pixels, to),
        Matrix::dense(weight, to, from),
    );
}

/// The gradient of [`forward`] by the weight: `gradient` is `[pixels, to]`, `x` is `[pixels, from]`, `out` is `[to, from]`.
///
/// # Panics
/// If the lengths do not fit.
#[track_caller]
pub fn weight_gradient(
    threads: Threads,
    from: usize,
    to: usize,
    gradient: &[f32],
    x: &[f32],
    out: &mut [f32],
) {
    let pixels = pixels(
        "pointwise::weight_gradient",
        from,
        to,
        ("x", x.len()),
        ("gradient", gradient.len()),
        out.len(),
    );
    product(
        threads,
        MatrixMut::dense(out, to, from),
        Matrix::dense(gradient, pixels, to).transposed(),
        Matrix::dense(x, pixels, from),
    );
}

/// The number of pixels, by the side that has `from` channels.
#[track_caller]
fn pixels(
    name: &str,
    from: usize,
    to: usize,
    inputs: (&str, usize),
    outputs: (&str, usize),
    weight: usize,
) -> usize {
    assert!(
        from > 0 && to > 0,
        "{name}: a filter of {to}x{from} is empty"
    );
    let expected = from.checked_mul(to).unwrap_or(usize::MAX);
    check::length(
        name,
        "the filter",
        weight,
        expected,
        &format!("{to}x{from}"),
    );
    let pixels = inputs.1 / from;
    assert!(
        inputs.1.is_multiple_of(from) && pixels.checked_mul(to) == Some(outputs.1),
        "{name}: {} holds {} values and {} holds {}, expected one number of pixels, of {from} and of {to} channels",
        inputs.0,
        inputs.1,
        outputs.0,
        outputs.1,
    );
    pixels
}
