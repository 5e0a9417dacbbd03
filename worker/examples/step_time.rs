//! Times a training step and the scoring of a batch with and without the cache of the frozen layers' activations, in
//! float32 and in bfloat16. The four take turns, so that other load on the machine slows all of them alike.
//!
//! ```text
//! cargo run --release -p fovea-worker --example step_time -- \
//!     [rounds=7] [frozen layers of the stem=3] [threads=1] [rows=1111, which of the four: 0 or 1 each]
//! ```
//!
//! It prints wall-clock and processor time: the latter hardly depends on what else runs on the machine.
//! Ratios are ratios of processor times of one round.
//!
//! Each row ends with digests (XXH3) of all gradients and losses, of all scores, and of the state after the
//! last step. Two builds whose digests are equal compute the same bits.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use fovea_core::googlenet::{HEAD_INPUT, fill, param_specs};
use fovea_core::spec::{Precision, RunSpec};
use fovea_worker::device::{Batch, Device, Pixels, TorchDevice};
use xxhash_rust::xxh3::Xxh3;

const STEM: [&str; 3] = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"];
const BATCH: usize = 16;
const SIZE: usize = 224;
const WARM_UP: usize = 2;

struct Row {
    name: &'static str,
    device: TorchDevice,
    steps: Vec<Took>,
    scores: Vec<Took>,
    gradients_digest: Xxh3,
    scores_digest: Xxh3,
}

#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    processor: f64,
}

impl Took {
    /// Both, one after the other.
    fn and(self, other: Took) -> Took {
        Took {
            wall: self.wall + other.wall,
            processor: self.processor + other.processor,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: usize| match arguments.next() {
        Some(text) => text.parse().context("give numbers"),
        None => Ok(default),
    };
    let (rounds, frozen, threads) = (argument(7)?, argument(3)?, argument(1)?);
    let wanted = format!("{:04}", argument(1111)?);
    let mut wanted = wanted.chars();
    let mut spec: RunSpec = toml::from_str("name = 'step'\ndataset = 'none'")?;
    let layers = STEM.get(..frozen).context("the stem has three layers")?;
    spec.model.frozen = layers.iter().map(|name| name.to_string()).collect();
    spec.train.threads = threads as u32;

    let mut rows = Vec::new();
    for (precision, names) in [
        (Precision::Float32, ["float32", "float32, cached"]),
        (Precision::Bf16, ["bf16", "bf16, cached"]),
    ] {
        spec.train.precision = precision;
        for (name, cache) in names.into_iter().zip([0, 1 << 30]) {
            if wanted.next() != Some('1') {
                continue;
            }
            rows.push(Row {
                name,
                device: device(&spec, cache)?,
                steps: Vec::new(),
                scores: Vec::new(),
                gradients_digest: Xxh3::new(),
                scores_digest: Xxh3::new(),
            });
        }
    }
    anyhow::ensure!(!rows.is_empty(), "no row is wanted");
    let batch = batch();
    let mut gradient = rows[0].device.gradient_buffer(1);
    for round in 0..WARM_UP + rounds {
        for row in &mut rows {
            let device = &mut row.device;
            let computed = time(|| device.gradient(&batch, &mut gradient).map(drop))?;
            // The gradient, and the sum of the losses behind it.
            let bits = gradient.read(0..device.layout().trainable_len() + 1);
            bits.iter()
                .for_each(|value| row.gradients_digest.update(&value.to_le_bytes()));
            let updated = time(|| {
                let finite = device.update(&mut gradient, 1.0 / BATCH as f32, 1e-9)?;
                anyhow::ensure!(finite, "the gradient is not finite");
                Ok(())
            })?;
            let step = computed.and(updated);
            let mut scores = Vec::new();
            let score = time(|| device.score(&batch).map(|found| scores = found))?;
            row.scores_digest.update(format!("{scores:?}").as_bytes());
            if round >= WARM_UP {
                row.steps.push(step);
                row.scores.push(score);
            }
        }
    }
    println!(
        "batch {BATCH}, {SIZE} px, {frozen} layers frozen, {threads} threads, {rounds} rounds"
    );
    for row in &mut rows {
        println!(
            "{:16} digests: gradients {:016x}, scores {:016x}, state {:032x}",
            row.name,
            row.gradients_digest.digest(),
            row.scores_digest.digest(),
            row.device.digest()?,
        );
    }
    for row in &rows {
        let [wall, processor] = [
            median(row.steps.iter().map(|t| t.wall)),
            median(row.steps.iter().map(|t| t.processor)),
        ];
        let score = median(row.scores.iter().map(|t| t.processor));
        let pairs = rows[0].steps.iter().zip(&row.steps);
        let mut ratios: Vec<f64> = pairs.map(|(a, b)| a.processor / b.processor).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{:16} step {wall:6.0} ms wall, {processor:6.0} ms processor; score {score:6.0} ms; {:.2} times \
             the first ({:.2} to {:.2})",
            row.name,
            median(ratios.iter().copied()),
            ratios[0],
            ratios[ratios.len() - 1],
        );
    }
    Ok(())
}

fn device(spec: &RunSpec, cache: u64) -> anyhow::Result<TorchDevice> {
    let layout = spec.model.layout()?;
    let mut state = vec![0.0; layout.state_len()];
    let params = param_specs(layout.network());
    for entry in layout.state_entries() {
        if let Some(param) = params.iter().find(|param| param.name == entry.name) {
            let values = &mut state[entry.offset..entry.offset + entry.len];
            fill(param, spec.model.init, 1, values);
        }
    }
    let mut device = TorchDevice::new(spec, &layout, tch::Device::Cpu).with_cache(cache);
    device.load(&state)?;
    Ok(device)
}

fn batch() -> Batch {
    let mut x = 1u32;
    let mut byte = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        (x >> 24) as u8
    };
    Batch {
        samples: (0..BATCH as u32).collect(),
        quarter_turns: vec![0; BATCH],
        labels: (0..BATCH as u32).map(|sample| sample % 2).collect(),
        class_weights: Arc::default(),
        size: SIZE,
        pixels: Pixels::Turned((0..BATCH * SIZE * SIZE * 3).map(|_| byte()).collect()),
        dropout: vec![1.0; BATCH * HEAD_INPUT],
        dropout_seeds: Vec::new(),
    }
}

fn time<E>(work: impl FnOnce() -> Result<(), E>) -> Result<Took, E> {
    let (begun, before) = (Instant::now(), processor_time());
    work()?;
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    Ok(Took {
        wall: ms(begun.elapsed()),
        processor: ms(processor_time() - before),
    })
}

/// Processor time of all threads of this process so far.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `clock_gettime` writes to `time` only, and `time` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
