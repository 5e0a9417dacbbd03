//! Checkpoints and fingerprints on the wire.

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};

use super::ConvertError;
use crate::pb;

impl From<pb::Fingerprint> for Fingerprint {
    fn from(wire: pb::Fingerprint) -> Self {
        let pb::Fingerprint {
            device,
            cpu,
            libtorch,
            threads,
            precision,
            fovea,
            kernels,
            path,
        } = wire;
        Self {
            device,
            cpu,
            libtorch,
            threads,
            precision,
            fovea,
            kernels,
            path,
        }
    }
}

impl From<&Fingerprint> for pb::Fingerprint {
    fn from(fingerprint: &Fingerprint) -> Self {
        let Fingerprint {
            device,
            cpu,
            libtorch,
            threads,
            precision,
            fovea,
            kernels,
            path,
        } = fingerprint.clone();
        Self {
            device,
            cpu,
            libtorch,
            threads,
            precision,
            fovea,
            kernels,
            path,
        }
    }
}

impl TryFrom<pb::Checkpoint> for CheckpointInfo {
    type Error = ConvertError;

    fn try_from(wire: pb::Checkpoint) -> Result<Self, ConvertError> {
        let pb::Checkpoint {
            step,
            generation,
            size_bytes,
            sha256,
            stored_at_ms,
            fingerprint,
            lineage,
        } = wire;
        Ok(Self {
            step,
            generation,
            bytes: size_bytes,
            sha256,
            stored_at_ms,
            fingerprint: fingerprint
                .ok_or_else(|| ConvertError::missing("checkpoint.fingerprint"))?
                .into(),
            lineage,
        })
    }
}

impl From<&CheckpointInfo> for pb::Checkpoint {
    fn from(info: &CheckpointInfo) -> Self {
        let CheckpointInfo {
            step,
            generation,
            bytes,
            sha256,
            stored_at_ms,
            fingerprint,
            lineage,
        } = info;
        Self {
            step: *step,
            generation: *generation,
            size_bytes: *bytes,
            sha256: sha256.clone(),
            stored_at_ms: *stored_at_ms,
            fingerprint: Some(fingerprint.into()),
            lineage: *lineage,
        }
    }
}
