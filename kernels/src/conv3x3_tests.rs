//! The 3x3 convolution against its definition, in every way of storing numbers.

use proptest::prelude::*;

use super::*;
use crate::Bf16;
use crate::testing::{close, exact, noise, refused, rounding, shape, stored};

/// A layer with everything that the kernels need and compute.
struct Run<N> {
    sizes: Conv3x3,
    x: Vec<N>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    y: Vec<N>,
    gradient: Vec<N>,
    by_x: Vec<N>,
    by_weight: Vec<f32>,
    by_bias: Vec<f32>,
}

fn buffer(shape: [usize; 3]) -> Vec<f32> {
    vec![f32::NAN; shape.into_iter().product()]
}

/// The output and its gradient lie in the middle of tensors that have `beside` channels more on each side.
fn run<N: Number>(
    threads: usize,
    images: usize,
    input: Shape,
    to: usize,
    beside: usize,
    seed: u64,
) -> Run<N> {
    let threads = Threads::new(threads);
    let sizes = Conv3x3::new(images, input, to);
    let from = input.channels;
    let x = stored::<N>(&noise(images * input.len(), seed));
    let weight: Vec<f32> = noise(to * from * 9, seed + 1)
        .iter()
        .map(|w| w * 0.3)
        .collect();
    let bias = noise(to, seed + 2);
    let mut filter = buffer(sizes.filter_shape());
    transform_filter(from, to, &weight, &mut filter);
    let (mut inputs, mut outputs) = (buffer(sizes.inputs_shape()), buffer(sizes.outputs_shape()));

    let wide = input.with_channels(to + 2 * beside);
    let part = beside..beside + to;
    let mut y = stored::<N>(&vec![7.0; images * wide.len()]);
    let mut view = ImagesMut::dense(&mut y, images, wide);
    sizes.forward(
        threads,
        &x,
        &filter,
        &bias,
        &mut inputs,
        &mut outputs,
        view.channels(part.clone()),
    );

    let gradient = stored::<N>(&noise(images * wide.len(), seed + 3));
    let view = |values| Images::dense(values, images, wide).channels(part.clone());
    let mut by_image = vec![0.0; images * to];
    outputs.fill(f32::NAN);
    sizes.output_gradient(
        threads,
        view(&gradient),
        view(&y),
        &mut outputs,
        &mut by_image,
    );
    let mut by_x = stored::<N>(&vec![f32::NAN; x.len()]);
    let mut working = buffer(sizes.inputs_shape());
    sizes.input_gradient(threads, &outputs, &filter, &mut working, &mut by_x);
    let mut by_weight = vec![f32::NAN; weight.len()];
    filter.fill(f32::NAN);
    sizes.weight_gradient(threads, &inputs, &outputs, &mut filter, &mut by_weight);

    let beside_y = y
        .iter()
        .enumerate()
        .filter(|(at, _)| !part.contains(&(at % wide.channels)));
    assert!(
        beside_y.clone().all(|(_, y)| y.to_f32() == 7.0),
        "what lies beside stays"
    );
    let narrow = |values: &[N]| -> Vec<N> {
        let pixels = values.chunks(wide.channels);
        pixels
            .flat_map(|pixel| &pixel[part.clone()])
            .copied()
            .collect()
    };
    let by_bias = (0..to)
        .map(|o| by_image.chunks(to).map(|image| image[o]).sum())
        .collect();
    Run {
        sizes,
        y: narrow(&y),
        gradient: narrow(&gradient),
        x,
        weight,
        bias,
        by_x,
        by_weight,
        by_bias,
    }
}

/// Compares with the definition in f64.
fn compare<N: Number>(run: &Run<N>) {
    let Conv3x3 {
        images, input, to, ..
    } = run.sizes;
    let from = input.channels;
    let (x, weight, gradient) = (exact(&run.x), exact(&run.weight), exact(&run.gradient));
    let mut y = vec![0.0; images * input.pixels() * to];
    let mut by_x = vec![0.0; x.len()];
    let mut by_weight = vec![0.0; weight.len()];
    let mut by_bias = vec![0.0; to];
    // For every output, what it sees of the image: input pixel and tap.
    let seen = |pixel: usize| {
        let (image, at) = (pixel / input.pixels(), pixel % input.pixels());
        let (row, column) = (at / input.width, at % input.width);
        (0..9).filter_map(move |tap| {
            let row = (row + tap / 3).checked_sub(1)?;
            let column = (column + tap % 3).checked_sub(1)?;
            let inside = row < input.height && column < input.width;
            inside.then_some((image * input.pixels() + row * input.width + column, tap))
        })
    };
    for pixel in 0..images * input.pixels() {
        for o in 0..to {
            let at = pixel * to + o;
            let mut sum = f64::from(run.bias[o]);
            for (other, tap) in seen(pixel) {
                for i in 0..from {
                    sum += x[other * from + i] * weight[(o * from + i) * 9 + tap];
                }
            }
            y[at] = sum.max(0.0);
            // As the kernel decides it: where a sum is nearly 0, rounding decides.
            let g = if run.y[at].to_f32() > 0.0 {
                gradient[at]
            } else {
                0.0
            };
            by_bias[o] += g;
            for (other, tap) in seen(pixel) {
                for i in 0..from {
                    by_x[other * from + i] += g * weight[(o * from + i) * 9 + tap];
                    by_weight[(o * from + i) * 9 + tap] += g * x[other * from + i];
                }
            }
        }
    }
    close(&run.y, &y, 1e-5 + rounding::<N>());
    close(&run.by_x, &by_x, 1e-5 + rounding::<N>());
    close(&run.by_weight, &by_weight, 1e-5);
    close(&run.by_bias, &by_bias, 1e-5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Images smaller than a tile, every remainder of a tile's side, wider tensors around the output.
    #[test]
    fn outputs_and_gradients_are_those_of_the_definition(
        threads in 1usize..4, images in 1usize..3, height in 1usize..10, width in 1usize..10,
        from in 1usize..3, to in 1usize..3, beside in 0usize..5, seed in 0u64..1000,
    ) {
        let input = shape(height, width, from * LANES);
        compare(&run::<f32>(threads, images, input, to * LANES, beside, seed));
        compare(&run::<Bf16>(threads, images, input, to * LANES, beside, seed));
    }
}

#[test]
fn nan_reaches_the_result() {
    let sizes = Conv3x3::new(1, shape(8, 8, 16), 16);
    let mut x = noise(8 * 8 * 16, 1);
    x[(4 * 8 + 4) * 16 + 3] = f32::NAN;
    let mut filter = buffer(sizes.filter_shape());
    transform_filter(16, 16, &noise(16 * 16 * 9, 2), &mut filter);
    let (mut inputs, mut outputs) = (buffer(sizes.inputs_shape()), buffer(sizes.outputs_shape()));
    let mut y = vec![0.0; x.len()];
    let view = ImagesMut::dense(&mut y, 1, sizes.output());
    sizes.forward(
        Threads::ONE,
        &x,
        &filter,
        &[0.0; 16],
        &mut inputs,
        &mut outputs,
        view,
    );
    assert!(y.iter().any(|y| y.is_nan()));
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    assert!(fits(16, 32) && !fits(0, 16) && !fits(16, 24) && !fits(8, 16));
    let input = shape(5, 6, 16);
    refused(
        || Conv3x3::new(2, input, 24),
        "conv3x3: from 16 to 24 channels",
    );
    refused(
        || Conv3x3::new(2, shape(5, 6, 8), 16),
        "conv3x3: from 8 to 16 channels",
    );
    refused(
        || Conv3x3::new(2, shape(0, 6, 16), 16),
        "an image of 0x6x16 is empty",
    );
    refused(|| Conv3x3::new(usize::MAX, input, 16), "larger than memory");
    let weight = vec![0.0; 16 * 16 * 9];
    refused(
        || transform_filter(16, 16, &weight, &mut [0.0; 100]),
        "conv3x3::transform_filter: filter holds 100 values, expected [16, 36, 16]",
    );
    refused(
        || transform_filter(16, 32, &weight, &mut [0.0; 100]),
        "conv3x3::transform_filter: weight holds 2304 values, expected [32, 16, 9]",
    );

    // One buffer at a time is too short.
    let sizes = Conv3x3::new(2, input, 32);
    let len = |shape: [usize; 3]| shape.into_iter().product::<usize>();
    let fitting = [
        2 * input.len(),
        len(sizes.filter_shape()),
        32,
        len(sizes.inputs_shape()),
        len(sizes.outputs_shape()),
    ];
    let forward = |lens: [usize; 5], output: Shape| {
        let [x, filter, bias, mut inputs, mut outputs] = lens.map(|len| vec![0f32; len]);
        let mut y = vec![0f32; 2 * output.len()];
        let y = ImagesMut::dense(&mut y, 2, output);
        sizes.forward(
            Threads::ONE,
            &x,
            &filter,
            &bias,
            &mut inputs,
            &mut outputs,
            y,
        );
    };
    forward(fitting, sizes.output());
    let names = ["x", "filter", "bias", "inputs", "outputs"];
    for (i, name) in names.into_iter().enumerate() {
        let mut lens = fitting;
        lens[i] -= 1;
        refused(
            || forward(lens, sizes.output()),
            &format!("conv3x3::forward: {name} holds"),
        );
    }
    refused(
        || forward(fitting, shape(5, 7, 32)),
        "conv3x3::forward: y is 2 images of 5x7x32, but the output is 2 images of 5x6x32",
    );

    let fitting = [len(sizes.outputs_shape()), 2 * 32];
    let output_gradient = |lens: [usize; 2], gradient: Shape, y: Shape| {
        let [mut outputs, mut bias] = lens.map(|len| vec![0f32; len]);
        let [g, v] = [gradient, y].map(|shape| vec![0f32; 2 * shape.len()]);
        let (g, v) = (Images::dense(&g, 2, gradient), Images::dense(&v, 2, y));
        sizes.output_gradient(Threads::ONE, g, v, &mut outputs, &mut bias);
    };
    let (good, bad) = (sizes.output(), shape(5, 6, 16));
    output_gradient(fitting, good, good);
    let start = "conv3x3::output_gradient:";
    refused(
        || output_gradient(fitting, bad, good),
        &format!("{start} gradient is 2 images of 5x6x16"),
    );
    refused(
        || output_gradient(fitting, good, bad),
        &format!("{start} y is 2 images of 5x6x16"),
    );
    refused(
        || output_gradient([1, 64], good, good),
        &format!("{start} outputs holds 1 values"),
    );
    refused(
        || output_gradient([fitting[0], 32], good, good),
        &format!("{start} bias holds 32 values"),
    );

    let fitting = [
        len(sizes.outputs_shape()),
        len(sizes.filter_shape()),
        len(sizes.inputs_shape()),
        2 * input.len(),
    ];
    let input_gradient = |lens: [usize; 4]| {
        let [outputs, filter, mut inputs, mut out] = lens.map(|len| vec![0f32; len]);
        sizes.input_gradient(Threads::ONE, &outputs, &filter, &mut inputs, &mut out);
    };
    input_gradient(fitting);
    for (i, name) in ["outputs", "filter", "inputs", "out"]
        .into_iter()
        .enumerate()
    {
        let mut lens = fitting;
        lens[i] += 1;
        refused(
            || input_gradient(lens),
            &format!("conv3x3::input_gradient: {name} holds"),
        );
    }

    let fitting = [
        len(sizes.inputs_shape()),
        len(sizes.outputs_shape()),
        len(sizes.filter_shape()),
        32 * 16 * 9,
    ];
    let weight_gradient = |lens: [usize; 4]| {
        let [inputs, outputs, mut filter, mut out] = lens.map(|len| vec![0f32; len]);
        sizes.weight_gradient(Threads::ONE, &inputs, &outputs, &mut filter, &mut out);
    };
    weight_gradient(fitting);
    for (i, name) in ["inputs", "outputs", "filter", "out"]
        .into_iter()
        .enumerate()
    {
        let mut lens = fitting;
        lens[i] += 1;
        refused(
            || weight_gradient(lens),
            &format!("conv3x3::weight_gradient: {name} holds"),
        );
    }
}
