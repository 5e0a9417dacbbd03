//! Dropout, average, classifier and loss, compared with a computation in f64.

use fovea_kernels::Bf16;
use fovea_kernels::cuda::head::{
    Classifier, Loss, average, classifier_gradient, classify, dropout_masks, loss, mean_gradient,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::emulator::{Memory, Random, TestNumber, assert_close, assert_same, rounded, run};

#[test]
fn dropout_masks_are_those_of_the_keyed_stream() {
    for (units, ratio) in [(1024usize, 0.4f64), (100, 0.5), (17, 0.0)] {
        let mut random = Random(units as u64);
        let keys: Vec<[u8; 32]> = (0..5)
            .map(|_| std::array::from_fn(|_| random.bits() as u8))
            .collect();
        let (at_keys, out) = (Memory::of(&keys), Memory::<f32>::unset(5 * units));
        run::<f32>(&dropout_masks(at_keys.at(), out.at(), 5, units, ratio));
        let (keep, threshold) = (
            (1.0 / (1.0 - ratio)) as f32,
            (ratio * 4_294_967_296.0) as u64,
        );
        let mut expected = Vec::new();
        for key in keys {
            let mut stream = ChaCha8Rng::from_seed(key);
            let unit = |_| match u64::from(stream.next_u32()) < threshold {
                true => 0.0,
                false => keep,
            };
            expected.extend((0..units).map(unit));
        }
        assert_same("masks", &out.read(), &expected);
    }
}

fn averaged<N: TestNumber>([images, pixels, groups]: [usize; 3], seed: u64) {
    let channels = 8 * groups;
    let mut random = Random(seed);
    let (x, wide) = rounded::<N>(random.units(images * pixels * channels, 4.0));
    let mask: Vec<f32> = (0..images * channels)
        .map(|_| random.below(2) as f32 * 1.5)
        .collect();
    let at_mask = Memory::of(&mask);
    for with_mask in [false, true] {
        let out = Memory::<f32>::unset(images * channels);
        let own = with_mask.then(|| at_mask.at());
        run::<N>(&average(x.at(), own, out.at(), [images, pixels, channels]));
        let mut expected = Vec::new();
        for (at, multiplier) in mask.iter().enumerate() {
            let (image, c) = (at / channels, at % channels);
            let value = |p: usize| f64::from(wide[(image * pixels + p) * channels + c]);
            let mean = (0..pixels).map(value).sum::<f64>() / pixels as f64;
            expected.push(mean as f32 * if with_mask { *multiplier } else { 1.0 });
        }
        assert_close("average", &out.read(), &expected, 1e-5, 1e-6);
    }
}

/// Loss and ln P of one image's logits, by the definitions.
fn definition(z: &[f64], label: usize, ordinal: bool) -> (f64, Vec<f64>) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let p: Vec<f64> = if ordinal {
        let mut reached = 1.0;
        let mut p = Vec::new();
        for z in z {
            p.push(reached * sigmoid(-z));
            reached *= sigmoid(*z);
        }
        p.push(reached);
        p
    } else {
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        z.iter().map(|z| z.exp() / total).collect()
    };
    (-p[label].ln(), p.iter().map(|p| p.ln()).collect())
}

fn classified(images: usize, inputs: usize, outputs: usize, ordinal: bool, seed: u64) {
    let mut random = Random(seed);
    let classes = outputs + usize::from(ordinal);
    let x = random.units(images * inputs, 1.0);
    let w = random.units(outputs * inputs, 0.5);
    let b = random.units(outputs, 1.0);
    let labels: Vec<i32> = (0..images).map(|_| random.below(classes) as i32).collect();
    let class_weights: Vec<f32> = (0..classes).map(|_| random.unit() + 1.5).collect();
    let [at_x, at_w, at_b, at_class] = [&x, &w, &b, &class_weights].map(|v| Memory::of(v));
    let at_labels = Memory::of(&labels);
    let classifier = Classifier {
        weights: at_w.at(),
        bias: at_b.at(),
        inputs,
        outputs,
    };
    let logits = Memory::<f32>::unset(images * outputs);
    run::<f32>(&classify(classifier, at_x.at(), logits.at(), images));
    let z = logits.read();
    let mut expected = Vec::new();
    for at in 0..images * outputs {
        let (image, k) = (at / outputs, at % outputs);
        let product = |c: usize| f64::from(x[image * inputs + c]) * f64::from(w[k * inputs + c]);
        expected.push(((0..inputs).map(product).sum::<f64>() + f64::from(b[k])) as f32);
    }
    assert_close("logits", &z, &expected, 1e-5, 1e-5);

    let gradient = Memory::<f32>::unset(images * outputs);
    let log_p = Memory::<f32>::unset(images * classes);
    let sum = Memory::<f32>::unset(1);
    let tensors = Loss {
        logits: logits.at(),
        labels: at_labels.at(),
        weights: Some(at_class.at()),
        gradient: Some(gradient.at()),
        log_p: Some(log_p.at()),
        sum: Some(sum.at()),
    };
    run::<f32>(&loss(tensors, images, outputs, ordinal));
    let (mut total, mut all_p, mut by_logits) = (0.0, Vec::new(), Vec::new());
    for image in 0..images {
        let own: Vec<f64> = z[image * outputs..][..outputs]
            .iter()
            .map(|z| f64::from(*z))
            .collect();
        let label = labels[image] as usize;
        let weight = f64::from(class_weights[label]);
        let (loss, log_p) = definition(&own, label, ordinal);
        total += weight * loss;
        all_p.extend(log_p.iter().map(|p| *p as f32));
        for k in 0..outputs {
            let moved = |by: f64| {
                let mut there = own.clone();
                there[k] += by;
                definition(&there, label, ordinal).0
            };
            by_logits.push((weight * (moved(1e-5) - moved(-1e-5)) / 2e-5) as f32);
        }
    }
    assert_close("loss", &sum.read(), &[total as f32], 1e-5, 1e-5);
    assert_close("ln P", &log_p.read(), &all_p, 1e-5, 1e-5);
    let g = gradient.read();
    assert_close("by the logits", &g, &by_logits, 1e-4, 1e-5);

    // Without weights, and without what is not wanted.
    let plain = Loss {
        weights: None,
        gradient: None,
        log_p: Some(log_p.at()),
        sum: None,
        ..tensors
    };
    run::<f32>(&loss(plain, images, outputs, ordinal));
    assert_close("ln P", &log_p.read(), &all_p, 1e-5, 1e-5);
    assert_same("untouched", &gradient.read(), &g);

    let (by_w, by_b) = (
        Memory::<f32>::unset(outputs * inputs),
        Memory::<f32>::unset(outputs),
    );
    let into = Classifier {
        weights: by_w.at(),
        bias: by_b.at(),
        inputs,
        outputs,
    };
    run::<f32>(&classifier_gradient(into, gradient.at(), at_x.at(), images));
    let over_images = |value: &dyn Fn(usize) -> f64| (0..images).map(value).sum::<f64>() as f32;
    let mut expected = Vec::new();
    for at in 0..outputs * inputs {
        let (k, c) = (at / inputs, at % inputs);
        expected.push(over_images(&|i| {
            f64::from(g[i * outputs + k]) * f64::from(x[i * inputs + c])
        }));
    }
    assert_close("weights", &by_w.read(), &expected, 1e-5, 1e-5);
    let expected: Vec<f32> = (0..outputs)
        .map(|k| over_images(&|i| f64::from(g[i * outputs + k])))
        .collect();
    assert_close("bias", &by_b.read(), &expected, 1e-5, 1e-5);

    let mask: Vec<f32> = (0..images * inputs)
        .map(|_| random.below(2) as f32 * 2.0)
        .collect();
    let at_mask = Memory::of(&mask);
    for with_mask in [false, true] {
        let out = Memory::<f32>::unset(images * inputs);
        let own = with_mask.then(|| at_mask.at());
        run::<f32>(&mean_gradient(
            classifier,
            gradient.at(),
            own,
            out.at(),
            [images, 6],
        ));
        let mut expected = Vec::new();
        for (at, multiplier) in mask.iter().enumerate() {
            let (image, c) = (at / inputs, at % inputs);
            let product =
                |k: usize| f64::from(g[image * outputs + k]) * f64::from(w[k * inputs + c]);
            let sum = (0..outputs).map(product).sum::<f64>() as f32;
            expected.push(sum * if with_mask { *multiplier } else { 1.0 } / 6.0);
        }
        assert_close("by the mean", &out.read(), &expected, 1e-5, 1e-6);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn images_are_averaged(images in 1usize..4, pixels in 1usize..50, groups in 1usize..130, seed: u64) {
        averaged::<f32>([images, pixels, groups], seed);
        averaged::<Bf16>([images, pixels, groups], seed);
    }

    #[test]
    fn classifier_and_loss_are_those_of_the_definition(
        images in 1usize..20, inputs in 1usize..100, outputs in 1usize..11, ordinal: bool, seed: u64,
    ) {
        classified(images, inputs, if ordinal { outputs } else { outputs + 1 }, ordinal, seed);
    }
}

/// More images than the loss has threads.
#[test]
fn a_loss_is_of_all_images() {
    classified(300, 4, 3, true, 1);
    classified(300, 4, 3, false, 1);
}

/// Far from 0 a probability is 0 in f32, and the loss is still a number.
#[test]
fn a_loss_is_finite_where_a_probability_is_zero() {
    let logits = Memory::of(&[300f32, -300.0, 300.0, 300.0]);
    let labels = Memory::of(&[2i32]);
    for (ordinal, expected) in [(true, 600.0), (false, 3f32.ln())] {
        let (gradient, sum) = (Memory::<f32>::unset(4), Memory::<f32>::unset(1));
        let tensors = Loss {
            logits: logits.at(),
            labels: labels.at(),
            weights: None,
            gradient: Some(gradient.at()),
            log_p: None,
            sum: Some(sum.at()),
        };
        run::<f32>(&loss(tensors, 1, 4, ordinal));
        assert_close("loss", &sum.read(), &[expected], 1e-6, 0.0);
        assert!(gradient.read().iter().all(|g| g.is_finite()));
    }
}
