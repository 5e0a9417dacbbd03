//! The frozen layers: from bytes to what the trained ones read. Nothing is kept for a backward pass, so bias, ReLU, pooling and
//! normalisation are one kernel each.

use fovea_kernels::cuda::input::{BLOCK_CHANNELS, Photographs, blocks, input_blocks};
use fovea_kernels::cuda::lrn::{relu_lrn_pool, relu_pool_lrn};
use tch::Tensor;

use super::forward::{Map, batch, by_pixel, rows};
use super::plan::Convolution;
use super::{Bank, Fused, at, element_of};
use crate::device::DeviceError;
use crate::device::buffer::sent;
use crate::model::convolution;

/// By so many blocks conv1's map is smaller than its input.
pub(super) const BLOCKS_LESS: usize = 3;

/// Photographs on the GPU, and which of them make a batch.
#[derive(Debug, Clone, Copy)]
pub struct Batched<'a> {
    /// u8 `[any number, side, side, 3]`
    pub held: &'a Tensor,
    /// Those that came with the batch, in the same form.
    pub fresh: &'a Tensor,
    /// Width and height.
    pub side: usize,
    /// Row of `held`, or -1 - row of `fresh`.
    pub places: &'a [i32],
    /// Quarter turns of each.
    pub turns: &'a [u8],
}

impl Fused {
    /// The frozen layers' output of photographs: `[images, height, width, channels]`.
    ///
    /// # Errors
    /// If the GPU refuses.
    pub fn features(&self, photographs: Batched) -> Result<Tensor, DeviceError> {
        let layers = &self.plan.frozen;
        let Some(conv1) = &layers.conv1 else {
            return Err(DeviceError {
                doing: "computing the frozen layers",
                reason: "the first one is not frozen".into(),
            });
        };
        let (mut x, mut map) = self.first(conv1, photographs)?;
        if let Some(reduce) = &layers.reduce {
            x = x.mm(&self.frozen.reduction(reduce).tr());
            self.rectify(&self.frozen, reduce, &x, rows(map))?;
        }
        if let Some(conv2) = &layers.conv2 {
            (x, map) = self.second(conv2, &x, map)?;
        }
        for module in &layers.modules {
            x = self.module(&self.frozen, module, &x, map, false)?.y;
            if module.pooled {
                (x, map, _) = self.pooled(&x, map, module.widths.out(), false)?;
            }
        }
        Ok(by_pixel(&x, map))
    }

    /// Photographs in blocks of 2x2 pixels, without their means: `[images, blocks, blocks, 16]`.
    ///
    /// # Errors
    /// If the GPU refuses.
    pub fn blocks(&self, photographs: Batched) -> Result<Tensor, DeviceError> {
        let Batched {
            held,
            fresh,
            side,
            places,
            turns,
        } = photographs;
        let count = places.len();
        let (places, turns) = (sent(places, self.device), sent(turns, self.device));
        let across = blocks(side);
        let x = self.room(count * across * across, BLOCK_CHANNELS);
        let from = Photographs {
            held: at(held),
            fresh: at(fresh),
            place: at(&places),
            turns: at(&turns),
            count,
            side,
        };
        self.run(&input_blocks(from, at(&x)))?;
        Ok(by_pixel(&x, [count, across, across]))
    }

    /// conv1, as a convolution over blocks of pixels, up to pool1/norm1.
    fn first(
        &self,
        conv1: &Convolution,
        photographs: Batched,
    ) -> Result<(Tensor, Map), DeviceError> {
        let x = self.blocks(photographs)?;
        let [count, across] = [0, 1].map(|i| x.size()[i] as usize);
        let [_, channels] = conv1.channels;
        let y = convolution::valid(&x, &self.frozen.over_blocks(conv1));
        let to = across - BLOCKS_LESS;
        let map = [count, to / 2, to / 2];
        let normalised = self.room(rows(map), channels);
        let bias = element_of(&self.frozen.params, conv1.bias);
        let of = batch([count, to, to], channels);
        self.run(&relu_pool_lrn(of, at(&y), bias, at(&normalised)))?;
        Ok((normalised, map))
    }

    /// conv2/3x3, up to pool2.
    fn second(
        &self,
        conv2: &Convolution,
        x: &Tensor,
        map: Map,
    ) -> Result<(Tensor, Map), DeviceError> {
        let [_, channels] = conv2.channels;
        let y = convolution::forward(&by_pixel(x, map), &self.frozen.square(conv2));
        let [images, height, width] = map;
        let to = [images, height / 2, width / 2];
        let pooled = self.room(rows(to), channels);
        let bias = element_of(&self.frozen.params, conv2.bias);
        let of = batch(map, channels);
        self.run(&relu_lrn_pool(of, at(&y), bias, at(&pooled)))?;
        Ok((pooled, to))
    }
}

impl Bank {
    /// conv1's filters over blocks: `[out, 16, 4, 4]`, channels-last in memory.
    pub(super) fn over_blocks(&self, conv1: &Convolution) -> Tensor {
        let size = [conv1.channels[1], 4, 4, BLOCK_CHANNELS].map(|n| n as i64);
        self.filter(conv1.filters, &size).permute([0, 3, 1, 2])
    }
}
