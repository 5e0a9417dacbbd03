//! GoogLeNet on the CPU with libtorch.

use std::ops::Range;
use std::time::Instant;

use fovea_core::googlenet::{FlatLayout, HEAD_INPUT};
use fovea_core::metrics::Score;
use fovea_core::spec::RunSpec;
use tch::{Kind, Tensor, no_grad};

use super::{
    Batch, CacheCounts, Device, DeviceError, FeatureCache, Image, MicroBatch, Split, digest_of,
};
use crate::model::raw::values;
use crate::model::{Net, loss_sum};
use crate::optimizer::Sgd;

/// Means of ImageNet's blue, green and red bytes, which the published weights expect to be subtracted.
const MEANS: [f32; 3] = [104.0, 117.0, 123.0];

/// GoogLeNet and its optimizer on the CPU.
pub struct CpuDevice {
    net: Net,
    optimizer: Sgd,
    means: Tensor,
    cache: FeatureCache,
}

impl CpuDevice {
    /// A network and an optimizer for `spec`, all zero until [`Device::load`]. Sets the number of threads
    /// of the whole process, on which the bits of the result depend.
    pub fn new(spec: &RunSpec, layout: &FlatLayout) -> Self {
        tch::set_num_threads(spec.train.threads as i32);
        let device = tch::Device::Cpu;
        let t = &spec.train;
        Self {
            net: Net::new(layout, device).with_precision(t.precision),
            optimizer: Sgd::new(layout, device, t.momentum, t.weight_decay, t.head_lr_mult),
            means: Tensor::from_slice(&MEANS),
            cache: FeatureCache::default(),
        }
    }

    /// Lets it keep up to `bytes` of the frozen layers' activations, which saves their time and changes
    /// no bit. The device must then see images of one dataset only.
    pub fn with_cache(mut self, bytes: u64) -> Self {
        self.cache = FeatureCache::new(bytes);
        self
    }

    /// What the cache of the frozen layers' activations holds and was good for.
    pub fn cache_counts(&self) -> CacheCounts {
        self.cache.counts()
    }

    /// What the first layer with anything to train takes: `[n, channels, height, width]` in
    /// channels-last order. Computed or copied image by image, so that an image's bits are the same
    /// whatever comes with it and whatever is kept (see [`FeatureCache`]).
    fn features(&mut self, split: Split, batch: &Batch) -> Result<Tensor, DeviceError> {
        let (n, size) = (batch.samples.len(), batch.size);
        let record = size * size * 3;
        if batch.quarter_turns.len() != n || batch.pixels.len() != n * record {
            return Err(DeviceError {
                doing: "reading a batch",
                reason: format!(
                    "{n} images of {size} px with {} rotations and {} bytes",
                    batch.quarter_turns.len(),
                    batch.pixels.len()
                ),
            });
        }
        let means = &self.means;
        let input = |pixels: &[u8], n: usize| {
            let shape = [n as i64, size as i64, size as i64, 3];
            let pixels = Tensor::from_data_size(pixels, &shape, Kind::Uint8);
            (pixels.to_kind(Kind::Float) - means).permute([0, 3, 1, 2])
        };
        if n == 0 || !self.net.has_frozen_prefix() {
            return Ok(input(&batch.pixels, n));
        }
        let images = batch.samples.iter().zip(&batch.quarter_turns);
        let each: Vec<Tensor> = images
            .zip(batch.pixels.chunks_exact(record))
            .map(|((&sample, &quarter_turns), pixels)| {
                let image = Image {
                    split,
                    sample,
                    quarter_turns,
                };
                let net = &self.net;
                self.cache.get_or(image, || {
                    let features = net.features(&input(pixels, 1));
                    // In the memory's order, so that it is contiguous for the cache.
                    features.permute([0, 2, 3, 1]).contiguous()
                })
            })
            .collect();
        Ok(Tensor::cat(&each, 0).permute([0, 3, 1, 2]))
    }

    /// Whether `state` has the frozen parameters that are loaded, to the bit.
    fn same_frozen(&self, state: &[f32]) -> bool {
        let range = self.layout().frozen_range();
        if range.is_empty() {
            return true;
        }
        // SAFETY: made contiguous, f32 and on the CPU, and only the thread that owns the device, which
        // is in here, changes it.
        let loaded = unsafe { values(self.net.frozen()) };
        bytemuck::cast_slice::<f32, u8>(loaded) == bytemuck::cast_slice::<f32, u8>(&state[range])
    }

    /// The three parts of the state: tensor and where it lies.
    fn parts(&self) -> [(&Tensor, Range<usize>); 3] {
        let layout = self.net.layout();
        [
            (self.net.flat_params(), layout.params_range()),
            (self.optimizer.velocity(), layout.velocity_range()),
            (self.net.frozen(), layout.frozen_range()),
        ]
    }
}

impl Device for CpuDevice {
    fn layout(&self) -> &FlatLayout {
        self.net.layout()
    }

    fn load(&mut self, state: &[f32]) -> Result<(), DeviceError> {
        let expected = self.layout().state_len();
        if state.len() != expected {
            return Err(DeviceError {
                doing: "loading the state",
                reason: format!("{} elements, expected {expected}", state.len()),
            });
        }
        if !self.same_frozen(state) {
            self.cache.clear();
        }
        no_grad(|| {
            for (tensor, range) in self.parts() {
                tensor
                    .shallow_clone()
                    .f_copy_(&Tensor::from_slice(&state[range]))
                    .map_err(failed("loading the state"))?;
            }
            Ok(())
        })
    }

    fn read(&mut self, range: Range<usize>) -> Result<Vec<f32>, DeviceError> {
        let mut values = vec![0f32; range.len()];
        for (tensor, place) in self.parts() {
            let from = range.start.max(place.start);
            let to = range.end.min(place.end);
            if from >= to {
                continue;
            }
            let part = tensor.narrow(0, (from - place.start) as i64, (to - from) as i64);
            let into = &mut values[from - range.start..to - range.start];
            part.f_copy_data(into, to - from)
                .map_err(failed("copying the state"))?;
        }
        Ok(values)
    }

    fn digest(&mut self) -> Result<u128, DeviceError> {
        let parts = self.parts();
        let parts = parts
            .iter()
            // libtorch has no memory for an empty tensor, and a null pointer makes no slice.
            .filter(|(_, place)| !place.is_empty())
            // SAFETY: the three are made contiguous, f32 and on the CPU, and only the thread that owns
            // the device, which is in here, changes them.
            .map(|(tensor, _)| unsafe { values(tensor) });
        Ok(digest_of(parts))
    }

    fn gradient(&mut self, batch: &Batch, gradient: &mut [f32]) -> Result<MicroBatch, DeviceError> {
        let begun = Instant::now();
        let labels: Vec<i64> = batch.labels.iter().map(|&l| i64::from(l)).collect();
        let labels = Tensor::from_slice(&labels);
        let dropout = (!batch.dropout.is_empty())
            .then(|| Tensor::from_slice(&batch.dropout).view([-1, HEAD_INPUT as i64]));
        let loaded = Instant::now();
        let features = self.features(Split::Train, batch)?;
        let pass = self.net.train_features(&features, dropout.as_ref());
        let loss = loss_sum(pass.logits(), &labels);
        let value = loss
            .f_double_value(&[])
            .map_err(failed("computing the loss"))?;
        let forward = Instant::now();
        pass.gradient(&self.net, &loss, &borrowed(gradient));
        Ok(MicroBatch {
            loss_sum: value as f32,
            load: loaded - begun,
            forward: forward - loaded,
            backward: forward.elapsed(),
        })
    }

    fn update(&mut self, gradient: &mut [f32], rate: f64) -> Result<(), DeviceError> {
        self.optimizer
            .step(self.net.flat_params(), &borrowed(gradient), rate);
        Ok(())
    }

    fn score(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError> {
        let features = self.features(Split::Validation, batch)?;
        let logits = self.net.forward_features(&features);
        let log_p = logits.log_softmax(-1, Kind::Float);
        let rows: Vec<Vec<f32>> = Vec::try_from(log_p).map_err(failed("reading the scores"))?;
        Ok(rows
            .into_iter()
            .zip(batch.samples.iter().zip(&batch.labels))
            .map(|(log_p, (&sample, &label))| Score {
                sample,
                label,
                loss: -log_p[label as usize],
                probabilities: log_p.iter().map(|l| l.exp()).collect(),
            })
            .collect())
    }

    fn keep_cached(&mut self, wanted: &dyn Fn(&Image) -> bool) {
        self.cache.retain(wanted);
    }
}

/// A tensor over memory that Rust owns, so that the reduction and libtorch share one buffer.
fn borrowed(values: &mut [f32]) -> Tensor {
    // Safety: the memory is contiguous f32 of that length, and every tensor made here is dropped before
    // the borrow ends: callers pass it on by reference to calls that keep nothing of it.
    unsafe {
        Tensor::from_blob(
            values.as_mut_ptr().cast::<u8>(),
            &[values.len() as i64],
            &[1],
            Kind::Float,
            tch::Device::Cpu,
        )
    }
}

fn failed(doing: &'static str) -> impl Fn(tch::TchError) -> DeviceError {
    move |error| DeviceError {
        doing,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::state_digest;
    use super::*;

    fn spec(frozen: &str) -> RunSpec {
        let text = format!("name = 'r'\ndataset = 'd'\n[model]\nfrozen = [{frozen}]");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn the_digest_is_that_of_the_state_and_sees_every_bit() {
        for frozen in ["", "'conv1/7x7_s2'"] {
            let spec = spec(frozen);
            let layout = FlatLayout::new(5, &spec.model.frozen).unwrap();
            let mut device = CpuDevice::new(&spec, &layout);
            let len = layout.state_len();
            let mut state: Vec<f32> = (0..len).map(|i| (i as f32).sin()).collect();
            device.load(&state).unwrap();
            let before = device.digest().unwrap();
            assert_eq!(before, state_digest(&device.read(0..len).unwrap()));
            assert_eq!(before, state_digest(&state));

            let parts = [
                layout.params_range(),
                layout.velocity_range(),
                layout.frozen_range(),
            ];
            for part in parts.into_iter().filter(|part| !part.is_empty()) {
                for (at, bit) in [(part.start, 0), (part.end - 1, 31)] {
                    let kept = state[at];
                    state[at] = f32::from_bits(kept.to_bits() ^ (1 << bit));
                    device.load(&state).unwrap();
                    let flipped = device.digest().unwrap();
                    assert_ne!(flipped, before, "element {at} of {len}");
                    assert_eq!(flipped, state_digest(&state));
                    state[at] = kept;
                }
            }
            device.load(&state).unwrap();
            assert_eq!(device.digest().unwrap(), before);
        }
    }
}
