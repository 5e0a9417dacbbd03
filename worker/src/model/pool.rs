//! 3x3 max pooling of tensors, with a gradient: by [`fovea_kernels::pool`] on the CPU, by libtorch elsewhere.

use std::marker::PhantomData;

use fovea_kernels::pool::{self, Stride};
use fovea_kernels::{Bf16, Shape};
use tch::{Device, Kind, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::raw::{Fresh, TensorNumber, by_channel, by_pixel, numbers, shape_of, threads};

/// The largest value of each window; padding never wins. `x` is `[batch, channels, height, width]`.
pub fn max_pool(x: &Tensor, stride: Stride) -> Tensor {
    let ours = x.device() == Device::Cpu && pool::fits(x.size()[1] as usize);
    match x.kind() {
        Kind::Float if ours => pooled::<f32>(x, stride),
        Kind::BFloat16 if ours => pooled::<Bf16>(x, stride),
        _ => {
            let [pixels, padding] = [stride.pixels(), stride.padding()].map(|n| [n as i64; 2]);
            x.max_pool2d([3, 3], pixels, padding, [1, 1], true)
        }
    }
}

fn pooled<N: TensorNumber>(x: &Tensor, stride: Stride) -> Tensor {
    let (y, kept) = no_grad(|| {
        let (y, kept) = MaxPool::<N>::forward(&by_pixel(x), stride);
        (by_channel(&y), kept)
    });
    match autograd::records(&[x]) {
        true => autograd::attach(y, &[x], kept),
        false => y,
    }
}

/// What the backward pass needs.
#[derive(Debug)]
pub struct MaxPool<N> {
    /// Of an input image.
    shape: Shape,
    stride: Stride,
    /// For each output value: the place of the maximum in its window.
    places: Vec<u8>,
    number: PhantomData<N>,
}

impl<N: TensorNumber> MaxPool<N> {
    /// [`max_pool`] without a graph: `x` and the result are by pixel and contiguous.
    pub fn forward(x: &Tensor, stride: Stride) -> (Tensor, Self) {
        let (count, shape) = shape_of(&by_channel(x));
        let to = stride.pooled(shape);
        let mut y = Fresh::empty([count, to.height, to.width, to.channels]);
        let mut places = vec![0; count * to.len()];
        // SAFETY: `x` is an activation, which nobody changes meanwhile.
        let x = unsafe { numbers::<N>(x) };
        pool::max_pool(threads(), stride, shape, x, y.values_mut(), &mut places);
        let kept = Self {
            shape,
            stride,
            places,
            number: PhantomData,
        };
        (y.into_tensor(), kept)
    }

    /// The gradient by the input, given that by the output. Both are by pixel and contiguous.
    pub fn gradient(&self, gradient: &Tensor) -> Tensor {
        let Shape {
            height,
            width,
            channels,
        } = self.shape;
        let mut out = Fresh::empty([gradient.size()[0] as usize, height, width, channels]);
        // SAFETY: nobody changes a gradient during the backward pass.
        let gradient = unsafe { numbers::<N>(gradient) };
        pool::max_pool_backward(
            threads(),
            self.stride,
            self.shape,
            gradient,
            &self.places,
            out.values_mut(),
        );
        out.into_tensor()
    }
}

impl MaxPool<f32> {
    /// Adds the gradient by the input to `sum`, which holds one value for each value of the input. `gradient` is by pixel and
    /// contiguous.
    pub fn add_gradient(&self, gradient: &Tensor, sum: &mut [f32]) {
        // SAFETY: nobody changes a gradient during the backward pass.
        let gradient = unsafe { numbers(gradient) };
        pool::max_pool_add_backward(
            threads(),
            self.stride,
            self.shape,
            gradient,
            &self.places,
            sum,
        );
    }
}

impl<N: TensorNumber> Backward for MaxPool<N> {
    fn backward(&self, gradient: &Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        no_grad(|| {
            let gradient = self.gradient(&by_pixel(gradient));
            vec![Some(by_channel(&gradient))]
        })
    }
}
