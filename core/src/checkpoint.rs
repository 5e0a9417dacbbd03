//! The description of a stored checkpoint, and the numeric fingerprint.

use serde::{Deserialize, Serialize};

/// The numeric fingerprint: what the bits of a run's result depend on besides its spec, that is the machine and its
/// libraries.
///
/// A resume under another fingerprint is allowed, and logged as `fingerprint.changed`.
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
}

impl Fingerprint {
    /// The differences between `self` (now) and `then`, one text for each field; empty if the bits will be equal. Fovea's
    /// own version is recorded for people and not compared.
    pub fn differences(&self, then: &Fingerprint) -> Vec<String> {
        let Fingerprint {
            device,
            cpu,
            libtorch,
            threads,
            precision,
            fovea: _,
        } = self;
        let mut out = Vec::new();
        let mut compare = |what: &str, now: &str, was: &str| {
            if now != was {
                out.push(format!("{what} was {was:?}, now {now:?}"));
            }
        };
        compare("device", device, &then.device);
        compare("cpu", cpu, &then.cpu);
        compare("libtorch", libtorch, &then.libtorch);
        compare("threads", &threads.to_string(), &then.threads.to_string());
        compare("precision", precision, &then.precision);
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
