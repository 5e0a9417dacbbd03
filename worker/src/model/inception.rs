//! An inception module on the CPU as one operation, in f32 or bfloat16.
//!
//! ```text
//!      +-> 1x1 ------------------+
//!      +-> 3x3_reduce --> 3x3 ---+
//! x ---+-> 5x5_reduce --> 5x5 ---+--> y, side by side
//!      +-> pool ----> pool_proj -+
//! ```
//!
//! Computed layer by layer, each output would be written, rectified, concatenated, and all that again backwards. As one
//! operation, the three convolutions that read `x` are one matrix product, every branch writes to its channels of
//! `y`, and the gradients by `x` are added by the product. ReLU follows each convolution.

mod arithmetic;

use std::ops::Range;

use fovea_kernels::pool::Stride;
use fovea_kernels::relu::{bias_relu, bias_relu_backward};
use fovea_kernels::{Bf16, Images, ImagesMut};
use tch::{Device, Kind, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::conv3x3::{self, Convolution, Filters};
use super::convolution;
use super::pool::MaxPool;
use super::raw::{ByPixel, Fresh, by_channel, by_pixel, shape_of, threads, values};
use arithmetic::Arithmetic;

/// A convolution's parameters, f32: `[to, from, k, k]` and `[to]`.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
}

impl Layer<'_> {
    /// Channels of the output.
    fn width(&self) -> usize {
        self.weight.size()[0] as usize
    }
}

/// The module's convolutions.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    pub one: Layer<'a>,
    pub three_reduce: Layer<'a>,
    pub three: Layer<'a>,
    pub five_reduce: Layer<'a>,
    pub five: Layer<'a>,
    pub pool_proj: Layer<'a>,
}

/// The module's output, `[batch, channels, height, width]`, channels-last in memory, of the kind of `x`. None where
/// this operation does not take `x`: on another device than the CPU, or of another kind.
pub fn inception(filters: &Filters, x: &Tensor, layers: Layers) -> Option<Tensor> {
    match (x.device(), x.kind()) {
        (Device::Cpu, Kind::Float) => Some(module::<f32>(filters, x, layers)),
        (Device::Cpu, Kind::BFloat16) => Some(module::<Bf16>(filters, x, layers)),
        _ => None,
    }
}

fn module<N: Arithmetic>(filters: &Filters, x: &Tensor, layers: Layers) -> Tensor {
    let Layers {
        one,
        three_reduce,
        three,
        five_reduce,
        five,
        pool_proj,
    } = layers;
    let (y, kept) = no_grad(|| Module::<N>::forward(filters, x, layers));
    // In the order of `Module::backward`'s results.
    let mut inputs = vec![x];
    for layer in [one, three_reduce, five_reduce, three, five, pool_proj] {
        inputs.extend([layer.weight, layer.bias]);
    }
    match autograd::records(&inputs) {
        true => autograd::attach(y, &inputs, kept),
        false => y,
    }
}

/// What the backward pass needs. All tensors but weights are by pixel: `[batch, height, width, channels]`.
struct Module<N> {
    x: Tensor,
    y: Tensor,
    /// The weights of 1x1, 3x3_reduce and 5x5_reduce, one after the other.
    weight: Tensor,
    three: Branch,
    five: Branch,
    pooled: Tensor,
    pool: MaxPool<N>,
    pool_weight: Tensor,
}

/// A reduction and the convolution after it.
struct Branch {
    reduced: Tensor,
    spatial: Spatial,
}

/// How a convolution over several pixels is computed.
enum Spatial {
    /// By our kernels.
    Winograd(Convolution),
    /// By libtorch's convolution; the weight in the kind that is computed in.
    Library(Tensor),
}

/// The channels of several tensors of these widths, side by side.
fn side_by_side<const COUNT: usize>(widths: [usize; COUNT]) -> [Range<usize>; COUNT] {
    let mut end = 0;
    widths.map(|width| {
        let start = end;
        end += width;
        start..end
    })
}

/// The channels of a tensor by pixel.
fn width_of(by_pixel: &Tensor) -> usize {
    by_pixel.size()[3] as usize
}

impl<N: Arithmetic> Module<N> {
    fn forward(filters: &Filters, x: &Tensor, layers: Layers) -> (Tensor, Self) {
        let (count, shape) = shape_of(x);
        let x = by_pixel(x);
        let empty = |channels| Fresh::<N>::empty([count, shape.height, shape.width, channels]);
        let Layers {
            one,
            three_reduce,
            three,
            five_reduce,
            five,
            pool_proj,
        } = layers;
        let widths = [one, three, five, pool_proj].map(|layer| layer.width());
        let mut y = empty(widths.iter().sum());
        let mut y_images = y.images_mut();
        let [in_one, in_three, in_five, in_pool] = side_by_side(widths);

        let readers = [one, three_reduce, five_reduce];
        let weight = N::weight(&Tensor::cat(&readers.map(|layer| layer.weight), 0));
        let outputs = ByPixel::of(&N::pointwise(&x, &weight));
        // SAFETY: `outputs` was made here and is changed by nobody.
        let outputs = unsafe { outputs.images::<N>() };
        let [mut three_reduced, mut five_reduced] =
            [three_reduce, five_reduce].map(|layer| empty(layer.width()));
        let targets = [
            y_images.channels(in_one),
            three_reduced.images_mut(),
            five_reduced.images_mut(),
        ];
        let places = side_by_side(readers.map(|layer| layer.width()));
        for ((layer, from), to) in readers.iter().zip(places).zip(targets) {
            rectify(outputs.channels(from), layer.bias, to);
        }
        let mut branch = |reduced: Fresh<N>, layer: Layer, to: Range<usize>| {
            let reduced = reduced.into_tensor();
            let spatial = Spatial::forward(filters, &reduced, layer, y_images.channels(to));
            Branch { reduced, spatial }
        };
        let three = branch(three_reduced, three, in_three);
        let five = branch(five_reduced, five, in_five);

        let (pooled, pool) = MaxPool::<N>::forward(&x, Stride::One);
        let pool_weight = N::weight(pool_proj.weight);
        let projected = ByPixel::of(&N::pointwise(&pooled, &pool_weight));
        // SAFETY: `projected` was made here and is changed by nobody.
        let projected = unsafe { projected.images::<N>() };
        rectify(projected, pool_proj.bias, y_images.channels(in_pool));

        let y = y.into_tensor();
        let kept = Self {
            x,
            y: y.shallow_clone(),
            weight,
            three,
            five,
            pooled,
            pool,
            pool_weight,
        };
        (by_channel(&y), kept)
    }

    fn gradients(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>> {
        let gradient = ByPixel::of(&gradient.permute([0, 2, 3, 1]));
        let y = ByPixel::of(&self.y);
        // SAFETY: nobody changes a gradient or an activation during the backward pass.
        let (gradient, y) = unsafe { (gradient.images::<N>(), y.images::<N>()) };
        let (count, shape) = (y.count(), y.shape());
        let empty = |channels| Fresh::<N>::empty([count, shape.height, shape.width, channels]);
        let reduced = [&self.three, &self.five].map(|branch| width_of(&branch.reduced));
        let all_read = self.weight.size()[0] as usize;
        let widths = [
            all_read - reduced[0] - reduced[1],
            self.three.spatial.width(),
            self.five.spatial.width(),
            self.pool_weight.size()[0] as usize,
        ];
        let [in_one, in_three, in_five, in_pool] = side_by_side(widths);
        let places = side_by_side([widths[0], reduced[0], reduced[1]]);
        let [to_one, to_three, to_five] = places.clone();
        let mut by_outputs = empty(all_read);
        let mut by_outputs_images = by_outputs.images_mut();

        let one_bias = rectify_backward(
            gradient.channels(in_one.clone()),
            y.channels(in_one),
            by_outputs_images.channels(to_one),
        );
        let branch = |branch: &Branch, place: Range<usize>, to: ImagesMut<N>, needed: &[bool]| {
            let (gradient, y) = (gradient.channels(place.clone()), y.channels(place));
            let Branch { reduced, spatial } = branch;
            let (by_reduced, weight, bias) = spatial.gradients(reduced, gradient, y, needed[0]);
            let (by_reduced, reduced) = (ByPixel::of(&by_reduced), ByPixel::of(reduced));
            // SAFETY: nobody changes a gradient or an activation during the backward pass.
            let (by_reduced, reduced) = unsafe { (by_reduced.images(), reduced.images()) };
            let reduce_bias = rectify_backward(by_reduced, reduced, to);
            (reduce_bias, weight, bias)
        };
        let (three_reduce_bias, three_weight, three_bias) = branch(
            &self.three,
            in_three,
            by_outputs_images.channels(to_three),
            &needed[7..9],
        );
        let (five_reduce_bias, five_weight, five_bias) = branch(
            &self.five,
            in_five,
            by_outputs_images.channels(to_five),
            &needed[9..11],
        );
        let by_x = needed[0];
        let weights_needed = needed[1] || needed[3] || needed[5];
        let by_outputs = by_outputs.into_tensor();
        let wanted = [by_x, weights_needed];
        let [x, weight] = N::pointwise_backward(&by_outputs, &self.x, &self.weight, wanted);

        let mut by_projected = empty(widths[3]);
        let pool_bias = rectify_backward(
            gradient.channels(in_pool.clone()),
            y.channels(in_pool),
            by_projected.images_mut(),
        );
        let by_projected = by_projected.into_tensor();
        let wanted = [by_x, needed[11]];
        let [by_pooled, pool_weight] =
            N::pointwise_backward(&by_projected, &self.pooled, &self.pool_weight, wanted);
        let x = match (x, by_pooled) {
            (Some(x), Some(by_pooled)) => Some(N::add_pool_gradient(&self.pool, &by_pooled, x)),
            _ => None,
        };

        let part = |place: Range<usize>| {
            let (start, len) = (place.start as i64, place.len() as i64);
            weight.as_ref().map(|weight| weight.narrow(0, start, len))
        };
        let [one_weight, three_reduce_weight, five_reduce_weight] = places.map(part);
        vec![
            x.map(|x| by_channel(&x)),
            one_weight,
            Some(one_bias),
            three_reduce_weight,
            Some(three_reduce_bias),
            five_reduce_weight,
            Some(five_reduce_bias),
            three_weight,
            Some(three_bias),
            five_weight,
            Some(five_bias),
            pool_weight,
            Some(pool_bias),
        ]
    }
}

impl<N: Arithmetic> Backward for Module<N> {
    fn backward(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>> {
        let mut results = no_grad(|| self.gradients(gradient, needed));
        for (result, needed) in results.iter_mut().zip(needed) {
            *result = result.take().filter(|_| *needed);
        }
        results
    }
}

impl Spatial {
    /// `x` is by pixel and contiguous.
    fn forward<N: Arithmetic>(
        filters: &Filters,
        x: &Tensor,
        layer: Layer,
        y: ImagesMut<N>,
    ) -> Self {
        let pad = layer.weight.size()[2] / 2;
        if conv3x3::fits(&by_channel(x), layer.weight, 1, pad) {
            let filter = filters.transformed(layer.weight);
            return Self::Winograd(Convolution::forward(x, filter, layer.bias, y));
        }
        let weight = N::weight(layer.weight);
        let output = ByPixel::of(&convolution::forward(x, &weight));
        // SAFETY: `output` was made here and is changed by nobody.
        rectify(unsafe { output.images() }, layer.bias, y);
        Self::Library(weight)
    }

    /// Channels of the output.
    fn width(&self) -> usize {
        match self {
            Self::Winograd(convolution) => convolution.width() as usize,
            Self::Library(weight) => weight.size()[0] as usize,
        }
    }

    /// Gradients by its input `x`, by the weight (if `by_weight`), and by the bias.
    fn gradients<N: Arithmetic>(
        &self,
        x: &Tensor,
        gradient: Images<N>,
        y: Images<N>,
        by_weight: bool,
    ) -> (Tensor, Option<Tensor>, Tensor) {
        let (by_x, weight, bias) = match self {
            Self::Winograd(convolution) => {
                let [x, weight, bias] = convolution.gradients(gradient, y, [true, by_weight, true]);
                (x, weight, bias)
            }
            Self::Library(weight) => {
                let shape = y.shape();
                let size = [y.count(), shape.height, shape.width, shape.channels];
                let mut by_output = Fresh::<N>::empty(size);
                let bias = rectify_backward(gradient, y, by_output.images_mut());
                let by_output = by_output.into_tensor();
                let [x, weight] = convolution::backward(&by_output, x, weight, [true, by_weight]);
                let weight = weight.map(|w| w.to_kind(Kind::Float));
                (x, weight, Some(bias))
            }
        };
        let requested = "a gradient that was requested";
        (by_x.expect(requested), weight, bias.expect(requested))
    }
}

/// `y = relu(x + bias)`
fn rectify<N: Arithmetic>(x: Images<N>, bias: &Tensor, y: ImagesMut<N>) {
    let bias = bias.detach().contiguous();
    // SAFETY: nobody changes a parameter during a forward pass.
    bias_relu(threads(), x, unsafe { values(&bias) }, y);
}

/// `out` becomes `gradient` where `y` is positive, 0 elsewhere. Returns its sum over all pixels, f32 `[channels]`.
fn rectify_backward<N: Arithmetic>(gradient: Images<N>, y: Images<N>, out: ImagesMut<N>) -> Tensor {
    let mut by_image = Fresh::<f32>::zeros([y.count(), y.shape().channels]);
    bias_relu_backward(threads(), gradient, y, out, by_image.values_mut());
    let by_image = by_image.into_tensor();
    by_image.sum_dim_intlist([0i64].as_slice(), false, Kind::Float)
}
