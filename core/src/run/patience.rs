//! How long a worker may compute without a sign of progress before the run's step times are known. It follows from the work
//! that lies between two signs.

use super::Run;
use crate::googlenet::macs;
use crate::spec::{Precision, Reduction, RunSpec};

/// Multiply-adds that a thread of a slow processor does in a millisecond, shared with another program. The processor of bench/README.md
/// does 15 times as many in float32.
const SLOW_THREAD: f64 = 4e6;
/// The same of a GPU.
const SLOW_GPU: f64 = 4e8;
/// So many times as long takes bfloat16 on a processor that cannot compute in it.
const WITHOUT_BF16: f64 = 10.0;
/// Backward passes, by the input and by the weights, cost as much as the forward pass each.
const TRAINING: u64 = 3;

impl Run {
    /// How long the largest piece of work without a sign of progress takes a slow machine, in milliseconds; 0 if the size of the
    /// images is not known. A piece is the gradient of a virtual rank's batch (with the fast reduction, of all that a worker hosts),
    /// or the scores of a batch.
    pub(super) fn longest_piece_ms(&self) -> u64 {
        let Some(pipeline) = &self.pipeline else {
            return 0;
        };
        let members = self.roster().into_iter().flat_map(|r| &r.members);
        let hosted = members.map(|m| m.virtual_ranks).max().unwrap_or(1);
        (work_of(&self.spec, hosted, pipeline.size) / self.slow_speed()) as u64
    }

    /// Multiply-adds in a millisecond of a slow machine of the run's kind.
    fn slow_speed(&self) -> f64 {
        let train = &self.spec.train;
        // In a mixed run any worker may be one on a CPU.
        let of = self
            .fingerprint
            .as_ref()
            .filter(|_| !self.spec.workers.mixed);
        if of.is_some_and(|fingerprint| fingerprint.machine().is_gpu()) {
            return SLOW_GPU;
        }
        let has_bf16 = of.is_some_and(|fingerprint| fingerprint.cpu.contains("avx512_bf16"));
        let slower = match train.precision {
            Precision::Bf16 if !has_bf16 => WITHOUT_BF16,
            Precision::Bf16 | Precision::Float32 | Precision::Tf32 => 1.0,
        };
        SLOW_THREAD * f64::from(train.threads) / slower
    }
}

/// Multiply-adds of the largest piece at a worker that hosts `hosted` virtual ranks, as if no layer were frozen.
fn work_of(spec: &RunSpec, hosted: u32, image_size: u32) -> f64 {
    let size = image_size as usize;
    // A spec that makes no network, or too small images, fail the run anyway.
    let network = spec.model.network().ok();
    let image = network.and_then(|network| macs(network, size, size).ok());
    let batch = u64::from(spec.train.batch);
    let passes = match (&spec.evaluate, spec.train.reduction) {
        (Some(_), _) => 1,
        (None, Reduction::Ordered) => TRAINING,
        (None, Reduction::Fast) => TRAINING * u64::from(hosted),
    };
    image.unwrap_or(0) as f64 * (batch * passes) as f64
}
