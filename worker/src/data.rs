//! The part of a dataset that this worker holds: its packs, opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fovea_core::plan::ShardPlan;
use fovea_core::roster::Member;
use fovea_dataset::{Index, Manifest, PackError, PackFile, Sample};

/// A record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// From the pack.
    #[error("image {image:?}: {source}")]
    Record {
        /// Name of the image.
        image: String,
        /// What is wrong with the pack.
        source: PackError,
    },
    /// A pack cannot be opened.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The loader ended without saying why.
    #[error("the loader ended early")]
    Ended,
}

/// The packs that `member`'s virtual ranks touch: those of their training shards and of their parts of
/// the validation split.
pub fn packs_of(plan: &ShardPlan, index: &Index, member: &Member) -> BTreeSet<u32> {
    let mut packs = BTreeSet::new();
    for rank in hosted(member) {
        let train = plan.shard(rank).iter().map(|&s| &index.train()[s as usize]);
        let validation = plan
            .validation_shard(rank)
            .map(|s| &index.validation()[s as usize]);
        packs.extend(train.chain(validation).map(|sample| sample.pack));
    }
    packs
}

/// The virtual ranks that `member` hosts.
pub fn hosted(member: &Member) -> std::ops::Range<u32> {
    member.first_virtual_rank..member.first_virtual_rank + member.virtual_ranks
}

/// Opened packs with the index over them.
pub struct LocalData {
    index: Index,
    size: usize,
    packs: BTreeMap<u32, PackFile>,
}

impl LocalData {
    /// Opens `packs` below `dir`, a folder in the layout of a prepared dataset.
    pub fn open(
        dir: &Path,
        manifest: &Manifest,
        index: Index,
        packs: &BTreeSet<u32>,
    ) -> Result<Self, DataError> {
        let mut open = BTreeMap::new();
        for &pack in packs {
            let entry = &manifest.packs[pack as usize];
            let file = PackFile::open(&dir.join(&entry.file), manifest.record_bytes, entry)?;
            open.insert(pack, file);
        }
        Ok(Self {
            index,
            size: manifest.image_size as usize,
            packs: open,
        })
    }

    /// Width and height of the images.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Samples of the training and of the validation split.
    pub fn samples(&self) -> [usize; 2] {
        [self.index.train().len(), self.index.validation().len()]
    }

    /// A training sample's description.
    pub fn train(&self, ordinal: u32) -> &Sample {
        &self.index.train()[ordinal as usize]
    }

    /// A validation sample's description.
    pub fn validation(&self, ordinal: u32) -> &Sample {
        &self.index.validation()[ordinal as usize]
    }

    /// Reads a sample's pixels: `size * size * 3` bytes.
    ///
    /// # Panics
    /// If its pack is not among those opened.
    pub fn read(&self, sample: &Sample, pixels: &mut [u8]) -> Result<(), DataError> {
        self.packs[&sample.pack]
            .read(sample.record, pixels)
            .map_err(|source| DataError::Record {
                image: sample.image.clone(),
                source,
            })
    }
}
