//! What is known of a stored checkpoint.

use serde::{Deserialize, Serialize};

/// What the bits of a run depend on besides its spec: the machine and its libraries.
///
/// A resume under another fingerprint is allowed, and said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Kind of device: `cpu` or the GPU's model.
    pub device: String,
    /// CPU model and its vector extensions, as far as they choose kernels.
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
    /// How `self` (now) differs from `then`, field by field; empty when the bits will agree. Fovea's
    /// own version is not compared: it is recorded for people.
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

/// A checkpoint in the store. Only whole, verified files have one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Committed steps that it holds.
    pub step: u64,
    /// Generation that wrote it.
    pub generation: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Milliseconds since the Unix epoch.
    pub stored_at_ms: u64,
    /// What its bits depend on.
    pub fingerprint: Fingerprint,
    /// How often the run had been sent back to a checkpoint before this one was taken.
    #[serde(default)]
    pub lineage: u64,
}
