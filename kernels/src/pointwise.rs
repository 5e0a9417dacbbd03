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
    let expected = from.saturating_mul(to);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{close, exact, noise, refused};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn outputs_and_gradients_are_those_of_the_definition(
            pixels in 1usize..30, from in 1usize..20, to in 1usize..20,
            threads in 1usize..4, seed in 0u64..1000,
        ) {
            let threads = Threads::new(threads);
            let (x, weight, gradient) = (
                noise(pixels * from, seed),
                noise(to * from, seed + 1),
                noise(pixels * to, seed + 2),
            );
            let (x64, weight64, gradient64) = (exact(&x), exact(&weight), exact(&gradient));
            let mut expected = [vec![0.0; pixels * to], vec![0.0; pixels * from], vec![0.0; to * from]];
            for pixel in 0..pixels {
                for o in 0..to {
                    for i in 0..from {
                        let (out, input, tap) = (pixel * to + o, pixel * from + i, o * from + i);
                        expected[0][out] += x64[input] * weight64[tap];
                        expected[1][input] += gradient64[out] * weight64[tap];
                        expected[2][tap] += gradient64[out] * x64[input];
                    }
                }
            }
            let mut found = [vec![f32::NAN; pixels * to], vec![f32::NAN; pixels * from], vec![f32::NAN; to * from]];
            forward(threads, from, to, &x, &weight, &mut found[0]);
            input_gradient(threads, from, to, &gradient, &weight, &mut found[1]);
            weight_gradient(threads, from, to, &gradient, &x, &mut found[2]);
            for (found, expected) in found.iter().zip(&expected) {
                close(found, expected, 1e-5);
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let values = [1.0; 60];
        let call = |x: usize, weight: usize, out: usize| {
            let mut out = vec![0.0; out];
            forward(
                Threads::ONE,
                4,
                3,
                &values[..x],
                &values[..weight],
                &mut out,
            );
        };
        call(20, 12, 15);
        refused(
            || call(20, 11, 15),
            "pointwise::forward: the filter holds 11 values, expected 12 (3x4)",
        );
        refused(|| call(20, 12, 14), "x holds 20 values and out holds 14");
        refused(|| call(21, 12, 15), "x holds 21 values");
        let zero = || forward(Threads::ONE, 0, 3, &[], &[], &mut []);
        refused(zero, "a filter of 3x0 is empty");
        let wrong = || {
            input_gradient(
                Threads::ONE,
                4,
                3,
                &values[..15],
                &values[..12],
                &mut [0.0; 24],
            )
        };
        refused(
            wrong,
            "pointwise::input_gradient: out holds 24 values and gradient holds 15",
        );
        let wrong = || {
            weight_gradient(
                Threads::ONE,
                4,
                3,
                &values[..15],
                &values[..16],
                &mut [0.0; 12],
            )
        };
        refused(wrong, "pointwise::weight_gradient: x holds 16 values");
    }
}
