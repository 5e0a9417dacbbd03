//! What the frozen layers make of an image, kept so that they are computed once for each image of a run.
//!
//! The layers before the first trainable one give the same activations for the same pixels in every
//! epoch: for a sample at one of its four rotations, or a validation image. They are kept up to a budget
//! of memory; what does not fit is computed again, as it is without a cache.
//!
//! **Bits.** Workers' caches hold different things (one that has just joined holds nothing), so the result
//! must not depend on what is in them. Kept activations are copies, hence exact; but what is computed anew
//! must have the same bits in *whatever batch* it comes. libtorch does not promise that. Measured
//! (libtorch 2.11.0, AVX-512, float32, channels-last, batches of 1, 2, 3, 5, 7, 8, 13 and 16, with 1 and
//! with 2 threads alike): images of 131 and 224 px have the same bits alone and in any batch, but with
//! conv2/3x3 frozen those of 32 and 64 px differ between a batch of one and any larger one, and with
//! inception_3a frozen those of 96 px do, too (oneDNN presumably chooses its algorithm by the shape, which
//! includes the batch). So the frozen layers are *always* computed image by image, cached or not, each from
//! a new tensor (aligned alike). It takes 3 % more of the frozen layers' time than at once (16 images of
//! 224 px, stem frozen: 174 ms for 169 ms with one thread, 100 ms for 98 ms with two).
//!
//! **What is kept.** All entries have the same size, and an epoch uses each training image once, at a
//! rotation drawn at random. Nothing tells which of them comes next, so no choice is better than the first
//! to come, and replacing one by another only loses: a cache of the least recently used would in each epoch
//! throw out what the rest of the epoch was about to use. It is filled and then stays as it is, with one
//! exception: validation images are used in *every* epoch, up to four times as often, so they take the
//! place of training images.

use std::collections::HashMap;

use tch::{Kind, Tensor};
use tracing::info;

use crate::hits::Hits;

/// Which split a sample's ordinal counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What is learned from.
    Train,
    /// What is scored.
    Validation,
}

/// An image of a run's dataset, as the network sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Image {
    /// Its split.
    pub split: Split,
    /// Its ordinal there.
    pub sample: u32,
    /// By how many quarter turns it is rotated.
    pub quarter_turns: u8,
}

/// What a cache holds and what it was good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Images whose activations are kept.
    pub images: usize,
    /// Bytes of these activations.
    pub bytes: u64,
    /// Images that were asked for and kept.
    pub hits: u64,
    /// Images that were asked for and not kept.
    pub misses: u64,
}

impl CacheCounts {
    /// Hits among all that were asked for, 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

/// Activations by image, within a budget. See the module's description for what is kept.
#[derive(Debug, Default)]
pub struct FeatureCache {
    budget: u64,
    kept: HashMap<Image, Tensor>,
    /// The training images of `kept`: those that may have to go.
    training: Vec<Image>,
    counts: CacheCounts,
    /// Counted there, too.
    hits: Hits,
    full: bool,
}

impl FeatureCache {
    /// An empty cache that will hold at most `budget` bytes of activations; with 0 it stays empty. The
    /// table that finds them is not counted: some 100 bytes for each image.
    pub fn new(budget: u64) -> Self {
        let mut cache = Self::default();
        cache.budget = budget;
        cache
    }

    /// Counts its hits and misses there, too; those of a cache that may hold nothing are none.
    pub fn count_in(&mut self, hits: Hits) {
        self.hits = hits;
    }

    /// What it holds and was good for.
    pub fn counts(&self) -> CacheCounts {
        self.counts
    }

    /// The activations of `image`, if they are kept.
    pub fn get(&mut self, image: &Image) -> Option<Tensor> {
        let kept = self.kept.get(image).map(Tensor::shallow_clone);
        match kept {
            Some(_) => self.counts.hits += 1,
            None => self.counts.misses += 1,
        }
        if self.budget > 0 {
            let is_hit = kept.is_some();
            self.hits.add(is_hit.into(), (!is_hit).into());
        }
        kept
    }

    /// Forgets all: the frozen layers have changed.
    pub fn clear(&mut self) {
        self.retain(|_| false);
    }

    /// Forgets the images that are not `wanted` any more, to make room for others.
    pub fn retain(&mut self, wanted: impl Fn(&Image) -> bool) {
        let (kept, counts) = (&mut self.kept, &mut self.counts);
        kept.retain(|image, features| {
            let stays = wanted(image);
            if !stays {
                counts.images -= 1;
                counts.bytes -= bytes(features);
            }
            stays
        });
        self.training.retain(wanted);
        self.full = false;
    }

    /// Keeps the activations of `image`, if there is room for them.
    pub fn keep(&mut self, image: Image, features: &Tensor) {
        if self.kept.contains_key(&image) {
            return;
        }
        // A view may hold more memory than it shows.
        debug_assert!(features.is_contiguous());
        let needed = bytes(features);
        while self.counts.bytes + needed > self.budget {
            let replaced = match image.split {
                Split::Train => None,
                Split::Validation => self.training.pop(),
            };
            let Some(replaced) = replaced else {
                return self.say_full();
            };
            if let Some(features) = self.kept.remove(&replaced) {
                self.counts.images -= 1;
                self.counts.bytes -= bytes(&features);
            }
        }
        self.kept.insert(image, features.shallow_clone());
        self.counts.images += 1;
        self.counts.bytes += needed;
        if image.split == Split::Train {
            self.training.push(image);
        }
    }

    /// Once, not for every image.
    fn say_full(&mut self) {
        if self.budget > 0 && !std::mem::replace(&mut self.full, true) {
            say_full(&self.counts);
        }
    }

    /// Limit of its bytes, and where its uses are counted.
    pub(super) fn settings(&self) -> (u64, Hits) {
        (self.budget, self.hits.clone())
    }
}

/// Logs that a cache has no room left.
pub(super) fn say_full(counts: &CacheCounts) {
    info!(
        images = counts.images,
        mib = mib(counts.bytes),
        "activations.full: the cache of the frozen layers' activations is full at {}; the others are \
         computed in every step (a larger cache_mib holds more)",
        fovea_core::count::count(counts.images, "image", "images")
    );
}

/// Logs what a cache of `budget` bytes that ends was good for.
pub(super) fn say_dropped(budget: u64, counts: &CacheCounts) {
    if counts.hits + counts.misses > 0 && budget > 0 {
        info!(
            images = counts.images,
            mib = mib(counts.bytes),
            hit_rate = format!("{:.3}", counts.hit_rate()),
            "activations.dropped: dropping the cache of the frozen layers' activations"
        );
    }
}

impl Drop for FeatureCache {
    fn drop(&mut self) {
        say_dropped(self.budget, &self.counts);
    }
}

fn bytes(features: &Tensor) -> u64 {
    let size = match features.kind() {
        Kind::BFloat16 => 2,
        // What the network computes in otherwise.
        _ => 4,
    };
    features.numel() as u64 * size
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(sample: u32) -> Image {
        Image {
            split: Split::Train,
            sample,
            quarter_turns: 0,
        }
    }

    fn validation(sample: u32) -> Image {
        Image {
            split: Split::Validation,
            ..train(sample)
        }
    }

    /// 40 bytes.
    fn features(value: f64) -> Tensor {
        Tensor::full([1, 1, 2, 5], value, (Kind::Float, tch::Device::Cpu))
    }

    fn ask(cache: &mut FeatureCache, image: Image) -> bool {
        let value = features(f64::from(image.sample));
        match cache.get(&image) {
            Some(kept) => {
                assert_eq!(kept, value);
                true
            }
            None => {
                cache.keep(image, &value);
                false
            }
        }
    }

    #[test]
    fn what_fits_is_kept_and_the_first_stay() {
        let mut cache = FeatureCache::new(119);
        for round in 0..3 {
            let hits: Vec<bool> = (0..4).map(|i| ask(&mut cache, train(i))).collect();
            let again = round > 0;
            assert_eq!(hits, [again, again, false, false]);
        }
        let counts = cache.counts();
        assert_eq!((counts.images, counts.bytes), (2, 80));
        assert_eq!((counts.hits, counts.misses), (4, 8));
        assert_eq!(counts.hit_rate(), 4.0 / 12.0);
    }

    #[test]
    fn split_and_rotation_tell_images_apart() {
        let mut cache = FeatureCache::new(1 << 20);
        let turned = Image {
            quarter_turns: 3,
            ..train(1)
        };
        for image in [train(1), turned, validation(1), train(2)] {
            assert!(!ask(&mut cache, image), "{image:?}");
        }
        assert_eq!(cache.counts().images, 4);
    }

    #[test]
    fn validation_images_take_the_place_of_training_images() {
        let mut cache = FeatureCache::new(80);
        ask(&mut cache, train(0));
        ask(&mut cache, train(1));
        assert!(!ask(&mut cache, validation(0)));
        assert!(!ask(&mut cache, validation(1)));
        assert!(!ask(&mut cache, validation(2)), "none of its own kind goes");
        assert!(ask(&mut cache, validation(0)) && ask(&mut cache, validation(1)));
        assert!(!ask(&mut cache, train(0)) && !ask(&mut cache, train(1)));
        assert_eq!(cache.counts().bytes, 80);
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        for budget in [0, 39] {
            let mut cache = FeatureCache::new(budget);
            for image in [train(0), train(0), validation(0), validation(0)] {
                assert!(!ask(&mut cache, image));
            }
            assert_eq!((cache.counts().images, cache.counts().bytes), (0, 0));
        }
    }

    #[test]
    fn what_is_forgotten_makes_room() {
        let mut cache = FeatureCache::new(80);
        ask(&mut cache, train(0));
        ask(&mut cache, train(1));
        cache.retain(|image| image.sample == 1);
        assert_eq!(cache.counts().bytes, 40);
        assert!(ask(&mut cache, train(1)) && !ask(&mut cache, train(2)));
        assert!(ask(&mut cache, train(2)));
        cache.clear();
        assert_eq!((cache.counts().images, cache.counts().bytes), (0, 0));
        assert!(!ask(&mut cache, train(1)));
        ask(&mut cache, validation(0));
        ask(&mut cache, validation(1));
        assert_eq!(cache.counts().images, 2);
    }

    #[test]
    fn half_the_bits_take_half_the_room() {
        let mut cache = FeatureCache::new(1000);
        cache.keep(train(0), &features(1.0).to_kind(Kind::BFloat16));
        assert_eq!(cache.counts().bytes, 20);
    }
}
