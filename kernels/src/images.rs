//! Views of batches of images: all channels of a tensor, or some of a wider one, such as one branch of a concatenation.

use std::ops::Range;

use crate::Shape;

/// A batch of images to be read: `[images, height, width, channels]`, with the channels of a pixel contiguous and all
/// pixels at one distance from each other.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a, N> {
    /// From the first channel of the first pixel to the last channel of the last one.
    values: &'a [N],
    count: usize,
    shape: Shape,
    stride: usize,
}

/// A batch of images to be written, laid out as [`Images`]. Values between the pixels (other channels of a wider tensor)
/// are left as they are.
#[derive(Debug)]
pub struct ImagesMut<'a, N> {
    values: &'a mut [N],
    count: usize,
    shape: Shape,
    stride: usize,
}

/// One image of [`Images`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pixels<'a, N> {
    /// Begins with the first channel of the first pixel. It may go on behind the last channel of the last pixel, with
    /// values that are not part of the image.
    pub values: &'a [N],
    /// Values from a pixel to the next.
    pub stride: usize,
}

/// One image of [`ImagesMut`].
#[derive(Debug)]
pub(crate) struct PixelsMut<'a, N> {
    /// As in [`Pixels`].
    pub values: &'a mut [N],
    /// As in [`Pixels`].
    pub stride: usize,
}

impl<'a, N> Images<'a, N> {
    /// A dense batch: `values` is `[count, height, width, channels]`.
    ///
    /// # Panics
    /// If the length of `values` is another one, or the shape is empty.
    #[track_caller]
    pub fn dense(values: &'a [N], count: usize, shape: Shape) -> Self {
        Self::strided(values, count, shape, shape.channels)
    }

    /// A batch whose pixels begin every `stride` values. `values` ends with the last channel of the last pixel: it holds
    /// `(count * height * width - 1) * stride + channels` values, or none for an empty batch.
    ///
    /// # Panics
    /// If the length of `values` is another one, the shape is empty, or pixels would overlap.
    #[track_caller]
    pub fn strided(values: &'a [N], count: usize, shape: Shape, stride: usize) -> Self {
        check(values.len(), count, shape, stride);
        Self {
            values,
            count,
            shape,
            stride,
        }
    }

    /// Some of the channels.
    ///
    /// # Panics
    /// If the range is empty or reaches beyond the channels.
    #[track_caller]
    pub fn channels(self, range: Range<usize>) -> Self {
        let shape = narrowed(self.shape, &range);
        Self {
            values: &self.values[clipped(self.values.len(), self.shape, &range)],
            shape,
            ..self
        }
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The shape of each.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The images one by one.
    pub(crate) fn each(self) -> impl Iterator<Item = Pixels<'a, N>> {
        let stride = self.stride;
        let images = self.values.chunks(self.shape.pixels() * stride);
        images.map(move |values| Pixels { values, stride })
    }
}

impl<'a, N> ImagesMut<'a, N> {
    /// A dense batch, as [`Images::dense`].
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn dense(values: &'a mut [N], count: usize, shape: Shape) -> Self {
        Self::strided(values, count, shape, shape.channels)
    }

    /// A batch whose pixels begin every `stride` values, as [`Images::strided`].
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn strided(values: &'a mut [N], count: usize, shape: Shape, stride: usize) -> Self {
        check(values.len(), count, shape, stride);
        Self {
            values,
            count,
            shape,
            stride,
        }
    }

    /// Some of the channels.
    ///
    /// # Panics
    /// If the range is empty or reaches beyond the channels.
    #[track_caller]
    pub fn channels(&mut self, range: Range<usize>) -> ImagesMut<'_, N> {
        let shape = narrowed(self.shape, &range);
        let clipped = clipped(self.values.len(), self.shape, &range);
        ImagesMut {
            values: &mut self.values[clipped],
            count: self.count,
            shape,
            stride: self.stride,
        }
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The shape of each.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The images one by one.
    pub(crate) fn each(self) -> impl Iterator<Item = PixelsMut<'a, N>> {
        let stride = self.stride;
        let images = self.values.chunks_mut(self.shape.pixels() * stride);
        images.map(move |values| PixelsMut { values, stride })
    }
}

#[track_caller]
fn check(len: usize, count: usize, shape: Shape, stride: usize) {
    assert!(shape.len() > 0, "a batch of empty images ({shape})");
    assert!(
        stride >= shape.channels,
        "pixels of {shape} images begin every {stride} values and would overlap"
    );
    let expected = match count.checked_mul(shape.pixels()) {
        Some(0) => Some(0),
        Some(pixels) => (pixels - 1)
            .checked_mul(stride)
            .and_then(|values| values.checked_add(shape.channels)),
        None => None,
    };
    assert!(
        expected == Some(len),
        "{len} values for {count} images of {shape} with a pixel every {stride} values",
    );
}

#[track_caller]
fn narrowed(shape: Shape, range: &Range<usize>) -> Shape {
    assert!(
        range.start < range.end && range.end <= shape.channels,
        "channels {range:?} of images of {shape}"
    );
    shape.with_channels(range.len())
}

/// Where some channels lie in the `len` values of a batch: without the channels before them in the first pixel, and
/// those behind them in the last one.
fn clipped(len: usize, shape: Shape, range: &Range<usize>) -> Range<usize> {
    match len {
        0 => 0..0,
        len => range.start..len - (shape.channels - range.end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::refused;

    const SHAPE: Shape = Shape {
        height: 2,
        width: 3,
        channels: 4,
    };

    #[test]
    fn channels_of_a_batch_are_those_and_no_others() {
        // Each value says where it is: image, pixel, channel.
        let mut values: Vec<usize> = (0..2 * 6 * 4).collect();
        let some = Images::dense(&values, 2, SHAPE).channels(1..3);
        assert_eq!((some.count(), some.shape()), (2, SHAPE.with_channels(2)));
        // Narrowed twice.
        let last = some.channels(1..2);
        for (image, (some, last)) in some.each().zip(last.each()).enumerate() {
            for pixel in 0..6 {
                let at = image * 24 + pixel * 4;
                assert_eq!(some.values[pixel * some.stride..][..2], [at + 1, at + 2]);
                assert_eq!(last.values[pixel * last.stride], at + 2);
            }
        }
        let mut all = ImagesMut::dense(&mut values, 2, SHAPE);
        for image in all.channels(3..4).each() {
            for pixel in image.values.chunks_mut(image.stride) {
                pixel[0] = 0;
            }
        }
        for (at, value) in values.into_iter().enumerate() {
            assert_eq!(value, if at % 4 == 3 { 0 } else { at });
        }
    }

    #[test]
    fn an_empty_batch_has_no_images() {
        let none: [f32; 0] = [];
        assert_eq!(
            Images::dense(&none, 0, SHAPE).channels(1..2).each().count(),
            0
        );
    }

    #[test]
    fn views_that_do_not_fit_are_refused() {
        let values = [0f32; 48];
        let view = |len: usize, count, shape, stride| {
            let values = &values[..len];
            move || Images::strided(values, count, shape, stride)
        };
        refused(view(47, 2, SHAPE, 4), "47 values for 2 images of 2x3x4");
        refused(view(48, 1, SHAPE, 4), "48 values for 1 images of 2x3x4");
        refused(view(48, 2, SHAPE, 3), "every 3 values and would overlap");
        refused(view(0, 0, SHAPE.with_channels(0), 4), "empty images");
        refused(view(48, usize::MAX, SHAPE, 4), "48 values for");
        let wide = Shape {
            height: usize::MAX,
            ..SHAPE
        };
        refused(view(48, 1, wide, 4), "larger than memory");
        let dense = Images::dense(&values, 2, SHAPE);
        refused(|| dense.channels(2..5), "channels 2..5 of images of 2x3x4");
        refused(|| dense.channels(2..2), "channels 2..2");
        let mut values = values;
        refused(
            || ImagesMut::dense(&mut values[..40], 2, SHAPE),
            "40 values",
        );
    }
}
