//! The coordinator's stores: each is the one authority over the files in its folder.
//!
//! ```text
//!  run actors, services ──calls──> CheckpointStore ──> DATA/checkpoints/   nobody else opens, renames or
//!                       ──calls──> DatasetStore    ──> DATA/datasets/      removes anything in there
//!                       ──calls──> WeightsStore    ──> DATA/weights/
//!
//!  identity      is the folder the store that the journal knows, or a volume that is not mounted?
//!  checkpoints   begin, probe, verify, read, remove, quarantine, sweep, find   (assembly, folder, inspect, manifest, segment, header, trash, unjournalled)
//!  datasets      open, verify, read, remove                                    (upload: add and repair)
//!  weights       list, verify, read, remove                                    (weights_upload: add and repair)
//!  receive       files that come back from the object store; export: what its mirror reads
//!  rooted        what stores of files named by digest share                    (temporary: folders of uploads)
//!  disk          the single file operations, where tests inject faults
//! ```
//!
//! Invariants:
//! - An I/O error is not corruption. Only a complete read with another size or SHA-256 is ([`StoreError::Corrupt`]).
//! - Nothing is deleted because something else is absent. When the folder as a whole is not the store that was opened,
//!   every call returns [`StoreError::Unavailable`] and changes nothing.
//! - A write that fails at any point leaves nothing behind, and what was stored before stays.
//! - Whatever has its name is complete and on the disk: content is flushed before the rename, the folder after it.
//!
//! All calls wait for the disk: actors make them on a thread for blocking work.

mod assembly;
mod checkpoints;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod crash_tests;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
pub(crate) mod crash_trace;
#[cfg(test)]
mod dataset_tests;
mod datasets;
mod disk;
mod error;
mod export;
#[cfg(test)]
mod fault;
#[cfg(test)]
mod fault_tests;
mod folder;
mod header;
mod identity;
mod inspect;
mod manifest;
mod names;
mod priority;
mod receive;
mod rooted;
mod segment;
mod temporary;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
mod trash;
mod trash_age;
mod unjournalled;
mod upload;
mod weights;
#[cfg(test)]
mod weights_tests;
mod weights_upload;

use std::time::Duration;

pub(crate) use assembly::{AssemblyFile, CheckpointRecord};
pub(crate) use checkpoints::CheckpointStore;
pub(crate) use datasets::{DatasetStore, DescribingFile, HeldDataset};
pub(crate) use disk::free_bytes;
pub use error::{OpenError, StoreError};
pub(crate) use header::{Description, header};
pub(crate) use identity::stored_identity;
pub(crate) use manifest::RunRecord;
pub(crate) use priority::{low_priority, lower as lower_priority};
pub(crate) use receive::{Placed, Receiving};
pub(crate) use segment::Segment;
pub(crate) use trash::Purged;
pub(crate) use trash_age::{Moment, TrashAges};
pub(crate) use unjournalled::Unjournalled;
pub use upload::UploadError;
pub(crate) use upload::{Stored, Upload, Verified};
pub(crate) use weights::{HeldWeights, WeightsStore};
pub(crate) use weights_upload::{StoredWeights, VerifiedWeights, WeightsUpload};

/// What names of unfinished files and folders begin with. They are removed at start.
const TEMPORARY: &str = "tmp-";

/// How a store is used.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    /// Use the folder as it is, even if the journal knows another store (`--accept-store`).
    pub accept: bool,
    /// How long what was put aside is kept in the trash.
    pub trash_keep: Duration,
    /// With fewer bytes free, uploads are refused and the trash is emptied early.
    pub min_free_bytes: u64,
}
