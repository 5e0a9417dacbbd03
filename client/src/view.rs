//! What the coordinator reports, converted from the wire and checked: runs, datasets, verifications.
//!
//! The serde forms are the `--json` output, so field names are kept stable.

mod access;
mod group;
mod queue;
mod store;
mod weights;
mod workers;

use fovea_proto::pb;
use serde::Serialize;

pub use access::{DeniedInfo, IdentityInfo, TokenInfo};
pub use fovea_judging::{EvaluationInfo, LeftOutInfo, Phase, RunInfo, Scores};
pub use group::{GroupInfo, MemberInfo};
pub use queue::{QueuedInfo, StatusInfo};
pub use store::{
    FileState, Place, Removed, StoreProblem, StoreProgress, StoreReport, StoreSummary,
    StoredCheckpoints, VerifiedCheckpoint,
};
pub use weights::{IgnoredInfo, LayerInfo, WeightsInfo};
pub use workers::{WorkerInfo, WorkerState};

/// The result of a run's audit: its ledger compared with the shard plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditInfo {
    /// The run's id.
    pub run: String,
    /// Samples in the training split.
    pub train_samples: u64,
    /// Committed steps in the ledger.
    pub steps: u64,
    /// Steps in the whole run.
    pub total_steps: u64,
    /// Whole epochs whose samples are the training split, each once.
    pub clean_epochs: u32,
    /// Samples that committed steps used, counted as often as they were used.
    pub samples_used: u64,
    /// Bytes that the ledger takes for this run.
    pub ledger_bytes: u64,
    /// Differences, in order of steps; at most [`AuditInfo::PROBLEMS`].
    pub problems: Vec<String>,
}

impl AuditInfo {
    /// Most problems that the coordinator lists.
    pub const PROBLEMS: usize = 100;
}

impl From<pb::AuditReport> for AuditInfo {
    fn from(wire: pb::AuditReport) -> Self {
        let pb::AuditReport {
            run_id,
            train_samples,
            steps,
            total_steps,
            clean_epochs,
            samples_used,
            problems,
            ledger_bytes,
        } = wire;
        Self {
            run: run_id,
            train_samples,
            steps,
            total_steps,
            clean_epochs,
            samples_used,
            ledger_bytes,
            problems,
        }
    }
}

/// A dataset of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetInfo {
    /// Its name, unique at one coordinator.
    pub name: String,
    /// Digest over manifest, index and packs.
    pub digest: String,
    /// Width and height of the images in pixels.
    pub image_size: u32,
    /// Training samples.
    pub train_samples: u64,
    /// Validation samples.
    pub validation_samples: u64,
    /// Training samples by grade 0 to 4.
    pub train_grades: Vec<u64>,
    /// Validation samples by grade 0 to 4.
    pub validation_grades: Vec<u64>,
    /// Test samples.
    pub test_samples: u64,
    /// Test samples by grade 0 to 4.
    pub test_grades: Vec<u64>,
    /// Packs.
    pub packs: u32,
    /// Bytes of all packs.
    pub size_bytes: u64,
    /// What is wrong with its files at the coordinator, and what to do; else empty.
    pub problem: String,
    /// What was done with the photographs, with its parameters.
    pub preprocessing: String,
    /// SHA-256 of all that made photographs into images.
    pub pipeline: String,
    /// What the grades mean: `icdr`, `messidor`, `unstated`; empty if the dataset does not say.
    pub scale: String,
}

impl From<pb::Dataset> for DatasetInfo {
    fn from(wire: pb::Dataset) -> Self {
        let pb::Dataset {
            name,
            digest,
            image_size,
            train_samples,
            validation_samples,
            train_grades,
            validation_grades,
            test_samples,
            test_grades,
            packs,
            size_bytes,
            problem,
            preprocessing,
            pipeline,
            scale,
        } = wire;
        Self {
            preprocessing,
            pipeline,
            scale,
            name,
            digest,
            image_size,
            train_samples,
            validation_samples,
            train_grades,
            validation_grades,
            test_samples,
            test_grades,
            packs,
            size_bytes,
            problem,
        }
    }
}
