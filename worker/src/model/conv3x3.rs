//! 3x3 convolutions of tensors with their ReLU on the CPU, by [`fovea_kernels::conv3x3`].
//!
//! The bits depend on the number of images in a batch no more than libtorch's own do, and not on the number of threads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;

use fovea_kernels::conv3x3::{self, Conv3x3};
use fovea_kernels::{Bf16, Images, ImagesMut};
use tch::{Device, Kind, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::raw::{
    ByPixel, Fresh, TensorNumber, by_channel, by_pixel, numbers, shape_of, threads, values,
};

/// Whether [`conv_relu`] takes these.
pub fn fits(x: &Tensor, weight: &Tensor, stride: i64, pad: i64) -> bool {
    let (to, from, height, width) = weight.size4().expect("a filter has four dimensions");
    let pays = match x.kind() {
        Kind::Float => true,
        // A processor that multiplies bf16 matrices as a whole is faster by the definition.
        Kind::BFloat16 => !has_amx_bf16(),
        _ => false,
    };
    (height, width, stride, pad) == (3, 3, 1, 1)
        && conv3x3::fits(from as usize, to as usize)
        && x.device() == Device::Cpu
        && pays
}

/// Whether the processor has AMX for bf16. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, CPUID,
/// leaf 7, EDX bit 22.
#[cfg(target_arch = "x86_64")]
fn has_amx_bf16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx >> 22 & 1 == 1
}

#[cfg(not(target_arch = "x86_64"))]
fn has_amx_bf16() -> bool {
    false
}

/// `relu(conv2d(x, weight) + bias)` with stride 1 and padding 1, and its gradient.
///
/// `x` is f32 or bfloat16 `[batch, from, height, width]`, `weight` f32 `[to, from, 3, 3]`, `bias` `[to]`. The result is
/// `[batch, to, height, width]`, of the kind of `x`, channels-last in memory.
pub fn conv_relu(filters: &Filters, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => layer::<Bf16>(filters, x, weight, bias),
        _ => layer::<f32>(filters, x, weight, bias),
    }
}

fn layer<N: TensorNumber>(filters: &Filters, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let inputs = [x, weight, bias];
    let (y, kept) = no_grad(|| {
        let (count, shape) = shape_of(x);
        let to = weight.size()[0] as usize;
        let mut y = Fresh::<N>::empty([count, shape.height, shape.width, to]);
        let filter = filters.transformed(weight);
        let convolution = Convolution::forward(&by_pixel(x), filter, bias, y.images_mut());
        let y = y.into_tensor();
        (
            by_channel(&y),
            ConvRelu::<N> {
                convolution,
                y,
                number: PhantomData,
            },
        )
    });
    match autograd::records(&inputs) {
        true => autograd::attach(y, &inputs, kept),
        false => y,
    }
}

/// Transformed filters. Those that are not trained are kept: frozen layers are computed image by image.
#[derive(Debug, Default)]
pub struct Filters(RefCell<HashMap<usize, Kept>>);

/// A transformed filter, and the version of the weight that it was made of.
#[derive(Debug)]
struct Kept {
    version: i64,
    filter: Tensor,
}

impl Filters {
    /// The filter `[from, 36, to]` of an f32 weight `[to, from, 3, 3]`.
    pub fn transformed(&self, weight: &Tensor) -> Tensor {
        if weight.requires_grad() {
            return transform(weight);
        }
        let mut kept = self.0.borrow_mut();
        let (place, version) = (weight.data_ptr() as usize, weight.internal_version());
        if let Some(kept) = kept.get(&place).filter(|kept| kept.version == version) {
            return kept.filter.shallow_clone();
        }
        let filter = transform(weight);
        let fresh = Kept {
            version,
            filter: filter.shallow_clone(),
        };
        kept.insert(place, fresh);
        filter
    }
}

fn transform(weight: &Tensor) -> Tensor {
    no_grad(|| {
        let (to, from, _, _) = weight.size4().expect("a filter has four dimensions");
        let (from, to) = (from as usize, to as usize);
        let mut filter = Fresh::empty(conv3x3::filter_shape(from, to));
        let weight = weight.detach().contiguous();
        // SAFETY: nobody changes a parameter during a forward pass.
        let weight = unsafe { values(&weight) };
        conv3x3::transform_filter(from, to, weight, filter.values_mut());
        filter.into_tensor()
    })
}

/// What the backward pass needs.
struct ConvRelu<N> {
    convolution: Convolution,
    /// `[batch, height, width, to]`
    y: Tensor,
    number: PhantomData<N>,
}

impl<N: TensorNumber> Backward for ConvRelu<N> {
    fn backward(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>> {
        no_grad(|| {
            let gradient = ByPixel::of(&gradient.permute([0, 2, 3, 1]));
            let y = ByPixel::of(&self.y);
            let needed = [needed[0], needed[1], needed[2]];
            // SAFETY: nobody changes a gradient or an activation during the backward pass.
            let (gradient, y) = unsafe { (gradient.images::<N>(), y.images()) };
            let [x, weight, bias] = self.convolution.gradients(gradient, y, needed);
            vec![x.map(|x| by_channel(&x)), weight, bias]
        })
    }
}

/// A convolution whose output lies somewhere: what its backward pass needs.
#[derive(Debug)]
pub struct Convolution {
    sizes: Conv3x3,
    /// The transformed input, `[tiles, 36, from]`.
    inputs: Fresh<f32>,
    /// The transformed filter, `[from, 36, to]`.
    filter: Tensor,
}

impl Convolution {
    /// Writes `relu(conv2d(x, weight) + bias)` into `y`. `x` is `[batch, height, width, from]`, contiguous; `filter` is the
    /// weight as [`Filters`] gives it.
    pub fn forward<N: TensorNumber>(
        x: &Tensor,
        filter: Tensor,
        bias: &Tensor,
        y: ImagesMut<N>,
    ) -> Self {
        let (count, shape) = shape_of(&by_channel(x));
        let sizes = Conv3x3::new(count, shape, filter.size()[2] as usize);
        let mut inputs = Fresh::empty(sizes.inputs_shape());
        let mut outputs = Fresh::empty(sizes.outputs_shape());
        let bias = bias.detach().contiguous();
        // SAFETY: nobody changes an activation or a parameter during a forward pass.
        let (x, transformed, bias) = unsafe { (numbers::<N>(x), values(&filter), values(&bias)) };
        sizes.forward(
            threads(),
            x,
            transformed,
            bias,
            inputs.values_mut(),
            outputs.values_mut(),
            y,
        );
        Self {
            sizes,
            inputs,
            filter,
        }
    }

    /// Channels of the output.
    pub fn width(&self) -> i64 {
        self.filter.size()[2]
    }

    /// The gradients by x (as x lies), weight and bias, as far as they are needed. `y` is what was computed.
    pub fn gradients<N: TensorNumber>(
        &self,
        gradient: Images<N>,
        y: Images<N>,
        needed: [bool; 3],
    ) -> [Option<Tensor>; 3] {
        let (count, shape) = (y.count(), y.shape());
        let [_, _, from] = self.sizes.inputs_shape();
        let mut outputs = Fresh::empty(self.sizes.outputs_shape());
        let mut by_image = Fresh::<f32>::zeros([count, shape.channels]);
        self.sizes.output_gradient(
            threads(),
            gradient,
            y,
            outputs.values_mut(),
            by_image.values_mut(),
        );
        let by_x = needed[0].then(|| {
            let mut inputs = Fresh::empty(self.sizes.inputs_shape());
            let mut out = Fresh::<N>::empty([count, shape.height, shape.width, from]);
            // SAFETY: nobody changes a transformed filter.
            let filter = unsafe { values(&self.filter) };
            self.sizes.input_gradient(
                threads(),
                outputs.values(),
                filter,
                inputs.values_mut(),
                out.values_mut(),
            );
            out.into_tensor()
        });
        let by_weight = needed[1].then(|| {
            let mut filter = Fresh::empty(self.sizes.filter_shape());
            let mut out = Fresh::empty([shape.channels, from, 3, 3]);
            self.sizes.weight_gradient(
                threads(),
                self.inputs.values(),
                outputs.values(),
                filter.values_mut(),
                out.values_mut(),
            );
            out.into_tensor()
        });
        let by_bias = needed[2].then(|| {
            let by_image = by_image.into_tensor();
            by_image.sum_dim_intlist([0i64].as_slice(), false, Kind::Float)
        });
        [by_x, by_weight, by_bias]
    }
}
