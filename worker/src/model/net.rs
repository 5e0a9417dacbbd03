//! The network's parameters: flat tensors and the layers' views of them.

use std::collections::HashMap;

use fovea_core::googlenet::{Entry, FlatLayout, Network, Op, ParamKind, layers};
use fovea_core::spec::Precision;
use tch::{Device, Kind, Tensor, no_grad};

use super::conv3x3::Filters;
use super::memory::keep_freed_memory;
use super::stage::Stage;

/// GoogLeNet with its parameters on one device.
#[derive(Debug)]
pub struct Net {
    layout: FlatLayout,
    device: Device,
    /// The kind that convolutions are computed in.
    pub(super) compute: Kind,
    params: Tensor,
    frozen: Tensor,
    /// One for each entry of `layout.trainable()`: a view of `params` that autograd takes for a leaf.
    leaves: Vec<Tensor>,
    pub(super) weight_layers: HashMap<String, WeightLayer>,
    /// What the forward pass computes, in order.
    pub(super) stages: Vec<Stage>,
    pub(super) filters: Filters,
}

/// A layer with parameters, ready to be computed. `weight` and `bias` share storage with the flat tensors.
#[derive(Debug)]
pub(super) struct WeightLayer {
    pub weight: Tensor,
    pub bias: Tensor,
    pub stride: i64,
    pub pad: i64,
}

impl Net {
    /// A network whose parameters are all zero. The caller sets them before use.
    pub fn new(layout: &FlatLayout, device: Device) -> Net {
        keep_freed_memory();
        let flat = |len: usize| Tensor::zeros([len as i64], (Kind::Float, device));
        let params = flat(layout.trainable_len());
        let frozen = flat(layout.frozen_len());
        let leaves: Vec<Tensor> = layout
            .trainable()
            .iter()
            .map(|entry| view(&params, entry).detach().set_requires_grad(true))
            .collect();
        let mut tensors: HashMap<&str, Tensor> = HashMap::new();
        for (entry, leaf) in layout.trainable().iter().zip(&leaves) {
            tensors.insert(&entry.spec.name, leaf.shallow_clone());
        }
        for entry in layout.frozen() {
            tensors.insert(&entry.spec.name, view(&frozen, entry));
        }
        let mut weight_layers = HashMap::new();
        for layer in layers(layout.network()) {
            let (stride, pad) = match layer.op {
                Op::Convolution { stride, pad, .. } => (stride as i64, pad as i64),
                Op::InnerProduct { .. } => (1, 0),
                Op::MaxPool { .. }
                | Op::Lrn
                | Op::Concat
                | Op::GlobalAveragePool
                | Op::DenseAveragePool { .. }
                | Op::AuxiliaryAveragePool
                | Op::Dropout { .. } => continue,
            };
            let mut take = |kind: ParamKind| {
                let name = format!("{}.{}", layer.name, kind.suffix());
                tensors
                    .remove(name.as_str())
                    .expect("the layout holds every parameter")
            };
            let weight = take(ParamKind::Weight);
            let bias = take(ParamKind::Bias);
            let weight_layer = WeightLayer {
                weight,
                bias,
                stride,
                pad,
            };
            weight_layers.insert(layer.name, weight_layer);
        }
        Net {
            layout: layout.clone(),
            device,
            compute: Kind::Float,
            params,
            frozen,
            leaves,
            weight_layers,
            stages: Stage::of(layout.network()),
            filters: Filters::default(),
        }
    }

    /// The same network, computed in `precision`; its parameters stay f32.
    pub fn with_precision(mut self, precision: Precision) -> Net {
        self.compute = match precision {
            Precision::Float32 | Precision::Tf32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        self
    }

    /// Where each parameter lies in the flat tensors.
    pub fn layout(&self) -> &FlatLayout {
        &self.layout
    }

    /// Which network it is.
    pub fn network(&self) -> Network {
        self.layout.network()
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The trainable parameters: f32, `[layout.trainable_len()]`. Changing it in place (under `no_grad`)
    /// changes the network.
    pub fn flat_params(&self) -> &Tensor {
        &self.params
    }

    /// The frozen parameters: f32, `[layout.frozen_len()]`.
    pub fn frozen(&self) -> &Tensor {
        &self.frozen
    }

    /// Sets one parameter from its numbers in the order of its shape.
    ///
    /// # Panics
    /// If the network has no parameter of this name, or it has another length.
    pub fn set_param(&self, name: &str, values: &[f32]) {
        let (flat, entry) = self.place(name);
        assert_eq!(values.len(), entry.spec.len(), "{name}");
        no_grad(|| {
            flat.narrow(0, entry.offset as i64, values.len() as i64)
                .copy_(&Tensor::from_slice(values))
        });
    }

    /// One parameter: a view that shares storage with the flat tensor.
    ///
    /// # Panics
    /// If the network has no parameter of this name.
    pub fn param(&self, name: &str) -> Tensor {
        let (flat, entry) = self.place(name);
        view(flat, entry)
    }

    /// All parameters, trainable first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.layout.trainable().iter().chain(self.layout.frozen())
    }

    /// The trainable parameters with autograd's leaves, in the order of the flat tensor.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (&Entry, &Tensor)> {
        self.layout.trainable().iter().zip(&self.leaves)
    }

    fn place(&self, name: &str) -> (&Tensor, &Entry) {
        let find = |entries: &'_ [Entry]| entries.iter().position(|e| e.spec.name == name);
        if let Some(i) = find(self.layout.trainable()) {
            return (&self.params, &self.layout.trainable()[i]);
        }
        match find(self.layout.frozen()) {
            Some(i) => (&self.frozen, &self.layout.frozen()[i]),
            None => panic!("GoogLeNet has no parameter {name:?}"),
        }
    }
}

/// The same values in channels-last order in memory; no copy where they are so already.
///
/// `x` is `[batch, channels, height, width]`, and so is the result.
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

fn view(flat: &Tensor, entry: &Entry) -> Tensor {
    let shape: Vec<i64> = entry.spec.shape.iter().map(|&n| n as i64).collect();
    flat.narrow(0, entry.offset as i64, entry.spec.len() as i64)
        .view(&shape[..])
}
