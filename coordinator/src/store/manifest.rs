//! A checkpoint's manifest: the `.json` beside its file, written last.
//!
//! It describes the checkpoint to people and other programs, and holds what a journal that was restored from an
//! older backup must learn to adopt the checkpoint: the results of the run's epochs and the ledger since the
//! checkpoint before.
//!
//! - Version 2 names itself: `"format": "fovea-manifest-2"`. The fields of `CheckpointInfo` are at its top level.
//! - Version 1 is a `CheckpointInfo` without `format`. It is still read; it has no `record`.
//! - Newer versions are refused by name.

use std::path::Path;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_core::ledger::{self, Entry};
use fovea_core::run::EpochResult;
use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// The format that is written.
pub(crate) const FORMAT: &str = "fovea-manifest-2";

/// Largest manifest that is read, in bytes: a ledger of millions of samples fits.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// The checkpoint.
    pub info: CheckpointInfo,
    /// XXH3-128 of the state in hex; None in version 1.
    pub state_digest: Option<String>,
    /// The run up to the checkpoint; None in version 1.
    pub record: Option<RunRecord>,
}

/// What a checkpoint's manifest records of its run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunRecord {
    /// The run's number, unique at one coordinator.
    pub number: u64,
    /// The run's id.
    pub id: RunId,
    /// `name` of the run's spec.
    pub name: String,
    /// Results of all epochs up to the checkpoint.
    pub epochs: Vec<EpochResult>,
    /// Samples of the training split: the ledger's samples are packed with as many bits as it needs.
    pub train_samples: u64,
    /// The committed steps since the run's checkpoint before, the checkpoint's own step included.
    pub ledger: Vec<Entry>,
}

/// Version 2 on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Version2 {
    format: String,
    #[serde(flatten)]
    info: CheckpointInfo,
    state_digest: String,
    run: RunOnDisk,
    epochs: Vec<EpochResult>,
    ledger: LedgerOnDisk,
}

#[derive(Debug, Serialize, Deserialize)]
struct RunOnDisk {
    number: u64,
    id: RunId,
    name: String,
}

/// Steps of a ledger, in a manifest or a segment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LedgerOnDisk {
    train_samples: u64,
    steps: Vec<StepOnDisk>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StepOnDisk {
    step: u64,
    /// `null` when it is not finite: JSON has no such numbers.
    loss: Option<f64>,
    /// Samples that the step used.
    count: usize,
    /// [`ledger::pack`], in hex.
    samples: String,
}

impl Manifest {
    /// The bytes of the manifest in version 2.
    pub(super) fn to_bytes(
        info: &CheckpointInfo,
        state_digest: &str,
        record: &RunRecord,
    ) -> serde_json::Result<Vec<u8>> {
        let RunRecord {
            number,
            id,
            name,
            epochs,
            train_samples,
            ledger,
        } = record;
        let mut bytes = serde_json::to_vec_pretty(&Version2 {
            format: FORMAT.to_owned(),
            info: info.clone(),
            state_digest: state_digest.to_owned(),
            run: RunOnDisk {
                number: *number,
                id: id.clone(),
                name: name.clone(),
            },
            epochs: epochs.clone(),
            ledger: LedgerOnDisk::new(ledger, *train_samples),
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the bytes of the manifest at `path`, which is named in errors.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self, StoreError> {
        let corrupt = |problem: String| StoreError::Corrupt {
            path: path.to_owned(),
            problem: format!("it is not a checkpoint's manifest: {problem}"),
        };
        #[derive(Deserialize)]
        struct Format {
            #[serde(default)]
            format: Option<String>,
        }
        let Format { format } =
            serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
        match format.as_deref() {
            None => Ok(Self {
                info: serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?,
                state_digest: None,
                record: None,
            }),
            Some(FORMAT) => {
                let manifest: Version2 =
                    serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
                manifest.unpack().map_err(|e| corrupt(e.to_string()))
            }
            Some(format) => Err(StoreError::TooNew {
                path: path.to_owned(),
                format: format.chars().take(80).collect(),
            }),
        }
    }
}

/// The ledger in a manifest does not hold what it counts.
#[derive(Debug, thiserror::Error)]
#[error("ledger: the samples of step {0} cannot be unpacked")]
pub(super) struct BadSamples(u64);

impl LedgerOnDisk {
    pub(super) fn new(entries: &[Entry], train_samples: u64) -> Self {
        let step = |entry: &Entry| {
            let Entry {
                step,
                loss,
                samples,
            } = entry;
            StepOnDisk {
                step: *step,
                loss: Some(*loss).filter(|loss| loss.is_finite()),
                count: samples.len(),
                samples: hex::encode(ledger::pack(samples, train_samples)),
            }
        };
        Self {
            train_samples,
            steps: entries.iter().map(step).collect(),
        }
    }

    /// The entries, and the samples of the training split.
    pub(super) fn unpack(self) -> Result<(Vec<Entry>, u64), BadSamples> {
        let Self {
            train_samples,
            steps,
        } = self;
        let entry = |row: StepOnDisk| {
            let StepOnDisk {
                step,
                loss,
                count,
                samples,
            } = row;
            let packed = hex::decode(samples).ok();
            let samples = packed
                // A count is bounded by the bytes before anything of its size is made.
                .filter(|packed| count <= packed.len().saturating_mul(8))
                .and_then(|packed| ledger::unpack(&packed, count, train_samples))
                .ok_or(BadSamples(step))?;
            Ok(Entry {
                step,
                loss: loss.unwrap_or(f64::NAN),
                samples,
            })
        };
        let entries = steps.into_iter().map(entry).collect::<Result<_, _>>()?;
        Ok((entries, train_samples))
    }
}

impl Version2 {
    fn unpack(self) -> Result<Manifest, BadSamples> {
        let Version2 {
            format: _,
            info,
            state_digest,
            run: RunOnDisk { number, id, name },
            epochs,
            ledger,
        } = self;
        let (ledger, train_samples) = ledger.unpack()?;
        Ok(Manifest {
            info,
            state_digest: Some(state_digest),
            record: Some(RunRecord {
                number,
                id,
                name,
                epochs,
                train_samples,
                ledger,
            }),
        })
    }
}
