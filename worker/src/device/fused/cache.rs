//! The frozen layers' outputs, kept as rows of blocks of the GPU's memory. What is kept, and why, is as in
//! [`FeatureCache`](crate::device::FeatureCache); a batch is gathered from it by one kernel.

use std::collections::{BTreeMap, HashMap};

use fovea_kernels::cuda::Address;
use fovea_kernels::cuda::rows::{Held, MOST_BLOCKS, keep_rows, pick_rows};
use tch::{Kind, Tensor};

use super::{Fused, at};
use crate::device::buffer::sent;
use crate::device::features::{say_dropped, say_full};
use crate::device::{CacheCounts, DeviceError, Image, Split, failed};
use crate::hits::Hits;

/// Bytes of a block of rows, unless there would be too many blocks.
const BLOCK_BYTES: usize = 64 << 20;

/// Which image is in which row. Pure.
#[derive(Debug, Default)]
struct Rows {
    /// Limit of their number.
    most: usize,
    rows: HashMap<Image, u32>,
    /// The training images among them: those that may have to go.
    training: Vec<Image>,
    /// Rows below `used` that hold nothing.
    free: Vec<u32>,
    used: u32,
}

impl Rows {
    fn get(&self, image: &Image) -> Option<u32> {
        self.rows.get(image).copied()
    }

    /// A row for an image that has none: an unused one, or for a validation image that of a training image.
    fn admit(&mut self, image: Image) -> Option<u32> {
        let row = match self.free.pop() {
            Some(row) => row,
            None if (self.used as usize) < self.most => {
                self.used += 1;
                self.used - 1
            }
            None => {
                let displaced = match image.split {
                    Split::Train => None,
                    Split::Validation => self.training.pop(),
                };
                self.rows.remove(&displaced?)?
            }
        };
        self.rows.insert(image, row);
        if image.split == Split::Train {
            self.training.push(image);
        }
        Some(row)
    }

    fn retain(&mut self, wanted: &dyn Fn(&Image) -> bool) {
        let free = &mut self.free;
        self.rows.retain(|image, row| {
            let stays = wanted(image);
            if !stays {
                free.push(*row);
            }
            stays
        });
        self.training.retain(wanted);
    }
}

/// Rows in a GPU's memory, within a budget.
#[derive(Debug)]
pub struct RowCache {
    /// Bytes.
    budget: u64,
    row_bytes: usize,
    /// Rows of a block, but perhaps of the last one.
    block_rows: usize,
    /// Height, width and channels of what was computed last, which is all of one size.
    image: [i64; 3],
    rows: Rows,
    /// Bytes of rows. A block is made when its first row is needed, and nothing is moved when there are more.
    blocks: Vec<Tensor>,
    counts: CacheCounts,
    /// Counted there, too.
    hits: Hits,
    full: bool,
}

impl RowCache {
    /// An empty one for at most `budget` bytes. Its uses are counted in `hits`.
    pub fn new(budget: u64, hits: Hits) -> Self {
        Self {
            budget,
            row_bytes: 0,
            block_rows: 1,
            image: [0; 3],
            rows: Rows::default(),
            blocks: Vec::new(),
            counts: CacheCounts::default(),
            hits,
            full: false,
        }
    }

    /// What it holds and was good for.
    pub fn counts(&self) -> CacheCounts {
        let images = self.rows.rows.len();
        CacheCounts {
            images,
            bytes: (images * self.row_bytes) as u64,
            ..self.counts
        }
    }

    /// The row of an image, if it is kept.
    pub fn get(&mut self, image: &Image) -> Option<u32> {
        let row = self.rows.get(image);
        match row {
            Some(_) => self.counts.hits += 1,
            None => self.counts.misses += 1,
        }
        if self.budget > 0 {
            self.hits.add(row.is_some().into(), row.is_none().into());
        }
        row
    }

    /// Forgets the images that are not `wanted` any more, to make room for others.
    pub fn retain(&mut self, wanted: &dyn Fn(&Image) -> bool) {
        self.rows.retain(wanted);
        self.full = false;
    }

    /// Makes rows of `bytes` each; forgets those of another size.
    fn shape(&mut self, bytes: usize) {
        if bytes != self.row_bytes {
            self.row_bytes = bytes;
            self.blocks.clear();
            let most = (self.budget / bytes.max(1) as u64) as usize;
            self.rows = Rows {
                most,
                ..Rows::default()
            };
            let rows = (BLOCK_BYTES / bytes.max(1)).max(most.div_ceil(MOST_BLOCKS));
            self.block_rows = rows.clamp(1, most.max(1));
        }
    }

    /// Makes the blocks of all rows that are used.
    fn grow(&mut self, device: tch::Device) -> Result<(), DeviceError> {
        while self.blocks.len() * self.block_rows < self.rows.used as usize {
            let left = self.rows.most - self.blocks.len() * self.block_rows;
            let bytes = left.min(self.block_rows) * self.row_bytes;
            let block = Tensor::f_empty([bytes as i64], (Kind::Uint8, device));
            self.blocks
                .push(block.map_err(failed("making room for the frozen layers' activations"))?);
        }
        Ok(())
    }
}

impl Drop for RowCache {
    fn drop(&mut self) {
        say_dropped(self.budget, &self.counts());
    }
}

impl Fused {
    /// The outputs of `images`: of those with a row in the cache, and of the others, whose outputs are the first rows of `computed`,
    /// `[any number, height, width, channels]`, in their order. These are then kept, as far as there is room.
    ///
    /// # Errors
    /// If the GPU refuses.
    pub fn cached(
        &self,
        cache: &mut RowCache,
        images: &[Image],
        rows: &[Option<u32>],
        computed: Option<&Tensor>,
    ) -> Result<Tensor, DeviceError> {
        if let Some(computed) = computed {
            let size = computed.size();
            cache.image = [1, 2, 3].map(|i| size[i]);
        }
        let [height, width, channels] = cache.image;
        let row_bytes = (height * width * channels) as usize * self.bytes_each();
        let out = [images.len() as i64, height, width, channels];
        let out = Tensor::empty(out, (self.kind, self.device));
        let mut fresh = 0..;
        let mut next = || fresh.next().unwrap_or(0);
        let places = rows.iter().map(|row| match row {
            Some(row) => *row as i32,
            None => -1 - next(),
        });
        let places: Vec<i32> = places.collect();
        let at_places = sent(&places, self.device);
        let nothing = Tensor::empty([0], (Kind::Uint8, self.device));
        let blocks: Vec<Address> = cache.blocks.iter().map(at).collect();
        let held = Held {
            blocks: &blocks,
            rows: cache.block_rows,
        };
        let fresh = at(computed.unwrap_or(&nothing));
        let (to, count) = (at(&out), images.len());
        self.run(&pick_rows(
            held,
            fresh,
            at(&at_places),
            to,
            count,
            row_bytes,
        ))?;
        if let Some(computed) = computed {
            self.keep(cache, images, &places, computed, row_bytes)?;
        }
        Ok(out)
    }

    fn keep(
        &self,
        cache: &mut RowCache,
        images: &[Image],
        places: &[i32],
        computed: &Tensor,
        row_bytes: usize,
    ) -> Result<(), DeviceError> {
        cache.shape(row_bytes);
        // By block: from which row of `computed` to which row of the block.
        let mut kept: BTreeMap<usize, [Vec<i32>; 2]> = BTreeMap::new();
        for (image, place) in images.iter().zip(places) {
            // The same image may be twice in a batch.
            if *place >= 0 || cache.rows.get(image).is_some() {
                continue;
            }
            match cache.rows.admit(*image) {
                Some(row) => {
                    let row = row as usize;
                    let [from, to] = kept.entry(row / cache.block_rows).or_default();
                    from.push(-1 - place);
                    to.push((row % cache.block_rows) as i32);
                }
                None if cache.budget > 0 && !std::mem::replace(&mut cache.full, true) => {
                    say_full(&cache.counts());
                }
                None => {}
            }
        }
        cache.grow(self.device)?;
        for (block, lists) in kept {
            let lists = lists.each_ref().map(|list| sent(list, self.device));
            let count = lists[0].numel();
            let (from, to) = (at(computed), lists.each_ref().map(at));
            self.run(&keep_rows(
                from,
                to,
                at(&cache.blocks[block]),
                count,
                row_bytes,
            ))?;
        }
        Ok(())
    }

    /// Bytes of an activation.
    pub(super) fn bytes_each(&self) -> usize {
        match self.kind {
            Kind::BFloat16 => 2,
            _ => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(split: Split, sample: u32) -> Image {
        Image {
            split,
            sample,
            quarter_turns: 0,
        }
    }

    #[test]
    fn validation_images_take_the_rows_of_training_images() {
        let (train, validation) = (Split::Train, Split::Validation);
        let mut rows = Rows {
            most: 2,
            ..Rows::default()
        };
        assert_eq!(rows.admit(image(train, 0)), Some(0));
        assert_eq!(rows.admit(image(train, 1)), Some(1));
        assert_eq!(rows.admit(image(train, 2)), None, "the first to come stay");
        assert_eq!(rows.admit(image(validation, 0)), Some(1));
        assert_eq!(rows.get(&image(train, 1)), None);
        assert_eq!(rows.admit(image(validation, 1)), Some(0));
        assert_eq!(
            rows.admit(image(validation, 2)),
            None,
            "none of its own goes"
        );
        assert_eq!(rows.get(&image(validation, 0)), Some(1));
        assert_eq!(rows.rows.len(), 2);
    }

    #[test]
    fn what_is_forgotten_makes_room() {
        let mut rows = Rows {
            most: 3,
            ..Rows::default()
        };
        let train = |sample| image(Split::Train, sample);
        for sample in 0..3 {
            assert_eq!(rows.admit(train(sample)), Some(sample));
        }
        rows.retain(&|image| image.sample != 1);
        assert_eq!(rows.get(&train(1)), None);
        assert_eq!(rows.admit(train(7)), Some(1));
        assert_eq!(rows.admit(train(8)), None);
        // Each row belongs to one image.
        let mut taken: Vec<u32> = rows.rows.values().copied().collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn another_size_starts_anew_and_no_budget_keeps_nothing() {
        let mut cache = RowCache::new(100, Hits::default());
        cache.shape(32);
        assert_eq!((cache.rows.most, cache.block_rows), (3, 3));
        cache.rows.admit(image(Split::Train, 0));
        cache.shape(32);
        assert_eq!((cache.counts().images, cache.counts().bytes), (1, 32));
        cache.shape(48);
        assert_eq!((cache.counts().images, cache.rows.most), (0, 2));
        let mut none = RowCache::new(0, Hits::default());
        none.shape(16);
        assert_eq!(none.rows.admit(image(Split::Validation, 0)), None);
    }
    #[test]
    fn rows_lie_in_blocks_and_the_last_one_is_as_long_as_it_must_be() {
        let row = 16 << 20;
        let mut cache = RowCache::new(6 * row as u64 + 5, Hits::default());
        cache.shape(row);
        assert_eq!((cache.rows.most, cache.block_rows), (6, 4));
        for sample in 0..5 {
            cache.rows.admit(image(Split::Train, sample));
        }
        cache.grow(tch::Device::Cpu).unwrap();
        let lengths: Vec<usize> = cache
            .blocks
            .iter()
            .map(|block| block.numel() / row)
            .collect();
        assert_eq!(lengths, [4, 2]);
        // No more blocks than a kernel takes.
        let mut large = RowCache::new(1 << 40, Hits::default());
        large.shape(1 << 20);
        let blocks = large.rows.most.div_ceil(large.block_rows);
        assert!(blocks <= MOST_BLOCKS, "{blocks}");
    }
}
