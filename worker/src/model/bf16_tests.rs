//! Computed in bfloat16, the network stays near to itself in single precision.

use fovea_core::spec::{Head, Precision};
use tch::{Kind, Tensor};

use super::tests::{backward, gradient, net, noise};
use super::{Net, loss_sum};

const STEM: [&str; 3] = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"];
const LABELS: [i64; 4] = [0, 1, 1, 0];

fn bf16(frozen: &[&str]) -> Net {
    net(2, frozen).with_precision(Precision::Bf16)
}

fn images(size: i64) -> Tensor {
    // Whole numbers, as bytes less their means are.
    noise(&[4, 3, size, size], 120.0).round()
}

fn loss(net: &Net, x: &Tensor) -> f64 {
    loss_sum(
        Head::Softmax,
        &net.forward(x),
        &Tensor::from_slice(&LABELS),
        None,
    )
    .double_value(&[])
}

fn cosine(a: &Tensor, b: &Tensor) -> f64 {
    let dot = |a: &Tensor, b: &Tensor| {
        (a.to_kind(Kind::Double) * b.to_kind(Kind::Double))
            .sum(None)
            .double_value(&[])
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn loss_and_gradient_are_those_of_single_precision_but_for_rounding() {
    // Every cut of the tape, and none.
    for frozen in [&[][..], &STEM[..1], &STEM[..2], &STEM] {
        let (single, half) = (net(2, frozen), bf16(frozen));
        let x = images(96);
        let (expected, found) = (loss(&single, &x), loss(&half, &x));
        assert_ne!(found, expected, "computed in the same format");
        let off = (found - expected).abs() / expected;
        assert!(off < 0.02, "{frozen:?}: loss {found}, expected {expected}");
        let expected = gradient(&single, &x, &LABELS, None);
        let found = gradient(&half, &x, &LABELS, None);
        let alike = cosine(&found, &expected);
        assert!(alike > 0.99, "{frozen:?}: cosine {alike}");
        for entry in single.layout().trainable() {
            let part = |flat: &Tensor| flat.narrow(0, entry.offset as i64, entry.spec.len() as i64);
            let alike = cosine(&part(&found), &part(&expected));
            assert!(alike > 0.9, "{frozen:?}: {} {alike}", entry.spec.name);
        }
    }
}

#[test]
fn passes_give_the_same_bits() {
    let x = images(64);
    for frozen in [&[][..], &STEM] {
        let net = bf16(frozen);
        let first = gradient(&net, &x, &LABELS, None);
        assert_eq!(gradient(&net, &x, &LABELS, None), first);
        assert_eq!(gradient(&bf16(frozen), &x, &LABELS, None), first);
        assert_eq!(net.forward(&x), net.forward(&x));
    }
}

#[test]
fn parameters_and_logits_stay_in_single_precision() {
    let net = bf16(&STEM);
    let x = images(64);
    assert_eq!(net.flat_params().kind(), Kind::Float);
    assert_eq!(net.frozen().kind(), Kind::Float);
    assert_eq!(net.forward(&x).kind(), Kind::Float);
    // Not numbers of half the bits in a wider format: the classifier's sums are made in f32.
    let logits = net.forward(&x);
    assert_ne!(logits, logits.to_kind(Kind::BFloat16).to_kind(Kind::Float));
}

/// The features are rounded when they are kept, and the next layer would round them alike.
#[test]
fn kept_features_are_of_half_the_size_and_give_the_same_bits() {
    for frozen in [&STEM[..1], &STEM[..2], &STEM] {
        let net = bf16(frozen);
        let x = images(64);
        let features = net.features(&x);
        assert_eq!(features.kind(), Kind::BFloat16);
        let direct = gradient(&net, &x, &LABELS, None);
        let pass = net.train_features(&features, None);
        assert_eq!(backward(&net, pass, &LABELS), direct);
    }
}
