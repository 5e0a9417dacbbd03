//! The normalization across channels against its definition.

use proptest::prelude::*;

use super::*;
use crate::testing::{close, exact, noise, refused, shape};

/// The scale that each value is divided by to the power beta.
fn scales(shape: Shape, x: &[f64]) -> Vec<f64> {
    let c = shape.channels;
    let scale = |at: usize| {
        let (pixel, channel) = (at / c * c, at % c);
        let window = channel.saturating_sub(SIZE / 2)..(channel + SIZE / 2 + 1).min(c);
        let sum: f64 = window.map(|i| x[pixel + i] * x[pixel + i]).sum();
        K + ALPHA / SIZE as f64 * sum
    };
    (0..x.len()).map(scale).collect()
}

fn defined_lrn(shape: Shape, x: &[f64]) -> Vec<f64> {
    let scales = scales(shape, x);
    let y = x.iter().zip(scales);
    y.map(|(x, scale)| x * scale.powf(-BETA)).collect()
}

/// From the derivative of the definition, term by term.
fn defined_backward(shape: Shape, x: &[f64], gradient: &[f64]) -> Vec<f64> {
    let c = shape.channels;
    let scales = scales(shape, x);
    let mut out = vec![0.0; x.len()];
    for at in 0..x.len() {
        let (pixel, channel) = (at / c * c, at % c);
        out[at] += gradient[at] * scales[at].powf(-BETA);
        // y[at] depends on every x in its window by way of the scale.
        for i in channel.saturating_sub(SIZE / 2)..(channel + SIZE / 2 + 1).min(c) {
            let scale = 2.0 * ALPHA / SIZE as f64 * x[pixel + i];
            out[pixel + i] -= gradient[at] * x[at] * BETA * scales[at].powf(-BETA - 1.0) * scale;
        }
    }
    out
}

fn defined_pool(shape: Shape, x: &[f64]) -> Vec<f64> {
    let to = shape.pooled();
    let mut out = vec![f64::NEG_INFINITY; x.len() / shape.len() * to.len()];
    for (at, most) in out.iter_mut().enumerate() {
        let (image, at) = (at / to.len(), at % to.len());
        let (pixel, channel) = (at / to.channels, at % to.channels);
        let (top, left) = (2 * (pixel / to.width), 2 * (pixel % to.width));
        for y in top..(top + 3).min(shape.height) {
            for x_at in left..(left + 3).min(shape.width) {
                let pixel = image * shape.pixels() + y * shape.width + x_at;
                *most = most.max(x[pixel * shape.channels + channel]);
            }
        }
    }
    out
}

fn relu(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.max(0.0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn normalisation_and_its_gradient_are_those_of_the_definition(
        threads in 1usize..4, count in 1usize..4, height in 1usize..6, width in 1usize..6,
        channels in 1usize..40, seed in 0u64..1000,
    ) {
        let (shape, threads) = (shape(height, width, channels), Threads::new(threads));
        // Large values, so that the scale is far from 1.
        let x: Vec<f32> = noise(count * shape.len(), seed).iter().map(|x| x * 1000.0).collect();
        let gradient = noise(x.len(), seed + 1);
        let mut out = vec![f32::NAN; x.len()];
        lrn(threads, shape, &x, &mut out);
        close(&out, &defined_lrn(shape, &exact(&x)), 1e-6);
        out.fill(f32::NAN);
        lrn_backward(threads, shape, &x, &gradient, &mut out);
        close(&out, &defined_backward(shape, &exact(&x), &exact(&gradient)), 1e-5);
    }

    #[test]
    fn fused_kernels_compute_what_they_fuse(
        threads in 1usize..4, count in 1usize..4, height in 2usize..9, width in 2usize..9,
        channels in 1usize..40, seed in 0u64..1000,
    ) {
        let (shape, threads) = (shape(height, width, channels), Threads::new(threads));
        let x: Vec<f32> = noise(count * shape.len(), seed).iter().map(|x| x * 1000.0).collect();
        let mut out = vec![f32::NAN; count * shape.pooled().len()];
        relu_pool_lrn(threads, shape, &x, &mut out);
        let pooled = relu(&defined_pool(shape, &exact(&x)));
        close(&out, &defined_lrn(shape.pooled(), &pooled), 1e-6);
        out.fill(f32::NAN);
        relu_lrn_pool(threads, shape, &x, &mut out);
        close(&out, &defined_pool(shape, &defined_lrn(shape, &relu(&exact(&x)))), 1e-6);
    }
}

/// A sum over the outputs with uneven weights changes as the gradient says.
#[test]
fn the_gradient_is_the_slope_of_the_definition() {
    let shape = shape(1, 2, 7);
    let x: Vec<f64> = exact(&noise(14, 5)).iter().map(|x| x * 300.0).collect();
    let weights = exact(&noise(14, 6));
    let loss = |x: &[f64]| -> f64 {
        let y = defined_lrn(shape, x);
        y.iter().zip(&weights).map(|(y, weight)| y * weight).sum()
    };
    let gradient = defined_backward(shape, &x, &weights);
    for at in 0..14 {
        let moved = |step: f64| {
            let mut x = x.clone();
            x[at] += step;
            loss(&x)
        };
        let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
        assert!(
            (slope - gradient[at]).abs() < 1e-7,
            "{slope} {}",
            gradient[at]
        );
    }
}

#[test]
fn nan_reaches_the_result() {
    let shape = shape(4, 4, 8);
    let mut x = noise(shape.len(), 1);
    x[5 * 8 + 3] = f32::NAN;
    let mut out = vec![0.0; shape.pooled().len()];
    for kernel in [relu_pool_lrn, relu_lrn_pool] {
        kernel(Threads::ONE, shape, &x, &mut out);
        assert!(out.iter().any(|y| y.is_nan()));
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let shape = shape(4, 4, 8);
    let x = vec![1.0; 2 * 128];
    let call = |kernel: Kernel, shape, x: usize, out: usize| {
        let x = vec![1.0; x];
        move || kernel(Threads::ONE, shape, &x, &mut vec![0.0; out])
    };
    type Kernel = fn(Threads, Shape, &[f32], &mut [f32]);
    call(lrn, shape, 256, 256)();
    refused(
        call(lrn, shape, 256, 128),
        "lrn: out holds 128 values, expected 2 images of 4x4x8",
    );
    refused(call(lrn, shape, 250, 250), "lrn: x holds 250 values");
    refused(
        call(lrn, shape.with_channels(0), 0, 0),
        "lrn: x holds 0 values",
    );
    refused(
        call(relu_pool_lrn, shape, 256, 256),
        "relu_pool_lrn: out holds 256 values, expected 2 images of 2x2x8",
    );
    refused(
        call(relu_lrn_pool, shape, 128, 64),
        "relu_lrn_pool: out holds 64 values",
    );
    let flat = Shape { height: 1, ..shape };
    refused(call(relu_lrn_pool, flat, 32, 32), "1x4x8 is too small");
    let mut out = vec![0.0; 256];
    refused(
        || lrn_backward(Threads::ONE, shape, &x, &x[..128], &mut out),
        "lrn_backward: gradient holds 128 values, expected 2 images of 4x4x8",
    );
}

#[test]
fn the_fourth_root_is_within_2e_7() {
    let mut worst: f64 = 0.0;
    for i in 0..400_000 {
        let s = 1.0f32 + (i as f32 / 1000.0).exp2() * 1e-6;
        let exact = f64::from(s).powf(-0.25);
        worst = worst.max((f64::from(inverse_fourth_root(s)) - exact).abs() / exact);
        if s > 1e30 {
            break;
        }
    }
    assert!(worst < 2e-7, "{worst}");
    assert!(inverse_fourth_root(f32::NAN).is_nan());
}
