//! Parameters on a GPU: their copy that is computed with, their gradients, and the optimizer.
//!
//! In the flat buffers a filter is `[out][in][rows][columns]` in f32. It is computed with as `[out][rows][columns][in]` in the
//! [`Element`](super::Element) of the run, at a place of its own in a second buffer. So the three 1x1 convolutions of
//! a module can lie side by side and be one product.

use super::gradient::pair;
use super::{Address, Argument, Call, arguments};

/// Elements that a block handles.
const PART: usize = 1024;

/// Most sources of [`collect`]; a bucket of GoogLeNet has 18 weights at most.
pub const MOST_SOURCES: usize = 20;

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// First element in the flat buffer.
    pub from: usize,
    /// Number of elements.
    pub length: usize,
    /// First element of its filters in the second buffer. None if it has none there: it is computed with as it is.
    pub to: Option<usize>,
    /// Channels that a filter reads.
    pub inputs: usize,
    /// Pixels of a filter.
    pub taps: usize,
    /// Multiplier of the learning rate.
    pub rate: f32,
    /// Multiplier of the weight decay.
    pub decay: f32,
}

/// The tables of some parameters, which are copied to the GPU once.
#[derive(Debug, Clone, PartialEq)]
pub struct Tables {
    /// One for each parameter: `struct Segment` of the source.
    pub segments: Vec<[u32; 8]>,
    /// One for each block: `struct Part` of the source.
    pub parts: Vec<[u32; 2]>,
}

impl Tables {
    /// Those of `parameters`.
    ///
    /// # Panics
    /// If there are more elements than a kernel counts.
    pub fn of(parameters: &[Parameter]) -> Self {
        let size = |number| super::size(number) as u32;
        let segment = |p: &Parameter| {
            let to = p.to.map_or(u32::MAX, size);
            let [from, length, inputs, taps] = [p.from, p.length, p.inputs, p.taps].map(size);
            let [rate, decay] = [p.rate, p.decay].map(f32::to_bits);
            [from, length, to, inputs, taps, rate, decay, 0]
        };
        let mut parts = Vec::new();
        for (number, parameter) in parameters.iter().enumerate() {
            let starts = (0..parameter.length).step_by(PART);
            parts.extend(starts.map(|first| [size(number), size(first)]));
        }
        Self {
            segments: parameters.iter().map(segment).collect(),
            parts,
        }
    }
}

/// Tables on the GPU.
#[derive(Debug, Clone, Copy)]
pub struct TablesAt {
    /// [`Tables::segments`]
    pub segments: Address,
    /// [`Tables::parts`]
    pub parts: Address,
    /// Number of parts.
    pub count: usize,
}

/// Fills `filters` from the flat `params`.
pub fn cast_filters(tables: TablesAt, params: Address, filters: Address) -> Call {
    let TablesAt {
        segments,
        parts,
        count,
    } = tables;
    let arguments = arguments![params, filters, segments, parts];
    Call::new("cast_filters", [count, 1], [256, 1], arguments)
}

/// Sets the i32 `bad` to 1 if one of `count` f32 `numbers` is not finite, and leaves it otherwise.
pub fn find_bad(numbers: Address, bad: Address, count: usize) -> Call {
    let grid = [count.div_ceil(2048), 1];
    Call::new("find_bad", grid, [256, 1], arguments![numbers, bad, count])
}

/// What [`sgd`] works on.
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    /// Flat, f32.
    pub params: Address,
    /// Flat, f32.
    pub velocity: Address,
    /// The sum of the gradients, f32, of the flat elements from `start` on.
    pub gradient: Address,
    /// First flat element of `gradient`.
    pub start: usize,
    /// The second buffer.
    pub filters: Address,
    /// i32: where it is not 0, nothing is changed.
    pub bad: Address,
    /// What the gradient is multiplied by.
    pub scale: f32,
    /// Learning rate.
    pub rate: f32,
    /// Momentum.
    pub momentum: f32,
    /// Weight decay.
    pub decay: f32,
}

/// A step of Caffe's stochastic gradient descent of the parameters in `tables`.
pub fn sgd(tables: TablesAt, step: Sgd) -> Call {
    let TablesAt {
        segments,
        parts,
        count,
    } = tables;
    let arguments = arguments![
        step.params,
        step.velocity,
        step.gradient,
        step.filters,
        segments,
        parts,
        step.bad,
        step.start,
        step.scale,
        step.rate,
        step.momentum,
        step.decay,
    ];
    Call::new("sgd", [count, 1], [256, 1], arguments)
}

/// The gradient by a parameter's filters.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// `[out][taps][inputs]`
    pub from: Address,
    /// Whether it is f32 whatever the element is.
    pub wide: bool,
    /// First element in the flat gradient.
    pub to: usize,
    /// Number of elements.
    pub length: usize,
    /// Channels that a filter reads; 1 where the gradient is in the flat order already.
    pub inputs: usize,
    /// Pixels of a filter; 1 where the gradient is in the flat order already.
    pub taps: usize,
}

/// Copies gradients into the flat `gradient`, f32.
///
/// # Panics
/// If there are more than [`MOST_SOURCES`].
pub fn collect(sources: &[Source], gradient: Address) -> Call {
    assert!(sources.len() <= MOST_SOURCES, "{} sources", sources.len());
    // As `struct Sources` of the kernels: for each an address and six integers.
    let mut words = Vec::with_capacity(4 * MOST_SOURCES);
    for source in sources {
        let numbers = [source.to, source.length, source.inputs, source.taps];
        let [to, length, inputs, taps] = numbers.map(|n| super::size(n) as u32);
        words.push(source.from.0);
        words.push(pair(u32::from(source.wide), to));
        words.push(pair(length, inputs));
        words.push(pair(taps, 0));
    }
    words.resize(4 * MOST_SOURCES, 0);
    let longest = sources.iter().map(|source| source.length).max();
    let grid = [longest.unwrap_or(0).div_ceil(PART), sources.len()];
    let arguments = [Argument::Table(words.into()), gradient.into()];
    Call::new("collect", grid, [256, 1], arguments)
}
