//! The part of a dataset that this worker holds: its packs, opened, every read of which is verified.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use fovea_core::plan::ShardPlan;
use fovea_core::roster::Member;
use fovea_core::run::Trouble;
use fovea_core::spec::Part;
use fovea_dataset::{Index, PackError, PackFile, Sample};
use tokio_util::sync::CancellationToken;

/// A record that cannot be read is read again from a replaced pack so many times.
const REPLACEMENTS: u32 = 2;

/// A record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// From the pack, and replacing the pack did not help.
    #[error("image {image:?}: {source}")]
    Record {
        /// Name of the image.
        image: String,
        /// What is wrong with the pack.
        source: PackError,
    },
    /// The pack cannot be replaced before something at the coordinator is repaired.
    #[error("{reason}")]
    Blocked {
        /// What, and the cure.
        reason: String,
    },
    /// The pack could not be replaced.
    #[error("image {image:?}: its pack could not be replaced: {reason}")]
    NotReplaced {
        /// Name of the image.
        image: String,
        /// Why not.
        reason: String,
        /// The trouble of this worker alone that it shows, if it does.
        trouble: Option<Trouble>,
    },
    /// The batch is not needed any more.
    #[error("the batch is not needed any more")]
    Cancelled,
    /// The loader ended without saying why.
    #[error("the loader ended early")]
    Ended,
}

impl DataError {
    /// The trouble of this worker alone that it shows; None if it may lie elsewhere.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Record { .. } => Some(Trouble::Data),
            Self::NotReplaced { trouble, .. } => *trouble,
            Self::Blocked { .. } | Self::Cancelled | Self::Ended => None,
        }
    }
}

/// Why a pack was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// Something at the coordinator must be repaired first.
    #[error("{0}")]
    Blocked(String),
    /// It is not needed any more.
    #[error("it is not needed any more")]
    Cancelled,
    /// Anything else.
    #[error("{reason}")]
    Failed {
        /// What happened.
        reason: String,
        /// The trouble of this worker alone that it shows, if it does.
        trouble: Option<Trouble>,
    },
}

/// Brings another copy of a pack that cannot be read.
pub trait ReplacePack: Send {
    /// An open pack in place of `pack`, in which `record` could not be read because of `problem`. Blocks; cancelling
    /// `cancel` ends that.
    fn replace(
        &self,
        pack: u32,
        record: u32,
        problem: &PackError,
        cancel: &CancellationToken,
    ) -> Result<PackFile, ReplaceError>;
}

/// The packs that `member`'s virtual ranks touch: those of their training shards and of what they score of `part`.
pub fn packs_of(plan: &ShardPlan, index: &Index, part: Part, member: &Member) -> BTreeSet<u32> {
    let scored = index.part(part);
    let mut packs = BTreeSet::new();
    for rank in hosted(member) {
        let train = plan.shard(rank).iter().map(|&s| &index.train()[s as usize]);
        let validation = plan
            .validation_shard(rank)
            .filter_map(|s| scored.get(s as usize));
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
    scored: Part,
    size: usize,
    packs: RefCell<BTreeMap<u32, PackFile>>,
    source: Box<dyn ReplacePack>,
    cancel: CancellationToken,
}

impl LocalData {
    /// The samples of `index` in the open `packs`, of which the run scores those in `scored`; their images are `size` pixels
    /// wide and high. A pack that cannot be read is replaced from `source`.
    pub fn new(
        index: Index,
        scored: Part,
        size: usize,
        packs: BTreeMap<u32, PackFile>,
        source: Box<dyn ReplacePack>,
    ) -> Self {
        Self {
            index,
            scored,
            size,
            packs: RefCell::new(packs),
            source,
            cancel: CancellationToken::new(),
        }
    }

    /// Cancelling it ends the replacement of a pack.
    pub fn canceller(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Width and height of the images.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Samples of the training split, and of the part that is scored.
    pub fn samples(&self) -> [usize; 2] {
        [self.index.train().len(), self.index.part(self.scored).len()]
    }

    /// The grades of the training split.
    pub fn train_grades(&self) -> impl Iterator<Item = u8> {
        self.index.train().iter().map(|sample| sample.grade)
    }

    /// A training sample's description.
    pub fn train(&self, ordinal: u32) -> &Sample {
        &self.index.train()[ordinal as usize]
    }

    /// The description of a sample in the part that is scored.
    pub fn scored(&self, ordinal: u32) -> &Sample {
        let part = self.index.part(self.scored);
        part.get(ordinal as usize)
            .expect("the plan counts the samples of this part")
    }

    /// Reads a sample's pixels: `size * size * 3` bytes, compared with their digest. If they cannot be read or
    /// differ, the pack is replaced and they are read again.
    ///
    /// # Panics
    /// If its pack is not among those opened.
    pub fn read(&self, sample: &Sample, pixels: &mut [u8]) -> Result<(), DataError> {
        let image = || sample.image.clone();
        let mut packs = self.packs.borrow_mut();
        for _ in 0..REPLACEMENTS {
            let problem = match packs[&sample.pack].read(sample.record, pixels) {
                Ok(()) => return Ok(()),
                Err(
                    source @ (PackError::Request { .. }
                    | PackError::Size { .. }
                    | PackError::Digest { .. }),
                ) => {
                    return Err(DataError::Record {
                        image: image(),
                        source,
                    });
                }
                Err(problem @ (PackError::Io { .. } | PackError::Record { .. })) => problem,
            };
            let replaced = self
                .source
                .replace(sample.pack, sample.record, &problem, &self.cancel);
            let file = replaced.map_err(|error| match error {
                ReplaceError::Blocked(reason) => DataError::Blocked { reason },
                ReplaceError::Cancelled => DataError::Cancelled,
                ReplaceError::Failed { reason, trouble } => DataError::NotReplaced {
                    image: image(),
                    reason,
                    trouble,
                },
            })?;
            packs.insert(sample.pack, file);
        }
        packs[&sample.pack]
            .read(sample.record, pixels)
            .map_err(|source| DataError::Record {
                image: image(),
                source,
            })
    }
}
