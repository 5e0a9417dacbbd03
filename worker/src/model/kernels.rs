//! The stem's memory-bound layers on the CPU, fused: one pass over the data where libtorch takes many.
//!
//! All take and give `[batch, channels, height, width]` tensors of f32, channels-last in memory. Images
//! are independent of one another and shared out over as many threads as libtorch is set to use, so the
//! bits do not depend on the number of threads. Only additions and multiplications are used, which are
//! exact in IEEE 754, so they do not depend on the vector width either.

use tch::{Device, Kind, Tensor};

use super::raw::{values, values_mut};
use super::rows::{self, Shape};

/// ReLU, max pooling 3x3 with stride 2 (rounding up), then normalisation: what follows conv1.
pub fn relu_pool_lrn(x: &Tensor) -> Tensor {
    let shape = shape_of(x);
    map(x, shape, shape.pooled(), rows::relu_pool_lrn)
}

/// ReLU, normalisation, then max pooling 3x3 with stride 2 (rounding up): what follows conv2.
pub fn relu_lrn_pool(x: &Tensor) -> Tensor {
    let shape = shape_of(x);
    map(x, shape, shape.pooled(), rows::relu_lrn_pool)
}

/// Local response normalisation across channels.
pub fn lrn(x: &Tensor) -> Tensor {
    let shape = shape_of(x);
    map(x, shape, shape, rows::lrn)
}

/// The gradient by `x` of a loss whose gradient by `lrn(x)` is `gradient`:
///
/// `g s^-b - 2 b alpha/n x * sum over the window of (g x s^(-b-1))`, with `s` the scale that `x` is
/// divided by to the power `b`.
pub fn lrn_backward(x: &Tensor, gradient: &Tensor) -> Tensor {
    let shape = shape_of(x);
    assert_eq!(x.size(), gradient.size());
    let (x, gradient) = (by_pixel(x), by_pixel(gradient));
    let out = Tensor::empty(x.size(), (Kind::Float, Device::Cpu));
    let len = shape.len();
    // SAFETY: both are contiguous f32 tensors on the CPU that live to the end of this function, `out` is
    // new and has no other user, and every element of it is written.
    let (xs, gs, outs) = unsafe { (values(&x), values(&gradient), values_mut(&out)) };
    let images = xs.chunks(len).zip(gs.chunks(len)).zip(outs.chunks_mut(len));
    share_out(images.collect(), |((x, gradient), out)| {
        rows::lrn_backward(shape, x, gradient, out)
    });
    out.permute([0, 3, 1, 2])
}

/// Applies `image` to every image of `x`, which has the shape `from`, giving images of the shape `to`.
fn map(x: &Tensor, from: Shape, to: Shape, image: fn(Shape, &[f32], &mut [f32])) -> Tensor {
    let batch = x.size()[0];
    let x = by_pixel(x);
    let out = Tensor::empty(
        [batch, to.height as i64, to.width as i64, to.channels as i64],
        (Kind::Float, Device::Cpu),
    );
    // SAFETY: `x` is a contiguous f32 tensor on the CPU that lives to the end of this function, `out` is
    // new and has no other user, and every element of it is written.
    let (xs, outs) = unsafe { (values(&x), values_mut(&out)) };
    let images = xs.chunks(from.len()).zip(outs.chunks_mut(to.len()));
    share_out(images.collect(), |(x, out)| image(from, x, out));
    out.permute([0, 3, 1, 2])
}

/// Does all of `work` on as many threads as libtorch would use.
pub(super) fn share_out<T: Send>(work: Vec<T>, each: impl Fn(T) + Sync) {
    let threads = (tch::get_num_threads().max(1) as usize).min(work.len());
    if threads <= 1 {
        return work.into_iter().for_each(each);
    }
    let mut shares: Vec<Vec<T>> = (0..threads).map(|_| Vec::new()).collect();
    for (i, item) in work.into_iter().enumerate() {
        shares[i % threads].push(item);
    }
    let own = shares.pop().expect("at least two shares");
    std::thread::scope(|scope| {
        for share in shares {
            scope.spawn(|| share.into_iter().for_each(&each));
        }
        own.into_iter().for_each(&each);
    });
}

pub(super) fn shape_of(x: &Tensor) -> Shape {
    assert_eq!(
        (x.device(), x.kind()),
        (Device::Cpu, Kind::Float),
        "the fused kernels take f32 on the CPU"
    );
    let (_, channels, height, width) = x.size4().expect("a batch of images has four dimensions");
    Shape {
        height: height as usize,
        width: width as usize,
        channels: channels as usize,
    }
}

/// `[batch, height, width, channels]`, contiguous; no copy where `x` is channels-last.
pub(super) fn by_pixel(x: &Tensor) -> Tensor {
    x.detach().permute([0, 2, 3, 1]).contiguous()
}
