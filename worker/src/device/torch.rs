//! GoogLeNet with libtorch, on the CPU or a GPU.
//!
//! On the CPU the gradient buffers are the process's own memory, which libtorch borrows. On a GPU they are tensors in the
//! GPU's memory, and a step waits for the GPU only where the training loop needs a number.

mod frozen;
mod kernels;

use std::ffi::c_int;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use fovea_core::class_map::ClassMap;
use fovea_core::googlenet::FlatLayout;
use fovea_core::metrics::Score;
use fovea_core::spec::{Precision, RunSpec, Scheme};
use tch::{Tensor, no_grad};

use self::kernels::Labelled;
use super::buffer::sent;
use super::fused::{Fused, RowCache};
use super::gradients::{IntoBuckets, all_finite, over};
use super::{
    Batch, Buckets, Buffer, CacheCounts, Device, DeviceError, FeatureCache, Flat, HeldImages,
    Image, ImageStore, PhaseTimes, Queued, Split, digest_of, failed,
};
use crate::hits::Hits;
use crate::model::raw::values;
use crate::model::{Net, log_probabilities, loss_sum};
use crate::optimizer::Sgd;
use crate::shim::check;

/// Means of ImageNet's blue, green and red bytes. The published weights expect inputs with these subtracted.
pub const MEANS: [f32; 3] = [104.0, 117.0, 123.0];

/// GoogLeNet and its optimizer.
pub struct TorchDevice {
    net: Net,
    scheme: Scheme,
    /// How often the auxiliary heads' losses count.
    auxiliary: f64,
    /// Share of the classifier's inputs that are dropped.
    dropout: f64,
    optimizer: Sgd,
    means: Tensor,
    cache: FeatureCache,
    images: Option<ImageStore>,
    /// Our own kernels, where they compute the trained modules.
    fused: Option<Fused>,
    /// Then in place of `cache`.
    rows: RowCache,
}

impl TorchDevice {
    /// A network and an optimizer for `spec` on `device`, all zero until [`Device::load`]. On the CPU this sets libtorch's
    /// number of threads for the whole process, because the bits of the result depend on it.
    pub fn new(spec: &RunSpec, layout: &FlatLayout, device: tch::Device) -> Self {
        match device {
            tch::Device::Cpu => tch::set_num_threads(spec.train.threads as i32),
            // Otherwise cuDNN chooses algorithms by measured time, and some add in the order in which threads finish:
            // the bits would change from run to run.
            _ => set_gpu_arithmetic(spec.train.precision == Precision::Tf32),
        }
        let t = &spec.train;
        Self {
            net: Net::new(layout, device).with_precision(t.precision),
            scheme: spec.scheme(),
            auxiliary: spec.model.auxiliary,
            dropout: spec.model.dropout,
            optimizer: Sgd::new(layout, device, t.momentum, t.weight_decay, t.head_lr_mult),
            means: sent(&MEANS, device),
            cache: FeatureCache::default(),
            images: None,
            fused: None,
            rows: RowCache::new(0, Hits::default()),
        }
    }

    /// ln of each class's probability, `[images, classes]`, on the device.
    fn log_probabilities(&mut self, split: Split, batch: &Batch) -> Result<Tensor, DeviceError> {
        let features = self.features(split, batch)?;
        let Some(fused) = self.fused.as_ref().filter(|_| !batch.samples.is_empty()) else {
            let logits = self.net.forward_features(&features);
            return Ok(log_probabilities(self.scheme.head, &logits));
        };
        no_grad(|| {
            let labelled = Labelled::of(batch, self.net.device());
            let pass = fused.forward(labelled.input(self.scheme.head, &features, None), false)?;
            Ok(pass.log_p)
        })
    }

    /// Lets the device keep up to `bytes` of images in its own memory. That saves sending them in every step and changes no
    /// bit of the result. It helps on GPUs only: a CPU reads images from the host's memory anyway.
    pub fn with_images(mut self, bytes: u64) -> Self {
        self.images = (bytes > 0).then(|| ImageStore::new(self.net.device(), bytes));
        self
    }

    /// Lets the device keep up to `bytes` of the frozen layers' activations. That saves computing them in every epoch and
    /// changes no bit of the result. All batches must then be of one dataset.
    pub fn with_cache(mut self, bytes: u64) -> Self {
        self.cache = FeatureCache::new(bytes);
        self
    }

    /// Hits and misses of the cache of activations are counted there, too. After [`Self::with_cache`].
    pub fn counting(mut self, hits: Hits) -> Self {
        self.cache.count_in(hits);
        self
    }

    /// Size and hits of the cache of the frozen layers' activations.
    pub fn cache_counts(&self) -> CacheCounts {
        match &self.fused {
            Some(_) => self.rows.counts(),
            None => self.cache.counts(),
        }
    }

    /// Whether the frozen parameters in `state` equal the loaded ones bit for bit.
    fn same_frozen(&self, state: &[f32]) -> bool {
        let range = self.layout().frozen_range();
        if range.is_empty() {
            return true;
        }
        let loaded = self.net.frozen().to_device(tch::Device::Cpu);
        // SAFETY: the tensor is contiguous and f32, and only the thread that owns the device, which is this one, changes
        // it.
        let loaded = unsafe { values(&loaded) };
        bytemuck::cast_slice::<f32, u8>(loaded) == bytemuck::cast_slice::<f32, u8>(&state[range])
    }

    /// The three parts of the state, each with its range of elements in the state.
    fn parts(&self) -> [(&Tensor, Range<usize>); 3] {
        let layout = self.net.layout();
        [
            (self.net.flat_params(), layout.params_range()),
            (self.optimizer.velocity(), layout.velocity_range()),
            (self.net.frozen(), layout.frozen_range()),
        ]
    }
}

impl Device for TorchDevice {
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
            self.rows.retain(&|_| false);
        }
        no_grad(|| {
            for (tensor, range) in self.parts() {
                tensor
                    .shallow_clone()
                    .f_copy_(&Tensor::from_slice(&state[range]))
                    .map_err(failed("loading the state"))?;
            }
            Ok(())
        })?;
        self.fused.as_ref().map_or(Ok(()), Fused::loaded)
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
            part.to_device(tch::Device::Cpu)
                .f_copy_data(into, to - from)
                .map_err(failed("copying the state"))?;
        }
        Ok(values)
    }

    fn digest(&mut self) -> Result<u128, DeviceError> {
        // On the CPU this copies nothing.
        let parts = self
            .parts()
            .map(|(tensor, _)| tensor.to_device(tch::Device::Cpu));
        let parts = parts
            .iter()
            // An empty tensor has a null pointer, which is not valid for a slice.
            .filter(|part| part.numel() > 0)
            // SAFETY: the tensors are contiguous and f32, and only the thread that owns the device, which is this one,
            // changes them.
            .map(|tensor| unsafe { values(tensor) });
        Ok(digest_of(parts))
    }

    fn gradient_buffer(&self, behind: usize) -> Flat {
        let device = self.net.device();
        Flat::new(self.layout(), behind, |len| Buffer::zeros(len, device))
    }

    fn gradient(
        &mut self,
        batch: &Batch,
        into: &mut dyn Buckets,
    ) -> Result<PhaseTimes, DeviceError> {
        if self.fused.is_some() && !batch.samples.is_empty() {
            return self.fused_gradient(batch, into);
        }
        let begun = Instant::now();
        let device = self.net.device();
        let labels: Vec<i64> = batch.labels.iter().map(|&l| i64::from(l)).collect();
        let labels = sent(&labels, device);
        let dropout = (!batch.dropout.is_empty())
            .then(|| sent(&batch.dropout, device).view([batch.samples.len() as i64, -1]));
        let loaded = Instant::now();
        let features = self.features(Split::Train, batch)?;
        let pass = self.net.train_features(&features, dropout.as_ref());
        let weights =
            (!batch.class_weights.is_empty()).then(|| sent(&batch.class_weights[..], device));
        let head = self.scheme.head;
        let loss_of = |logits: &Tensor| loss_sum(head, logits, &labels, weights.as_ref());
        let sum = loss_of(pass.logits());
        let auxiliary: Vec<Tensor> = pass
            .auxiliary()
            .iter()
            .map(|head| loss_of(&head.logits) * self.auxiliary)
            .collect();
        let loss = self.layout().buckets()[FlatLayout::OTHERS].len();
        match into.bucket(FlatLayout::OTHERS) {
            Buffer::Host(values) => {
                let value = sum.f_double_value(&[]);
                values[loss] = value.map_err(failed("computing the loss"))? as f32;
            }
            Buffer::Tensor(tensor) => no_grad(|| {
                let mut place = tensor.narrow(0, loss as i64, 1);
                place.copy_(&sum.detach().view(1));
            }),
        }
        let forward = Instant::now();
        let mut sink = IntoBuckets {
            buckets: into,
            device,
            problem: None,
        };
        let passed = pass.gradient(&self.net, &sum, &auxiliary, &mut sink);
        passed.map_err(|error| DeviceError {
            doing: "computing the gradient",
            reason: error.to_string(),
        })?;
        if let Some(reason) = sink.problem {
            let doing = "computing the gradient";
            return Err(DeviceError { doing, reason });
        }
        Ok(PhaseTimes {
            load: loaded - begun,
            forward: forward - loaded,
            backward: forward.elapsed(),
        })
    }

    fn update(&mut self, sum: &mut Flat, scale: f32, rate: f64) -> Result<bool, DeviceError> {
        if let Some(queued) = self.queue_update(sum, scale, rate)? {
            return queued.wait().map(|found| found.finite);
        }
        let ranges = self.layout().buckets();
        let buckets = sum.buckets_mut().iter_mut().zip(ranges);
        let mut gradients: Vec<(usize, Tensor)> = buckets
            .filter(|(_, range)| !range.is_empty())
            .map(|(bucket, range)| (range.start, over(bucket, range.len())))
            .collect();
        if !all_finite(gradients.iter().map(|(_, gradient)| gradient))? {
            return Ok(false);
        }
        for (at, gradient) in &mut gradients {
            let gradient = no_grad(|| gradient.g_mul_scalar_(f64::from(scale)));
            let params = self.net.flat_params();
            self.optimizer.step(params, *at, &gradient, rate);
        }
        Ok(true)
    }

    fn queue_update(
        &mut self,
        sum: &mut Flat,
        scale: f32,
        rate: f64,
    ) -> Result<Option<Queued>, DeviceError> {
        let fused = self.fused.as_ref();
        fused
            .map(|fused| fused.update(sum, scale, rate))
            .transpose()
    }

    fn score(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError> {
        let log_p = self.log_probabilities(Split::Validation, batch)?;
        scores_of(batch, &log_p)
    }

    fn score_mapped(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError> {
        let places = self.net.averages_frozen();
        let features = self.frozen(Split::Validation, batch, places)?;
        let (logits, maps) = self.net.class_maps(&features);
        let mut scores = scores_of(batch, &log_probabilities(self.scheme.head, &logits))?;
        let on_host = |x: &Tensor| x.to_device(tch::Device::Cpu);
        let reading = || failed("reading the class activation maps");
        let outputs: Vec<Vec<f32>> = Vec::try_from(on_host(&logits)).map_err(reading())?;
        let [n, height, width, _] = maps.size()[..] else {
            return Err(DeviceError {
                doing: "computing the class activation maps",
                reason: format!("they have the shape {:?}", maps.size()),
            });
        };
        let maps = on_host(&maps).contiguous().view([n, -1]);
        let maps: Vec<Vec<f32>> = Vec::try_from(maps).map_err(reading())?;
        let size = (height as usize, width as usize);
        for ((score, outputs), maps) in scores.iter_mut().zip(&outputs).zip(&maps) {
            score.map = Some(ClassMap::positive(self.scheme, outputs, maps, size));
        }
        Ok(scores)
    }

    fn hold_images(
        &mut self,
        size: usize,
        splits: [usize; 2],
        expected: usize,
        wanted: &dyn Fn(&Image) -> bool,
    ) -> Option<Arc<HeldImages>> {
        let wanted = |split, sample| {
            wanted(&Image {
                split,
                sample,
                quarter_turns: 0,
            })
        };
        let images = self.images.as_mut()?;
        Some(images.prepare(size, splits, expected, wanted))
    }

    fn draws_dropout(&self) -> bool {
        // The networks that our kernels cover have one dropout.
        self.fused.is_some()
    }

    fn path(&self) -> &'static str {
        match &self.fused {
            Some(_) => "fused",
            None if self.net.device().is_cuda() => "composed",
            None => "",
        }
    }

    fn keep_cached(&mut self, wanted: &dyn Fn(&Image) -> bool) {
        self.cache.retain(wanted);
        self.rows.retain(wanted);
    }
}

/// What the logarithms of the probabilities, `[samples, classes]`, say of each sample.
fn scores_of(batch: &Batch, log_p: &Tensor) -> Result<Vec<Score>, DeviceError> {
    let log_p = log_p.to_device(tch::Device::Cpu);
    let rows: Vec<Vec<f32>> = Vec::try_from(log_p).map_err(failed("reading the scores"))?;
    Ok(rows
        .into_iter()
        .zip(batch.samples.iter().zip(&batch.labels))
        .map(|(log_p, (&sample, &label))| Score {
            sample,
            label,
            loss: -log_p[label as usize],
            probabilities: log_p.iter().map(|l| l.exp()).collect(),
            map: None,
        })
        .collect())
}

/// Sets how GPUs compute, for the whole process: the same bits each time, and in TF32 or not.
fn set_gpu_arithmetic(tf32: bool) {
    // SAFETY: it sets flags of libtorch.
    check("fovea_gpu_arithmetic", unsafe {
        fovea_gpu_arithmetic(tf32)
    })
    .expect("flags can be set");
}

unsafe extern "C" {
    // See `context.cpp`.
    fn fovea_gpu_arithmetic(tf32: bool) -> c_int;
}

#[cfg(test)]
mod tests;
