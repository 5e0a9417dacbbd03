//! 3x3 convolutions with their ReLU on the CPU, in f32: by Winograd's minimal filtering.
//!
//! They hold more than half of GoogLeNet's multiplications. oneDNN computes them by the definition, near to
//! the processor's ceiling; with a quarter of the multiplications they take about half the time, transforms
//! included. Rounding errors are somewhat larger: see `ARCHITECTURE.md`.
//!
//! Bits depend on the number of images in a batch no more than libtorch's own do, and on the number of
//! threads only through libtorch's matrix product.

use std::ops::Range;

use tch::{Device, Kind, Tensor, no_grad};

use super::autograd::{self, Backward};
use super::kernels::{by_pixel, share_out};
use super::raw::{values, values_mut};
use super::rows::Shape;
use super::winograd::{self, LANES, PLACES, Part, Pixels};

/// Whether [`conv_relu`] takes these.
pub fn fits(x: &Tensor, weight: &Tensor, stride: i64, pad: i64) -> bool {
    let (to, from, height, width) = weight.size4().expect("a filter has four dimensions");
    let lanes = LANES as i64;
    (height, width, stride, pad) == (3, 3, 1, 1)
        && (to % lanes, from % lanes) == (0, 0)
        && (x.device(), x.kind()) == (Device::Cpu, Kind::Float)
}

/// `relu(conv2d(x, weight) + bias)` with stride 1 and padding 1, and its gradient.
///
/// `x` is f32 `[batch, from, height, width]`, `weight` `[to, from, 3, 3]`, `bias` `[to]`; the result is
/// `[batch, to, height, width]`, channels-last in memory.
pub fn conv_relu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let inputs = [x, weight, bias];
    let (y, kept) = no_grad(|| forward(x, weight, bias));
    match autograd::records(&inputs) {
        true => autograd::attach(y, &inputs, kept),
        false => y,
    }
}

/// What the backward pass needs.
struct ConvRelu {
    /// `[36, tiles, from]`
    x: Tensor,
    /// `[36, from, to]`
    filter: Tensor,
    /// `[batch, height, width, to]`
    y: Tensor,
}

fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor) -> (Tensor, ConvRelu) {
    let x = by_pixel(x);
    let (batch, height, width, from) = x.size4().expect("a batch of images");
    let to = weight.size()[0];
    let shape = |channels: i64| Shape {
        height: height as usize,
        width: width as usize,
        channels: channels as usize,
    };
    let (images, tiles) = (batch as usize, winograd::tiles(shape(from)));

    let planes = empty(&[PLACES as i64, (images * tiles) as i64, from]);
    // SAFETY (here and below): contiguous f32 tensors on the CPU that live to the end of the function; what
    // is written is new and has no other user, and every element of it is written.
    let (xs, parts) = unsafe {
        (
            values(&x).chunks(shape(from).len()),
            Part::of(values_mut(&planes), images, tiles, from as usize),
        )
    };
    share_out(xs.zip(parts).collect(), |(x, part)| {
        winograd::input(shape(from), x, part)
    });

    let filter = empty(&[PLACES as i64, from, to]);
    let weight = weight.detach().contiguous();
    unsafe { winograd::filter(from as usize, values(&weight), values_mut(&filter)) };

    let products = planes.bmm(&filter);
    let y = empty(&[batch, height, width, to]);
    let bias = bias.detach().contiguous();
    let (bias, parts, ys) = unsafe {
        (
            values(&bias),
            Part::of(values_mut(&products), images, tiles, to as usize),
            values_mut(&y).chunks_mut(shape(to).len()),
        )
    };
    share_out(ys.zip(parts).collect(), |(y, part)| {
        winograd::output(shape(to), part, bias, y)
    });
    let kept = ConvRelu {
        x: planes,
        filter,
        y: y.shallow_clone(),
    };
    (y.permute([0, 3, 1, 2]), kept)
}

impl Backward for ConvRelu {
    fn backward(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>> {
        no_grad(|| self.gradients(gradient, needed))
    }
}

impl ConvRelu {
    fn gradients(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>> {
        let (batch, height, width, to) = self.y.size4().expect("a batch of images");
        let from = self.x.size()[2];
        let shape = |channels: i64| Shape {
            height: height as usize,
            width: width as usize,
            channels: channels as usize,
        };
        let (images, tiles) = (batch as usize, winograd::tiles(shape(to)));

        let strided = Strided::of(gradient);
        let planes = empty(&[PLACES as i64, (images * tiles) as i64, to]);
        let by_image = Tensor::zeros([batch, to], (Kind::Float, Device::Cpu));
        // SAFETY: as in `forward`; `strided` reads within its tensor.
        let (ys, parts, sums) = unsafe {
            (
                values(&self.y).chunks(shape(to).len()),
                Part::of(values_mut(&planes), images, tiles, to as usize),
                values_mut(&by_image).chunks_mut(to as usize),
            )
        };
        let work = ys.zip(parts).zip(sums).enumerate();
        share_out(work.collect(), |(image, ((y, part), sum))| {
            winograd::output_back(shape(to), strided.image(image), y, part, sum)
        });

        let by_x = needed[0].then(|| {
            let products = planes.bmm(&self.filter.transpose(1, 2));
            let out = empty(&[batch, height, width, from]);
            // SAFETY: as above.
            let (outs, parts) = unsafe {
                (
                    values_mut(&out).chunks_mut(shape(from).len()),
                    Part::of(values_mut(&products), images, tiles, from as usize),
                )
            };
            share_out(outs.zip(parts).collect(), |(out, part)| {
                winograd::input_back(shape(from), part, out)
            });
            out.permute([0, 3, 1, 2])
        });
        let by_weight = needed[1].then(|| {
            let products = self.x.transpose(1, 2).bmm(&planes);
            let out = empty(&[to, from, 3, 3]);
            // SAFETY: as above.
            unsafe { winograd::filter_back(from as usize, values(&products), values_mut(&out)) };
            out
        });
        let by_bias =
            needed[2].then(|| by_image.sum_dim_intlist([0i64].as_slice(), false, Kind::Float));
        vec![by_x, by_weight, by_bias]
    }
}

/// A gradient that may be some channels of a wider tensor, as that of a concatenation is.
struct Strided {
    /// `[batch, height, width, channels]`, rows and images without gaps.
    pixels: Tensor,
    stride: usize,
    /// Numbers from the first one of an image to the last one's end.
    span: usize,
    /// From an image to the next.
    image: usize,
}

impl Strided {
    fn of(gradient: &Tensor) -> Strided {
        let by_pixel = gradient.detach().permute([0, 2, 3, 1]);
        let (_, height, width, channels) = by_pixel.size4().expect("a batch of images");
        let strides = by_pixel.stride();
        let stride = strides[2];
        let regular = strides == [height * width * stride, width * stride, stride, 1];
        let (pixels, stride) = match regular && stride >= channels {
            true => (by_pixel, stride),
            false => (by_pixel.contiguous(), channels),
        };
        Strided {
            pixels,
            stride: stride as usize,
            span: ((height * width - 1) * stride + channels) as usize,
            image: (height * width * stride) as usize,
        }
    }

    fn image(&self, number: usize) -> Pixels<'_> {
        let Range { start, end } = number * self.image..number * self.image + self.span;
        // SAFETY: an f32 tensor on the CPU that lives as long as the slice and that nobody changes in a
        // backward pass; its last image ends where this slice of it does.
        let values = unsafe {
            let first = self.pixels.data_ptr() as *const f32;
            std::slice::from_raw_parts(first.add(start), end - start)
        };
        Pixels {
            values,
            stride: self.stride,
        }
    }
}

// SAFETY: only read, and by the threads of `share_out`, which end before it goes.
unsafe impl Sync for Strided {}

fn empty(shape: &[i64]) -> Tensor {
    Tensor::empty(shape, (Kind::Float, Device::Cpu))
}
