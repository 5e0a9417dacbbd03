//! 3x3 convolutions with their ReLU on the CPU: by Winograd's minimal filtering, in f32 also where images are stored in
//! bfloat16.
//!
//! They hold more than half of GoogLeNet's multiplications. oneDNN computes them by the definition, near to
//! the processor's ceiling; with a quarter of the multiplications they take about half the time, transforms
//! included. Rounding errors are somewhat larger: see `ARCHITECTURE.md`.
//!
//! Bits depend on the number of images in a batch no more than libtorch's own do, and on the number of threads
//! not at all.

use std::cell::RefCell;
use std::collections::HashMap;
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
pub fn conv_relu(filters: &Filters, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => layer::<Bf16>(filters, x, weight, bias),
        _ => layer::<f32>(filters, x, weight, bias),
    }
}

fn layer<N: Stored>(filters: &Filters, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let inputs = [x, weight, bias];
    let (y, kept) = no_grad(|| {
        let x = by_pixel(x);
        let (batch, height, width, _) = x.size4().expect("a batch of images");
        let size = [batch, height, width, weight.size()[0]];
        let y = Tensor::empty(size, (N::KIND, Device::Cpu));
        let filter = filters.transformed(weight);
        let convolution = Convolution::<N>::forward(&x, filter, bias, &Channels::of(&y));
        (y.permute([0, 3, 1, 2]), ConvRelu { convolution, y })
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
    /// `[from, 36, to]`, of an f32 weight `[to, from, 3, 3]`.
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
        let filter = empty(&[from, PLACES as i64, to]);
        let weight = weight.detach().contiguous();
        // SAFETY: contiguous f32 tensors on the CPU; `filter` is new, and every element of it is written.
        unsafe { winograd::filter(from as usize, values(&weight), values_mut(&filter)) };
        filter
    })
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
    /// `[tiles, 36, from]`
    x: Tensor,
    /// `[from, 36, to]`
    filter: Tensor,
    stored: PhantomData<N>,
}

impl<N: Stored> Convolution<N> {
    /// Writes `relu(conv2d(x, weight) + bias)` into `y`: `[batch, height, width, to]`. `x` is `[batch, height,
    /// width, from]`, contiguous; `filter` is the weight as [`Filters`] gives it.
    pub fn forward(x: &Tensor, filter: Tensor, bias: &Tensor, y: &Channels) -> Self {
        let (batch, height, width, from) = x.size4().expect("a batch of images");
        let to = filter.size()[2];
        let shape = |channels: i64| Shape {
            height: height as usize,
            width: width as usize,
            channels: channels as usize,
        };
        let (images, tiles) = (batch as usize, winograd::tiles(shape(from)));

        let planes = empty(&[(images * tiles) as i64, PLACES as i64, from]);
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

        let outputs = empty(&[(images * tiles) as i64, PLACES as i64, to]);
        products(&by_place(&outputs), &by_place(&planes), &by_place(&filter));
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

        let planes = empty(&[(images * tiles) as i64, PLACES as i64, to]);
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
            let inputs = empty(&[(images * tiles) as i64, PLACES as i64, from]);
            let filter = by_place(&self.filter).transpose(1, 2);
            products(&by_place(&inputs), &by_place(&planes), &filter);
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
            let filters = empty(&[from, PLACES as i64, to]);
            let x = by_place(&self.x).transpose(1, 2);
            products(&by_place(&filters), &x, &by_place(&planes));
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

/// The matrices of the 36 places: `[36, tiles or from, channels]`.
fn by_place(transformed: &Tensor) -> Tensor {
    transformed.transpose(0, 1)
}

fn empty(shape: &[i64]) -> Tensor {
    Tensor::empty(shape, (Kind::Float, Device::Cpu))
}
