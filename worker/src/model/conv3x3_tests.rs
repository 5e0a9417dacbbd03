//! Our 3x3 convolution and our pooling against libtorch's, forward and backward.

use fovea_kernels::pool::Stride;
use tch::{Device, Kind, Tensor, no_grad};

use super::conv3x3::{self, Filters, fits};
use super::pool::max_pool;
use super::tests::{apart, noise};

fn conv_relu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    conv3x3::conv_relu(&Filters::default(), x, weight, bias)
}

/// Gradients by `inputs` of a sum over `y` with uneven weights.
fn gradients(y: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    let weights = (noise(&y.size(), 5.0) * 3.0).cos().to_kind(y.kind());
    let loss = (y * weights).sum(None);
    Tensor::run_backward(&[loss], inputs, false, false)
}

fn wants(x: &Tensor, kind: Kind) -> Tensor {
    x.to_kind(kind).detach().set_requires_grad(true)
}

/// Every remainder of a tile's side, maps smaller than a tile, one image and several.
#[test]
fn convolution_and_its_gradients_are_those_of_the_definition() {
    for (threads, batch, height, width, from, to) in [
        (1, 3, 9, 14, 32, 48),
        (1, 1, 4, 4, 16, 16),
        (1, 2, 1, 3, 16, 32),
        (1, 1, 7, 10, 64, 16),
        (2, 3, 28, 27, 16, 32),
    ] {
        tch::set_num_threads(threads);
        let x = noise(&[batch, from, height, width], 20.0);
        let weight = noise(&[to, from, 3, 3], 0.1);
        let bias = noise(&[to], 1.0);
        assert!(fits(&x, &weight, 1, 1));
        let inputs = [&x, &weight, &bias];
        let [x, weight, bias] = inputs.map(|t| wants(t, Kind::Float));
        let y = conv_relu(&x, &weight, &bias);
        let [x64, weight64, bias64] = inputs.map(|t| wants(t, Kind::Double));
        let y64 = x64
            .conv2d(&weight64, Some(&bias64), [1, 1], [1, 1], [1, 1], 1)
            .relu();
        let case = format!("{batch} x {from} x {height} x {width}");
        let off = apart(&y, &y64);
        assert!(off < 1e-5, "{case}: {off}");
        let zeros = y64.eq(0.0).to_kind(Kind::Double).mean(Kind::Double);
        assert!(
            (0.1..0.9).contains(&zeros.double_value(&[])),
            "ReLU matters"
        );
        let ours = gradients(&y, &[&x, &weight, &bias]);
        let theirs = gradients(&y64, &[&x64, &weight64, &bias64]);
        for (name, (ours, theirs)) in ["x", "weight", "bias"].iter().zip(ours.iter().zip(&theirs)) {
            let off = apart(ours, theirs);
            assert!(off < 1e-5, "{case}: gradient by {name} is off by {off}");
        }
        // Without a graph, the same bits.
        assert_eq!(no_grad(|| conv_relu(&x, &weight, &bias)), y.detach());
    }
}

#[test]
fn a_gradient_may_be_part_of_a_wider_one() {
    tch::set_num_threads(1);
    let x = wants(&noise(&[2, 16, 6, 5], 2.0), Kind::Float);
    let weight = wants(&noise(&[32, 16, 3, 3], 1.0), Kind::Float);
    let bias = wants(&noise(&[32], 1.0), Kind::Float);
    let inputs = [&x, &weight, &bias];
    let other = noise(&[2, 16, 6, 5], 1.0);
    let within = Tensor::cat(&[&other, &conv_relu(&x, &weight, &bias), &other], 1);
    let y = conv_relu(&x, &weight, &bias);
    let weights = noise(&[2, 64, 6, 5], 1.0);
    let loss = (&within * &weights).sum(None);
    let wide = Tensor::run_backward(&[loss], &inputs, false, false);
    let loss = (y * weights.narrow(1, 16, 32)).sum(None);
    let narrow = Tensor::run_backward(&[loss], &inputs, false, false);
    assert_eq!(wide, narrow);
}

#[test]
fn only_what_is_trained_has_a_gradient() {
    tch::set_num_threads(1);
    let x = noise(&[1, 16, 4, 4], 2.0);
    let weight = wants(&noise(&[16, 16, 3, 3], 1.0), Kind::Float);
    let bias = noise(&[16], 1.0);
    let y = conv_relu(&x, &weight, &bias);
    assert!(gradients(&y, &[&weight])[0].abs().max().double_value(&[]) > 0.0);
    assert!(!conv_relu(&x, &weight.detach(), &bias).requires_grad());
}

#[test]
fn a_frozen_filter_is_transformed_anew_when_it_has_changed() {
    tch::set_num_threads(1);
    let filters = Filters::default();
    let x = noise(&[1, 16, 4, 4], 2.0);
    let flat = noise(&[2 * 16 * 16 * 9], 1.0);
    let [weight, _] = [0, 1].map(|i| flat.narrow(0, i * 16 * 16 * 9, 16 * 16 * 9));
    let weight = weight.view([16, 16, 3, 3]);
    let bias = noise(&[16], 1.0);
    let before = conv3x3::conv_relu(&filters, &x, &weight, &bias);
    assert_eq!(conv3x3::conv_relu(&filters, &x, &weight, &bias), before);
    // As a state is loaded: into the flat tensor that the weight is a view of.
    no_grad(|| flat.shallow_clone().copy_(&(&flat * 2.0)));
    let after = conv3x3::conv_relu(&filters, &x, &weight, &bias);
    assert_ne!(after, before);
    assert_eq!(after, conv_relu(&x, &weight, &bias));
}

#[cfg_attr(
    not(has_noamx),
    ignore = "this processor's own bf16 instructions are faster"
)]
#[test]
fn a_layer_in_bfloat16_is_that_in_single_precision_but_for_rounding() {
    tch::set_num_threads(1);
    let x = noise(&[2, 32, 9, 7], 2.0).to_kind(Kind::BFloat16);
    assert!(fits(
        &x,
        &Tensor::zeros([16, 32, 3, 3], (Kind::Float, Device::Cpu)),
        1,
        1,
    ));
    let [weight, bias] = [noise(&[16, 32, 3, 3], 0.5), noise(&[16], 1.0)];
    let [weight, bias] = [weight, bias].map(|t| wants(&t, Kind::Float));
    let half = wants(&x, Kind::BFloat16);
    let single = wants(&x, Kind::Float);
    let found = conv_relu(&half, &weight, &bias);
    let expected = conv_relu(&single, &weight, &bias);
    assert_eq!(found, expected.to_kind(Kind::BFloat16));
    let found = gradients(&found, &[&half, &weight, &bias]);
    let expected = gradients(&expected, &[&single, &weight, &bias]);
    for (name, (found, expected)) in ["x", "weight", "bias"]
        .iter()
        .zip(found.iter().zip(&expected))
    {
        let off = apart(found, expected);
        assert!(off < 0.02, "gradient by {name} is off by {off}");
    }
}

#[test]
fn other_convolutions_are_left_to_libtorch() {
    let options = (Kind::Float, Device::Cpu);
    let x = Tensor::zeros([1, 16, 8, 8], options);
    let filter = |shape: [i64; 4]| Tensor::zeros(shape, options);
    assert!(fits(&x, &filter([16, 16, 3, 3]), 1, 1));
    assert!(!fits(&x, &filter([16, 16, 5, 5]), 1, 2));
    assert!(!fits(&x, &filter([16, 16, 3, 3]), 2, 1));
    assert!(!fits(&x, &filter([24, 16, 3, 3]), 1, 1));
    assert!(!fits(
        &x.to_kind(Kind::Double),
        &filter([16, 16, 3, 3]),
        1,
        1
    ));
}

#[test]
fn what_is_not_a_number_stays_so() {
    tch::set_num_threads(1);
    let x = noise(&[1, 16, 8, 8], 1.0);
    let _ = x
        .narrow(1, 3, 1)
        .narrow(2, 4, 1)
        .narrow(3, 4, 1)
        .fill_(f64::NAN);
    let weight = noise(&[16, 16, 3, 3], 1.0);
    let y = conv_relu(&x, &weight, &noise(&[16], 1.0));
    assert!(y.isnan().any().int64_value(&[]) != 0);
    let y = max_pool(&x, Stride::One);
    assert!(y.isnan().any().int64_value(&[]) != 0);
}

#[test]
fn pooling_and_its_gradient_are_libtorchs_bits() {
    for threads in [1, 2] {
        tch::set_num_threads(threads);
        for (stride, shape) in [
            (Stride::One, [2, 32, 7, 9]),
            (Stride::One, [1, 16, 1, 2]),
            (Stride::Two, [3, 48, 8, 11]),
            (Stride::Two, [1, 16, 2, 3]),
        ] {
            // Few different values, so that there are equals in most windows.
            let x = wants(&noise(&shape, 3.0).floor(), Kind::Float);
            let (step, pad) = (stride.pixels() as i64, stride.padding() as i64);
            let bf16 = wants(&x, Kind::BFloat16);
            let y = max_pool(&bf16, stride);
            assert_eq!(
                (y.kind(), y.to_kind(Kind::Float)),
                (Kind::BFloat16, max_pool(&x, stride))
            );
            let y = max_pool(&x, stride);
            let expected = x.max_pool2d([3, 3], [step; 2], [pad; 2], [1, 1], true);
            assert_eq!(y, expected, "{shape:?}");
            assert_eq!(
                gradients(&y, &[&x]),
                gradients(&expected, &[&x]),
                "{shape:?}"
            );
            let expected = gradients(&max_pool(&x, stride), &[&x]).remove(0);
            let found = gradients(&max_pool(&bf16, stride), &[&bf16]).remove(0);
            assert_eq!(found.kind(), Kind::BFloat16);
            assert!(apart(&found, &expected) < 0.02, "{shape:?}");
        }
    }
}
