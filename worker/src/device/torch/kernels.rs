//! Training and scoring with our own kernels, where they cover a run.

use std::path::PathBuf;
use std::time::Instant;

use fovea_core::googlenet::FlatLayout;
use fovea_core::spec::{Head, RunSpec};
use tch::{Tensor, no_grad};
use tracing::{info, warn};

use super::TorchDevice;
use crate::device::buffer::sent;
use crate::device::fused::{Fused, FusedError, Input, Rates, RowCache};
use crate::device::gradients::IntoBuckets;
use crate::device::{Batch, Buckets, Buffer, Device, DeviceError, PhaseTimes, Split};

impl TorchDevice {
    /// Computes the trained modules and the optimizer by our own kernels, if the device is a GPU. Compiled kernels are kept in
    /// `folder`. Where they cannot be used, libtorch's operations serve, and the log says why.
    pub fn with_kernels(mut self, spec: &RunSpec, folder: PathBuf) -> Self {
        let tch::Device::Cuda(number) = self.net.device() else {
            return self;
        };
        let t = &spec.train;
        let rates = Rates {
            momentum: t.momentum,
            decay: t.weight_decay,
            head: t.head_lr_mult,
        };
        let velocity = self.optimizer.velocity();
        match Fused::new(&self.net, t.precision, velocity, rates, folder) {
            Ok(fused) => {
                info!(
                    "gpu.fused: Fovea's own kernels compute the trained modules on cuda:{number}"
                );
                self.fused = Some(fused);
                let (budget, hits) = self.cache.settings();
                self.rows = RowCache::new(budget, hits);
            }
            Err(error @ FusedError::NotCovered(_)) => {
                info!("gpu.composed: this run is computed layer by layer on cuda:{number}: {error}")
            }
            Err(error @ FusedError::Kernels(_)) => warn!(
                "gpu.kernels_missing: Fovea's own kernels cannot be used on cuda:{number}, so runs are computed layer by \
                 layer: {error}"
            ),
        }
        self
    }

    /// [`Device::gradient`] by our own kernels.
    pub(super) fn fused_gradient(
        &mut self,
        batch: &Batch,
        into: &mut dyn Buckets,
    ) -> Result<PhaseTimes, DeviceError> {
        let begun = Instant::now();
        let device = self.net.device();
        let dropout = match &batch.dropout_seeds[..] {
            [] => (!batch.dropout.is_empty()).then(|| sent(&batch.dropout, device)),
            seeds => {
                let fused = self.fused.as_ref().expect("asked for where it is there");
                Some(fused.dropout(seeds, self.dropout)?)
            }
        };
        let loaded = Instant::now();
        let features = self.features(Split::Train, batch)?;
        let fused = self.fused.as_ref().expect("asked for where it is there");
        let pass = no_grad(|| {
            let labelled = Labelled::of(batch, device);
            let input = labelled.input(self.scheme.head, &features, dropout.as_ref());
            fused.forward(input, true)
        })?;
        let loss = self.layout().buckets()[FlatLayout::OTHERS].len();
        if let Buffer::Tensor(tensor) = into.bucket(FlatLayout::OTHERS) {
            no_grad(|| tensor.narrow(0, loss as i64, 1).copy_(&pass.sum));
        }
        let forward = Instant::now();
        let mut sink = IntoBuckets {
            buckets: into,
            device,
            problem: None,
        };
        no_grad(|| fused.backward(pass, &mut sink))?;
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
}

/// Labels and class weights of a batch on the device, as our kernels take them.
pub(super) struct Labelled {
    labels: Tensor,
    weights: Option<Tensor>,
}

impl Labelled {
    pub(super) fn of(batch: &Batch, device: tch::Device) -> Self {
        let labels: Vec<i32> = batch.labels.iter().map(|&label| label as i32).collect();
        let weights = &batch.class_weights[..];
        Self {
            labels: sent(&labels, device),
            weights: (!weights.is_empty()).then(|| sent(weights, device)),
        }
    }

    pub(super) fn input<'a>(
        &'a self,
        head: Head,
        features: &'a Tensor,
        dropout: Option<&'a Tensor>,
    ) -> Input<'a> {
        Input {
            features,
            labels: &self.labels,
            dropout,
            weights: self.weights.as_ref(),
            ordinal: head == Head::Ordinal,
        }
    }
}
