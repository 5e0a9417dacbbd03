//! No result depends on the number of threads.

use fovea_kernels::conv3x3::{Conv3x3, transform_filter};
use fovea_kernels::pool::{Stride, max_pool, max_pool_backward};
use fovea_kernels::relu::{bias_relu, bias_relu_backward};
use fovea_kernels::{Images, ImagesMut, Shape, Threads, lrn};

const IMAGES: usize = 5;
const SHAPE: Shape = Shape {
    height: 9,
    width: 10,
    channels: 32,
};

fn waves(len: usize, scale: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin() * scale).collect()
}

/// What every kernel computes, one after the other.
fn all(threads: Threads) -> Vec<Vec<f32>> {
    let x = waves(IMAGES * SHAPE.len(), 500.0);
    let gradient = waves(x.len(), 3.0);
    let pooled = IMAGES * SHAPE.pooled().len();
    let mut results = Vec::new();
    let mut computed = |len: usize, kernel: &mut dyn FnMut(&mut [f32])| {
        let mut out = vec![f32::NAN; len];
        kernel(&mut out);
        results.push(out);
    };
    computed(x.len(), &mut |out| lrn::lrn(threads, SHAPE, &x, out));
    computed(x.len(), &mut |out| {
        lrn::lrn_backward(threads, SHAPE, &x, &gradient, out)
    });
    computed(pooled, &mut |out| {
        lrn::relu_pool_lrn(threads, SHAPE, &x, out)
    });
    computed(pooled, &mut |out| {
        lrn::relu_lrn_pool(threads, SHAPE, &x, out)
    });
    let mut places = vec![0; pooled];
    computed(pooled, &mut |out| {
        max_pool(threads, Stride::Two, SHAPE, &x, out, &mut places)
    });
    computed(x.len(), &mut |out| {
        max_pool_backward(
            threads,
            Stride::Two,
            SHAPE,
            &gradient[..pooled],
            &places,
            out,
        )
    });
    let view = |values| Images::dense(values, IMAGES, SHAPE);
    let bias = waves(32, 100.0);
    computed(x.len(), &mut |out| {
        bias_relu(
            threads,
            view(&x),
            &bias,
            ImagesMut::dense(out, IMAGES, SHAPE),
        )
    });
    let mut sums = vec![0.0; IMAGES * 32];
    computed(x.len(), &mut |out| {
        let out = ImagesMut::dense(out, IMAGES, SHAPE);
        bias_relu_backward(threads, view(&gradient), view(&x), out, &mut sums)
    });
    computed(sums.len(), &mut |out| out.copy_from_slice(&sums));

    let convolution = Conv3x3::new(IMAGES, SHAPE, 16);
    let output = convolution.output();
    let buffer = |shape: [usize; 3]| vec![0f32; shape.into_iter().product()];
    let mut filter = buffer(convolution.filter_shape());
    transform_filter(32, 16, &waves(16 * 32 * 9, 0.1), &mut filter);
    let (mut inputs, mut outputs) = (
        buffer(convolution.inputs_shape()),
        buffer(convolution.outputs_shape()),
    );
    let mut y = vec![0f32; IMAGES * output.len()];
    computed(y.len(), &mut |out| {
        let view = ImagesMut::dense(out, IMAGES, output);
        convolution.forward(
            threads,
            &x,
            &filter,
            &bias[..16],
            &mut inputs,
            &mut outputs,
            view,
        );
        y.copy_from_slice(out);
    });
    computed(IMAGES * 16, &mut |out| {
        out.fill(0.0);
        let gradient = Images::dense(&gradient[..y.len()], IMAGES, output);
        let y = Images::dense(&y, IMAGES, output);
        convolution.output_gradient(threads, gradient, y, &mut outputs, out);
    });
    let mut working = buffer(convolution.inputs_shape());
    computed(x.len(), &mut |out| {
        convolution.input_gradient(threads, &outputs, &filter, &mut working, out)
    });
    computed(16 * 32 * 9, &mut |out| {
        convolution.weight_gradient(threads, &inputs, &outputs, &mut filter, out)
    });
    results
}

#[test]
fn kernels_give_the_same_bits_on_any_number_of_threads() {
    let bits = |results: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        let bits = |values: Vec<f32>| values.iter().map(|v| v.to_bits()).collect();
        results.into_iter().map(bits).collect()
    };
    let one = bits(all(Threads::ONE));
    // Fewer threads than images, as many, and more.
    for threads in [2, 3, 5, 8] {
        assert!(one == bits(all(Threads::new(threads))), "{threads} threads");
    }
}
