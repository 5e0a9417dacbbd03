//! GoogLeNet on the CPU with libtorch.

use std::ops::Range;
use std::time::Instant;

use fovea_core::googlenet::{FlatLayout, HEAD_INPUT};
use fovea_core::metrics::Score;
use fovea_core::spec::RunSpec;
use tch::{Kind, Tensor, no_grad};

use super::{Batch, Device, DeviceError, MicroBatch};
use crate::model::{Net, loss_sum};
use crate::optimizer::Sgd;

/// Means of ImageNet's blue, green and red bytes, which the published weights expect to be subtracted.
const MEANS: [f32; 3] = [104.0, 117.0, 123.0];

/// GoogLeNet and its optimizer on the CPU.
pub struct CpuDevice {
    net: Net,
    optimizer: Sgd,
    means: Tensor,
}

impl CpuDevice {
    /// A network and an optimizer for `spec`, all zero until [`Device::load`]. Sets the number of threads
    /// of the whole process, on which the bits of the result depend.
    pub fn new(spec: &RunSpec, layout: &FlatLayout) -> Self {
        tch::set_num_threads(spec.train.threads as i32);
        let device = tch::Device::Cpu;
        let t = &spec.train;
        Self {
            net: Net::new(layout, device),
            optimizer: Sgd::new(layout, device, t.momentum, t.weight_decay, t.head_lr_mult),
            means: Tensor::from_slice(&MEANS),
        }
    }

    /// f32 `[n, 3, size, size]` in channels-last order: the bytes less the means.
    fn input(&self, batch: &Batch) -> Tensor {
        let (n, size) = (batch.samples.len() as i64, batch.size as i64);
        let pixels = Tensor::from_data_size(&batch.pixels, &[n, size, size, 3], Kind::Uint8);
        (pixels.to_kind(Kind::Float) - &self.means).permute([0, 3, 1, 2])
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

    fn gradient(&mut self, batch: &Batch, gradient: &mut [f32]) -> Result<MicroBatch, DeviceError> {
        let begun = Instant::now();
        let x = self.input(batch);
        let labels: Vec<i64> = batch.labels.iter().map(|&l| i64::from(l)).collect();
        let labels = Tensor::from_slice(&labels);
        let dropout = (!batch.dropout.is_empty())
            .then(|| Tensor::from_slice(&batch.dropout).view([-1, HEAD_INPUT as i64]));
        let loaded = Instant::now();
        let pass = self.net.train(&x, dropout.as_ref());
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
        let logits = self.net.forward(&self.input(batch));
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
