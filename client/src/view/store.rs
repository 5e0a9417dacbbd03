//! Stored files: the state in which a verification found them, and what a removal freed.

use fovea_core::checkpoint::CheckpointInfo;
use fovea_proto::pb;
use serde::Serialize;

use crate::error::Error;

/// The state in which a stored file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// Read to the end; size and digest are as stored.
    Ok,
    /// There is no such file, while its store is there.
    Missing,
    /// The file or its store cannot be read now. That says nothing about the content.
    Unreadable,
    /// Read to the end, and size or digest differ.
    Corrupt,
    /// In the store, and unknown to the coordinator's journal.
    Unlisted,
}

impl FileState {
    /// The state in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            FileState::Ok => "ok",
            FileState::Missing => "missing",
            FileState::Unreadable => "unreadable",
            FileState::Corrupt => "corrupt",
            FileState::Unlisted => "unlisted",
        }
    }

    /// Converts the wire's state. A coordinator that sends none gives only a problem, or none.
    fn from_wire(state: i32, problem: &str) -> Result<Self, Error> {
        match pb::FileState::try_from(state) {
            Ok(pb::FileState::Ok) => Ok(FileState::Ok),
            Ok(pb::FileState::Missing) => Ok(FileState::Missing),
            Ok(pb::FileState::Unreadable) => Ok(FileState::Unreadable),
            Ok(pb::FileState::Corrupt) => Ok(FileState::Corrupt),
            Ok(pb::FileState::Unlisted) => Ok(FileState::Unlisted),
            Ok(pb::FileState::Unspecified) if problem.is_empty() => Ok(FileState::Ok),
            Ok(pb::FileState::Unspecified) => Ok(FileState::Corrupt),
            Err(_) => Err(Error::Protocol(format!(
                "state of a file is {state}, expected 1 to 5"
            ))),
        }
    }
}

/// Where a checkpoint is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On the coordinator's disk.
    Local,
    /// In the object store.
    Remote,
    /// In both.
    Both,
    /// In neither, as far as is known.
    Nowhere,
}

impl Place {
    /// The place in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Local => "local",
            Place::Remote => "remote",
            Place::Both => "both",
            Place::Nowhere => "nowhere",
        }
    }
}

/// The checkpoints of a run, and where they are.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCheckpoints {
    /// By step, each with its place; None: the coordinator has no object store.
    pub checkpoints: Vec<(CheckpointInfo, Option<Place>)>,
    /// What is wrong with the object store; empty if nothing is known to be.
    pub store_problem: String,
}

impl TryFrom<pb::ListCheckpointsResponse> for StoredCheckpoints {
    type Error = Error;

    fn try_from(wire: pb::ListCheckpointsResponse) -> Result<Self, Error> {
        let pb::ListCheckpointsResponse {
            checkpoints,
            places,
            store_problem,
        } = wire;
        let place = |number: usize| {
            let place = *places.get(number)?;
            match pb::CheckpointPlace::try_from(place).ok()? {
                pb::CheckpointPlace::Local => Some(Place::Local),
                pb::CheckpointPlace::Remote => Some(Place::Remote),
                pb::CheckpointPlace::Both => Some(Place::Both),
                pb::CheckpointPlace::Nowhere => Some(Place::Nowhere),
                pb::CheckpointPlace::Unspecified => None,
            }
        };
        let mut placed = Vec::with_capacity(checkpoints.len());
        for (number, checkpoint) in checkpoints.into_iter().enumerate() {
            placed.push((CheckpointInfo::try_from(checkpoint)?, place(number)));
        }
        placed.sort_by_key(|(info, _)| info.step);
        Ok(Self {
            checkpoints: placed,
            store_problem,
        })
    }
}

/// A stored checkpoint that was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedCheckpoint {
    /// The checkpoint as it was stored.
    pub info: CheckpointInfo,
    /// The state of its file.
    pub state: FileState,
    /// What was found; empty if the file is whole.
    pub problem: String,
    /// The state of its manifest, which is looked at if the file is whole.
    pub manifest_state: FileState,
    /// What is wrong with the manifest and what to do; empty if nothing is.
    pub manifest_problem: String,
}

impl TryFrom<pb::VerifiedCheckpoint> for VerifiedCheckpoint {
    type Error = Error;

    fn try_from(wire: pb::VerifiedCheckpoint) -> Result<Self, Error> {
        let pb::VerifiedCheckpoint {
            checkpoint,
            problem,
            state,
            manifest_state,
            manifest_problem,
        } = wire;
        Ok(Self {
            info: checkpoint
                .ok_or_else(|| Error::Protocol("a verified checkpoint lacks its step".into()))?
                .try_into()?,
            state: FileState::from_wire(state, &problem)?,
            problem,
            manifest_state: FileState::from_wire(manifest_state, &manifest_problem)?,
            manifest_problem,
        })
    }
}

/// What was given back by a removal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Checkpoints removed with it.
    pub checkpoints: u32,
    /// Bytes of files removed.
    pub freed_bytes: u64,
}

/// A report of a verification of the coordinator's whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreReport {
    /// Progress.
    Progress(StoreProgress),
    /// A file that is not as it was stored.
    Problem(StoreProblem),
    /// The end.
    Summary(StoreSummary),
}

/// Progress of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreProgress {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes to read in all.
    pub total_bytes: u64,
    /// The file being read, such as `run dr-3, checkpoint 120`.
    pub what: String,
}

/// A file that is not as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreProblem {
    /// The file, such as `dataset eyepacs, pack 4`.
    pub what: String,
    /// Its state.
    pub state: FileState,
    /// What was found.
    pub problem: String,
    /// What to do about it.
    pub action: String,
}

/// The result of a verification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoreSummary {
    /// Checkpoint files verified.
    pub checkpoints: u32,
    /// Pack files verified.
    pub packs: u32,
    /// Files of weights verified.
    pub weights: u32,
    /// Checkpoints, datasets and weights looked up in the object store.
    pub objects: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Files with a problem.
    pub problems: u32,
}

impl StoreReport {
    /// Converts an event; None for one of a newer coordinator that this client does not know.
    pub(crate) fn from_wire(wire: pb::VerifyStoreEvent) -> Result<Option<Self>, Error> {
        use pb::verify_store_event::Event;
        let Some(event) = wire.event else {
            return Ok(None);
        };
        Ok(Some(match event {
            Event::Progress(pb::VerifyProgress {
                read_bytes,
                total_bytes,
                what,
            }) => StoreReport::Progress(StoreProgress {
                read_bytes,
                total_bytes,
                what,
            }),
            Event::Problem(pb::VerifyProblem {
                what,
                state,
                problem,
                action,
            }) => StoreReport::Problem(StoreProblem {
                what,
                state: FileState::from_wire(state, &problem)?,
                problem,
                action,
            }),
            Event::Summary(pb::VerifySummary {
                checkpoints,
                packs,
                read_bytes,
                problems,
                weights,
                objects,
            }) => StoreReport::Summary(StoreSummary {
                checkpoints,
                packs,
                weights,
                objects,
                read_bytes,
                problems,
            }),
        }))
    }
}
