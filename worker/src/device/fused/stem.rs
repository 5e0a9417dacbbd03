//! The stem where it is trained, forward and backward: conv1 over blocks of pixels, its pooling and normalisation; conv2's reduction,
//! convolution, normalisation and pooling.

use fovea_kernels::cuda::gradient::{Sums, masked, plain_half};
use fovea_kernels::cuda::input::{FILTER, conv1_filter_gradient};
use fovea_kernels::cuda::lrn::{lrn, lrn_gradient};
use fovea_kernels::cuda::module::bias_relu;
use tch::Tensor;

use super::backward::{BiasSums, convolution_back};
use super::forward::{Map, batch, by_pixel, rows};
use super::plan::Convolution;
use super::{Bank, Fused, at, element_of};
use crate::device::DeviceError;
use crate::model::convolution;

/// What conv1's backward pass needs.
pub(super) struct FirstKept {
    /// Its input, `[images, blocks, blocks, 16]`.
    blocks: Tensor,
    /// Of its output.
    map: Map,
    /// Its output, `[rows][channels]`.
    y: Tensor,
    /// That pooled, `[rows][channels]`, and the places of the maxima.
    pooled: Tensor,
    places: Tensor,
}

/// What the stem's backward pass needs. All are `[rows][channels]`.
pub(super) struct StemKept {
    /// Of conv1, if that is trained.
    first: Option<FirstKept>,
    /// Of conv2's map.
    map: Map,
    /// The input of the reduction, if that is trained.
    input: Option<Tensor>,
    /// conv2's input and output.
    x: Tensor,
    y: Tensor,
    /// Places of the maxima of the pooling.
    places: Tensor,
}

impl Fused {
    /// conv1, the pooling and the normalisation behind it, of blocks `[images, blocks, blocks, 16]`: what is kept, the map, its size.
    pub(super) fn first_trained(
        &self,
        conv1: &Convolution,
        blocks: &Tensor,
    ) -> Result<(FirstKept, Tensor, Map), DeviceError> {
        let [_, channels] = conv1.channels;
        let y = convolution::valid(blocks, &self.trained.over_blocks(conv1));
        let map = [0, 1, 2].map(|i| y.size()[i] as usize);
        let y = y.view([rows(map) as i64, channels as i64]);
        self.rectify(&self.trained, conv1, &y, rows(map))?;
        let (pooled, to, places) = self.pooled(&y, map, channels, true)?;
        let normalised = self.room(rows(to), channels);
        let (from, out) = (at(&pooled), at(&normalised));
        self.run(&lrn(from, out, rows(to), channels))?;
        let kept = FirstKept {
            blocks: blocks.shallow_clone(),
            map,
            y,
            pooled,
            places: places.expect("they are wanted"),
        };
        Ok((kept, normalised, to))
    }

    /// The gradient by conv1's filters, f32 `[out, 3, 7, 7]`, given that by the normalised map.
    fn first_back(
        &self,
        conv1: &Convolution,
        kept: &FirstKept,
        by_normalised: &Tensor,
        sums: &mut Vec<BiasSums>,
    ) -> Result<Tensor, DeviceError> {
        let FirstKept {
            blocks,
            map,
            y,
            pooled,
            places,
        } = kept;
        let [_, channels] = conv1.channels;
        let count = pooled.size()[0] as usize;
        let by_pooled = self.room(count, channels);
        let (gradient, out) = (at(by_normalised), at(&by_pooled));
        self.run(&lrn_gradient(at(pooled), gradient, out, count, channels))?;
        let by_y = self.room(rows(*map), channels);
        let from = [at(&by_pooled), at(places)];
        self.run(&plain_half(batch(*map, channels), from, at(&by_y)))?;
        sums.push(self.mask(conv1, &by_y, y, rows(*map))?);
        let filters = self.trained.over_blocks(conv1);
        let by_blocks = convolution::backward_valid(&by_pixel(&by_y, *map), blocks, &filters);
        let by_blocks = by_blocks.permute([0, 2, 3, 1]).contiguous();
        let by_filters = self.floats(channels * FILTER);
        let gradient = conv1_filter_gradient(at(&by_blocks), at(&by_filters), channels);
        self.run(&gradient)?;
        Ok(by_filters.view([channels as i64, 3, 7, 7]))
    }

    /// The stem's trained layers from conv2's reduction on, behind `first`: what is kept, the pooled map, and its size.
    pub(super) fn stem(
        &self,
        conv2: &Convolution,
        first: Option<FirstKept>,
        x: &Tensor,
        map: Map,
    ) -> Result<(StemKept, Tensor, Map), DeviceError> {
        let count = rows(map);
        let (input, x) = match &self.plan.trained.reduce {
            Some(reduce) => {
                let y = x.mm(&self.trained.reduction(reduce).tr());
                self.rectify(&self.trained, reduce, &y, count)?;
                (Some(x.shallow_clone()), y)
            }
            None => (None, x.shallow_clone()),
        };
        let [_, channels] = conv2.channels;
        let filters = self.trained.square(conv2);
        let y = convolution::forward(&by_pixel(&x, map), &filters);
        let y = y.view([count as i64, channels as i64]);
        self.rectify(&self.trained, conv2, &y, count)?;
        let normalised = self.room(count, channels);
        self.run(&lrn(at(&y), at(&normalised), count, channels))?;
        let (pooled, to, places) = self.pooled(&normalised, map, channels, true)?;
        let places = places.expect("they are wanted");
        let kept = StemKept {
            first,
            map,
            input,
            x,
            y,
            places,
        };
        Ok((kept, pooled, to))
    }

    /// Gradients by the stem's filters, given that by the pooled map.
    pub(super) fn stem_back(
        &self,
        kept: &StemKept,
        by_pooled: &Tensor,
        sums: &mut Vec<BiasSums>,
    ) -> Result<Vec<(Convolution, Tensor)>, DeviceError> {
        let StemKept {
            first,
            map,
            input,
            x,
            y,
            places,
        } = kept;
        let Some(conv2) = &self.plan.trained.conv2 else {
            return Ok(Vec::new());
        };
        let [_, channels] = conv2.channels;
        let count = rows(*map);
        let by_normalised = self.room(count, channels);
        let from = [at(by_pooled), at(places)];
        self.run(&plain_half(batch(*map, channels), from, at(&by_normalised)))?;
        let by_y = self.room(count, channels);
        let gradient = at(&by_normalised);
        self.run(&lrn_gradient(at(y), gradient, at(&by_y), count, channels))?;
        sums.push(self.mask(conv2, &by_y, y, count)?);
        let (by_x, filters) = convolution_back(&by_y, x, &self.trained.square(conv2), *map);
        let mut gradients = vec![(*conv2, filters)];
        if let (Some(reduce), Some(input)) = (&self.plan.trained.reduce, input) {
            sums.push(self.mask(reduce, &by_x, x, count)?);
            let [inputs, outputs] = reduce.channels.map(|n| n as i64);
            let filters = by_x.tr().mm(input).view([outputs, inputs, 1, 1]);
            gradients.push((*reduce, filters));
            if let (Some(conv1), Some(first)) = (&self.plan.trained.conv1, first) {
                let by_normalised = by_x.mm(&self.trained.reduction(reduce));
                let filters = self.first_back(conv1, first, &by_normalised, sums)?;
                gradients.push((*conv1, filters));
            }
        }
        Ok(gradients)
    }

    /// Bias and ReLU, in place.
    pub(super) fn rectify(
        &self,
        bank: &Bank,
        layer: &Convolution,
        y: &Tensor,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let bias = element_of(&bank.params, layer.bias);
        self.run(&bias_relu(at(y), bias, rows, layer.channels[1]))
    }

    /// Masks a gradient by the layer's ReLU in place; the sums for its bias.
    fn mask(
        &self,
        layer: &Convolution,
        gradient: &Tensor,
        y: &Tensor,
        rows: usize,
    ) -> Result<BiasSums, DeviceError> {
        let [_, channels] = layer.channels;
        let shape = Sums::of_rows(rows, channels);
        let sums = self.floats(shape.len());
        self.run(&masked(at(gradient), at(y), at(&sums), rows, channels))?;
        let biases = vec![(0, channels, layer.bias)];
        Ok(BiasSums {
            sums,
            shape,
            biases,
        })
    }
}

impl Bank {
    /// Filters of a 1x1 convolution: `[out][in]`.
    pub(super) fn reduction(&self, layer: &Convolution) -> Tensor {
        let [inputs, outputs] = layer.channels.map(|n| n as i64);
        self.filter(layer.filters, &[outputs, inputs])
    }

    /// Filters of a 3x3 convolution: `[out, in, 3, 3]`, channels-last in memory.
    pub(super) fn square(&self, layer: &Convolution) -> Tensor {
        let [inputs, outputs] = layer.channels.map(|n| n as i64);
        self.filter(layer.filters, &[outputs, 3, 3, inputs])
            .permute([0, 3, 1, 2])
    }
}
