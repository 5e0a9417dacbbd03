//! The description of a stored checkpoint, and the numeric fingerprint.

use serde::{Deserialize, Serialize};

use crate::machine::difference;

/// The numeric fingerprint: what the bits of a run's result depend on besides its spec, that is the machine and its
/// libraries.
///
/// The first generation of a run fixes it: a worker with another one is not given to the run, unless `workers.mixed` allows it. A
/// person's resume under another fingerprint is allowed, and logged as `fingerprint.changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Kind of device: `cpu` or the GPU's model.
    pub device: String,
    /// CPU model, with those vector extensions by which kernels are chosen.
    pub cpu: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Threads that one worker computes with.
    pub threads: u32,
    /// Number format.
    pub precision: String,
    /// Fovea's version, with its commit.
    pub fovea: String,
    /// The compiler of Fovea's own GPU kernels, if the worker may use them; otherwise empty. Older versions did not name it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernels: String,
    /// What computes the layers on a GPU: `fused`, our own kernels where they cover the run, or `composed`, libtorch's
    /// operations. Empty on a CPU, and in older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl Fingerprint {
    /// The differences between `self` (now) and `then`, one text for each field; empty if the bits will be equal. Fovea's
    /// own version is recorded for people and not compared.
    pub fn differences(&self, then: &Fingerprint) -> Vec<String> {
        let Fingerprint {
            device: _,
            cpu: _,
            libtorch: _,
            threads,
            precision,
            fovea: _,
            kernels: _,
            path,
        } = self;
        let mut out = self.machine().differences(&then.machine());
        let threads = (threads.to_string(), then.threads.to_string());
        let rest = [
            ("threads", &threads.0, &threads.1),
            ("precision", precision, &then.precision),
            ("path", path, &then.path),
        ];
        out.extend(
            rest.into_iter()
                .filter_map(|(what, now, then)| difference(what, now, then)),
        );
        out
    }
}

/// A checkpoint in the store. It exists only for files that are complete and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Step: the number of committed steps that it holds.
    pub step: u64,
    /// Generation that wrote it.
    pub generation: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// When it was stored, milliseconds since the Unix epoch.
    pub stored_at_ms: u64,
    /// Numeric fingerprint of the workers that wrote it.
    pub fingerprint: Fingerprint,
    /// Lineage: how many rewinds the run had had when the checkpoint was taken.
    #[serde(default)]
    pub lineage: u64,
}
