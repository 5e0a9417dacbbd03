//! Channels of the pixels of a batch that may be part of a wider tensor: of a concatenation, say.

use std::ops::Range;

use tch::Tensor;

/// An image's pixels, to be read.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a, N = f32> {
    /// From the first channel of the first pixel to the last channel of the last.
    pub values: &'a [N],
    /// From a pixel to the next, numbers; rows follow each other without a gap.
    pub stride: usize,
}

/// An image's pixels, to be written. What lies between them is somebody else's.
#[derive(Debug)]
pub struct PixelsMut<'a, N = f32> {
    /// As of [`Pixels`].
    pub values: &'a mut [N],
    /// As of [`Pixels`].
    pub stride: usize,
}

/// `[batch, height, width, channels]`, each pixel's channels side by side in memory, pixels, rows and images at
/// regular distances.
#[derive(Debug)]
pub struct Channels {
    tensor: Tensor,
    stride: usize,
    /// Numbers from the first one of an image to the last one's end.
    span: usize,
    /// From an image to the next.
    image: usize,
}

impl Channels {
    /// Of `by_pixel`: no copy if it is contiguous, or some channels of a tensor that is.
    pub fn of(by_pixel: &Tensor) -> Self {
        let by_pixel = by_pixel.detach();
        let (_, height, width, channels) = by_pixel.size4().expect("a batch of images");
        let strides = by_pixel.stride();
        let stride = strides[2];
        let regular = strides == [height * width * stride, width * stride, stride, 1];
        let (tensor, stride) = match regular && stride >= channels {
            true => (by_pixel, stride),
            false => (by_pixel.contiguous(), channels),
        };
        Self {
            tensor,
            stride: stride as usize,
            span: ((height * width - 1) * stride + channels) as usize,
            image: (height * width * stride) as usize,
        }
    }

    /// As a tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The images, to be read.
    ///
    /// # Safety
    /// The tensor must hold numbers of the type `N` on the CPU, and nobody changes them while they are used.
    pub unsafe fn images<N>(&self) -> Vec<Pixels<'_, N>> {
        let first = self.tensor.data_ptr() as *const N;
        let pixels = |Range { start, end }| Pixels {
            // SAFETY: the caller's; the last image ends where its last channel does.
            values: unsafe { std::slice::from_raw_parts(first.add(start), end - start) },
            stride: self.stride,
        };
        self.ranges().map(pixels).collect()
    }

    /// The images, to be written.
    ///
    /// # Safety
    /// As of [`Channels::images`], and nobody else uses these pixels or what lies between them meanwhile.
    pub unsafe fn images_mut<N>(&self) -> Vec<PixelsMut<'_, N>> {
        let first = self.tensor.data_ptr() as *mut N;
        let pixels = |Range { start, end }| PixelsMut {
            // SAFETY: the caller's; images do not overlap.
            values: unsafe { std::slice::from_raw_parts_mut(first.add(start), end - start) },
            stride: self.stride,
        };
        self.ranges().map(pixels).collect()
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let images = self.tensor.size()[0] as usize;
        (0..images).map(|image| image * self.image..image * self.image + self.span)
    }
}
