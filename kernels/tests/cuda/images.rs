//! Photographs, a module's forward pass, pooling, and rows by number.

use fovea_kernels::cuda::module::{Join, Split, Widths, bias_relu, join, split};
use fovea_kernels::cuda::rows::Held;
use fovea_kernels::cuda::{Address, Batch, input, pool, rows};
use fovea_kernels::pool::{Stride, max_pool};
use fovea_kernels::{Bf16, Shape, Threads};
use proptest::prelude::*;

use crate::emulator::{Memory, Random, TestNumber, assert_close, assert_same, rounded, run};

const MEANS: [f32; 3] = [104.0, 117.0, 123.0];

/// The pixels of a photograph after quarter turns: `[side][side][3]`, without means.
fn turned(bytes: &[u8], side: usize, turns: u8) -> Vec<f32> {
    let mut image: Vec<Vec<[u8; 3]>> = (0..side)
        .map(|i| {
            let pixel = |j: usize| {
                let at = 3 * (i * side + j);
                [bytes[at], bytes[at + 1], bytes[at + 2]]
            };
            (0..side).map(pixel).collect()
        })
        .collect();
    for _ in 0..turns {
        // A quarter turn against the clock: the last column becomes the first row.
        let column = |j: usize| image.iter().map(|row| row[j]).collect();
        image = (0..side).rev().map(column).collect();
    }
    let pixels = image.into_iter().flatten();
    pixels
        .flat_map(|pixel| [0, 1, 2].map(|c| f32::from(pixel[c]) - MEANS[c]))
        .collect()
}

/// Three photographs, the second of which is held: `input_blocks` and what it should give.
fn photographs<N: TestNumber>(side: usize, seed: u64) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut random = Random(seed);
    let mut bytes = |rows: usize| -> Vec<u8> {
        (0..rows * side * side * 3)
            .map(|_| random.bits() as u8)
            .collect()
    };
    let (held, fresh) = (bytes(4), bytes(2));
    let places = [-1i32, 2, -2];
    let turns: Vec<u8> = (0..3).map(|_| random.below(4) as u8).collect();
    let record = side * side * 3;
    let images: Vec<Vec<f32>> = places
        .iter()
        .zip(&turns)
        .map(|(place, turns)| {
            let from = match place {
                0.. => &held[*place as usize * record..][..record],
                _ => &fresh[(-1 - place) as usize * record..][..record],
            };
            turned(from, side, *turns)
        })
        .collect();
    let [held, fresh] = [held, fresh].map(|bytes| Memory::of(&bytes));
    let (places, turns) = (Memory::of(&places), Memory::of(&turns));
    let out = Memory::<N>::unset(3 * input::blocks(side).pow(2) * input::BLOCK_CHANNELS);
    let photographs = input::Photographs {
        held: held.at(),
        fresh: fresh.at(),
        place: places.at(),
        turns: turns.at(),
        count: 3,
        side,
    };
    run::<N>(&input::input_blocks(photographs, out.at()));
    (out.wide(), images)
}

fn blocks<N: TestNumber>(side: usize, seed: u64) {
    let (found, images) = photographs::<N>(side, seed);
    let blocks = input::blocks(side);
    let mut expected = Vec::new();
    for image in &images {
        for (bi, bj) in (0..blocks).flat_map(|i| (0..blocks).map(move |j| (i, j))) {
            for (di, dj) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let place =
                    |block: usize, d: usize| (2 * block + d).checked_sub(4).filter(|i| *i < side);
                let pixel = match (place(bi, di), place(bj, dj)) {
                    (Some(i), Some(j)) => &image[3 * (i * side + j)..][..3],
                    _ => &[0.0; 3],
                };
                expected.extend(pixel.iter().map(|x| N::rounded(*x).to_f32()));
                expected.push(0.0);
            }
        }
    }
    assert_same("blocks", &found, &expected);
}

/// conv1 over blocks is conv1 over pixels.
fn first_convolution(side: usize) {
    const FILTERS: usize = 2;
    let (found, images) = photographs::<f32>(side, 7);
    let filters = Random(8).units(FILTERS * 147, 1.0);
    let own = Memory::of(&filters);
    let by_blocks = Memory::of(&[0f32; FILTERS * input::BLOCK_FILTER]);
    run::<f32>(&input::conv1_filters(own.at(), by_blocks.at(), FILTERS));
    let back = Memory::<f32>::unset(FILTERS * 147);
    run::<f32>(&input::conv1_filter_gradient(
        by_blocks.at(),
        back.at(),
        FILTERS,
    ));
    assert_same("there and back", &back.read(), &filters);
    let by_blocks = by_blocks.read();
    let (width, size) = (input::blocks(side), side.div_ceil(2));
    let (mut over_blocks, mut over_pixels) = (Vec::new(), Vec::new());
    for (n, image) in images.iter().enumerate() {
        for (i, j) in (0..size).flat_map(|i| (0..size).map(move |j| (i, j))) {
            for f in 0..FILTERS {
                let mut sum = 0f64;
                for (a, b) in (0..4).flat_map(|a| (0..4).map(move |b| (a, b))) {
                    for c in 0..16 {
                        let x = found[((n * width + i + a) * width + j + b) * 16 + c];
                        let w = by_blocks[((f * 4 + a) * 4 + b) * 16 + c];
                        sum += f64::from(x) * f64::from(w);
                    }
                }
                over_blocks.push(sum as f32);
                let mut sum = 0f64;
                for (a, b) in (0..7).flat_map(|a| (0..7).map(move |b| (a, b))) {
                    let place =
                        |o: usize, k: usize| (2 * o + k).checked_sub(3).filter(|i| *i < side);
                    if let (Some(y), Some(x)) = (place(i, a), place(j, b)) {
                        for c in 0..3 {
                            let w = filters[((f * 3 + c) * 7 + a) * 7 + b];
                            sum += f64::from(image[3 * (y * side + x) + c]) * f64::from(w);
                        }
                    }
                }
                over_pixels.push(sum as f32);
            }
        }
    }
    assert_close("conv1", &over_blocks, &over_pixels, 1e-6, 1e-4);
}

#[test]
fn conv1_over_blocks_is_conv1_over_pixels() {
    for side in [32, 33] {
        first_convolution(side);
    }
}

/// Eights of channels.
fn widths() -> impl Strategy<Value = Widths> {
    prop::array::uniform6(1usize..6).prop_map(|n| {
        let [one, reduce3, three, reduce5, five, pool] = n.map(|n| 8 * n);
        Widths {
            one,
            reduce3,
            three,
            reduce5,
            five,
            pool,
        }
    })
}

fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

fn split_and_join<N: TestNumber>(widths: Widths, rows: usize, seed: u64) {
    let mut random = Random(seed);
    let mut tensor = |width: usize| rounded::<N>(random.units(rows * width, 2.0));
    let (joint, joint_wide) = tensor(widths.joint());
    let (three, three_wide) = tensor(widths.three);
    let (five, five_wide) = tensor(widths.five);
    let (pool, pool_wide) = tensor(widths.pool);
    let mut bias = |width: usize| random.units(width, 1.0);
    let biases: Vec<Vec<f32>> = [
        widths.one,
        widths.three,
        widths.five,
        widths.pool,
        widths.reduce3,
        widths.reduce5,
    ]
    .map(&mut bias)
    .into();
    let at: Vec<Memory<f32>> = biases.iter().map(|bias| Memory::of(bias)).collect();

    let out = [widths.reduce3, widths.reduce5].map(|width| Memory::<N>::unset(rows * width));
    let tensors = Split {
        joint: joint.at(),
        biases: [at[4].at(), at[5].at()],
        out: [out[0].at(), out[1].at()],
    };
    run::<N>(&split(widths, rows, tensors));
    // Columns `from` and following of rows of `width`, with a bias.
    let columns = |x: &[f32], width: usize, from: usize, bias: &[f32]| -> Vec<f32> {
        let row = |row: &[f32]| -> Vec<f32> {
            let own = &row[from..from + bias.len()];
            let one = |(x, b): (&f32, &f32)| N::rounded(relu(x + b)).to_f32();
            own.iter().zip(bias).map(one).collect()
        };
        x.chunks(width).flat_map(row).collect()
    };
    let starts = [widths.one, widths.one + widths.reduce3];
    for i in 0..2 {
        let expected = columns(&joint_wide, widths.joint(), starts[i], &biases[4 + i]);
        assert_same("split", &out[i].wide(), &expected);
    }

    let y = Memory::<N>::unset(rows * widths.out());
    let tensors = Join {
        joint: joint.at(),
        three: three.at(),
        five: five.at(),
        pool: pool.at(),
        biases: [at[0].at(), at[1].at(), at[2].at(), at[3].at()],
        y: y.at(),
    };
    run::<N>(&join(widths, rows, tensors));
    let sources = [
        columns(&joint_wide, widths.joint(), 0, &biases[0]),
        columns(&three_wide, widths.three, 0, &biases[1]),
        columns(&five_wide, widths.five, 0, &biases[2]),
        columns(&pool_wide, widths.pool, 0, &biases[3]),
    ];
    let mut expected = Vec::new();
    for row in 0..rows {
        for (source, bias) in sources.iter().zip(&biases) {
            expected.extend(&source[row * bias.len()..][..bias.len()]);
        }
    }
    assert_same("join", &y.wide(), &expected);

    run::<N>(&bias_relu(three.at(), at[1].at(), rows, widths.three));
    assert_same("bias_relu", &three.wide(), &sources[1]);
}

fn pooled<N: TestNumber>(stride: Stride, count: usize, shape: Shape, seed: u64) {
    let mut random = Random(seed);
    // Few values, so that many are equal, negative ones and NaN.
    let value = |random: &mut Random| match random.below(40) {
        0 => f32::NAN,
        1 => f32::NEG_INFINITY,
        n => (n % 7) as f32 - 5.0,
    };
    let values = (0..count * shape.len())
        .map(|_| value(&mut random))
        .collect();
    let (x, wide) = rounded::<N>(values);
    let narrow: Vec<N> = wide.iter().map(|x| N::rounded(*x)).collect();
    let len = count * stride.pooled(shape).len();
    let (y, places) = (Memory::<N>::unset(len), Memory::<u8>::unset(len));
    let images = Batch { count, shape };
    let call = |places| pool::pool(stride, images, x.at(), y.at(), places);
    run::<N>(&call(Some(places.at())));
    let (mut expected, mut expected_places) = (vec![N::rounded(0.0); len], vec![0; len]);
    max_pool(
        Threads::new(1),
        stride,
        shape,
        &narrow,
        &mut expected,
        &mut expected_places,
    );
    let expected: Vec<f32> = expected.into_iter().map(N::to_f32).collect();
    let found = y.wide();
    assert_same("pool", &found, &expected);
    for (i, (place, expected)) in places.read().iter().zip(expected_places).enumerate() {
        // Of several NaN any may have won, and among values that are all -inf.
        let clear = found[i].is_finite();
        assert!(*place < 9 && (!clear || *place == expected), "place {i}");
    }
    // Where no gradient is wanted there are no places.
    run::<N>(&call(None));
    assert_same("pool without places", &y.wide(), &expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn photographs_become_blocks(side in 32usize..40, seed: u64) {
        blocks::<f32>(side, seed);
        blocks::<Bf16>(side, seed);
    }

    #[test]
    fn branches_are_split_and_joined(widths in widths(), rows in 1usize..90, seed: u64) {
        split_and_join::<f32>(widths, rows, seed);
        split_and_join::<Bf16>(widths, rows, seed);
    }

    #[test]
    fn pooling_is_that_of_the_cpu(
        count in 1usize..3, height in 2usize..12, width in 2usize..12, groups in 1usize..5, seed: u64,
    ) {
        let shape = Shape { height, width, channels: 8 * groups };
        for stride in [Stride::One, Stride::Two] {
            pooled::<f32>(stride, count, shape, seed);
            pooled::<Bf16>(stride, count, shape, seed);
        }
    }

    #[test]
    fn rows_are_picked_and_kept(words in 1usize..1500, count in 1usize..6, seed: u64) {
        let mut random = Random(seed);
        let bytes = rows::WORD * words;
        let mut memory = |rows: usize| -> Vec<u8> { (0..rows * bytes).map(|_| random.bits() as u8).collect() };
        // Three blocks of 3 rows.
        let (held, fresh) = (memory(9), memory(5));
        let row = |of: &[u8], at: usize| of[at * bytes..][..bytes].to_vec();
        let places: Vec<i32> = (0..count).map(|i| match i {
            0 => 0,
            1 => -1,
            _ => random.below(14) as i32 - 5,
        }).collect();
        let at_fresh = Memory::of(&fresh);
        let blocks: Vec<Memory<u8>> = held.chunks(3 * bytes).map(Memory::of).collect();
        let addresses: Vec<Address> = blocks.iter().map(Memory::at).collect();
        let at_held = Held { blocks: &addresses, rows: 3 };
        let (place, out) = (Memory::of(&places), Memory::<u8>::unset(count * bytes));
        run::<f32>(&rows::pick_rows(at_held, at_fresh.at(), place.at(), out.at(), count, bytes));
        let expected: Vec<u8> = places.iter().flat_map(|&place| match place {
            0.. => row(&held, place as usize),
            _ => row(&fresh, (-1 - place) as usize),
        }).collect();
        prop_assert!(out.read() == expected);

        // Each row to another place of a block.
        let from: Vec<i32> = (0..count.min(3)).map(|_| random.below(5) as i32).collect();
        let to: Vec<i32> = (0..count.min(3)).map(|i| (2 - i) as i32).collect();
        let (at_from, at_to) = (Memory::of(&from), Memory::of(&to));
        run::<f32>(&rows::keep_rows(at_fresh.at(), [at_from.at(), at_to.at()], blocks[1].at(), from.len(), bytes));
        let mut expected = held[3 * bytes..6 * bytes].to_vec();
        for (from, to) in from.iter().zip(&to) {
            expected[*to as usize * bytes..][..bytes].copy_from_slice(&row(&fresh, *from as usize));
        }
        prop_assert!(blocks[1].read() == expected);
    }
}
