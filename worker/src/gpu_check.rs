//! `fovea-worker devices --check`: a training step by libtorch's operations and by Fovea's own kernels, compared on a GPU.
//!
//! It needs no coordinator and no dataset: weights and images are drawn. Whoever has a GPU sees in a minute whether the
//! kernels are right there, and with `--time` what they gain. `own_kernels` has it done before it uses them.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Instant;

use fovea_core::dropout::classifier_seed;
use fovea_core::googlenet::{FlatLayout, HEAD_INPUT, fill, param_specs};
use fovea_core::random::{DROPOUT, below, dropout_mask, stream};
use fovea_core::spec::{Head, Precision, RunSpec};
use fovea_dataset::rotate90;

use crate::device::{Batch, Device, DeviceError, Flat, Pixels, TorchDevice};

/// Images of a small step that is compared.
const IMAGES: usize = 5;
/// Images of a step that is timed, and their width and height.
const TIMED: (usize, usize) = (256, 224);
/// Memory for the frozen layers' outputs of the timed images, in bytes.
const CACHE: u64 = 1 << 30;

/// Memory for photographs, in bytes.
const HELD: u64 = 1 << 30;

/// A configuration that is compared.
#[derive(Debug, Clone, Copy)]
struct Case {
    precision: Precision,
    head: Head,
    images: usize,
    /// Width and height of the images.
    size: usize,
    /// The frozen layers begin with one of these.
    frozen: &'static [&'static str],
}

/// Largest relative difference in float32, and in TF32, whose factors have 10 bits of mantissa.
const LIMIT: f64 = 1e-4;
const LIMIT_TF32: f64 = 5e-3;
/// How much further from float32 our bf16 may be than libtorch's.
const ROUNDING: f64 = 1.5;

const FLOAT32: Case = Case {
    precision: Precision::Float32,
    head: Head::Softmax,
    images: IMAGES,
    size: 64,
    frozen: &["conv1", "conv2/3x3_reduce"],
};

const CASES: [Case; 7] = [
    FLOAT32,
    Case {
        precision: Precision::Tf32,
        ..FLOAT32
    },
    Case {
        head: Head::Ordinal,
        size: 97,
        frozen: &["conv"],
        ..FLOAT32
    },
    Case {
        frozen: &["conv1"],
        size: 75,
        ..FLOAT32
    },
    Case {
        precision: Precision::Bf16,
        frozen: &["conv", "inception_3", "inception_4a", "inception_4b"],
        ..FLOAT32
    },
    // At 81 px one maximum or ReLU of the drawn images is so nearly tied that rounding decides it.
    Case {
        frozen: &[],
        size: 75,
        ..FLOAT32
    },
    Case {
        precision: Precision::Bf16,
        frozen: &[],
        ..FLOAT32
    },
];

/// A step as runs take it. Its number of images is asked for.
const LARGE: Case = Case {
    precision: Precision::Bf16,
    size: 224,
    frozen: &["conv"],
    ..FLOAT32
};

/// Relative differences of the two ways.
#[derive(Debug, Clone, Copy)]
struct Differences {
    gradient: f64,
    loss: f64,
    update: f64,
    scores: f64,
}

impl Differences {
    fn all_at(limit: f64) -> Self {
        Self {
            gradient: limit,
            loss: limit,
            update: limit,
            scores: limit,
        }
    }

    fn between(found: &Stepped, expected: &Stepped) -> Self {
        Self {
            gradient: relative(&found.gradient, &expected.gradient),
            loss: relative(&[found.loss], &[expected.loss]),
            update: relative(&found.moved, &expected.moved),
            scores: relative(&found.scores, &expected.scores),
        }
    }

    fn all(self) -> [f64; 4] {
        let Self {
            gradient,
            loss,
            update,
            scores,
        } = self;
        [gradient, loss, update, scores]
    }

    /// NaN is within no limit.
    fn within(self, limit: Self) -> bool {
        let mut pairs = self.all().into_iter().zip(limit.all());
        pairs.all(|(found, limit)| found <= limit)
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [gradient, loss, update, scores] = self.all();
        write!(
            f,
            "gradient {gradient:.1e}, loss {loss:.1e}, update {update:.1e}, scores {scores:.1e}"
        )
    }
}

/// Images of the large step where nothing else is asked for, on a GPU with `free` bytes of memory.
pub fn images_for(free: u64) -> usize {
    (free / (256 << 20)).clamp(2, 64) as usize
}

/// Compares the two ways on `place`, a GPU that is current in this thread, in steps of a few small images and in one of `images` of
/// 224 px. Compiled kernels are kept in `folder`.
///
/// # Errors
/// The report, if a difference is too large or the kernels cannot be used.
pub fn check(place: tch::Device, folder: &Path, images: usize) -> Result<String, String> {
    let mut report = String::new();
    let mut failed = false;
    for case in CASES.into_iter().chain([Case { images, ..LARGE }]) {
        let what = format!(
            "{:?}, {:?} head, {} images of {} px, frozen {}",
            case.precision,
            case.head,
            case.images,
            case.size,
            if case.frozen.is_empty() {
                "nothing".to_owned()
            } else {
                case.frozen.join(" ")
            }
        );
        // Writing to a string does not fail.
        let _ = match compared(case, place, folder) {
            Ok(Some((found, limit))) => {
                let good = found.within(limit);
                failed |= !good;
                let verdict = if good { "ok  " } else { "FAIL" };
                writeln!(report, "{verdict} {what}: {found}; limits: {limit}")
            }
            Ok(None) => {
                failed = true;
                writeln!(
                    report,
                    "FAIL {what}: the kernels cannot be used; the log says why"
                )
            }
            Err(error) => {
                failed = true;
                writeln!(report, "FAIL {what}: {error}")
            }
        };
    }
    match failed {
        true => Err(report),
        false => Ok(report),
    }
}

/// Times `steps` steps of 256 images of 224 px with the stem frozen, each way, in turn, with and without the cache of the frozen
/// layers' outputs: a line each.
///
/// # Errors
/// If the GPU fails.
pub fn times(place: tch::Device, folder: &Path, steps: u32) -> Result<String, DeviceError> {
    let (images, size) = TIMED;
    let batch = drawn_batch(images, size);
    let mut report = String::new();
    for precision in [Precision::Float32, Precision::Tf32, Precision::Bf16] {
        let case = Case {
            precision,
            frozen: &["conv"],
            ..FLOAT32
        };
        let (spec, layout) = network(case);
        let state = drawn_state(&spec, &layout);
        for (cache, what) in [(0, "no cache"), (CACHE, "cache warm")] {
            for ours in [false, true] {
                let device = TorchDevice::new(&spec, &layout, place).with_cache(cache);
                let mut device = match ours {
                    true => device.with_kernels(&spec, folder.to_owned()),
                    false => device,
                };
                device.load(&state)?;
                let mut sum = device.gradient_buffer(1);
                let mut step = || {
                    device.gradient(&batch, &mut sum)?;
                    // It waits for the GPU.
                    device.update(&mut sum, 1.0 / images as f32, 1e-6)
                };
                for _ in 0..3 {
                    step()?;
                }
                let begun = Instant::now();
                for _ in 0..steps {
                    step()?;
                }
                let seconds = begun.elapsed().as_secs_f64() / f64::from(steps);
                let by = if ours { "Fovea's kernels" } else { "libtorch" };
                // Writing to a string does not fail.
                let _ = writeln!(
                    report,
                    "{precision:?}, {what}, {by}: {:.2} ms a step, {:.0} images/s",
                    seconds * 1e3,
                    images as f64 / seconds
                );
            }
        }
    }
    Ok(report)
}

/// The spec and the layout of a case.
fn network(case: Case) -> (RunSpec, FlatLayout) {
    let mut spec: RunSpec = toml::from_str("name = 'check'\ndataset = 'none'").expect("a run file");
    spec.train.precision = case.precision;
    spec.model.head = case.head;
    spec.model.frozen = param_specs(2usize)
        .into_iter()
        .map(|param| param.layer)
        .filter(|layer| case.frozen.iter().any(|start| layer.starts_with(start)))
        .collect();
    spec.model.frozen.dedup();
    let outputs = 4 - usize::from(case.head == Head::Ordinal);
    let layout = FlatLayout::new(outputs, &spec.model.frozen).expect("the layers exist");
    (spec, layout)
}

/// Our way against libtorch's in float32, and the limits. In bf16 libtorch's own distance from its float32 says what rounding does.
/// None if the kernels cannot be used.
fn compared(
    case: Case,
    place: tch::Device,
    folder: &Path,
) -> Result<Option<(Differences, Differences)>, DeviceError> {
    let (spec, layout) = network(case);
    let state = drawn_state(&spec, &layout);
    let batch = drawn_batch(case.images, case.size);
    let composed = |precision| {
        let (spec, _) = network(Case { precision, ..case });
        let device = TorchDevice::new(&spec, &layout, place).with_cache(CACHE);
        stepped(device.with_images(HELD), &state, &batch)
    };
    let fused = TorchDevice::new(&spec, &layout, place)
        .with_cache(CACHE)
        .with_images(HELD);
    let fused = fused.with_kernels(&spec, folder.to_owned());
    if fused.path() != "fused" {
        return Ok(None);
    }
    // Before another device sets how GPUs compute.
    let ours = stepped(fused, &state, &batch)?;
    let exact = composed(Precision::Float32)?;
    let found = Differences::between(&ours, &exact);
    let limit = match case.precision {
        Precision::Float32 => Differences::all_at(LIMIT),
        Precision::Tf32 => Differences::all_at(LIMIT_TF32),
        Precision::Bf16 => {
            let theirs = Differences::between(&composed(Precision::Bf16)?, &exact);
            // A loss or a score may be close by chance.
            let limit = |theirs: f64| (ROUNDING * theirs).max(LIMIT_TF32);
            Differences {
                gradient: limit(theirs.gradient),
                loss: limit(theirs.loss),
                update: limit(theirs.update),
                scores: limit(theirs.scores),
            }
        }
    };
    Ok(Some((found, limit)))
}

/// What a step gives.
struct Stepped {
    gradient: Vec<f32>,
    loss: f32,
    /// By how much each parameter and velocity moved.
    moved: Vec<f32>,
    scores: Vec<f32>,
}

fn stepped(mut device: TorchDevice, state: &[f32], batch: &Batch) -> Result<Stepped, DeviceError> {
    device.load(state)?;
    let len = device.layout().trainable_len();
    let mut sum = device.gradient_buffer(1);
    device.gradient(batch, &mut sum)?;
    let gradient = sum.read(0..len);
    let loss = sum.read(len..len + 1)[0];
    let mut again = |device: &mut TorchDevice, batch: &Batch, doing| {
        device.gradient(batch, &mut sum)?;
        match same_bits(&sum.read(0..len), &gradient) {
            true => Ok(()),
            false => Err(DeviceError {
                doing,
                reason: "the bits differ from those of the first time".into(),
            }),
        }
    };
    again(&mut device, batch, "computing the same gradient again")?;
    // From photographs as runs send them, of which the GPU keeps half in its memory.
    let images = batch.samples.len();
    for given in [
        vec![true; images],
        (0..images).map(|i| i >= images / 2).collect(),
    ] {
        device.keep_cached(&|_| false);
        if given[0] {
            device.hold_images(batch.size, [images, images], images / 2, &|_| true);
        }
        let batch = upright(batch, given);
        let doing = "computing the same gradient from photographs that the GPU rotates";
        again(&mut device, &batch, doing)?;
    }
    let scale = 1.0 / batch.samples.len() as f32;
    device.update(&mut sum, scale, 0.01)?;
    let moved = device.read(0..2 * len)?;
    leaves_what_is_not_finite(&mut device, &mut sum, scale, &moved)?;
    let moved = moved
        .iter()
        .zip(state)
        .map(|(after, before)| after - before);
    let moved = moved.collect();
    let scores = |device: &mut TorchDevice| -> Result<Vec<f32>, DeviceError> {
        let scores = device.score(batch)?.into_iter();
        Ok(scores.flat_map(|score| score.probabilities).collect())
    };
    // Computed, from the cache, and some of each.
    let computed = scores(&mut device)?;
    let kept = scores(&mut device)?;
    device.keep_cached(&|image| image.sample % 2 == 0);
    let some = scores(&mut device)?;
    if [&kept, &some]
        .iter()
        .any(|again| !same_bits(again, &computed))
    {
        return Err(DeviceError {
            doing: "scoring again from the cache of the frozen layers' outputs",
            reason: "the bits differ from those of the first time".into(),
        });
    }
    Ok(Stepped {
        gradient,
        loss,
        moved,
        scores: computed,
    })
}

/// An update whose gradient or loss is not finite does nothing to the `state`.
fn leaves_what_is_not_finite(
    device: &mut TorchDevice,
    sum: &mut Flat,
    scale: f32,
    state: &[f32],
) -> Result<(), DeviceError> {
    let loss = device.layout().trainable_len();
    // Layer by layer the training loop looks at the loss itself.
    let fused = (device.path() == "fused").then_some(loss);
    for place in [Some(0), Some(loss - 1), fused].into_iter().flatten() {
        let before = sum.read(place..place + 1);
        sum.write(place, &[f32::INFINITY]);
        let took = device.update(sum, scale, 0.01)?;
        if took || !same_bits(&device.read(0..state.len())?, state) {
            return Err(DeviceError {
                doing: "updating with a gradient or a loss that is not finite",
                reason: format!("number {place} is infinite, and the state has changed"),
            });
        }
        sum.write(place, &before);
    }
    Ok(())
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    bytemuck::cast_slice::<f32, u8>(a) == bytemuck::cast_slice::<f32, u8>(b)
}

/// The length of the difference, relative to that of `expected`.
fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = found.iter().zip(expected);
    let off = length(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let all = length(&mut expected.iter().map(|x| f64::from(*x)));
    off / all.max(f64::MIN_POSITIVE)
}

/// Parameters as a run draws them, and biases that are not zero, so that a wrong one shows.
fn drawn_state(spec: &RunSpec, layout: &FlatLayout) -> Vec<f32> {
    let mut state = vec![0f32; layout.state_len()];
    let mut random = stream("check", &[1]);
    let entries = layout.state_entries();
    for param in param_specs(layout.network()) {
        let place = entries.iter().find(|entry| entry.name == param.name);
        let place = place.expect("the layout holds every parameter");
        let values = &mut state[place.offset..place.offset + place.len];
        fill(&param, spec.model.init, 7, values);
        if param.shape.len() == 1 {
            values
                .iter_mut()
                .for_each(|bias| *bias = below(&mut random, 1000) as f32 / 4000.0 - 0.05);
        }
    }
    state
}

/// The same photographs as before they were rotated, those that are `given`.
fn upright(batch: &Batch, given: Vec<bool>) -> Batch {
    let Pixels::Turned(turned) = &batch.pixels else {
        unreachable!("drawn photographs are rotated already")
    };
    let size = batch.size;
    let mut bytes = Vec::new();
    let each = turned.chunks_exact(size * size * 3);
    for ((turned, turns), _) in each
        .zip(&batch.quarter_turns)
        .zip(&given)
        .filter(|(_, given)| **given)
    {
        let start = bytes.len();
        bytes.resize(start + turned.len(), 0);
        rotate90(turned, size, (4 - turns) % 4, &mut bytes[start..]);
    }
    Batch {
        pixels: Pixels::Upright { given, bytes },
        ..batch.clone()
    }
}

fn drawn_batch(images: usize, size: usize) -> Batch {
    let mut random = stream("check", &[2, size as u64]);
    let pixels = (0..images * size * size * 3).map(|_| below(&mut random, 256) as u8);
    let pixels = pixels.collect();
    let mut dropout = vec![0f32; images * HEAD_INPUT];
    for (sample, mask) in dropout.chunks_exact_mut(HEAD_INPUT).enumerate() {
        dropout_mask(DROPOUT, 3, 1, (sample as u32, 0), 0.4, mask);
    }
    let dropout_seeds = (0..images as u32).map(|sample| classifier_seed(3, 1, (sample, 0)));
    Batch {
        samples: (0..images as u32).collect(),
        quarter_turns: (0..images).map(|i| (i % 4) as u8).collect(),
        labels: (0..images as u32).map(|i| i % 4).collect(),
        class_weights: vec![1.0, 0.5, 2.0, 1.5].into(),
        size,
        pixels: Pixels::Turned(pixels),
        dropout,
        dropout_seeds: dropout_seeds.collect(),
    }
}
