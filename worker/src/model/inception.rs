//! An inception module on the CPU as one operation, in f32 or bfloat16.
//!
//! ```text
//!      +-> 1x1 ------------------+
//!      +-> 3x3_reduce --> 3x3 ---+
//! x ---+-> 5x5_reduce --> 5x5 ---+--> y, side by side
//!      +-> pool ----> pool_proj -+
//! ```
//!
//! Layer by layer each output would be written, rectified, concatenated, and all that again backwards. As one
//! operation, the three convolutions that read `x` are one matrix product, every branch writes to its channels of
//! `y`, and the gradients by `x` are added up by the product. ReLU follows each convolution.

mod arithmetic;

use tch::{Device, Kind, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::columns::Element;
use super::conv3x3::{self, Convolution, Filters};
use super::convolution;
use super::kernels::{by_pixel, share_out};
use super::pixels::Channels;
use super::pool::{self, Bf16, MaxPool, Moves};
use super::raw::{values, values_mut};
use arithmetic::Arithmetic;

/// A convolution's parameters, f32: `[to, from, k, k]` and `[to]`.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
}

impl Layer<'_> {
    fn width(&self) -> i64 {
        self.weight.size()[0]
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
/// this operation is not made for `x`: elsewhere than on the CPU, or in another kind.
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
    three: Branch<N>,
    five: Branch<N>,
    pooled: Tensor,
    pool: MaxPool<N>,
    pool_weight: Tensor,
}

/// A reduction and the convolution after it.
struct Branch<N> {
    reduced: Tensor,
    spatial: Spatial<N>,
}

/// How a convolution over several pixels is computed.
enum Spatial<N> {
    /// By ours.
    Winograd(Convolution<N>),
    /// By libtorch's; the weight in the kind that is computed in.
    Library(Tensor),
}

/// Where each branch's channels begin in `y`, and how many they are.
#[derive(Clone, Copy)]
struct Place(i64, i64);

impl Place {
    /// One after the other.
    fn row<const COUNT: usize>(widths: [i64; COUNT]) -> [Place; COUNT] {
        let mut end = 0;
        widths.map(|width| {
            let place = Place(end, width);
            end += width;
            place
        })
    }

    fn of(self, by_pixel: &Tensor) -> Channels {
        Channels::of(&by_pixel.narrow(3, self.0, self.1))
    }
}

impl<N: Arithmetic> Module<N> {
    fn forward(filters: &Filters, x: &Tensor, layers: Layers) -> (Tensor, Self) {
        let x = by_pixel(x);
        let (batch, height, width, _) = x.size4().expect("a batch of images");
        let empty = |channels: i64| {
            let size = [batch, height, width, channels];
            Tensor::empty(size, (N::KIND, Device::Cpu))
        };
        let Layers {
            one,
            three_reduce,
            three,
            five_reduce,
            five,
            pool_proj,
        } = layers;
        let widths = [one, three, five, pool_proj].map(|layer| layer.width());
        let y = empty(widths.iter().sum());
        let [in_one, in_three, in_five, in_pool] = Place::row(widths);

        let readers = [one, three_reduce, five_reduce];
        let weight = N::weight(&Tensor::cat(&readers.map(|layer| layer.weight), 0));
        let outputs = N::pointwise(&x, &weight);
        let [three_reduced, five_reduced] = [three_reduce, five_reduce].map(|l| empty(l.width()));
        let targets = [
            in_one.of(&y),
            Channels::of(&three_reduced),
            Channels::of(&five_reduced),
        ];
        let places = Place::row(readers.map(|layer| layer.width()));
        for ((layer, from), to) in readers.iter().zip(places).zip(&targets) {
            rectify::<N>(&from.of(&outputs), layer.bias, to);
        }
        let branch = |reduced: Tensor, layer: Layer, to: Place| Branch {
            spatial: Spatial::<N>::forward(filters, &reduced, layer, &to.of(&y)),
            reduced,
        };
        let three = branch(three_reduced, three, in_three);
        let five = branch(five_reduced, five, in_five);

        let (pooled, pool) = pool::forward::<N>(&x.permute([0, 3, 1, 2]), Moves::ByOne);
        let pooled = by_pixel(&pooled);
        let pool_weight = N::weight(pool_proj.weight);
        let projected = Channels::of(&N::pointwise(&pooled, &pool_weight));
        rectify::<N>(&projected, pool_proj.bias, &in_pool.of(&y));

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
        (y.permute([0, 3, 1, 2]), kept)
    }

    fn gradients(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>> {
        let gradient = Channels::of(&gradient.permute([0, 2, 3, 1]));
        let gradient = gradient.tensor();
        let (batch, height, width, _) = self.y.size4().expect("a batch of images");
        let width_of = |x: &Tensor| x.size()[3];
        let widths = [
            self.weight.size()[0] - width_of(&self.three.reduced) - width_of(&self.five.reduced),
            self.three.spatial.width(),
            self.five.spatial.width(),
            self.pool_weight.size()[0],
        ];
        let [in_one, in_three, in_five, in_pool] = Place::row(widths);
        let places = Place::row([
            widths[0],
            width_of(&self.three.reduced),
            width_of(&self.five.reduced),
        ]);
        let empty = |channels: i64| {
            let size = [batch, height, width, channels];
            Tensor::empty(size, (N::KIND, Device::Cpu))
        };
        let by_outputs = empty(self.weight.size()[0]);
        let [to_one, to_three, to_five] = places.map(|place| place.of(&by_outputs));

        let one_bias = rectify_back::<N>(&in_one.of(gradient), &in_one.of(&self.y), &to_one);
        let branch = |branch: &Branch<N>, place: Place, to: &Channels, needed: &[bool]| {
            let (gradient, y) = (place.of(gradient), place.of(&self.y));
            let Branch { reduced, spatial } = branch;
            let needed = [needed[0], needed[1]];
            let (by_reduced, weight, bias) = spatial.back(reduced, &gradient, &y, needed);
            let reduced = Channels::of(reduced);
            let reduce_bias = rectify_back::<N>(&Channels::of(&by_reduced), &reduced, to);
            (reduce_bias, weight, bias)
        };
        let (three_reduce_bias, three_weight, three_bias) =
            branch(&self.three, in_three, &to_three, &needed[7..9]);
        let (five_reduce_bias, five_weight, five_bias) =
            branch(&self.five, in_five, &to_five, &needed[9..11]);
        let by_x = needed[0];
        let weights_needed = needed[1] || needed[3] || needed[5];
        let [x, weight] =
            N::pointwise_back(&by_outputs, &self.x, &self.weight, [by_x, weights_needed]);

        let by_projected = empty(widths[3]);
        let pool_bias = rectify_back::<N>(
            &in_pool.of(gradient),
            &in_pool.of(&self.y),
            &Channels::of(&by_projected),
        );
        let wanted = [by_x, needed[11]];
        let [pooled, pool_weight] =
            N::pointwise_back(&by_projected, &self.pooled, &self.pool_weight, wanted);
        let x = match (x, pooled) {
            (Some(x), Some(pooled)) => Some(N::add_pool_back(&self.pool, &pooled, x)),
            _ => None,
        };

        let part = |place: Place| weight.as_ref().map(|w| w.narrow(0, place.0, place.1));
        let [one_weight, three_reduce_weight, five_reduce_weight] = places.map(part);
        vec![
            x.map(|x| x.permute([0, 3, 1, 2])),
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

impl<N: Arithmetic> Spatial<N> {
    fn forward(filters: &Filters, x: &Tensor, layer: Layer, y: &Channels) -> Self {
        let pad = layer.weight.size()[2] / 2;
        let x_by_channel = x.permute([0, 3, 1, 2]);
        if conv3x3::fits(&x_by_channel, layer.weight, 1, pad) {
            let filter = filters.transformed(layer.weight);
            return Self::Winograd(Convolution::forward(x, filter, layer.bias, y));
        }
        let weight = N::weight(layer.weight);
        let output = convolution::forward(x, &weight);
        rectify::<N>(&Channels::of(&output), layer.bias, y);
        Self::Library(weight)
    }

    /// Channels of the output.
    fn width(&self) -> i64 {
        match self {
            Self::Winograd(convolution) => convolution.width(),
            Self::Library(weight) => weight.size()[0],
        }
    }

    /// Gradients by its input `x` and the weight, if `needed`, and by the bias.
    fn back(
        &self,
        x: &Tensor,
        gradient: &Channels,
        y: &Channels,
        needed: [bool; 2],
    ) -> (Tensor, Option<Tensor>, Tensor) {
        let [by_weight, _] = needed;
        let (by_x, weight, bias) = match self {
            Self::Winograd(convolution) => {
                let [x, weight, bias] = convolution.gradients(gradient, y, [true, by_weight, true]);
                (x, weight, bias)
            }
            Self::Library(weight) => {
                let size = y.tensor().size();
                let by_output = Tensor::empty(size, (N::KIND, Device::Cpu));
                let bias = rectify_back::<N>(gradient, y, &Channels::of(&by_output));
                let [x, weight] = convolution::backward(&by_output, x, weight, [true, by_weight]);
                let weight = weight.map(|w| w.to_kind(Kind::Float));
                (x, weight, Some(bias))
            }
        };
        let given = "it was asked for";
        (by_x.expect(given), weight, bias.expect(given))
    }
}

/// `y = relu(x + bias)`
fn rectify<N: Element>(x: &Channels, bias: &Tensor, y: &Channels) {
    let bias = bias.detach().contiguous();
    // SAFETY: tensors of such numbers on the CPU that live to the end of this function; `y` is written by this
    // function alone.
    let (bias, xs, ys) = unsafe { (values(&bias), x.images(), y.images_mut()) };
    share_out(xs.into_iter().zip(ys).collect(), |(x, y)| {
        N::rectify(x, bias, y)
    });
}

/// `out` is `gradient` where `y` is positive; its sum over all pixels, f32 `[channels]`, is what comes back.
fn rectify_back<N: Element>(gradient: &Channels, y: &Channels, out: &Channels) -> Tensor {
    let size = y.tensor().size();
    let (images, channels) = (size[0], size[3]);
    let by_image = Tensor::zeros([images, channels], (Kind::Float, Device::Cpu));
    // SAFETY: as above, of `out` and `by_image`.
    let (gradients, ys, outs, sums) = unsafe {
        (
            gradient.images(),
            y.images(),
            out.images_mut(),
            values_mut(&by_image).chunks_mut(channels as usize),
        )
    };
    let work = gradients.into_iter().zip(ys).zip(outs).zip(sums);
    share_out(work.collect(), |(((gradient, y), out), sums)| {
        N::rectify_back(gradient, y, out, sums)
    });
    by_image.sum_dim_intlist([0i64].as_slice(), false, Kind::Float)
}
