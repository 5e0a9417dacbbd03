//! The numbers of CPU tensors as Rust slices: where libtorch's memory meets [`fovea_kernels`].
//!
//! A [`Fresh`] tensor has one owner, so it lends its numbers safely. A tensor that came from libtorch is a shared handle that
//! safe code can write through; borrowing its numbers is unsafe, and the caller promises that nobody does so.

use std::marker::PhantomData;

use fovea_kernels::{Bf16, Images, ImagesMut, Number, Shape, Threads};
use tch::{Device, Kind, Tensor};

/// A [`Number`] that libtorch has a name for.
pub trait TensorNumber: Number {
    /// libtorch's name of it.
    const KIND: Kind;
}

impl TensorNumber for f32 {
    const KIND: Kind = Kind::Float;
}

impl TensorNumber for Bf16 {
    const KIND: Kind = Kind::BFloat16;
}

/// As many threads as libtorch is set to use.
pub fn threads() -> Threads {
    Threads::new(tch::get_num_threads().max(1) as usize)
}

/// A new contiguous tensor on the CPU that nobody else refers to.
#[derive(Debug)]
pub struct Fresh<N> {
    tensor: Tensor,
    numbers: PhantomData<N>,
}

impl<N: TensorNumber> Fresh<N> {
    /// A tensor of unspecified numbers: memory as libtorch's allocator gives it.
    pub fn empty<const D: usize>(size: [usize; D]) -> Self {
        Self {
            tensor: Tensor::empty(size.map(|n| n as i64), (N::KIND, Device::Cpu)),
            numbers: PhantomData,
        }
    }

    /// A tensor of zeros.
    pub fn zeros<const D: usize>(size: [usize; D]) -> Self {
        Self {
            tensor: Tensor::zeros(size.map(|n| n as i64), (N::KIND, Device::Cpu)),
            numbers: PhantomData,
        }
    }

    /// Its numbers.
    pub fn values(&self) -> &[N] {
        // SAFETY: contiguous, of this kind and on the CPU, as it was made; this is the only handle, and it is borrowed.
        unsafe { numbers(&self.tensor) }
    }

    /// Its numbers, to be written.
    pub fn values_mut(&mut self) -> &mut [N] {
        // SAFETY: as in `values`; this is the only handle, and it is borrowed mutably.
        unsafe { numbers_mut(&self.tensor) }
    }

    /// Its size.
    pub fn size<const D: usize>(&self) -> [usize; D] {
        let size: Vec<usize> = self.tensor.size().iter().map(|n| *n as usize).collect();
        size.try_into().expect("the number of dimensions is known")
    }

    /// As a batch of images to be written: it is `[images, height, width, channels]`.
    pub fn images_mut(&mut self) -> ImagesMut<'_, N> {
        let [count, height, width, channels] = self.size();
        let shape = Shape {
            height,
            width,
            channels,
        };
        ImagesMut::dense(self.values_mut(), count, shape)
    }

    /// The tensor, which can be shared from here on.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }
}

/// A batch of images by pixel, `[images, height, width, channels]`, whose pixels lie at one distance from each other: a
/// contiguous tensor, or some channels of one.
#[derive(Debug)]
pub struct ByPixel(Tensor);

impl ByPixel {
    /// `by_pixel` itself where it is regular in this way, and a contiguous copy elsewhere.
    pub fn of(by_pixel: &Tensor) -> Self {
        let by_pixel = by_pixel.detach();
        let (_, height, width, channels) = by_pixel.size4().expect("a batch of images");
        let strides = by_pixel.stride();
        let stride = strides[2];
        let regular = strides == [height * width * stride, width * stride, stride, 1];
        match regular && stride >= channels {
            true => Self(by_pixel),
            false => Self(by_pixel.contiguous()),
        }
    }

    /// The images, to be read.
    ///
    /// # Safety
    /// Nobody may change the tensor's numbers while they are borrowed.
    ///
    /// # Panics
    /// If the tensor is not of the kind `N` on the CPU.
    pub unsafe fn images<N: TensorNumber>(&self) -> Images<'_, N> {
        check::<N>(&self.0);
        let size = self.0.size();
        let [count, height, width, channels] = [0, 1, 2, 3].map(|i| size[i] as usize);
        let shape = Shape {
            height,
            width,
            channels,
        };
        // A regular tensor, and a contiguous one too, has this distance of pixels. libtorch may give any stride where
        // a dimension is 1; `of` has compared all of them.
        let stride = self.0.stride()[2] as usize;
        let len = match count * shape.pixels() {
            0 => 0,
            pixels => (pixels - 1) * stride + channels,
        };
        // SAFETY: the last pixel begins at (pixels - 1) * stride, so `len` numbers lie in the tensor's storage, which
        // `self` keeps alive; their type was checked, and nobody changes them (the caller's promise).
        let values = unsafe { borrow(self.0.data_ptr().cast(), len) };
        Images::strided(values, count, shape, stride)
    }
}

/// The numbers of an f32 tensor.
///
/// # Safety
/// As [`numbers`].
///
/// # Panics
/// As [`numbers`].
pub unsafe fn values(x: &Tensor) -> &[f32] {
    // SAFETY: the caller's promise.
    unsafe { numbers(x) }
}

/// The numbers of an f32 tensor, to be written.
///
/// # Safety
/// As [`numbers_mut`].
///
/// # Panics
/// As [`numbers`].
#[allow(clippy::mut_from_ref)] // A tensor is a shared handle; the caller promises that it is the only user.
pub unsafe fn values_mut(x: &Tensor) -> &mut [f32] {
    // SAFETY: the caller's promise.
    unsafe { numbers_mut(x) }
}

/// The numbers of a tensor.
///
/// # Safety
/// Nobody may change them while they are borrowed, through this handle or another one.
///
/// # Panics
/// If the tensor is not contiguous, of the kind `N`, and on the CPU.
pub unsafe fn numbers<N: TensorNumber>(x: &Tensor) -> &[N] {
    check_contiguous::<N>(x);
    // SAFETY: a contiguous tensor holds `numel` numbers of the type that was checked; the tensor keeps its storage alive as
    // long as it is borrowed, and nobody changes them (the caller's promise).
    unsafe { borrow(x.data_ptr().cast(), x.numel()) }
}

/// The numbers of a tensor, to be written.
///
/// # Safety
/// Nobody else may read or change them while they are borrowed, through this handle or another one.
///
/// # Panics
/// As [`numbers`].
#[allow(clippy::mut_from_ref)] // A tensor is a shared handle; the caller promises that it is the only user.
pub unsafe fn numbers_mut<N: TensorNumber>(x: &Tensor) -> &mut [N] {
    check_contiguous::<N>(x);
    match x.numel() {
        // An empty tensor may have no memory at all.
        0 => &mut [],
        // SAFETY: as in `numbers`; nobody else uses them (the caller's promise). libtorch's allocator gives memory that
        // Rust knows nothing of; every bit pattern is a number of these types.
        len => unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast(), len) },
    }
}

/// # Safety
/// `len` numbers of the type `N` must lie at `first`, live for `'a`, and not be changed meanwhile. Without any, `first` may be
/// null.
unsafe fn borrow<'a, N>(first: *const N, len: usize) -> &'a [N] {
    match len {
        0 => &[],
        // SAFETY: the caller's promise; libtorch aligns its memory to 64 bytes, and a view begins at a whole number.
        len => unsafe { std::slice::from_raw_parts(first, len) },
    }
}

#[track_caller]
fn check<N: TensorNumber>(x: &Tensor) {
    let found = (x.device(), x.kind());
    assert_eq!(found, (Device::Cpu, N::KIND), "a tensor's device and kind");
}

#[track_caller]
fn check_contiguous<N: TensorNumber>(x: &Tensor) {
    check::<N>(x);
    assert!(
        x.is_contiguous(),
        "a tensor of size {:?} with strides {:?} is not contiguous",
        x.size(),
        x.stride()
    );
}

/// The shape of the images of `[images, channels, height, width]`, and their number.
pub fn shape_of(x: &Tensor) -> (usize, Shape) {
    let (count, channels, height, width) = x.size4().expect("a batch of images");
    let shape = Shape {
        height: height as usize,
        width: width as usize,
        channels: channels as usize,
    };
    (count as usize, shape)
}

/// `[images, height, width, channels]`, contiguous, of `[images, channels, height, width]`; no copy where that is
/// channels-last in memory.
pub fn by_pixel(x: &Tensor) -> Tensor {
    x.detach().permute([0, 2, 3, 1]).contiguous()
}

/// The inverse of [`by_pixel`], without a copy.
pub fn by_channel(x: &Tensor) -> Tensor {
    x.permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(size: &[i64]) -> Tensor {
        Tensor::arange(size.iter().product::<i64>(), (Kind::Float, Device::Cpu)).view(size)
    }

    #[test]
    fn a_view_of_channels_borrows_the_tensor_itself() {
        let x = counted(&[2, 2, 3, 8]);
        let part = ByPixel::of(&x.narrow(3, 2, 4));
        assert_eq!(part.0.data_ptr(), x.narrow(3, 2, 4).data_ptr());
        // SAFETY: nobody else uses the tensor.
        let images = unsafe { part.images::<f32>() };
        assert_eq!((images.count(), images.shape().channels), (2, 4));
        // Another order in memory is copied.
        let turned = ByPixel::of(&x.permute([0, 2, 1, 3]));
        assert!(turned.0.is_contiguous());
        assert_eq!(turned.0, x.permute([0, 2, 1, 3]));
    }

    #[test]
    fn an_empty_tensor_has_no_numbers() {
        let x = counted(&[0, 2, 3, 8]);
        // SAFETY: nobody else uses the tensor.
        unsafe {
            assert!(values(&x).is_empty());
            assert!(values_mut(&x).is_empty());
            assert_eq!(ByPixel::of(&x).images::<f32>().count(), 0);
        }
    }

    #[test]
    #[should_panic(expected = "is not contiguous")]
    fn a_tensor_with_gaps_is_refused() {
        let x = counted(&[4, 6]).narrow(1, 0, 3);
        // SAFETY: nobody else uses the tensor.
        let _ = unsafe { values(&x) };
    }

    #[test]
    #[should_panic(expected = "device and kind")]
    fn a_tensor_of_another_kind_is_refused() {
        let x = counted(&[4]).to_kind(Kind::Double);
        // SAFETY: nobody else uses the tensor.
        let _ = unsafe { values(&x) };
    }
}
