//! Gradients between products and convolutions.

use fovea_kernels::cuda::gradient::{
    Bias, Branches, Reductions, Source, Sums, bias_gradients, branches, masked, plain_half,
    plain_same, reductions,
};
use fovea_kernels::cuda::module::Widths;
use fovea_kernels::cuda::{Address, Batch};
use fovea_kernels::pool::Stride;
use fovea_kernels::{Bf16, Shape};
use proptest::prelude::*;

use crate::emulator::{Memory, Random, TestNumber, assert_same, rounded, run};

/// Places of maxima within the images, as a pooling gives them.
fn places(random: &mut Random, stride: Stride, count: usize, shape: Shape) -> Vec<u8> {
    let to = stride.pooled(shape);
    let pad = stride.padding();
    let mut places = Vec::new();
    for at in 0..count * to.len() {
        let (i, j) = (
            at / to.channels / to.width % to.height,
            at / to.channels % to.width,
        );
        places.push(loop {
            let place = random.below(9);
            let inside = |o: usize, d: usize, size: usize| {
                (stride.pixels() * o + d)
                    .checked_sub(pad)
                    .is_some_and(|at| at < size)
            };
            if inside(i, place / 3, shape.height) && inside(j, place % 3, shape.width) {
                break place as u8;
            }
        });
    }
    places
}

/// What a pooling's gradient gives each pixel of its input, added up in the order of the windows.
fn scattered(
    stride: Stride,
    count: usize,
    shape: Shape,
    gradient: &[f32],
    places: &[u8],
) -> Vec<f32> {
    let to = stride.pooled(shape);
    let mut out = vec![0f32; count * shape.len()];
    for (at, (g, place)) in gradient.iter().zip(places).enumerate() {
        let (c, pixel) = (at % to.channels, at / to.channels);
        let (j, i, image) = (
            pixel % to.width,
            pixel / to.width % to.height,
            pixel / to.pixels(),
        );
        let row = stride.pixels() * i + usize::from(place / 3) - stride.padding();
        let column = stride.pixels() * j + usize::from(place % 3) - stride.padding();
        out[((image * shape.height + row) * shape.width + column) * shape.channels + c] += g;
    }
    out
}

/// Sums of columns, exact for small whole numbers.
fn columns(x: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0f32; width];
    for row in x.chunks(width) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sums
}

fn narrow<N: TestNumber>(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| N::rounded(*x).to_f32()).collect()
}

struct Case {
    widths: Widths,
    count: usize,
    height: usize,
    width: usize,
    seed: u64,
}

/// `kind`: 0 a module reads the output, 1 a pooling, 2 the average.
fn to_branches<N: TestNumber>(case: &Case, kind: usize) {
    let Case {
        widths,
        count,
        height,
        width,
        seed,
    } = *case;
    let channels = widths.out();
    let shape = Shape {
        height,
        width,
        channels,
    };
    let images = Batch { count, shape };
    let mut random = Random(seed);
    let stride = if kind == 1 { Stride::Two } else { Stride::One };
    let (y, y_wide) = rounded::<N>(random.whole(images.len(), 2));
    let pooled_len = count * stride.pooled(shape).len();
    let (pooled, pooled_wide) = rounded::<N>(random.whole(pooled_len, 8));
    let places = places(&mut random, stride, count, shape);
    let at_places = Memory::of(&places);
    let (direct, direct_wide) = rounded::<N>(random.whole(images.len(), 8));
    let mean = random.whole(count * channels, 9);
    let at_mean = Memory::of(&mean);
    let (source, expected) = match kind {
        0 => {
            let mut sum = scattered(stride, count, shape, &pooled_wide, &places);
            sum.iter_mut().zip(&direct_wide).for_each(|(s, d)| *s += d);
            let source = Source::Module {
                direct: direct.at(),
                pooled: pooled.at(),
                places: at_places.at(),
            };
            (source, sum)
        }
        1 => {
            let source = Source::Pool {
                pooled: pooled.at(),
                places: at_places.at(),
            };
            (
                source,
                scattered(stride, count, shape, &pooled_wide, &places),
            )
        }
        _ => {
            let by_pixel = |at: usize| mean[at / shape.len() * channels + at % channels];
            (
                Source::Mean(at_mean.at()),
                (0..images.len()).map(by_pixel).collect(),
            )
        }
    };
    if kind < 2 {
        let out = Memory::<N>::unset(images.len());
        run::<N>(&match kind {
            0 => plain_same(images, [direct.at(), pooled.at(), at_places.at()], out.at()),
            _ => plain_half(images, [pooled.at(), at_places.at()], out.at()),
        });
        assert_same("plain", &out.wide(), &narrow::<N>(&expected));
    }
    let expected: Vec<f32> = expected
        .iter()
        .zip(&y_wide)
        .map(|(g, y)| if *y > 0.0 { *g } else { 0.0 })
        .collect();

    let rows = images.rows();
    let joint = Memory::of(&vec![N::rounded(7.0); rows * widths.joint()]);
    let out =
        [widths.three, widths.five, widths.pool].map(|width| Memory::<N>::unset(rows * width));
    let shape_of_sums = Sums::of_branches(images);
    let sums = Memory::<f32>::unset(shape_of_sums.len());
    let tensors = Branches {
        y: y.at(),
        joint: joint.at(),
        out: [out[0].at(), out[1].at(), out[2].at()],
        sums: sums.at(),
    };
    run::<N>(&branches(source, widths, [count, height, width], tensors));
    let part = |from: usize, len: usize| -> Vec<f32> {
        let row = |row: &[f32]| narrow::<N>(&row[from..from + len]);
        expected.chunks(channels).flat_map(row).collect()
    };
    let joint = joint.wide();
    let own = joint
        .chunks(widths.joint())
        .flat_map(|row| row[..widths.one].to_vec());
    assert_same("1x1", &own.collect::<Vec<_>>(), &part(0, widths.one));
    let others = joint
        .chunks(widths.joint())
        .flat_map(|row| row[widths.one..].to_vec());
    assert!(
        others.into_iter().all(|x| x == 7.0),
        "the reductions' columns"
    );
    let mut from = widths.one;
    for (out, len) in out.iter().zip([widths.three, widths.five, widths.pool]) {
        assert_same("a branch", &out.wide(), &part(from, len));
        from += len;
    }
    assert_same(
        "sums",
        &columns(&sums.read(), channels),
        &columns(&expected, channels),
    );
    // Two biases, one behind the other, with a gap.
    let total = Memory::<f32>::of(&vec![5.0; channels + 3]);
    let bias = |columns: (usize, usize), to: usize| Bias {
        sums: sums.at(),
        shape: shape_of_sums,
        columns,
        to,
    };
    let biases = [
        bias((0, widths.one), 3),
        bias((widths.one, channels - widths.one), 3 + widths.one),
    ];
    run::<N>(&bias_gradients(&biases, total.at()));
    let total = total.read();
    assert_eq!(total[..3], [5.0; 3]);
    assert_same("biases", &total[3..], &columns(&expected, channels));
}

fn to_reductions<N: TestNumber>(widths: Widths, rows: usize, seed: u64) {
    let mut random = Random(seed);
    let [r3, r5] = [widths.reduce3, widths.reduce5];
    let mut tensor = |width: usize| rounded::<N>(random.whole(rows * width, 3));
    let (g3, g3_wide) = tensor(r3);
    let (g5, g5_wide) = tensor(r5);
    let (y3, y3_wide) = tensor(r3);
    let (y5, y5_wide) = tensor(r5);
    let joint = Memory::of(&vec![N::rounded(7.0); rows * widths.joint()]);
    let shape = Sums::of_rows(rows, r3 + r5);
    let sums = Memory::<f32>::unset(shape.len());
    let tensors = Reductions {
        gradients: [g3.at(), g5.at()],
        outputs: [y3.at(), y5.at()],
        joint: joint.at(),
        sums: sums.at(),
    };
    run::<N>(&reductions(widths, rows, tensors));
    let mask = |g: &[f32], y: &[f32]| -> Vec<f32> {
        let one = |(g, y): (&f32, &f32)| if *y > 0.0 { *g } else { 0.0 };
        g.iter().zip(y).map(one).collect()
    };
    let (m3, m5) = (mask(&g3_wide, &y3_wide), mask(&g5_wide, &y5_wide));
    let mut expected = Vec::new();
    for row in 0..rows {
        expected.extend(vec![7.0; widths.one]);
        expected.extend(&m3[row * r3..][..r3]);
        expected.extend(&m5[row * r5..][..r5]);
    }
    assert_same("reductions", &joint.wide(), &expected);
    let both = [columns(&m3, r3), columns(&m5, r5)].concat();
    assert_same("their sums", &columns(&sums.read(), r3 + r5), &both);

    let shape = Sums::of_rows(rows, r3);
    let sums = Memory::<f32>::unset(shape.len());
    run::<N>(&masked(g3.at(), y3.at(), sums.at(), rows, r3));
    assert_same("masked", &g3.wide(), &m3);
    assert_same("its sums", &columns(&sums.read(), r3), &columns(&m3, r3));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn gradients_go_to_the_branches(
        eights in prop::array::uniform6(1usize..4), count in 1usize..3, height in 2usize..10, width in 2usize..10, seed: u64,
    ) {
        let [one, reduce3, three, reduce5, five, pool] = eights.map(|n| 8 * n);
        let widths = Widths { one, reduce3, three, reduce5, five, pool };
        let case = Case { widths, count, height, width, seed };
        for kind in 0..3 {
            to_branches::<f32>(&case, kind);
            to_branches::<Bf16>(&case, kind);
        }
        to_reductions::<f32>(widths, count * height * width, seed);
        to_reductions::<Bf16>(widths, count * height * width, seed);
    }
}

/// More pixels than the blocks of a grid take at once, so that each thread goes on to others.
#[test]
fn sums_go_over_many_pixels() {
    // So many channels that a block has one pixel.
    let widths = Widths {
        one: 1008,
        reduce3: 1000,
        three: 8,
        reduce5: 32,
        five: 8,
        pool: 8,
    };
    to_reductions::<Bf16>(widths, 4300, 3);
    let case = Case {
        widths,
        count: 1100,
        height: 1,
        width: 1,
        seed: 4,
    };
    to_branches::<Bf16>(&case, 2);
}

#[test]
#[should_panic(expected = "columns")]
fn columns_that_sums_do_not_have_are_refused() {
    let bias = Bias {
        sums: Address::NULL,
        shape: Sums::of_rows(1, 8),
        columns: (8, 8),
        to: 0,
    };
    let _ = bias_gradients(&[bias], Address::NULL);
}
