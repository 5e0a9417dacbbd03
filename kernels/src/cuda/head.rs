//! The end of the network: average, dropout, classifier, loss, and their gradients, in f32.

use super::{Address, Argument, Call, arguments, block_for, one_each};

/// Numbers that a thread of [`dropout_masks`] draws.
const DRAWN: usize = 16;

/// Of each image the multipliers of its dropout, f32 `[images][units]`: 0 with probability `ratio`, else 1/(1 - ratio). `keys`: u8
/// `[images][32]`, the seed of each image's ChaCha8 stream.
///
/// # Panics
/// If `ratio` is not at least 0 and below 1.
pub fn dropout_masks(keys: Address, out: Address, images: usize, units: usize, ratio: f64) -> Call {
    assert!((0.0..1.0).contains(&ratio), "dropout of {ratio}");
    let (grid, block) = one_each(images * units.div_ceil(DRAWN));
    let threshold = (ratio * 4_294_967_296.0) as u32;
    let keep = (1.0 / (1.0 - ratio)) as f32;
    let threshold = Argument::Int(threshold as i32);
    let [keys, out, images, units] = arguments![keys, out, images, units];
    let arguments = [keys, out, images, units, threshold, keep.into()];
    Call::new("dropout_masks", grid, block, arguments)
}

/// `out`, f32 `[images][channels]`, becomes the mean over each image's pixels, times `mask`.
pub fn average(
    x: Address,
    mask: Option<Address>,
    out: Address,
    [images, pixels, channels]: [usize; 3],
) -> Call {
    let arguments = arguments![x, mask, out, pixels];
    Call::new("average", [images, 1], block_for(channels), arguments)
}

/// The classifier's parameters, f32: `[outputs][inputs]` and `[outputs]`.
#[derive(Debug, Clone, Copy)]
pub struct Classifier {
    /// Weights.
    pub weights: Address,
    /// Biases.
    pub bias: Address,
    /// Channels.
    pub inputs: usize,
    /// Logits.
    pub outputs: usize,
}

/// `logits`, f32 `[images][outputs]`, become those of `x`, `[images][inputs]`.
pub fn classify(classifier: Classifier, x: Address, logits: Address, images: usize) -> Call {
    let Classifier {
        weights,
        bias,
        inputs,
        outputs,
    } = classifier;
    let arguments = arguments![x, weights, bias, logits, inputs, outputs];
    Call::new("classify", [images, 1], [32, 8], arguments)
}

/// Tensors of [`loss`].
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// f32 `[images][outputs]`
    pub logits: Address,
    /// i32 `[images]`
    pub labels: Address,
    /// f32 `[classes]`: how often the loss of a sample of each class counts.
    pub weights: Option<Address>,
    /// Becomes the gradient by the logits, f32 `[images][outputs]`.
    pub gradient: Option<Address>,
    /// Becomes ln of each class's probability, f32 `[images][classes]`.
    pub log_p: Option<Address>,
    /// Becomes the sum of the losses.
    pub sum: Option<Address>,
}

/// The sum of -ln P(label), of a softmax or of CORN's ordinal head.
pub fn loss(tensors: Loss, images: usize, outputs: usize, ordinal: bool) -> Call {
    let Loss {
        logits,
        labels,
        weights,
        gradient,
        log_p,
        sum,
    } = tensors;
    let arguments = arguments![
        logits,
        labels,
        weights,
        gradient,
        log_p,
        sum,
        images,
        outputs,
        usize::from(ordinal),
    ];
    Call::new("loss", [1, 1], [256, 1], arguments)
}

/// The gradients of the classifier's parameters, f32, into `into`, given those by the logits.
pub fn classifier_gradient(into: Classifier, gradient: Address, x: Address, images: usize) -> Call {
    let Classifier {
        weights,
        bias,
        inputs,
        outputs,
    } = into;
    let grid = [(inputs + 1).div_ceil(32), outputs];
    let arguments = arguments![gradient, x, weights, bias, images, inputs, outputs];
    Call::new("classifier_gradient", grid, [32, 8], arguments)
}

/// The gradient by each pixel of a map that was averaged over `pixels`: f32 `[images][inputs]`.
pub fn mean_gradient(
    classifier: Classifier,
    gradient: Address,
    mask: Option<Address>,
    out: Address,
    [images, pixels]: [usize; 2],
) -> Call {
    let Classifier {
        weights,
        inputs,
        outputs,
        ..
    } = classifier;
    let (grid, block) = one_each(images * inputs);
    let arguments = arguments![
        gradient, weights, mask, out, images, inputs, outputs, pixels
    ];
    Call::new("mean_gradient", grid, block, arguments)
}
