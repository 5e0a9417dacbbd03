//! The forward pass: modules, average, classifier, loss.

use fovea_core::googlenet::HEAD_INPUT;
use fovea_kernels::Shape;
use fovea_kernels::cuda::Batch;
use fovea_kernels::cuda::head::{Classifier, Loss, average, classify, dropout_masks, loss};
use fovea_kernels::cuda::module::{Join, Split, Widths, join, split};
use fovea_kernels::cuda::pool::pool;
use fovea_kernels::pool::Stride;
use tch::Tensor;

use super::plan::Module;
use super::stem::StemKept;
use super::{Bank, Fused, at, element_of};
use crate::device::DeviceError;
use crate::device::buffer::sent;
use crate::model::convolution;

/// What a batch is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The frozen stages' output, `[images, channels, height, width]`, channels-last in memory.
    pub features: &'a Tensor,
    /// i32 `[images]`
    pub labels: &'a Tensor,
    /// f32 `[images][1024]`: what the classifier's inputs are multiplied by.
    pub dropout: Option<&'a Tensor>,
    /// f32 `[classes]`: how often the loss of a sample of each class counts.
    pub weights: Option<&'a Tensor>,
    /// Whether the head is an ordinal one.
    pub ordinal: bool,
}

/// Images, height and width of a map.
pub(super) type Map = [usize; 3];

/// Pixels of all images.
pub(super) fn rows([images, height, width]: Map) -> usize {
    images * height * width
}

/// `images` of a number of channels.
pub(super) fn batch([count, height, width]: Map, channels: usize) -> Batch {
    let shape = Shape {
        height,
        width,
        channels,
    };
    Batch { count, shape }
}

/// What a module's backward pass needs.
pub(super) struct Kept {
    pub map: Map,
    /// `[rows][input]`
    pub x: Tensor,
    /// x, pooled, and the places of the maxima.
    pub pooled: Tensor,
    pub places: Option<Tensor>,
    /// The two reductions, `[rows][..]`.
    pub reduced: [Tensor; 2],
    /// `[rows][out]`
    pub y: Tensor,
    /// Places of the maxima of the pooling behind the module, if there is one.
    pub behind: Option<Tensor>,
}

impl Kept {
    /// # Panics
    /// If the pass was no training pass.
    pub fn places(&self) -> &Tensor {
        self.places.as_ref().expect("a training pass keeps them")
    }
}

/// A forward pass.
pub struct Forward {
    pub(super) stem: Option<StemKept>,
    pub(super) modules: Vec<Kept>,
    /// Of the last module's map.
    pub(super) map: Map,
    /// f32 `[images][1024]`, after dropout.
    pub(super) averaged: Tensor,
    pub(super) dropout: Option<Tensor>,
    /// f32 `[images][outputs]`: the gradient by the logits.
    pub(super) by_logits: Tensor,
    /// The sum of the losses, f32 `[1]`.
    pub sum: Tensor,
    /// ln of each class's probability, f32 `[images][classes]`.
    pub log_p: Tensor,
}

impl Fused {
    /// The dropout multipliers of the classifier's inputs, of which the share `ratio` is dropped: f32 `[seeds][1024]`, drawn from the
    /// streams of these seeds.
    ///
    /// # Errors
    /// If the GPU refuses.
    pub fn dropout(&self, seeds: &[[u8; 32]], ratio: f64) -> Result<Tensor, DeviceError> {
        let seeds_there = sent(seeds.as_flattened(), self.device);
        let masks = self.floats(seeds.len() * HEAD_INPUT);
        let (from, to) = (at(&seeds_there), at(&masks));
        self.run(&dropout_masks(from, to, seeds.len(), HEAD_INPUT, ratio))?;
        Ok(masks)
    }

    /// Computes the losses, and what [`Fused::backward`] needs if the pass is `training`.
    ///
    /// # Errors
    /// If the GPU refuses.
    pub fn forward(&self, input: Input, training: bool) -> Result<Forward, DeviceError> {
        let size = input.features.size();
        let [images, channels, height, width] = [0, 1, 2, 3].map(|i| size[i] as usize);
        let mut map = [images, height, width];
        let by_pixel = input.features.permute([0, 2, 3, 1]).contiguous();
        let mut x = by_pixel.view([rows(map) as i64, channels as i64]);
        let layers = &self.plan.trained;
        let stem = match &layers.conv2 {
            Some(conv2) => {
                let first = match &layers.conv1 {
                    Some(conv1) => {
                        let (kept, y, to) = self.first_trained(conv1, &by_pixel)?;
                        (x, map) = (y, to);
                        Some(kept)
                    }
                    None => None,
                };
                let (kept, y, to) = self.stem(conv2, first, &x, map)?;
                (x, map) = (y, to);
                Some(kept)
            }
            None => None,
        };
        let mut modules = Vec::new();
        for module in &layers.modules {
            let mut kept = self.module(&self.trained, module, &x, map, training)?;
            x = kept.y.shallow_clone();
            if module.pooled {
                (x, map, kept.behind) = self.pooled(&x, map, module.widths.out(), training)?;
            }
            if training {
                modules.push(kept);
            }
        }
        self.head(input, (stem, modules), map, x)
    }

    /// The pooling with stride 2 behind a module: the pooled map, its size, and the places of the maxima if they are `wanted`.
    pub(super) fn pooled(
        &self,
        x: &Tensor,
        map: Map,
        channels: usize,
        wanted: bool,
    ) -> Result<(Tensor, Map, Option<Tensor>), DeviceError> {
        let [images, height, width] = map;
        let to = [images, height / 2, width / 2];
        let y = self.room(rows(to), channels);
        let places = wanted.then(|| self.bytes(rows(to) * channels));
        let of = batch(map, channels);
        let at_places = places.as_ref().map(at);
        self.run(&pool(Stride::Two, of, at(x), at(&y), at_places))?;
        Ok((y, to, places))
    }

    /// A module. The places of the maxima of its pooling are kept if the pass is `training`.
    pub(super) fn module(
        &self,
        bank: &Bank,
        module: &Module,
        x: &Tensor,
        map: Map,
        training: bool,
    ) -> Result<Kept, DeviceError> {
        let Module { widths, input, .. } = module;
        let Widths {
            reduce3,
            reduce5,
            pool: pool_width,
            ..
        } = *widths;
        let rows = rows(map);
        let bias = |layer: usize| element_of(&bank.params, module.biases[layer]);
        let joint = x.mm(&bank.joint(module).tr());
        let reduced = [reduce3, reduce5].map(|width| self.room(rows, width));
        let tensors = Split {
            joint: at(&joint),
            biases: [bias(1), bias(3)],
            out: reduced.each_ref().map(at),
        };
        self.run(&split(*widths, rows, tensors))?;
        let [three, five] = [0, 1].map(|i| {
            let x = by_pixel(&reduced[i], map);
            convolution::forward(&x, &bank.spatial(module, i))
        });
        let pooled = self.room(rows, *input);
        let places = training.then(|| self.bytes(rows * input));
        let of = batch(map, *input);
        let at_places = places.as_ref().map(at);
        self.run(&pool(Stride::One, of, at(x), at(&pooled), at_places))?;
        let projected = pooled.mm(&bank.pool_projection(module).tr());
        debug_assert_eq!(projected.size()[1] as usize, pool_width);
        let y = self.room(rows, widths.out());
        let tensors = Join {
            joint: at(&joint),
            three: at(&three),
            five: at(&five),
            pool: at(&projected),
            biases: [bias(0), bias(2), bias(4), bias(5)],
            y: at(&y),
        };
        self.run(&join(*widths, rows, tensors))?;
        Ok(Kept {
            map,
            x: x.shallow_clone(),
            pooled,
            places,
            reduced,
            y,
            behind: None,
        })
    }

    fn head(
        &self,
        input: Input,
        (stem, modules): (Option<StemKept>, Vec<Kept>),
        map: Map,
        x: Tensor,
    ) -> Result<Forward, DeviceError> {
        let Input {
            labels,
            dropout,
            weights,
            ordinal,
            ..
        } = input;
        let images = map[0];
        let channels = x.size()[1] as usize;
        let outputs = self.plan.outputs;
        let averaged = self.floats(images * channels);
        let shape = [images, map[1] * map[2], channels];
        self.run(&average(at(&x), dropout.map(at), at(&averaged), shape))?;
        let logits = self.floats(images * outputs);
        let classifier = self.classifier(channels);
        self.run(&classify(classifier, at(&averaged), at(&logits), images))?;
        let by_logits = self.floats(images * outputs);
        let sum = self.floats(1);
        let classes = outputs + usize::from(ordinal);
        let log_p = self.floats(images * classes);
        let tensors = Loss {
            logits: at(&logits),
            labels: at(labels),
            weights: weights.map(at),
            gradient: Some(at(&by_logits)),
            log_p: Some(at(&log_p)),
            sum: Some(at(&sum)),
        };
        self.run(&loss(tensors, images, outputs, ordinal))?;
        Ok(Forward {
            stem,
            modules,
            map,
            averaged,
            dropout: dropout.map(Tensor::shallow_clone),
            by_logits,
            sum,
            log_p: log_p.view([images as i64, classes as i64]),
        })
    }

    /// The classifier's parameters.
    pub(super) fn classifier(&self, inputs: usize) -> Classifier {
        let [weights, bias] = self.plan.classifier;
        let [weights, bias] = [weights, bias].map(|at| element_of(&self.trained.params, at));
        Classifier {
            weights,
            bias,
            inputs,
            outputs: self.plan.outputs,
        }
    }
}

impl Bank {
    /// Filters from `start` on.
    pub(super) fn filter(&self, start: usize, size: &[i64]) -> Tensor {
        let len = size.iter().product();
        self.filters.narrow(0, start as i64, len).view(size)
    }

    /// Filters of the three convolutions that read a module's input: `[joint][input]`.
    pub(super) fn joint(&self, module: &Module) -> Tensor {
        let size = [module.widths.joint(), module.input].map(|n| n as i64);
        self.filter(module.filters[0], &size)
    }

    /// Filters of 3x3 (0) or 5x5 (1), `[out, in, k, k]`, channels-last in memory.
    pub(super) fn spatial(&self, module: &Module, which: usize) -> Tensor {
        let widths = module.widths;
        let (out, input, side) = match which {
            0 => (widths.three, widths.reduce3, 3),
            _ => (widths.five, widths.reduce5, 5),
        };
        let size = [out, side, side, input].map(|n| n as i64);
        self.filter(module.filters[1 + which], &size)
            .permute([0, 3, 1, 2])
    }

    /// Filters of pool_proj: `[pool][input]`.
    pub(super) fn pool_projection(&self, module: &Module) -> Tensor {
        let size = [module.widths.pool, module.input].map(|n| n as i64);
        self.filter(module.filters[3], &size)
    }
}

/// `[rows][channels]` as `[images, height, width, channels]`.
pub(super) fn by_pixel(x: &Tensor, [images, height, width]: Map) -> Tensor {
    x.view([images as i64, height as i64, width as i64, -1])
}
