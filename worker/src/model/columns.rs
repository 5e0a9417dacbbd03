//! What happens to a convolution's outputs one by one: the bias, ReLU, and its gradient, from and to channels of
//! wider tensors, so that nothing need be concatenated or taken apart.

use super::pixels::{Pixels, PixelsMut};
use super::pool::{Bf16, Number};
use super::simd::for_this_processor;

/// Numbers that these are there for.
pub trait Element: Number {
    /// `out = relu(x + bias)`, pixel by pixel: as many channels as the bias has.
    fn rectify(x: Pixels<Self>, bias: &[f32], out: PixelsMut<Self>);

    /// `out` is `gradient` where `y` is positive and 0 elsewhere, pixel by pixel: as many channels as `sums` has,
    /// to which it is added up.
    fn rectify_back(
        gradient: Pixels<Self>,
        y: Pixels<Self>,
        out: PixelsMut<Self>,
        sums: &mut [f32],
    );
}

impl Element for f32 {
    fn rectify(x: Pixels, bias: &[f32], out: PixelsMut) {
        rectify_f32(x, bias, out);
    }

    fn rectify_back(gradient: Pixels, y: Pixels, out: PixelsMut, sums: &mut [f32]) {
        rectify_back_f32(gradient, y, out, sums);
    }
}

impl Element for Bf16 {
    fn rectify(x: Pixels<Bf16>, bias: &[f32], out: PixelsMut<Bf16>) {
        rectify_bf16(x, bias, out);
    }

    fn rectify_back(
        gradient: Pixels<Bf16>,
        y: Pixels<Bf16>,
        out: PixelsMut<Bf16>,
        sums: &mut [f32],
    ) {
        rectify_back_bf16(gradient, y, out, sums);
    }
}

for_this_processor!(rectify_f32, rectify, (x: Pixels, bias: &[f32], out: PixelsMut));
for_this_processor!(
    rectify_bf16, rectify, (x: Pixels<Bf16>, bias: &[f32], out: PixelsMut<Bf16>)
);
for_this_processor!(
    rectify_back_f32, rectify_back,
    (gradient: Pixels, y: Pixels, out: PixelsMut, sums: &mut [f32])
);
for_this_processor!(
    rectify_back_bf16, rectify_back,
    (gradient: Pixels<Bf16>, y: Pixels<Bf16>, out: PixelsMut<Bf16>, sums: &mut [f32])
);

#[inline(always)]
fn rectify<N: Number>(x: Pixels<N>, bias: &[f32], out: PixelsMut<N>) {
    let width = bias.len();
    let xs = x.values.chunks(x.stride);
    for (x, out) in xs.zip(out.values.chunks_mut(out.stride)) {
        for ((x, bias), out) in x[..width].iter().zip(bias).zip(&mut out[..width]) {
            let sum = x.to_f32() + bias;
            // A NaN stays one.
            *out = N::rounded(if sum < 0.0 { 0.0 } else { sum });
        }
    }
}

#[inline(always)]
fn rectify_back<N: Number>(gradient: Pixels<N>, y: Pixels<N>, out: PixelsMut<N>, sums: &mut [f32]) {
    let width = sums.len();
    let gradients = gradient.values.chunks(gradient.stride);
    let ys = y.values.chunks(y.stride);
    let outs = out.values.chunks_mut(out.stride);
    for ((g, y), out) in gradients.zip(ys).zip(outs) {
        let out = &mut out[..width];
        for ((g, y), out) in g[..width].iter().zip(&y[..width]).zip(&mut *out) {
            *out = g.where_positive(*y);
        }
        // In a loop of its own, as sums may be wider than what is added.
        for (sum, out) in sums.iter_mut().zip(out) {
            *sum += out.to_f32();
        }
    }
}
