//! What `--json` prints: one object for each thing that a command has to report.

use std::collections::BTreeMap;
use std::path::Path;

use fovea_baseline::{Chosen, Kernel};
use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::metrics::Evaluation;
use fovea_core::pipeline::Pipeline;
use fovea_core::run::{EpochResult, StepReport};
use fovea_core::spec::{FoldSpec, Part, Strategy};
use fovea_dataset::GradeScale;
use fovea_evaluation::{Estimate, Evaluated, FellowEye};
use fovea_judging::{Judged, Shared};
use serde::Serialize;

use crate::backup::BackupFile;
use crate::spread::Spreads;
use crate::view::{
    AuditInfo, DatasetInfo, DeniedInfo, FileState, GroupInfo, IdentityInfo, Phase, Place,
    QueuedInfo, RunInfo, StoreProblem, StoreProgress, StoreSummary, TokenInfo, WeightsInfo,
    WorkerInfo,
};

/// What `--json` prints, one a line. `fovea --help` documents the fields; they are kept stable.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record<'a> {
    Run(&'a RunInfo),
    Worker(&'a WorkerInfo),
    Queued(&'a QueuedInfo),
    WorkerDenied {
        name: &'a str,
        denied: bool,
        sessions: u32,
    },
    Denied(&'a DeniedInfo),
    Identity(&'a IdentityInfo),
    Token {
        #[serde(flatten)]
        info: &'a TokenInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
    },
    Step {
        run: &'a str,
        #[serde(flatten)]
        report: &'a StepReport,
    },
    Epoch {
        run: &'a str,
        #[serde(flatten)]
        result: &'a EpochResult,
    },
    Checkpoint {
        run: &'a str,
        #[serde(flatten)]
        info: &'a CheckpointInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<&'a Path>,
        #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
        place: Option<Place>,
    },
    Verified {
        run: &'a str,
        #[serde(flatten)]
        info: &'a CheckpointInfo,
        ok: bool,
        state: FileState,
        problem: &'a str,
        manifest_state: FileState,
        manifest_problem: &'a str,
    },
    VerifyProgress(&'a StoreProgress),
    VerifyProblem(&'a StoreProblem),
    VerifySummary(&'a StoreSummary),
    Backup {
        path: &'a Path,
        #[serde(flatten)]
        file: &'a BackupFile,
    },
    Removed {
        kind: Kind,
        name: &'a str,
        checkpoints: u32,
        freed_bytes: u64,
    },
    NotRemoved {
        kind: Kind,
        name: &'a str,
        exit_code: u8,
        message: String,
    },
    Audit {
        #[serde(flatten)]
        audit: &'a AuditInfo,
        clean: bool,
        begun_epochs: u64,
        epochs: u32,
    },
    Evaluation {
        run: &'a str,
        step: u64,
        dataset: &'a str,
        dataset_digest: &'a str,
        part: Part,
        rotations: bool,
        chosen_here: bool,
        uses: usize,
        shared: Option<&'a Shared>,
        #[serde(flatten)]
        evaluated: &'a Evaluated,
        fellow_eye: Option<&'a FellowEye>,
    },
    Baseline {
        name: &'a str,
        features: &'a str,
        classifier: &'a str,
        kernel: Option<Kernel>,
        chosen: &'a Chosen,
        dataset: &'a str,
        dataset_digest: &'a str,
        part: Part,
        #[serde(flatten)]
        evaluated: &'a Evaluated,
        fellow_eye: Option<&'a FellowEye>,
    },
    Compared(Compared<'a>),
    Group(&'a GroupInfo),
    PlannedRun {
        name: &'a str,
        variant: u32,
        settings: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        fold: Option<FoldSpec>,
        seed: u64,
        epochs: u32,
    },
    GroupFigures {
        group: &'a str,
        runs: usize,
        of: usize,
        spread: &'a Spreads,
    },
    GroupEvaluation {
        group: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        settings: Option<&'a str>,
        dataset: &'a str,
        dataset_digest: &'a str,
        part: Part,
        runs: usize,
        left_out: &'a [String],
        spread: &'a Spreads,
        pooled: Vec<PooledFigures<'a>>,
    },
    GroupReport {
        group: &'a str,
        path: &'a Path,
        bytes: u64,
    },
    Report {
        run: &'a str,
        path: &'a Path,
        bytes: u64,
    },
    Prediction {
        model: &'a str,
        step: u64,
        run: &'a str,
        photographs: usize,
        unreadable: usize,
        path: Option<&'a Path>,
        maps: Option<&'a Path>,
    },
    Export {
        model: &'a str,
        path: &'a Path,
        bytes: u64,
        classes: &'a [String],
    },
    Tensorboard {
        run: &'a str,
        path: &'a Path,
        bytes: u64,
        steps: u64,
        epochs: u64,
    },
    Advice {
        dataset: &'a str,
        photographs: u64,
        strategy: Strategy,
        settings: BTreeMap<&'a str, &'a str>,
        reasons: &'a [String],
        remarks: &'a [String],
    },
    Dataset {
        #[serde(flatten)]
        dataset: &'a DatasetInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        already_there: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        repaired_packs: Option<&'a [u32]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        repaired_files: Option<&'a [String]>,
    },
    Weights {
        #[serde(flatten)]
        weights: &'a WeightsInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<&'static str>,
    },
    Prepared {
        dir: &'a Path,
        digest: &'a str,
        pipeline: &'a Pipeline,
        scale: GradeScale,
        train: [u64; 5],
        validation: [u64; 5],
        test: [u64; 5],
        patients: [usize; 3],
        packs: usize,
        excluded: Vec<String>,
        warnings: Vec<String>,
    },
    Synthetic {
        dir: &'a Path,
        patients: u32,
        images: u64,
    },
    Note {
        run: &'a str,
        /// The event's name, such as `worker.evicted`.
        event: Option<&'a str>,
        text: &'a str,
    },
    Reconnecting {
        run: &'a str,
        cause: &'static str,
        reason: &'a str,
        attempt: u32,
        wait_ms: u64,
    },
    Result {
        run: &'a str,
        phase: Phase,
        reason: &'a str,
        step: u64,
        total_steps: u64,
        epochs: usize,
        validation: Option<&'a Evaluation>,
        checkpoint: Option<&'a CheckpointInfo>,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a Path>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metrics: Option<&'a Path>,
        #[serde(skip_serializing_if = "Option::is_none")]
        report: Option<&'a Path>,
    },
    Certificate {
        path: &'a Path,
        /// None for a CA's.
        identity: Option<String>,
        ca: bool,
        valid_from_s: i64,
        valid_until_s: i64,
        issuer: &'a str,
        key_sha256: &'a str,
        hosts: &'a [String],
    },
    Error {
        exit_code: u8,
        message: String,
    },
}

/// Figures of all held-out photographs of the folds of one seed.
#[derive(Debug, Serialize)]
pub struct PooledFigures<'a> {
    seed: u64,
    #[serde(flatten)]
    evaluated: &'a Evaluated,
}

impl<'a> From<(u64, &'a Evaluated)> for PooledFigures<'a> {
    fn from((seed, evaluated): (u64, &'a Evaluated)) -> Self {
        Self { seed, evaluated }
    }
}

/// A model in the table of `fovea baseline`.
#[derive(Debug, Serialize)]
pub struct Compared<'a> {
    pub name: &'a str,
    pub kind: &'static str,
    pub of: Option<String>,
    pub auc: Option<Estimate>,
    pub kappa: Option<Estimate>,
    pub sensitivity: Option<Estimate>,
    pub specificity: Option<Estimate>,
    pub calibration_error: Option<Estimate>,
    pub difference: Option<Difference<'a>>,
}

/// The difference of a model's AUC to another's.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Difference<'a> {
    pub to: &'a str,
    pub auc: Estimate,
}

/// A kind of thing that can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Run,
    Group,
    Checkpoint,
    Dataset,
    Weights,
}

impl<'a> Record<'a> {
    /// A model that was judged.
    pub fn evaluation(judged: &'a Judged) -> Self {
        Record::Evaluation {
            run: &judged.run.id,
            step: judged.chosen.step,
            dataset: judged.dataset.manifest.name.as_str(),
            dataset_digest: &judged.dataset.manifest.digest,
            part: judged.part,
            rotations: judged.rotations,
            chosen_here: judged.chosen_here(),
            uses: judged.uses().count(),
            shared: judged.shared.as_ref(),
            evaluated: &judged.evaluated,
            fellow_eye: judged.fellow_eye.as_ref(),
        }
    }

    /// The end of a run, in short.
    pub fn result(run: &'a RunInfo) -> Self {
        Record::Result {
            run: &run.id,
            phase: run.phase,
            reason: &run.reason,
            step: run.step(),
            total_steps: run.total_steps,
            epochs: run.epochs.len(),
            validation: run.last_epoch().map(|e| &e.validation),
            checkpoint: run.checkpoints.last(),
            model: None,
            metrics: None,
            report: None,
        }
    }
}
