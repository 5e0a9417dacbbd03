//! A step on a GPU by our own kernels: an inception module is one operation, as it is on the CPU.
//!
//! Products and convolutions are libtorch's; everything between them is a kernel of [`fovea_kernels::cuda`]. There is no autograd: the
//! backward pass is written out, module by module, and a bucket is finished as soon as its first module is. Activations and
//! filters are f32 or bfloat16; the average, the classifier, the loss and all sums are f32.
//!
//! Which networks it computes is decided in [`plan`]; others are computed layer by layer.

mod backward;
mod cache;
mod forward;
mod frozen;
mod plan;
mod stem;

use std::path::PathBuf;

use fovea_core::googlenet::FlatLayout;
use fovea_core::spec::Precision;
use fovea_kernels::cuda::input::{BLOCK_FILTER, conv1_filters};
use fovea_kernels::cuda::weights::{Sgd, Tables, TablesAt, cast_filters, find_bad, sgd};
use fovea_kernels::cuda::{Address, Call, Element};
use tch::{Kind, Tensor, no_grad};

use super::buffer::sent;
use super::gradients::over;
use super::{DeviceError, Flat, Found, Queued, failed};
use crate::gpu::kernels::{KernelError, Kernels};
use crate::gpu::stream::Event;
use crate::model::Net;
use crate::shim::ShimError;
use plan::{Convolution, Plan};

pub use cache::RowCache;
pub use forward::Input;
pub use frozen::Batched;
pub use plan::NotCovered;

/// Why a run is computed layer by layer.
#[derive(Debug, thiserror::Error)]
pub enum FusedError {
    /// The network is not one that is covered.
    #[error(transparent)]
    NotCovered(#[from] NotCovered),
    /// The kernels cannot be used.
    #[error(transparent)]
    Kernels(#[from] KernelError),
}

/// The settings of the optimizer.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub decay: f64,
    /// Multiplier of the classifier's learning rate.
    pub head: f64,
}

/// The trained modules, the classifier and the optimizer on a GPU.
#[derive(Debug)]
pub struct Fused {
    kernels: Kernels,
    plan: Plan,
    rates: Rates,
    /// What activations and filters are stored in.
    kind: Kind,
    device: tch::Device,
    trained: Bank,
    frozen: Bank,
    /// The trained parameters' velocities, shared with the optimizer.
    velocity: Tensor,
    /// Of the trained parameters, by bucket.
    tables: Vec<OnGpu>,
    /// Of the frozen ones.
    frozen_tables: OnGpu,
    /// i32: whether a gradient is not finite.
    bad: Tensor,
}

/// Parameters in both forms.
#[derive(Debug)]
struct Bank {
    /// Flat, f32, shared with the network.
    params: Tensor,
    /// The filters in the form that is computed with.
    filters: Tensor,
}

/// [`Tables`] on the GPU.
#[derive(Debug)]
struct OnGpu {
    segments: Tensor,
    parts: Tensor,
    count: usize,
}

impl OnGpu {
    fn of(tables: &Tables, device: tch::Device) -> Self {
        let words = |words: Vec<u32>| {
            let words: Vec<i32> = words.into_iter().map(|word| word as i32).collect();
            sent(&words, device)
        };
        Self {
            segments: words(tables.segments.concat()),
            parts: words(tables.parts.concat()),
            count: tables.parts.len(),
        }
    }

    fn at(&self) -> TablesAt {
        TablesAt {
            segments: at(&self.segments),
            parts: at(&self.parts),
            count: self.count,
        }
    }
}

/// The address of a tensor's first number.
///
/// # Panics
/// If the tensor is not contiguous: kernels know no strides.
fn at(tensor: &Tensor) -> Address {
    assert!(tensor.is_contiguous(), "{:?}", tensor.size());
    Address(tensor.data_ptr() as u64)
}

/// The address of element `element` of a tensor of 32-bit numbers.
fn element_of(tensor: &Tensor, element: usize) -> Address {
    Address(at(tensor).0 + 4 * element as u64)
}

impl Fused {
    /// For a network on a GPU, which must be current in this thread; `velocity` is the optimizer's. Compiled kernels are kept in
    /// `folder`.
    ///
    /// # Errors
    /// If the network is not covered, or the kernels cannot be used.
    pub fn new(
        net: &Net,
        precision: Precision,
        velocity: &Tensor,
        rates: Rates,
        folder: PathBuf,
    ) -> Result<Self, FusedError> {
        let plan = Plan::of(net.layout(), rates.head)?;
        let (element, kind) = match precision {
            Precision::Float32 | Precision::Tf32 => (Element::Float32, Kind::Float),
            Precision::Bf16 => (Element::Bf16, Kind::BFloat16),
        };
        let device = net.device();
        let number = match device {
            tch::Device::Cuda(number) => number,
            _ => 0,
        };
        let kernels = Kernels::load(number, element, folder)?;
        let bank = |params: &Tensor, filters: usize| Bank {
            params: params.shallow_clone(),
            // What belongs to no filter of conv1 stays zero.
            filters: Tensor::zeros([filters as i64], (kind, device)),
        };
        let tables = |parameters: &Vec<_>| OnGpu::of(&Tables::of(parameters), device);
        Ok(Self {
            kernels,
            rates,
            kind,
            device,
            trained: bank(net.flat_params(), plan.trained.filters),
            frozen: bank(net.frozen(), plan.frozen.filters),
            velocity: velocity.shallow_clone(),
            tables: plan.parameters.iter().map(tables).collect(),
            frozen_tables: tables(&plan.frozen_parameters),
            bad: Tensor::zeros([1], (Kind::Int, device)),
            plan,
        })
    }

    /// Takes over parameters that were loaded.
    ///
    /// # Errors
    /// If the GPU refuses.
    pub fn loaded(&self) -> Result<(), DeviceError> {
        let cast = |tables: &OnGpu, bank: &Bank| {
            self.run(&cast_filters(
                tables.at(),
                at(&bank.params),
                at(&bank.filters),
            ))
        };
        for tables in &self.tables {
            cast(tables, &self.trained)?;
        }
        cast(&self.frozen_tables, &self.frozen)?;
        let Plan {
            trained, frozen, ..
        } = &self.plan;
        for (layers, bank) in [(trained, &self.trained), (frozen, &self.frozen)] {
            if let Some(conv1) = &layers.conv1 {
                self.over_blocks(conv1, bank)?;
            }
        }
        Ok(())
    }

    /// Puts conv1's filters into the form that is computed with.
    fn over_blocks(&self, conv1: &Convolution, bank: &Bank) -> Result<(), DeviceError> {
        let [_, outputs] = conv1.channels;
        let filters = element_of(&bank.params, conv1.weight);
        let len = (outputs * BLOCK_FILTER) as i64;
        let filter = bank.filters.narrow(0, conv1.filters as i64, len);
        self.run(&conv1_filters(filters, at(&filter), outputs))
    }

    /// Whether the first layer is trained, so that nothing is computed before.
    pub fn trains_all(&self) -> bool {
        self.plan.trained.conv1.is_some()
    }

    /// See [`Device::queue_update`](super::Device::queue_update).
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn update(&self, sum: &mut Flat, scale: f32, rate: f64) -> Result<Queued, DeviceError> {
        no_grad(|| {
            let _ = self.bad.shallow_clone().zero_();
        });
        let others = sum.buckets()[Self::OTHERS].tensor();
        let others = others.expect("sums on a GPU are tensors").shallow_clone();
        let mut gradients = Vec::new();
        let ends = self.plan.starts[1..].iter().copied();
        let ends = ends.chain([self.trained.params.numel()]);
        for (bucket, end) in sum.buckets_mut().iter_mut().zip(ends) {
            let start = self.plan.starts[gradients.len()];
            gradients.push(over(bucket, end - start));
        }
        let of_others = gradients[Self::OTHERS].numel();
        for (number, gradient) in gradients.iter().enumerate() {
            // With the sum of the losses, which lies right behind the others.
            let len = gradient.numel() + usize::from(number == Self::OTHERS);
            if len > 0 {
                self.run(&find_bad(at(gradient), at(&self.bad), len))?;
            }
        }
        let found = self.found(&others, of_others)?;
        for (number, gradient) in gradients.iter().enumerate() {
            if gradient.numel() == 0 {
                continue;
            }
            let step = Sgd {
                params: at(&self.trained.params),
                velocity: at(&self.velocity),
                gradient: at(gradient),
                start: self.plan.starts[number],
                filters: at(&self.trained.filters),
                bad: at(&self.bad),
                scale,
                rate: rate as f32,
                momentum: self.rates.momentum as f32,
                decay: self.rates.decay as f32,
            };
            self.run(&sgd(self.tables[number].at(), step))?;
        }
        if let Some(conv1) = &self.plan.trained.conv1 {
            self.over_blocks(conv1, &self.trained)?;
        }
        Ok(found)
    }

    /// Queues a copy of whether numbers are bad and of what lies behind the first `from` of `others` into the host's memory.
    fn found(&self, others: &Tensor, from: usize) -> Result<Queued, DeviceError> {
        const DOING: &str = "copying what a step found to the host";
        let copied = no_grad(|| {
            let (from, len) = (from as i64, others.numel() as i64);
            let behind = others.narrow(0, from, len - from);
            let found = Tensor::f_cat(&[self.bad.to_kind(Kind::Float), behind], 0)?;
            // Into pinned memory, so that the host does not wait here.
            found.f_to_device_(tch::Device::Cpu, Kind::Float, true, false)
        });
        let copied = copied.map_err(failed(DOING))?;
        let failed_event = |error: ShimError| DeviceError {
            doing: DOING,
            reason: error.to_string(),
        };
        let event = match self.device {
            tch::Device::Cuda(number) => Some(Event::now(number).map_err(failed_event)?),
            _ => None,
        };
        Ok(Queued::new(move || {
            event.map_or(Ok(()), |event| event.wait().map_err(failed_event))?;
            let mut numbers = vec![0f32; copied.numel()];
            let len = numbers.len();
            copied
                .f_copy_data(&mut numbers, len)
                .map_err(failed(DOING))?;
            Ok(Found {
                finite: numbers[0] == 0.0,
                behind: numbers.split_off(1),
            })
        }))
    }

    /// Queues a kernel.
    fn run(&self, call: &Call) -> Result<(), DeviceError> {
        // SAFETY: every address is that of a tensor of this GPU whose size follows from the plan and the batch, as the call
        // does. Memory is freed in the order of the stream in which it is used, by libtorch's allocator.
        unsafe { self.kernels.launch(call) }.map_err(|error| DeviceError {
            doing: "launching a kernel",
            reason: error.to_string(),
        })
    }

    /// Room for `[rows][columns]` activations.
    fn room(&self, rows: usize, columns: usize) -> Tensor {
        Tensor::empty([rows as i64, columns as i64], (self.kind, self.device))
    }

    /// Room for so many f32 numbers.
    fn floats(&self, len: usize) -> Tensor {
        Tensor::empty([len as i64], (Kind::Float, self.device))
    }

    /// Room for so many bytes.
    fn bytes(&self, len: usize) -> Tensor {
        Tensor::empty([len as i64], (Kind::Uint8, self.device))
    }

    /// Number of the bucket of everything but weights.
    const OTHERS: usize = FlatLayout::OTHERS;
}
