//! Local response normalisation, compared with the CPU's kernels.

use fovea_kernels::cuda::{Batch, lrn};
use fovea_kernels::{Bf16, Shape, Threads, lrn as cpu};
use proptest::prelude::*;

use crate::emulator::{Memory, Random, TestNumber, assert_close, rounded, run};

fn all<N: TestNumber>(images: Batch, seed: u64) {
    let Batch { count, shape } = images;
    let threads = Threads::new(1);
    let mut random = Random(seed);
    // Large enough for the scale to differ from 1.
    let (x, wide) = rounded::<N>(random.units(images.len(), 300.0));
    let (gradient, gradient_wide) = rounded::<N>(random.units(images.len(), 1.0));
    let bias = random.units(shape.channels, 50.0);
    let at_bias = Memory::of(&bias);
    let close = |what: &str, found: &[f32], expected: &[f32]| {
        let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        assert_close(what, found, expected, 2e-6 + N::ROUNDING, 1e-6 * most);
    };
    let rows = images.rows();

    let y = Memory::<N>::unset(images.len());
    run::<N>(&lrn::lrn(x.at(), y.at(), rows, shape.channels));
    let mut expected = vec![0f32; images.len()];
    cpu::lrn(threads, shape, &wide, &mut expected);
    close("lrn", &y.wide(), &expected);

    let out = Memory::<N>::unset(images.len());
    run::<N>(&lrn::lrn_gradient(
        x.at(),
        gradient.at(),
        out.at(),
        rows,
        shape.channels,
    ));
    cpu::lrn_backward(threads, shape, &wide, &gradient_wide, &mut expected);
    close("gradient", &out.wide(), &expected);

    let with_bias: Vec<f32> = wide
        .iter()
        .zip(bias.iter().cycle())
        .map(|(x, b)| x + b)
        .collect();
    let to = shape.pooled();
    let y = Memory::<N>::unset(count * to.len());
    let mut expected = vec![0f32; count * to.len()];
    run::<N>(&lrn::relu_pool_lrn(images, x.at(), at_bias.at(), y.at()));
    cpu::relu_pool_lrn(threads, shape, &with_bias, &mut expected);
    close("pooled, then normalised", &y.wide(), &expected);

    let y = Memory::<N>::unset(count * to.len());
    run::<N>(&lrn::relu_lrn_pool(images, x.at(), at_bias.at(), y.at()));
    cpu::relu_lrn_pool(threads, shape, &with_bias, &mut expected);
    close("normalised, then pooled", &y.wide(), &expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn normalisation_is_that_of_the_cpu(
        count in 1usize..3, height in 2usize..10, width in 2usize..10, groups in 1usize..6, seed: u64,
    ) {
        let shape = Shape { height, width, channels: 8 * groups };
        all::<f32>(Batch { count, shape }, seed);
        all::<Bf16>(Batch { count, shape }, seed);
    }
}

/// What is not finite stays so, through every fusion.
#[test]
fn a_nan_stays() {
    let shape = Shape {
        height: 2,
        width: 2,
        channels: 8,
    };
    let mut values = vec![1f32; shape.len()];
    values[3] = f32::NAN;
    let (x, bias) = (Memory::of(&values), Memory::of(&[0f32; 8]));
    let images = Batch { count: 1, shape };
    for call in [lrn::relu_pool_lrn, lrn::relu_lrn_pool] {
        let y = Memory::<f32>::unset(8);
        run::<f32>(&call(images, x.at(), bias.at(), y.at()));
        assert!(y.read()[3].is_nan(), "{:?}", y.read());
        // It is five channels wide.
        assert!(y.read()[6..].iter().all(|y| y.is_finite()));
    }
}
