//! 3x3 convolutions with their ReLU on the CPU: by Winograd's minimal filtering, in f32 also where images are stored in
//! bfloat16.
//!
//! They hold more than half of GoogLeNet's multiplications. oneDNN computes them by the definition, near to
//! the processor's ceiling; with a quarter of the multiplications they take about half the time, transforms
//! included. Rounding errors are somewhat larger: see `ARCHITECTURE.md`.
//!
//! Bits depend on the number of images in a batch no more than libtorch's own do, and on the number of threads
//! not at all.

use std::marker::PhantomData;

use tch::{Device, Kind, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::kernels::{by_pixel, share_out};
use super::pixels::Channels;
use super::pool::Bf16;
use super::product::products;
use super::raw::{numbers, numbers_mut, values, values_mut};
use super::rows::Shape;
use super::winograd::{self, LANES, PLACES, Part, Stored};

/// Whether [`conv_relu`] takes these.
pub fn fits(x: &Tensor, weight: &Tensor, stride: i64, pad: i64) -> bool {
    let (to, from, height, width) = weight.size4().expect("a filter has four dimensions");
    let lanes = LANES as i64;
    let pays = match x.kind() {
        Kind::Float => true,
        // A processor that multiplies bf16 matrices as a whole is faster by the definition.
        Kind::BFloat16 => !multiplies_tiles(),
        _ => false,
    };
    (height, width, stride, pad) == (3, 3, 1, 1)
        && (to % lanes, from % lanes) == (0, 0)
        && x.device() == Device::Cpu
        && pays
}

/// Whether the processor has AMX for bf16. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, CPUID,
/// leaf 7, EDX bit 22.
#[cfg(target_arch = "x86_64")]
fn multiplies_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx >> 22 & 1 == 1
}

#[cfg(not(target_arch = "x86_64"))]
fn multiplies_tiles() -> bool {
    false
}

/// `relu(conv2d(x, weight) + bias)` with stride 1 and padding 1, and its gradient.
///
/// `x` is f32 or bfloat16 `[batch, from, height, width]`, `weight` f32 `[to, from, 3, 3]`, `bias` `[to]`; the result is
/// `[batch, to, height, width]`, of the kind of `x`, channels-last in memory.
pub fn conv_relu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => layer::<Bf16>(x, weight, bias),
        _ => layer::<f32>(x, weight, bias),
    }
}

fn layer<N: Stored>(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let inputs = [x, weight, bias];
    let (y, kept) = no_grad(|| {
        let x = by_pixel(x);
        let (batch, height, width, _) = x.size4().expect("a batch of images");
        let size = [batch, height, width, weight.size()[0]];
        let y = Tensor::empty(size, (N::KIND, Device::Cpu));
        let convolution = Convolution::<N>::forward(&x, weight, bias, &Channels::of(&y));
        (y.permute([0, 3, 1, 2]), ConvRelu { convolution, y })
    });
    match autograd::records(&inputs) {
        true => autograd::attach(y, &inputs, kept),
        false => y,
    }
}

/// What the backward pass needs.
struct ConvRelu<N> {
    convolution: Convolution<N>,
    /// `[batch, height, width, to]`
    y: Tensor,
}

impl<N: Stored> Backward for ConvRelu<N> {
    fn backward(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>> {
        no_grad(|| {
            let gradient = Channels::of(&gradient.permute([0, 2, 3, 1]));
            let y = Channels::of(&self.y);
            let needed = [needed[0], needed[1], needed[2]];
            let [x, weight, bias] = self.convolution.gradients(&gradient, &y, needed);
            vec![x.map(|x| x.permute([0, 3, 1, 2])), weight, bias]
        })
    }
}

/// A convolution whose output lies somewhere: transformed inputs and filters, which the backward pass needs.
#[derive(Debug)]
pub struct Convolution<N> {
    /// `[36, tiles, from]`
    x: Tensor,
    /// `[36, from, to]`
    filter: Tensor,
    stored: PhantomData<N>,
}

impl<N: Stored> Convolution<N> {
    /// Writes `relu(conv2d(x, weight) + bias)` into `y`: `[batch, height, width, to]`. `x` is `[batch, height,
    /// width, from]`, contiguous.
    pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, y: &Channels) -> Self {
        let (batch, height, width, from) = x.size4().expect("a batch of images");
        let to = weight.size()[0];
        let shape = |channels: i64| Shape {
            height: height as usize,
            width: width as usize,
            channels: channels as usize,
        };
        let (images, tiles) = (batch as usize, winograd::tiles(shape(from)));

        let planes = empty(&[PLACES as i64, (images * tiles) as i64, from]);
        // SAFETY (here and below): contiguous tensors of such numbers on the CPU that live to the end of the function;
        // what is written is new and has no other user, and every element of it is written.
        let (xs, parts) = unsafe {
            (
                numbers::<N>(x).chunks(shape(from).len()),
                Part::of(values_mut(&planes), images, tiles, from as usize),
            )
        };
        share_out(xs.zip(parts).collect(), |(x, part)| {
            N::input(shape(from), x, part)
        });

        let filter = empty(&[PLACES as i64, from, to]);
        let weight = weight.detach().contiguous();
        unsafe { winograd::filter(from as usize, values(&weight), values_mut(&filter)) };

        let outputs = empty(&[PLACES as i64, (images * tiles) as i64, to]);
        products(&outputs, &planes, &filter);
        let bias = bias.detach().contiguous();
        let (bias, parts, ys) = unsafe {
            (
                values(&bias),
                Part::of(values_mut(&outputs), images, tiles, to as usize),
                y.images_mut(),
            )
        };
        share_out(ys.into_iter().zip(parts).collect(), |(y, part)| {
            N::output(shape(to), part, bias, y)
        });
        Self {
            x: planes,
            filter,
            stored: PhantomData,
        }
    }

    /// Channels of the output.
    pub fn width(&self) -> i64 {
        self.filter.size()[2]
    }

    /// Gradients by x (as x lies), weight and bias, as far as they are needed. `y` is what was computed.
    pub fn gradients(
        &self,
        gradient: &Channels,
        y: &Channels,
        needed: [bool; 3],
    ) -> [Option<Tensor>; 3] {
        let (batch, height, width, to) = y.tensor().size4().expect("a batch of images");
        let from = self.x.size()[2];
        let shape = |channels: i64| Shape {
            height: height as usize,
            width: width as usize,
            channels: channels as usize,
        };
        let (images, tiles) = (batch as usize, winograd::tiles(shape(to)));

        let planes = empty(&[PLACES as i64, (images * tiles) as i64, to]);
        let by_image = Tensor::zeros([batch, to], (Kind::Float, Device::Cpu));
        // SAFETY: as in `forward`.
        let (gradients, ys, parts, sums) = unsafe {
            (
                gradient.images(),
                y.images(),
                Part::of(values_mut(&planes), images, tiles, to as usize),
                values_mut(&by_image).chunks_mut(to as usize),
            )
        };
        let work = gradients.into_iter().zip(ys).zip(parts).zip(sums);
        share_out(work.collect(), |(((gradient, y), part), sum)| {
            N::output_back(shape(to), gradient, y, part, sum)
        });

        let by_x = needed[0].then(|| {
            let inputs = empty(&[PLACES as i64, (images * tiles) as i64, from]);
            products(&inputs, &planes, &self.filter.transpose(1, 2));
            let out = Tensor::empty([batch, height, width, from], (N::KIND, Device::Cpu));
            // SAFETY: as above.
            let (outs, parts) = unsafe {
                (
                    numbers_mut::<N>(&out).chunks_mut(shape(from).len()),
                    Part::of(values_mut(&inputs), images, tiles, from as usize),
                )
            };
            share_out(outs.zip(parts).collect(), |(out, part)| {
                N::input_back(shape(from), part, out)
            });
            out
        });
        let by_weight = needed[1].then(|| {
            let filters = empty(&[PLACES as i64, from, to]);
            products(&filters, &self.x.transpose(1, 2), &planes);
            let out = empty(&[to, from, 3, 3]);
            // SAFETY: as above.
            unsafe { winograd::filter_back(from as usize, values(&filters), values_mut(&out)) };
            out
        });
        let by_bias =
            needed[2].then(|| by_image.sum_dim_intlist([0i64].as_slice(), false, Kind::Float));
        [by_x, by_weight, by_bias]
    }
}

fn empty(shape: &[i64]) -> Tensor {
    Tensor::empty(shape, (Kind::Float, Device::Cpu))
}
