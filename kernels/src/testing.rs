//! What the tests of this crate share: numbers, comparisons, and shapes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Bf16, Number, Shape};

/// `len` numbers from -1 to 1 that look random and are the same in every run.
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Rounded to a storage format.
pub fn stored<N: Number>(values: &[f32]) -> Vec<N> {
    values.iter().map(|value| N::rounded(*value)).collect()
}

/// As f64.
pub fn exact<N: Number>(values: &[N]) -> Vec<f64> {
    values.iter().map(|v| f64::from(v.to_f32())).collect()
}

/// Panics if a number is further from the expected one than `tolerance` times the largest expected one.
#[track_caller]
pub fn close<N: Number>(found: &[N], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(1e-30, |most: f64, x| most.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(found.to_f32()) - expected).abs() / largest;
        assert!(
            off <= tolerance,
            "value {at} is {found:?}, expected {expected} (off by {off:.1e} of the largest)"
        );
    }
}

/// The bits of f32 numbers, so that a NaN equals itself and 0 differs from -0.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Panics unless `call` panics with a message that contains `message`.
#[track_caller]
pub fn refused<T>(call: impl FnOnce() -> T, message: &str) {
    let result = catch_unwind(AssertUnwindSafe(|| drop(call())));
    let error = result.expect_err("it was not refused");
    let text = error.downcast_ref::<String>().map(String::as_str);
    let text = text.or(error.downcast_ref::<&str>().copied());
    let text = text.expect("a panic has a message");
    assert!(
        text.contains(message),
        "refused with {text:?}, expected {message:?}"
    );
}

/// A shape of the given sides.
pub fn shape(height: usize, width: usize, channels: usize) -> Shape {
    Shape {
        height,
        width,
        channels,
    }
}

/// The tolerance for a result that is rounded once to the format `N`.
pub fn rounding<N: Number>() -> f64 {
    match std::mem::size_of::<N>() == std::mem::size_of::<Bf16>() {
        true => 1.0 / 256.0,
        false => 0.0,
    }
}
