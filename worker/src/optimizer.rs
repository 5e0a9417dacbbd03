//! Stochastic gradient descent with momentum and L2, as Caffe computes it, on flat buffers.

use fovea_core::googlenet::FlatLayout;
use tch::{Device, Kind, Tensor, no_grad};

use crate::model::raw::{values, values_mut};

/// The optimizer's state and settings.
///
/// One step is, for every group of the layout with its multipliers (BVLC/caffe `sgd_solver.cpp`):
///
/// ```text
/// g = gradient + weight_decay * decay_mult * w
/// v = momentum * v + rate * lr_mult * g
/// w = w - v
/// ```
///
/// The learning rate is *inside* the velocity, unlike PyTorch's; the two differ when the rate changes.
#[derive(Debug)]
pub struct Sgd {
    /// Of weights, for every step; of biases none.
    pub weight_decay: f64,
    pub momentum: f64,
    /// Multiplier on the rate of the classifier.
    pub head_lr_mult: f64,
    layout: FlatLayout,
    velocity: Tensor,
}

impl Sgd {
    /// An optimizer whose velocity is zero, for parameters laid out by `layout` on `device`.
    pub fn new(
        layout: &FlatLayout,
        device: Device,
        momentum: f64,
        weight_decay: f64,
        head_lr_mult: f64,
    ) -> Sgd {
        Sgd {
            weight_decay,
            momentum,
            head_lr_mult,
            layout: layout.clone(),
            velocity: Tensor::zeros([layout.trainable_len() as i64], (Kind::Float, device)),
        }
    }

    /// The velocity: f32 `[layout.trainable_len()]`. Part of a run's state.
    pub fn velocity(&self) -> &Tensor {
        &self.velocity
    }

    /// One step of the parameters from `at` on for which there is a gradient: changes them in `params`, which are f32
    /// `[layout.trainable_len()]`. `gradient` is that of the mean loss over the global batch, f32 of one dimension.
    /// `rate` is the schedule's learning rate at this step.
    pub fn step(&mut self, params: &Tensor, at: usize, gradient: &Tensor, rate: f64) {
        let len = self.layout.trainable_len();
        let end = at + gradient.numel();
        assert_eq!(params.size(), [len as i64], "shape of the parameters");
        assert!(end <= len, "gradients of {at} to {end} of {len} parameters");
        for group in self.layout.groups() {
            let (from, to) = (group.range.start.max(at), group.range.end.min(end));
            if from >= to {
                continue;
            }
            let factors = Factors {
                decay: self.weight_decay * group.decay_mult(),
                momentum: self.momentum,
                rate: rate * group.lr_mult(self.head_lr_mult),
            };
            let part = |flat: &Tensor, start: usize| {
                flat.narrow(0, (from - start) as i64, (to - from) as i64)
            };
            let gradient = part(gradient, at);
            let (params, velocity) = (part(params, 0), part(&self.velocity, 0));
            if params.device() == Device::Cpu {
                // SAFETY: all three are narrowed from contiguous f32 tensors on the CPU that live
                // through this call; nothing else changes parameters and velocity meanwhile, as
                // one thread owns the device.
                unsafe {
                    step_cpu(
                        factors,
                        values_mut(&params),
                        values(&gradient),
                        values_mut(&velocity),
                    )
                };
            } else {
                no_grad(|| step_composed(factors, params, gradient, velocity));
            }
        }
    }
}

/// Of one group, multipliers included.
#[derive(Debug, Clone, Copy)]
struct Factors {
    decay: f64,
    momentum: f64,
    rate: f64,
}

/// One pass over the data, in f32.
fn step_cpu(factors: Factors, params: &mut [f32], gradient: &[f32], velocity: &mut [f32]) {
    let decay = factors.decay as f32;
    let momentum = factors.momentum as f32;
    let rate = factors.rate as f32;
    for ((w, g), v) in params.iter_mut().zip(gradient).zip(velocity) {
        let g = g + decay * *w;
        *v = momentum * *v + rate * g;
        *w -= *v;
    }
}

/// The same of libtorch's operations, for other devices.
fn step_composed(factors: Factors, mut params: Tensor, gradient: Tensor, mut velocity: Tensor) {
    let gradient = if factors.decay == 0.0 {
        gradient
    } else {
        gradient + &params * factors.decay
    };
    velocity *= factors.momentum;
    velocity += gradient * factors.rate;
    params -= velocity;
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::googlenet::GroupKind;

    /// One element of each group.
    fn first_of_each(layout: &FlatLayout, flat: &Tensor) -> [f32; 4] {
        let at = |i: usize| flat.double_value(&[layout.groups()[i].range.start as i64]) as f32;
        [0, 1, 2, 3].map(at)
    }

    fn filled(layout: &FlatLayout, value: f64) -> Tensor {
        Tensor::full(
            [layout.trainable_len() as i64],
            value,
            (Kind::Float, Device::Cpu),
        )
    }

    fn close(found: [f32; 4], expected: [f64; 4]) {
        for (found, expected) in found.iter().zip(expected) {
            let off = (f64::from(*found) - expected).abs();
            assert!(
                off < 1e-6 * expected.abs().max(0.01),
                "{found} for {expected}"
            );
        }
    }

    /// Three steps by hand, the learning rate changing: w = 1, gradients 0.5, -0.25, 1; momentum 0.9,
    /// weight decay 0.1, head x10.
    ///
    /// Weights (rate 0.01, 0.01, 0.001):
    ///   g = 0.5 + 0.1             = 0.6        v = 0.006                        w = 0.994
    ///   g = -0.25 + 0.0994        = -0.1506    v = 0.0054 - 0.001506 = 0.003894 w = 0.990106
    ///   g = 1 + 0.0990106         = 1.0990106  v = 0.0035046 + 0.0010990106
    ///                                            = 0.0046036106                 w = 0.9855023894
    /// Biases (no decay, rate 0.02, 0.02, 0.002):
    ///   v = 0.01                  w = 0.99
    ///   v = 0.009 - 0.005 = 0.004 w = 0.986
    ///   v = 0.0036 + 0.002        = 0.0056     w = 0.9804
    /// Head weight (rate 0.1, 0.1, 0.01):
    ///   g = 0.6                   v = 0.06     w = 0.94
    ///   g = -0.25 + 0.094 = -0.156 v = 0.054 - 0.0156 = 0.0384                  w = 0.9016
    ///   g = 1 + 0.09016 = 1.09016 v = 0.03456 + 0.0109016 = 0.0454616           w = 0.8561384
    /// Head bias (rate 0.2, 0.2, 0.02):
    ///   v = 0.1                   w = 0.9
    ///   v = 0.09 - 0.05 = 0.04    w = 0.86
    ///   v = 0.036 + 0.02 = 0.056  w = 0.804
    #[test]
    fn three_steps_by_hand() {
        let layout = FlatLayout::new(2, &["conv1/7x7_s2"]).unwrap();
        let params = filled(&layout, 1.0);
        let mut sgd = Sgd::new(&layout, Device::Cpu, 0.9, 0.1, 10.0);
        sgd.step(&params, 0, &filled(&layout, 0.5), 0.01);
        close(first_of_each(&layout, &params), [0.994, 0.99, 0.94, 0.9]);
        close(
            first_of_each(&layout, sgd.velocity()),
            [0.006, 0.01, 0.06, 0.1],
        );
        sgd.step(&params, 0, &filled(&layout, -0.25), 0.01);
        close(
            first_of_each(&layout, &params),
            [0.990106, 0.986, 0.9016, 0.86],
        );
        sgd.step(&params, 0, &filled(&layout, 1.0), 0.001);
        close(
            first_of_each(&layout, &params),
            [0.985_502_389_4, 0.9804, 0.856_138_4, 0.804],
        );
        close(
            first_of_each(&layout, sgd.velocity()),
            [0.004_603_610_6, 0.0056, 0.045_461_6, 0.056],
        );
    }

    #[test]
    fn every_element_of_a_group_moves_alike() {
        let layout = FlatLayout::new(5, &["conv1/7x7_s2"]).unwrap();
        let params = filled(&layout, 1.0);
        let mut sgd = Sgd::new(&layout, Device::Cpu, 0.9, 0.1, 10.0);
        sgd.step(&params, 0, &filled(&layout, 0.5), 0.01);
        for group in layout.groups() {
            let part = params.narrow(0, group.range.start as i64, group.range.len() as i64);
            assert_eq!(part.min(), part.max(), "{:?}", group.kind);
        }
        assert_eq!(layout.groups()[3].kind, GroupKind::HeadBias);
    }

    /// The form for other devices takes the same steps.
    #[test]
    fn composed_and_fused_agree() {
        let count = 1000;
        let random = |seed: f64| (Tensor::arange(count, (Kind::Float, Device::Cpu)) * seed).sin();
        let (params, gradient, velocity) = (random(1.1), random(2.3), random(0.7) * 0.01);
        let factors = Factors {
            decay: 0.0002,
            momentum: 0.9,
            rate: 0.01,
        };
        let (w, v) = (params.copy(), velocity.copy());
        step_composed(
            factors,
            w.shallow_clone(),
            gradient.copy(),
            v.shallow_clone(),
        );
        // SAFETY: contiguous f32 tensors of this test alone.
        unsafe {
            step_cpu(
                factors,
                values_mut(&params),
                values(&gradient),
                values_mut(&velocity),
            )
        };
        assert!((w - params).abs().max().double_value(&[]) < 1e-6);
        assert!((v - velocity).abs().max().double_value(&[]) < 1e-7);
    }
}
