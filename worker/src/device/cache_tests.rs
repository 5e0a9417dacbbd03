//! What is kept of the frozen layers changes no bit of a training.

use fovea_core::googlenet::{FlatLayout, HEAD_INPUT, fill, param_specs};
use fovea_core::metrics::Score;
use fovea_core::random::{DROPOUT, dropout_mask};
use fovea_core::spec::{Init, Precision, RunSpec};
use fovea_dataset::rotate90;

use crate::hits::Hits;

use super::{Batch, Buffer, Device, Flat, Pixels, Split, TorchDevice};

/// At this size and with the stem frozen, libtorch gives an image other bits alone than in a batch.
const SIZE: usize = 32;
/// Of one image's activations: 192 channels of 4x4 px.
const FEATURES: u64 = 192 * 4 * 4 * 4;

fn spec(frozen: &[&str]) -> RunSpec {
    let mut spec: RunSpec = toml::from_str("name = 'r'\ndataset = 'd'").unwrap();
    spec.model.frozen = frozen.iter().map(|f| f.to_string()).collect();
    spec
}

fn stem() -> RunSpec {
    spec(&["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"])
}

fn device(spec: &RunSpec, cache: u64) -> TorchDevice {
    let layout = FlatLayout::new(2, &spec.model.frozen).unwrap();
    TorchDevice::new(spec, &layout, tch::Device::Cpu).with_cache(cache)
}

fn first_state(spec: &RunSpec, seed: u64) -> Vec<f32> {
    let layout = FlatLayout::new(2, &spec.model.frozen).unwrap();
    let mut state = vec![0.0; layout.state_len()];
    let specs = param_specs(2);
    for entry in layout.state_entries() {
        if let Some(spec) = specs.iter().find(|spec| spec.name == entry.name) {
            let values = &mut state[entry.offset..entry.offset + entry.len];
            fill(spec, Init::Msra, seed, values);
        }
    }
    state
}

/// Photographs that look random; `salt` tells splits apart.
fn photograph(sample: u32, salt: u32) -> Vec<u8> {
    let mut x = (sample + 1).wrapping_mul(2_654_435_761) ^ salt;
    (0..SIZE * SIZE * 3)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 24) as u8
        })
        .collect()
}

fn batch(split: Split, images: &[(u32, u8)]) -> Batch {
    let mut batch = Batch {
        size: SIZE,
        ..Batch::default()
    };
    let mut pixels = Vec::new();
    for &(sample, quarter_turns) in images {
        let upright = photograph(sample, split as u32);
        let mut turned = vec![0; upright.len()];
        rotate90(&upright, SIZE, quarter_turns, &mut turned);
        pixels.extend(turned);
        batch.samples.push(sample);
        batch.quarter_turns.push(quarter_turns);
        batch.labels.push(sample % 2);
        if split == Split::Train {
            let mut mask = vec![0.0; HEAD_INPUT];
            dropout_mask(DROPOUT, 1, 0, (sample, 0), 0.4, &mut mask);
            batch.dropout.extend(mask);
        }
    }
    batch.pixels = Pixels::Turned(pixels);
    batch
}

/// Four images out of five, at changing rotations and in changing company; now and then one or three.
fn drawn(step: u32) -> Batch {
    let count = [4, 1, 4, 3][step as usize % 4];
    let images: Vec<_> = (0..count)
        .map(|i| ((step + i) % 5, ((step / 2 + i) % 2) as u8 * 3))
        .collect();
    batch(Split::Train, &images)
}

/// Everything that training gives, as bits.
#[derive(PartialEq)]
struct Trace {
    gradients: Vec<Vec<u32>>,
    scores: Vec<Vec<Score>>,
    state: Vec<u32>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Trains from `state` through `steps`, with validation after every third.
fn train(device: &mut TorchDevice, state: &[f32], steps: std::ops::Range<u32>) -> Trace {
    device.load(state).unwrap();
    let len = device.layout().trainable_len();
    let mut part = device.gradient_buffer(1);
    let (mut gradients, mut scores) = (Vec::new(), Vec::new());
    for step in steps {
        let batch = drawn(step);
        device.gradient(&batch, &mut part).unwrap();
        gradients.push(bits(&part.read(0..len)));
        let count = batch.samples.len() as f32;
        assert!(device.update(&mut part, 1.0 / count, 1e-6).unwrap());
        if step % 3 == 2 {
            for images in [&[(0, 0), (1, 0), (2, 0)][..], &[(3, 0)]] {
                let batch = self::batch(Split::Validation, images);
                let rows = device.score(&batch).unwrap();
                assert!(rows.iter().all(|row| row.loss.is_finite()), "{rows:?}");
                scores.push(rows);
            }
        }
    }
    let len = device.layout().state_len();
    Trace {
        gradients,
        scores,
        state: bits(&device.read(0..len).unwrap()),
    }
}

#[test]
fn a_cache_of_any_size_changes_no_bit() {
    of_any_size(stem(), FEATURES);
}

#[test]
fn nor_does_it_in_bf16_where_it_holds_twice_as_much() {
    let mut spec = stem();
    spec.train.precision = Precision::Bf16;
    of_any_size(spec, FEATURES / 2);
}

/// `each` is what one image takes.
fn of_any_size(spec: RunSpec, each: u64) {
    let state = first_state(&spec, 3);
    let without = train(&mut device(&spec, 0), &state, 0..8);
    assert_ne!(
        without.gradients[0], without.gradients[4],
        "the draws change"
    );

    // Room for six of the fourteen images, of which validation takes four: training images are replaced.
    let mut small = device(&spec, 6 * each + 1);
    assert!(train(&mut small, &state, 0..8) == without);
    let counts = small.cache_counts();
    assert_eq!((counts.images, counts.bytes), (6, 6 * each));
    assert!(counts.hits > 0 && counts.misses > 14, "{counts:?}");

    let mut large = device(&spec, 1 << 30);
    assert!(train(&mut large, &state, 0..8) == without);
    let cold = large.cache_counts();
    assert_eq!(cold.images, 14);
    assert_eq!(cold.misses, 14, "each is computed once");
    assert_eq!(cold.bytes, 14 * each);
    // Once more, with all of them kept.
    assert!(train(&mut large, &state, 0..8) == without);
    assert_eq!(large.cache_counts().misses, cold.misses);
}

/// Devices come and go with runs; the counters of the worker go on.
#[test]
fn hits_of_all_caches_add_up_and_those_without_room_do_not_count() {
    let spec = stem();
    let state = first_state(&spec, 3);
    let hits = Hits::default();
    let mut seen = (0, 0);
    for _ in 0..2 {
        let mut device = device(&spec, 1 << 30).counting(hits.clone());
        train(&mut device, &state, 0..8);
        let counts = device.cache_counts();
        seen = (seen.0 + counts.hits, seen.1 + counts.misses);
        assert_eq!((hits.hits(), hits.misses()), seen);
    }
    assert!(seen.0 > 0 && seen.1 == 28, "{seen:?}");
    train(&mut device(&spec, 0).counting(hits.clone()), &state, 0..8);
    assert_eq!((hits.hits(), hits.misses()), seen);
}

/// A worker that joins has nothing cached, while the others have.
#[test]
fn who_joins_late_computes_what_the_others_have_kept() {
    let spec = stem();
    let first = first_state(&spec, 3);
    let mut stayed = device(&spec, 1 << 30);
    train(&mut stayed, &first, 0..5);
    let len = stayed.layout().state_len();
    let middle = stayed.read(0..len).unwrap();
    let went_on = train(&mut stayed, &middle, 5..8);
    let mut joined = device(&spec, 1 << 30);
    assert!(train(&mut joined, &middle, 5..8) == went_on);
    assert!(stayed.cache_counts().hits > joined.cache_counts().hits);
}

#[test]
fn only_other_frozen_parameters_empty_the_cache() {
    let spec = stem();
    let mut device = device(&spec, 1 << 30);
    let mut state = first_state(&spec, 3);
    train(&mut device, &state, 0..2);
    let kept = device.cache_counts().images;
    assert!(kept > 0);

    let params = device.layout().params_range();
    let frozen = device.layout().frozen_range();
    state[params.start] += 1.0;
    device.load(&state).unwrap();
    assert_eq!(device.cache_counts().images, kept);

    state[frozen.end - 1] = f32::from_bits(state[frozen.end - 1].to_bits() ^ 1);
    device.load(&state).unwrap();
    assert_eq!(device.cache_counts().images, 0);
    assert_eq!(device.cache_counts().bytes, 0);

    // Other weights altogether: what was kept of the old ones must not be used.
    let other = first_state(&spec, 4);
    let mut fresh = self::device(&spec, 0);
    assert!(train(&mut device, &state, 0..2) != train(&mut fresh, &other, 0..2));
    assert!(train(&mut device, &other, 0..2) == train(&mut fresh, &other, 0..2));
}

#[test]
fn images_of_others_are_forgotten() {
    let spec = stem();
    let mut device = device(&spec, 1 << 30);
    let state = first_state(&spec, 3);
    let before = train(&mut device, &state, 0..3);
    device.keep_cached(&|image| image.split == Split::Validation);
    assert_eq!(device.cache_counts().images, 4);
    assert!(train(&mut device, &state, 0..3) == before);
}

/// A GPU's way of having its images, on the CPU: given once, kept upright, turned where they lie.
#[test]
fn images_that_the_device_holds_give_the_same_bits() {
    for spec in [stem(), spec(&[])] {
        let state = first_state(&spec, 3);
        let len = FlatLayout::new(2, &spec.model.frozen)
            .unwrap()
            .trainable_len();
        let mut results = Vec::new();
        for images in [None, Some(3), Some(10)] {
            let budget = images.unwrap_or(0) * (SIZE * SIZE * 3) as u64;
            let mut device = device(&spec, 0).with_images(budget);
            device.load(&state).unwrap();
            let held = device.hold_images(SIZE, [5, 0], 5, &|_| true);
            assert_eq!(held.is_some(), images.is_some());
            let mut part = device.gradient_buffer(1);
            let (mut gradients, mut sent) = (Vec::new(), 0);
            for step in 0..5 {
                let mut batch = drawn(step);
                if let Some(held) = &held {
                    let missing = |s: &u32| !held.holds(Split::Train, *s);
                    let given: Vec<bool> = batch.samples.iter().map(missing).collect();
                    let bytes = batch.samples.iter().filter(|s| missing(s));
                    let bytes = bytes.flat_map(|&s| photograph(s, Split::Train as u32));
                    let bytes: Vec<u8> = bytes.collect();
                    sent += given.iter().filter(|given| **given).count();
                    batch.pixels = Pixels::Upright { given, bytes };
                }
                device.gradient(&batch, &mut part).unwrap();
                gradients.push(bits(&part.read(0..len + 1)));
            }
            match images {
                // All five came once.
                Some(10) => assert_eq!(sent, 5),
                Some(_) => assert!(sent > 5, "there was room for three"),
                None => assert_eq!(sent, 0),
            }
            results.push(gradients);
        }
        assert!(results.iter().all(|found| *found == results[0]));
    }
}

#[test]
fn with_a_trainable_first_layer_nothing_is_kept() {
    let spec = spec(&["conv2/3x3_reduce"]);
    let mut device = device(&spec, 1 << 30);
    train(&mut device, &first_state(&spec, 3), 0..1);
    assert_eq!(device.cache_counts(), Default::default());
}

#[test]
fn a_batch_that_does_not_say_its_rotations_is_refused() {
    let mut device = device(&stem(), 0);
    let mut part = device.gradient_buffer(1);
    let mut batch = drawn(0);
    batch.quarter_turns.pop();
    let error = device.gradient(&batch, &mut part).unwrap_err();
    assert!(error.to_string().contains("3 rotations"), "{error}");
}

/// A GPU's way of doing it, on the CPU: gradients in tensors instead of the process's memory.
#[test]
fn a_step_in_tensors_gives_the_same_bits() {
    let spec = stem();
    let state = first_state(&spec, 3);
    let mut results = Vec::new();
    for in_tensors in [false, true] {
        let mut device = device(&spec, 0);
        device.load(&state).unwrap();
        let len = device.layout().trainable_len();
        let tensor =
            |n: usize| Buffer::Tensor(tch::Tensor::zeros([n as i64], tch::kind::FLOAT_CPU));
        let mut part = match in_tensors {
            true => Flat::new(device.layout(), 2, tensor),
            false => device.gradient_buffer(2),
        };
        device.gradient(&drawn(0), &mut part).unwrap();
        let gradient = bits(&part.read(0..len + 2));
        assert!(device.update(&mut part, 0.25, 1e-6).unwrap());
        let all = device.layout().state_len();
        let after = device.read(0..all).unwrap();
        part.write(5, &[f32::INFINITY]);
        assert!(!device.update(&mut part, 0.25, 1e-6).unwrap());
        assert_eq!(
            bits(&device.read(0..all).unwrap()),
            bits(&after),
            "left alone"
        );
        results.push((gradient, bits(&after)));
    }
    assert!(results[0] == results[1]);
}
