//! 1x1 convolutions, and what else an inception module computes in another way for each kind of number: f32 by
//! [`fovea_kernels::pointwise`], bfloat16 by libtorch's convolutions, which use the processor's instructions for it.

use fovea_kernels::{Bf16, pointwise};
use tch::{Kind, Tensor};

use super::super::convolution;
use super::super::pool::MaxPool;
use super::super::raw::{Fresh, TensorNumber, threads, values, values_mut};

/// The arithmetic of a kind of number. Tensors are by pixel, `[batch, height, width, channels]`, and contiguous.
pub trait Arithmetic: TensorNumber {
    /// The weight as the other functions take it.
    fn weight(weight: &Tensor) -> Tensor;

    /// A 1x1 convolution of `x`.
    fn pointwise(x: &Tensor, weight: &Tensor) -> Tensor;

    /// Its gradients by `x` and, in f32, by the weight, as far as they are needed. Nobody else refers to the results.
    fn pointwise_backward(
        gradient: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        needed: [bool; 2],
    ) -> [Option<Tensor>; 2];

    /// The sum of `x` and the gradient of the pooling. `x` is a result of [`Arithmetic::pointwise_backward`].
    fn add_pool_gradient(pool: &MaxPool<Self>, gradient: &Tensor, x: Tensor) -> Tensor;
}

impl Arithmetic for f32 {
    fn weight(weight: &Tensor) -> Tensor {
        weight.detach().contiguous()
    }

    fn pointwise(x: &Tensor, weight: &Tensor) -> Tensor {
        let [count, height, width, from] = size(x);
        let [to, _, _, _] = size(weight);
        let mut out = Fresh::empty([count, height, width, to]);
        // SAFETY: nobody changes an activation or a parameter during a forward pass.
        let (x, weight) = unsafe { (values(x), values(weight)) };
        pointwise::forward(threads(), from, to, x, weight, out.values_mut());
        out.into_tensor()
    }

    fn pointwise_backward(
        gradient: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        needed: [bool; 2],
    ) -> [Option<Tensor>; 2] {
        let [by_x, by_weight] = needed;
        let (x_size, weight_size) = (size(x), size(weight));
        let [to, from, _, _] = weight_size;
        // SAFETY: nobody changes a gradient, an activation or a parameter during the backward pass.
        let (gradient, x, weight) = unsafe { (values(gradient), values(x), values(weight)) };
        let by_x = by_x.then(|| {
            let mut out = Fresh::empty(x_size);
            pointwise::input_gradient(threads(), from, to, gradient, weight, out.values_mut());
            out.into_tensor()
        });
        let by_weight = by_weight.then(|| {
            let mut out = Fresh::empty(weight_size);
            pointwise::weight_gradient(threads(), from, to, gradient, x, out.values_mut());
            out.into_tensor()
        });
        [by_x, by_weight]
    }

    fn add_pool_gradient(pool: &MaxPool<f32>, gradient: &Tensor, x: Tensor) -> Tensor {
        // SAFETY: nobody else refers to the result of `pointwise_backward`.
        pool.add_gradient(gradient, unsafe { values_mut(&x) });
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

    fn pointwise_backward(
        gradient: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        needed: [bool; 2],
    ) -> [Option<Tensor>; 2] {
        let [x, weight] = convolution::backward(gradient, x, weight, needed);
        [x, weight.map(|w| w.to_kind(Kind::Float))]
    }

    fn add_pool_gradient(pool: &MaxPool<Bf16>, gradient: &Tensor, x: Tensor) -> Tensor {
        x + pool.gradient(gradient)
    }
}

fn size(x: &Tensor) -> [usize; 4] {
    let (a, b, c, d) = x.size4().expect("images and filters have four dimensions");
    [a, b, c, d].map(|n| n as usize)
}
