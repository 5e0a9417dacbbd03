//! The activations of the frozen layers: from the cache, or computed from the batch's pixels.

use tch::{Kind, Tensor, no_grad};

use super::TorchDevice;
use crate::device::buffer::sent;
use crate::device::fused::Batched;
use crate::device::{Batch, DeviceError, Image, ImageStore, Located, Pixels, Split, images};

/// Number of images whose frozen layers a GPU computes at once. A smaller group is filled up with repeated images: libraries
/// choose the algorithm by the batch size, and the bits must not depend on what the cache holds.
const GPU_IMAGES: usize = 32;

impl TorchDevice {
    /// Input of the first trainable layer: `[n, channels, height, width]` in channels-last order. The frozen layers are
    /// always computed for the same number of images at a time (one on the CPU, [`GPU_IMAGES`] on a GPU), so that the bits
    /// of an image depend neither on its batch nor on what [`FeatureCache`] holds.
    pub(super) fn features(&mut self, split: Split, batch: &Batch) -> Result<Tensor, DeviceError> {
        self.frozen(split, batch, false)
    }

    /// [`Self::features`], or with `places` what the average is taken of ([`Net::places`]), which is not kept.
    pub(super) fn frozen(
        &mut self,
        split: Split,
        batch: &Batch,
        places: bool,
    ) -> Result<Tensor, DeviceError> {
        let n = batch.samples.len();
        // Their features are the same as those of the layers one by one, so only maps need the places.
        if n > 0 && !places && self.fused.is_some() {
            return self.fused_features(split, batch);
        }
        let pixels = self.pixels(split, batch)?;
        let device = self.net.device();
        let means = &self.means;
        let input = |pixels: &Tensor| (pixels.to_kind(Kind::Float) - means).permute([0, 3, 1, 2]);
        if n == 0 || !self.net.has_frozen_prefix() {
            return Ok(input(&pixels));
        }
        let images = images_of(split, batch);
        let mut features: Vec<Option<Tensor>> = match places {
            true => images.iter().map(|_| None).collect(),
            false => images.iter().map(|image| self.cache.get(image)).collect(),
        };
        let missing: Vec<usize> = (0..n).filter(|&i| features[i].is_none()).collect();
        let at_once = match device {
            tch::Device::Cpu => 1,
            _ => GPU_IMAGES,
        };
        for group in missing.chunks(at_once) {
            let chosen: Vec<i64> = group
                .iter()
                .cycle()
                .take(at_once)
                .map(|&i| i as i64)
                .collect();
            let chosen = match chosen[..] {
                [one] => pixels.narrow(0, one, 1),
                _ => pixels.index_select(0, &sent(&chosen, device)),
            };
            // In channels-last order each image is contiguous, as the cache needs it.
            let computed = match places {
                true => self.net.places(&input(&chosen)),
                false => self.net.features(&input(&chosen)),
            };
            let computed = computed.permute([0, 2, 3, 1]).contiguous();
            for (at, &i) in group.iter().enumerate() {
                let one = computed.narrow(0, at as i64, 1);
                // A view would keep the memory of the whole group allocated.
                let one = if at_once == 1 { one } else { one.copy() };
                if !places {
                    self.cache.keep(images[i], &one);
                }
                features[i] = Some(one);
            }
        }
        let features: Vec<Tensor> = features.into_iter().flatten().collect();
        Ok(Tensor::cat(&features, 0).permute([0, 3, 1, 2]))
    }

    /// [`Self::features`] by our own kernels, of a batch that has images. Groups are of [`GPU_IMAGES`], for the same reason.
    fn fused_features(&mut self, split: Split, batch: &Batch) -> Result<Tensor, DeviceError> {
        let Located { fresh, places } = self.located(split, batch)?;
        // Photographs that were sent are rotated already.
        let turned = matches!(batch.pixels, Pixels::Turned(_));
        let turns = |i: usize| if turned { 0 } else { batch.quarter_turns[i] };
        if let Some(fused) = self.fused.as_ref().filter(|fused| fused.trains_all()) {
            let turns: Vec<u8> = (0..places.len()).map(turns).collect();
            let blocks = no_grad(|| {
                fused.blocks(Batched {
                    held: self.images.as_ref().map_or(&fresh, ImageStore::memory),
                    fresh: &fresh,
                    side: batch.size,
                    places: &places,
                    turns: &turns,
                })
            })?;
            return Ok(blocks.permute([0, 3, 1, 2]));
        }
        let images = images_of(split, batch);
        let rows: Vec<Option<u32>> = images.iter().map(|image| self.rows.get(image)).collect();
        let missing: Vec<usize> = (0..images.len()).filter(|&i| rows[i].is_none()).collect();
        let fused = self.fused.as_ref().expect("asked for where it is there");
        let held = self.images.as_ref().map_or(&fresh, ImageStore::memory);
        no_grad(|| {
            let mut groups = Vec::new();
            for group in missing.chunks(GPU_IMAGES) {
                let chosen = || group.iter().copied().cycle().take(GPU_IMAGES);
                let places: Vec<i32> = chosen().map(|i| places[i]).collect();
                let turns: Vec<u8> = chosen().map(turns).collect();
                groups.push(fused.features(Batched {
                    held,
                    fresh: &fresh,
                    side: batch.size,
                    places: &places,
                    turns: &turns,
                })?);
            }
            let computed = match &groups[..] {
                [] => None,
                [one] => Some(one.shallow_clone()),
                // Only the last group may be filled up.
                several => Some(Tensor::cat(several, 0)),
            };
            let out = fused.cached(&mut self.rows, &images, &rows, computed.as_ref())?;
            // `[n, channels, height, width]`, as of the other way.
            Ok(out.permute([0, 3, 1, 2]))
        })
    }

    /// Where the batch's photographs are on the device.
    fn located(&mut self, split: Split, batch: &Batch) -> Result<Located, DeviceError> {
        let (n, size) = (batch.samples.len(), batch.size);
        match (&batch.pixels, &mut self.images) {
            (Pixels::Upright { given, bytes }, Some(images)) if batch.quarter_turns.len() == n => {
                images.locate(split, &batch.samples, size, given, bytes)
            }
            _ => Ok(Located {
                fresh: self.pixels(split, batch)?,
                places: (0..n as i32).map(|number| -1 - number).collect(),
            }),
        }
    }

    /// The batch's pixels on the device, rotated: `[n, size, size, 3]` bytes.
    fn pixels(&mut self, split: Split, batch: &Batch) -> Result<Tensor, DeviceError> {
        let (n, size) = (batch.samples.len(), batch.size);
        let wrong = |bytes: usize| DeviceError {
            doing: "reading a batch",
            reason: format!(
                "{n} images of {size} px with {} rotations and {bytes} bytes",
                batch.quarter_turns.len()
            ),
        };
        match (&batch.pixels, &mut self.images) {
            (Pixels::Turned(bytes), _) => {
                if batch.quarter_turns.len() != n || bytes.len() != n * size * size * 3 {
                    return Err(wrong(bytes.len()));
                }
                let shape = [n as i64, size as i64, size as i64, 3];
                images::to_device(bytes, &shape, self.net.device())
            }
            (Pixels::Upright { given, bytes }, Some(images)) => {
                if batch.quarter_turns.len() != n {
                    return Err(wrong(bytes.len()));
                }
                let upright = images.upright(split, &batch.samples, size, given, bytes)?;
                Ok(images::turned(&upright, &batch.quarter_turns))
            }
            (Pixels::Upright { bytes, .. }, None) => Err(wrong(bytes.len())),
        }
    }
}

fn images_of(split: Split, batch: &Batch) -> Vec<Image> {
    let image = |(&sample, &quarter_turns): (&u32, &u8)| Image {
        split,
        sample,
        quarter_turns,
    };
    batch
        .samples
        .iter()
        .zip(&batch.quarter_turns)
        .map(image)
        .collect()
}
