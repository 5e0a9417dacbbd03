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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Bf16;
    use crate::testing::{close, exact, noise, refused, rounding, shape, stored};

    /// A layer with everything that the kernels need and compute.
    struct Run<N> {
        sizes: Conv3x3,
        x: Vec<N>,
        weight: Vec<f32>,
        bias: Vec<f32>,
        y: Vec<N>,
        gradient: Vec<N>,
        by_x: Vec<N>,
        by_weight: Vec<f32>,
        by_bias: Vec<f32>,
    }

    fn buffer(shape: [usize; 3]) -> Vec<f32> {
        vec![f32::NAN; shape.into_iter().product()]
    }

    /// The output and its gradient lie in the middle of tensors that have `beside` channels more on each side.
    fn run<N: Number>(
        threads: usize,
        images: usize,
        input: Shape,
        to: usize,
        beside: usize,
        seed: u64,
    ) -> Run<N> {
        let threads = Threads::new(threads);
        let sizes = Conv3x3::new(images, input, to);
        let from = input.channels;
        let x = stored::<N>(&noise(images * input.len(), seed));
        let weight: Vec<f32> = noise(to * from * 9, seed + 1)
            .iter()
            .map(|w| w * 0.3)
            .collect();
        let bias = noise(to, seed + 2);
        let mut filter = buffer(sizes.filter_shape());
        transform_filter(from, to, &weight, &mut filter);
        let (mut inputs, mut outputs) =
            (buffer(sizes.inputs_shape()), buffer(sizes.outputs_shape()));

        let wide = input.with_channels(to + 2 * beside);
        let part = beside..beside + to;
        let mut y = stored::<N>(&vec![7.0; images * wide.len()]);
        let mut view = ImagesMut::dense(&mut y, images, wide);
        sizes.forward(
            threads,
            &x,
            &filter,
            &bias,
            &mut inputs,
            &mut outputs,
            view.channels(part.clone()),
        );

        let gradient = stored::<N>(&noise(images * wide.len(), seed + 3));
        let view = |values| Images::dense(values, images, wide).channels(part.clone());
        let mut by_image = vec![0.0; images * to];
        outputs.fill(f32::NAN);
        sizes.output_gradient(
            threads,
            view(&gradient),
            view(&y),
            &mut outputs,
            &mut by_image,
        );
        let mut by_x = stored::<N>(&vec![f32::NAN; x.len()]);
        let mut working = buffer(sizes.inputs_shape());
        sizes.input_gradient(threads, &outputs, &filter, &mut working, &mut by_x);
        let mut by_weight = vec![f32::NAN; weight.len()];
        filter.fill(f32::NAN);
        sizes.weight_gradient(threads, &inputs, &outputs, &mut filter, &mut by_weight);

        let beside_y = y
            .iter()
            .enumerate()
            .filter(|(at, _)| !part.contains(&(at % wide.channels)));
        assert!(
            beside_y.clone().all(|(_, y)| y.to_f32() == 7.0),
            "what lies beside stays"
        );
        let narrow = |values: &[N]| -> Vec<N> {
            let pixels = values.chunks(wide.channels);
            pixels
                .flat_map(|pixel| &pixel[part.clone()])
                .copied()
                .collect()
        };
        let by_bias = (0..to)
            .map(|o| by_image.chunks(to).map(|image| image[o]).sum())
            .collect();
        Run {
            sizes,
            y: narrow(&y),
            gradient: narrow(&gradient),
            x,
            weight,
            bias,
            by_x,
            by_weight,
            by_bias,
        }
    }

    /// Compares with the definition in f64.
    fn compare<N: Number>(run: &Run<N>) {
        let Conv3x3 {
            images, input, to, ..
        } = run.sizes;
        let from = input.channels;
        let (x, weight, gradient) = (exact(&run.x), exact(&run.weight), exact(&run.gradient));
        let mut y = vec![0.0; images * input.pixels() * to];
        let mut by_x = vec![0.0; x.len()];
        let mut by_weight = vec![0.0; weight.len()];
        let mut by_bias = vec![0.0; to];
        // For every output, what it sees of the image: input pixel and tap.
        let seen = |pixel: usize| {
            let (image, at) = (pixel / input.pixels(), pixel % input.pixels());
            let (row, column) = (at / input.width, at % input.width);
            (0..9).filter_map(move |tap| {
                let row = (row + tap / 3).checked_sub(1)?;
                let column = (column + tap % 3).checked_sub(1)?;
                let inside = row < input.height && column < input.width;
                inside.then_some((image * input.pixels() + row * input.width + column, tap))
            })
        };
        for pixel in 0..images * input.pixels() {
            for o in 0..to {
                let at = pixel * to + o;
                let mut sum = f64::from(run.bias[o]);
                for (other, tap) in seen(pixel) {
                    for i in 0..from {
                        sum += x[other * from + i] * weight[(o * from + i) * 9 + tap];
                    }
                }
                y[at] = sum.max(0.0);
                // As the kernel decides it: where a sum is nearly 0, rounding decides.
                let g = if run.y[at].to_f32() > 0.0 {
                    gradient[at]
                } else {
                    0.0
                };
                by_bias[o] += g;
                for (other, tap) in seen(pixel) {
                    for i in 0..from {
                        by_x[other * from + i] += g * weight[(o * from + i) * 9 + tap];
                        by_weight[(o * from + i) * 9 + tap] += g * x[other * from + i];
                    }
                }
            }
        }
        close(&run.y, &y, 1e-5 + rounding::<N>());
        close(&run.by_x, &by_x, 1e-5 + rounding::<N>());
        close(&run.by_weight, &by_weight, 1e-5);
        close(&run.by_bias, &by_bias, 1e-5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Images smaller than a tile, every remainder of a tile's side, wider tensors around the output.
        #[test]
        fn outputs_and_gradients_are_those_of_the_definition(
            threads in 1usize..4, images in 1usize..3, height in 1usize..10, width in 1usize..10,
            from in 1usize..3, to in 1usize..3, beside in 0usize..5, seed in 0u64..1000,
        ) {
            let input = shape(height, width, from * LANES);
            compare(&run::<f32>(threads, images, input, to * LANES, beside, seed));
            compare(&run::<Bf16>(threads, images, input, to * LANES, beside, seed));
        }
    }

    #[test]
    fn nan_reaches_the_result() {
        let sizes = Conv3x3::new(1, shape(8, 8, 16), 16);
        let mut x = noise(8 * 8 * 16, 1);
        x[(4 * 8 + 4) * 16 + 3] = f32::NAN;
        let mut filter = buffer(sizes.filter_shape());
        transform_filter(16, 16, &noise(16 * 16 * 9, 2), &mut filter);
        let (mut inputs, mut outputs) =
            (buffer(sizes.inputs_shape()), buffer(sizes.outputs_shape()));
        let mut y = vec![0.0; x.len()];
        let view = ImagesMut::dense(&mut y, 1, sizes.output());
        sizes.forward(
            Threads::ONE,
            &x,
            &filter,
            &[0.0; 16],
            &mut inputs,
            &mut outputs,
            view,
        );
        assert!(y.iter().any(|y| y.is_nan()));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(fits(16, 32) && !fits(0, 16) && !fits(16, 24) && !fits(8, 16));
        let input = shape(5, 6, 16);
        refused(
            || Conv3x3::new(2, input, 24),
            "conv3x3: from 16 to 24 channels",
        );
        refused(
            || Conv3x3::new(2, shape(5, 6, 8), 16),
            "conv3x3: from 8 to 16 channels",
        );
        refused(
            || Conv3x3::new(2, shape(0, 6, 16), 16),
            "an image of 0x6x16 is empty",
        );
        refused(|| Conv3x3::new(usize::MAX, input, 16), "larger than memory");
        let weight = vec![0.0; 16 * 16 * 9];
        refused(
            || transform_filter(16, 16, &weight, &mut [0.0; 100]),
            "conv3x3::transform_filter: filter holds 100 values, expected [16, 36, 16]",
        );
        refused(
            || transform_filter(16, 32, &weight, &mut [0.0; 100]),
            "conv3x3::transform_filter: weight holds 2304 values, expected [32, 16, 9]",
        );

        // One buffer at a time is too short.
        let sizes = Conv3x3::new(2, input, 32);
        let len = |shape: [usize; 3]| shape.into_iter().product::<usize>();
        let fitting = [
            2 * input.len(),
            len(sizes.filter_shape()),
            32,
            len(sizes.inputs_shape()),
            len(sizes.outputs_shape()),
        ];
        let forward = |lens: [usize; 5], output: Shape| {
            let [x, filter, bias, mut inputs, mut outputs] = lens.map(|len| vec![0f32; len]);
            let mut y = vec![0f32; 2 * output.len()];
            let y = ImagesMut::dense(&mut y, 2, output);
            sizes.forward(
                Threads::ONE,
                &x,
                &filter,
                &bias,
                &mut inputs,
                &mut outputs,
                y,
            );
        };
        forward(fitting, sizes.output());
        let names = ["x", "filter", "bias", "inputs", "outputs"];
        for (i, name) in names.into_iter().enumerate() {
            let mut lens = fitting;
            lens[i] -= 1;
            refused(
                || forward(lens, sizes.output()),
                &format!("conv3x3::forward: {name} holds"),
            );
        }
        refused(
            || forward(fitting, shape(5, 7, 32)),
            "conv3x3::forward: y is 2 images of 5x7x32, but the output is 2 images of 5x6x32",
        );

        let fitting = [len(sizes.outputs_shape()), 2 * 32];
        let output_gradient = |lens: [usize; 2], gradient: Shape, y: Shape| {
            let [mut outputs, mut bias] = lens.map(|len| vec![0f32; len]);
            let [g, v] = [gradient, y].map(|shape| vec![0f32; 2 * shape.len()]);
            let (g, v) = (Images::dense(&g, 2, gradient), Images::dense(&v, 2, y));
            sizes.output_gradient(Threads::ONE, g, v, &mut outputs, &mut bias);
        };
        let (good, bad) = (sizes.output(), shape(5, 6, 16));
        output_gradient(fitting, good, good);
        let start = "conv3x3::output_gradient:";
        refused(
            || output_gradient(fitting, bad, good),
            &format!("{start} gradient is 2 images of 5x6x16"),
        );
        refused(
            || output_gradient(fitting, good, bad),
            &format!("{start} y is 2 images of 5x6x16"),
        );
        refused(
            || output_gradient([1, 64], good, good),
            &format!("{start} outputs holds 1 values"),
        );
        refused(
            || output_gradient([fitting[0], 32], good, good),
            &format!("{start} bias holds 32 values"),
        );

        let fitting = [
            len(sizes.outputs_shape()),
            len(sizes.filter_shape()),
            len(sizes.inputs_shape()),
            2 * input.len(),
        ];
        let input_gradient = |lens: [usize; 4]| {
            let [outputs, filter, mut inputs, mut out] = lens.map(|len| vec![0f32; len]);
            sizes.input_gradient(Threads::ONE, &outputs, &filter, &mut inputs, &mut out);
        };
        input_gradient(fitting);
        for (i, name) in ["outputs", "filter", "inputs", "out"]
            .into_iter()
            .enumerate()
        {
            let mut lens = fitting;
            lens[i] += 1;
            refused(
                || input_gradient(lens),
                &format!("conv3x3::input_gradient: {name} holds"),
            );
        }

        let fitting = [
            len(sizes.inputs_shape()),
            len(sizes.outputs_shape()),
            len(sizes.filter_shape()),
            32 * 16 * 9,
        ];
        let weight_gradient = |lens: [usize; 4]| {
            let [inputs, outputs, mut filter, mut out] = lens.map(|len| vec![0f32; len]);
            sizes.weight_gradient(Threads::ONE, &inputs, &outputs, &mut filter, &mut out);
        };
        weight_gradient(fitting);
        for (i, name) in ["inputs", "outputs", "filter", "out"]
            .into_iter()
            .enumerate()
        {
            let mut lens = fitting;
            lens[i] += 1;
            refused(
                || weight_gradient(lens),
                &format!("conv3x3::weight_gradient: {name} holds"),
            );
        }
    }
}
