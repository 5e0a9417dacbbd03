//! How 1x1 convolutions are computed, and what else depends on the kind of number: f32 by matrix products, bfloat16 by
//! libtorch's convolutions, which know the processor's instructions for it.

use tch::{Device, Kind, Tensor};

use super::super::autograd::Backward;
use super::super::columns::Element;
use super::super::convolution;
use super::super::pool::{Bf16, MaxPool, Number};
use super::super::product::product;
use super::super::winograd::Stored;

/// See above. Tensors are by pixel and contiguous.
pub trait Arithmetic: Element + Stored {
    /// The weight as these functions take it.
    fn weight(weight: &Tensor) -> Tensor;

    /// A 1x1 convolution of `x`.
    fn pointwise(x: &Tensor, weight: &Tensor) -> Tensor;

    /// Its gradients by `x` and, f32, by the weight, as far as they are needed.
    fn pointwise_back(
        gradient: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        needed: [bool; 2],
    ) -> [Option<Tensor>; 2];

    /// `x` and the gradient of the pooling.
    fn add_pool_back(pool: &MaxPool<Self>, gradient: &Tensor, x: Tensor) -> Tensor
    where
        Self: Number;
}

impl Arithmetic for f32 {
    fn weight(weight: &Tensor) -> Tensor {
        weight.detach().contiguous()
    }

    fn pointwise(x: &Tensor, weight: &Tensor) -> Tensor {
        let mut size = x.size();
        size[3] = weight.size()[0];
        let y = Tensor::empty(&size, (Kind::Float, Device::Cpu));
        product(&rows(&y), &rows(x), &matrix(weight).tr());
        y
    }

    fn pointwise_back(
        gradient: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        needed: [bool; 2],
    ) -> [Option<Tensor>; 2] {
        let [by_x, by_weight] = needed;
        let by_x = by_x.then(|| {
            let out = Tensor::empty(x.size(), (Kind::Float, Device::Cpu));
            product(&rows(&out), &rows(gradient), &matrix(weight));
            out
        });
        let by_weight = by_weight.then(|| {
            let out = Tensor::empty(weight.size(), (Kind::Float, Device::Cpu));
            product(&matrix(&out), &rows(gradient).tr(), &rows(x));
            out
        });
        [by_x, by_weight]
    }

    fn add_pool_back(pool: &MaxPool<f32>, gradient: &Tensor, x: Tensor) -> Tensor {
        pool.add_back(gradient, &x);
        x
    }
}

impl Arithmetic for Bf16 {
    fn weight(weight: &Tensor) -> Tensor {
        weight.detach().to_kind(Kind::BFloat16).contiguous()
    }

    fn pointwise(x: &Tensor, weight: &Tensor) -> Tensor {
        convolution::forward(x, weight)
    }

    fn pointwise_back(
        gradient: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        needed: [bool; 2],
    ) -> [Option<Tensor>; 2] {
        let [x, weight] = convolution::backward(gradient, x, weight, needed);
        [x, weight.map(|w| w.to_kind(Kind::Float))]
    }

    fn add_pool_back(pool: &MaxPool<Bf16>, gradient: &Tensor, x: Tensor) -> Tensor {
        let by_channel = gradient.permute([0, 3, 1, 2]);
        let pooled = pool.backward(&by_channel, &[true]).swap_remove(0);
        let pooled = pooled.expect("a pooling has a gradient");
        x + pooled.permute([0, 2, 3, 1])
    }
}

/// All pixels as the rows of a matrix.
fn rows(by_pixel: &Tensor) -> Tensor {
    by_pixel.view([-1, by_pixel.size()[3]])
}

/// The weight of a 1x1 convolution as a matrix: `[to, from]`.
fn matrix(weight: &Tensor) -> Tensor {
    let size = weight.size();
    weight.view([size[0], size[1]])
}
