//! 3x3 convolution with stride 1 and padding 1, with its bias and ReLU, and its gradients: by Winograd's minimal filtering
//! F(4x4, 3x3), in f32 also where images are stored in bfloat16.
//!
//! 3x3 convolutions hold more than half of GoogLeNet's multiplications. oneDNN computes them by the definition, near
//! the processor's ceiling; with a quarter of the multiplications they take about half the time, transforms included.
//! Rounding errors are somewhat larger: see `ARCHITECTURE.md`.
//!
//! The caller owns all memory. Between the forward and the backward pass it keeps the transformed input and the transformed
//! filter:
//!
//! | buffer | shape | written by | read by |
//! |---|---|---|---|
//! | filter | `[from, 36, to]` | [`transform_filter`] | `forward`, `input_gradient` |
//! | inputs | `[tiles, 36, from]` | [`Conv3x3::forward`] | `weight_gradient` |
//! | outputs | `[tiles, 36, to]` | [`Conv3x3::output_gradient`] | `input_gradient`, `weight_gradient` |

use crate::matrix::{Matrix, MatrixMut, products};
use crate::threads::share_out;
use crate::winograd::{self, LANES, PLACES};
use crate::{Images, ImagesMut, Number, Shape, Threads, check};

/// The sizes of a convolution of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv3x3 {
    images: usize,
    /// Of an input image.
    input: Shape,
    /// Channels of the output, whose height and width are the input's.
    to: usize,
    /// Tiles of the whole batch.
    tiles: usize,
}

/// Whether the kernel takes a filter from and to so many channels: multiples of 16.
pub fn fits(from: usize, to: usize) -> bool {
    from > 0 && to > 0 && from.is_multiple_of(LANES) && to.is_multiple_of(LANES)
}

impl Conv3x3 {
    /// A convolution of `images` images of the shape `input` to `to` channels.
    ///
    /// # Panics
    /// If an image has no pixel, or the numbers of channels do not [fit](fits).
    #[track_caller]
    pub fn new(images: usize, input: Shape, to: usize) -> Self {
        assert!(input.len() > 0, "conv3x3: an image of {input} is empty");
        assert!(
            fits(input.channels, to),
            "conv3x3: from {} to {to} channels, but both must be multiples of {LANES}",
            input.channels,
        );
        let tiles = images.checked_mul(winograd::tiles(input));
        let tiles = tiles.unwrap_or_else(|| {
            panic!("conv3x3: {images} images of {input} are larger than memory")
        });
        Self {
            images,
            input,
            to,
            tiles,
        }
    }

    /// The shape of an output image.
    pub fn output(&self) -> Shape {
        self.input.with_channels(self.to)
    }

    /// The shape of the transformed inputs: `[tiles, 36, from]`.
    pub fn inputs_shape(&self) -> [usize; 3] {
        [self.tiles, PLACES, self.input.channels]
    }

    /// The shape of the transformed outputs: `[tiles, 36, to]`.
    pub fn outputs_shape(&self) -> [usize; 3] {
        [self.tiles, PLACES, self.to]
    }

    /// The shape of the transformed filter: `[from, 36, to]`.
    pub fn filter_shape(&self) -> [usize; 3] {
        filter_shape(self.input.channels, self.to)
    }

    /// `y = relu(conv2d(x, weight) + bias)`.
    ///
    /// `x` is `[images, height, width, from]`, `filter` is the weight as [`transform_filter`] gives it, `bias` is `[to]`.
    /// `inputs` becomes the transformed input, which [`Conv3x3::weight_gradient`] needs; `outputs` is working memory.
    /// Both are overwritten.
    ///
    /// # Panics
    /// If a length or shape is not that of this convolution.
    #[expect(clippy::too_many_arguments, reason = "each is a buffer of its own")]
    #[track_caller]
    pub fn forward<N: Number>(
        &self,
        threads: Threads,
        x: &[N],
        filter: &[f32],
        bias: &[f32],
        inputs: &mut [f32],
        outputs: &mut [f32],
        y: ImagesMut<N>,
    ) {
        const NAME: &str = "conv3x3::forward";
        let (from, to) = (self.input.channels, self.to);
        check::dense(NAME, "x", x.len(), self.images, self.input);
        check::length(NAME, "bias", bias.len(), to, "output channels");
        length(NAME, "filter", filter, self.filter_shape());
        length(NAME, "inputs", inputs, self.inputs_shape());
        length(NAME, "outputs", outputs, self.outputs_shape());
        self.check_outputs(NAME, "y", y.count(), y.shape());

        let work = x.chunks(self.input.len());
        let work = work.zip(inputs.chunks_mut(self.image_len(from)));
        share_out(threads, work, |(x, tiles)| {
            winograd::input(self.input, x, tiles)
        });
        let each = places_mut(outputs, self.tiles, to)
            .zip(places(inputs, self.tiles, from))
            .zip(places(filter, from, to));
        products(threads, each.map(|((out, a), b)| (out, a, b)));
        let work = y.each().zip(outputs.chunks(self.image_len(to)));
        share_out(threads, work, |(y, tiles)| {
            winograd::output(self.output(), tiles, bias, y)
        });
    }

    /// The first step of the backward pass: through ReLU and the transform of the output.
    ///
    /// `gradient` is the gradient by `y`, and `y` what `forward` computed. `outputs` becomes the transformed gradient, which
    /// the two other gradients need. `bias` is `[images, to]`: the gradient of the bias is added, image by image.
    ///
    /// # Panics
    /// If a length or shape is not that of this convolution.
    #[track_caller]
    pub fn output_gradient<N: Number>(
        &self,
        threads: Threads,
        gradient: Images<N>,
        y: Images<N>,
        outputs: &mut [f32],
        bias: &mut [f32],
    ) {
        const NAME: &str = "conv3x3::output_gradient";
        self.check_outputs(NAME, "gradient", gradient.count(), gradient.shape());
        self.check_outputs(NAME, "y", y.count(), y.shape());
        length(NAME, "outputs", outputs, self.outputs_shape());
        let expected = self.images * self.to;
        check::length(
            NAME,
            "bias",
            bias.len(),
            expected,
            "images times output channels",
        );
        let work = gradient.each().zip(y.each());
        let work = work.zip(outputs.chunks_mut(self.image_len(self.to)));
        let work = work.zip(bias.chunks_mut(self.to));
        share_out(threads, work, |(((gradient, y), tiles), bias)| {
            winograd::output_backward(self.output(), gradient, y, tiles, bias)
        });
    }

    /// The gradient by `x` into `out`, `[images, height, width, from]`. `outputs` is what [`Conv3x3::output_gradient`] gave;
    /// `inputs` is working memory and overwritten.
    ///
    /// # Panics
    /// If a length is not that of this convolution.
    #[track_caller]
    pub fn input_gradient<N: Number>(
        &self,
        threads: Threads,
        outputs: &[f32],
        filter: &[f32],
        inputs: &mut [f32],
        out: &mut [N],
    ) {
        const NAME: &str = "conv3x3::input_gradient";
        let (from, to) = (self.input.channels, self.to);
        length(NAME, "outputs", outputs, self.outputs_shape());
        length(NAME, "filter", filter, self.filter_shape());
        length(NAME, "inputs", inputs, self.inputs_shape());
        check::dense(NAME, "out", out.len(), self.images, self.input);
        let each = places_mut(inputs, self.tiles, from)
            .zip(places(outputs, self.tiles, to))
            .zip(places(filter, from, to));
        products(threads, each.map(|((out, a), b)| (out, a, b.transposed())));
        let work = out.chunks_mut(self.input.len());
        let work = work.zip(inputs.chunks(self.image_len(from)));
        share_out(threads, work, |(out, tiles)| {
            winograd::input_backward(self.input, tiles, out)
        });
    }

    /// The gradient by the weight into `out`, `[to, from, 3, 3]`. `inputs` is what [`Conv3x3::forward`] gave, `outputs` what
    /// [`Conv3x3::output_gradient`] gave; `filter` is working memory and overwritten.
    ///
    /// # Panics
    /// If a length is not that of this convolution.
    #[track_caller]
    pub fn weight_gradient(
        &self,
        threads: Threads,
        inputs: &[f32],
        outputs: &[f32],
        filter: &mut [f32],
        out: &mut [f32],
    ) {
        const NAME: &str = "conv3x3::weight_gradient";
        let (from, to) = (self.input.channels, self.to);
        length(NAME, "inputs", inputs, self.inputs_shape());
        length(NAME, "outputs", outputs, self.outputs_shape());
        length(NAME, "filter", filter, self.filter_shape());
        length(NAME, "out", out, [to, from, 9]);
        let each = places_mut(filter, from, to)
            .zip(places(inputs, self.tiles, from))
            .zip(places(outputs, self.tiles, to));
        products(threads, each.map(|((out, a), b)| (out, a.transposed(), b)));
        winograd::filter_backward(from, filter, out);
    }

    /// Values in the transformed tiles of one image.
    fn image_len(&self, channels: usize) -> usize {
        winograd::tiles(self.input) * PLACES * channels
    }

    #[track_caller]
    fn check_outputs(&self, kernel: &str, name: &str, images: usize, shape: Shape) {
        let expected = ("the output", self.images, self.output());
        check::same(kernel, expected, (name, images, shape));
    }
}

/// The shape of a transformed filter: `[from, 36, to]`.
pub fn filter_shape(from: usize, to: usize) -> [usize; 3] {
    [from, PLACES, to]
}

/// Transforms a weight, `[to, from, 3, 3]`, to the filter that [`Conv3x3::forward`] takes: `[from, 36, to]`.
///
/// # Panics
/// If a length is another one, or the numbers of channels do not [fit](fits).
#[track_caller]
pub fn transform_filter(from: usize, to: usize, weight: &[f32], filter: &mut [f32]) {
    const NAME: &str = "conv3x3::transform_filter";
    assert!(
        fits(from, to),
        "{NAME}: from {from} to {to} channels, but both must be multiples of {LANES}"
    );
    length(NAME, "weight", weight, [to, from, 9]);
    length(NAME, "filter", filter, filter_shape(from, to));
    winograd::filter(from, weight, filter);
}

#[track_caller]
fn length(kernel: &str, name: &str, values: &[f32], shape: [usize; 3]) {
    let len = shape.into_iter().try_fold(1usize, usize::checked_mul);
    assert!(
        len == Some(values.len()),
        "{kernel}: {name} holds {} values, expected {shape:?}",
        values.len()
    );
}

/// The matrices of the 36 places of `[rows, 36, columns]`: each `[rows, columns]`.
fn places(values: &[f32], rows: usize, columns: usize) -> impl Iterator<Item = Matrix<'_>> {
    let all = Matrix::dense(values, rows, PLACES * columns);
    (0..PLACES).map(move |place| all.columns(place * columns, columns))
}

/// As [`places`], to be written.
fn places_mut(
    values: &mut [f32],
    rows: usize,
    columns: usize,
) -> impl Iterator<Item = MatrixMut<'_>> {
    MatrixMut::dense(values, rows, PLACES * columns).split_columns(columns)
}

#[cfg(test)]
#[path = "conv3x3_tests.rs"]
mod tests;
