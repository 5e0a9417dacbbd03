//! How much memory a worker needs for a run: an estimate, compared with what workers have.
//!
//! The estimate is for a worker that hosts as many virtual ranks as it may have to, which is the case when the run has
//! `workers.min` workers, and without caches: they shrink to what is left.

use std::fmt;

use crate::googlenet::{FlatLayout, output_shapes};
use crate::spec::{Precision, Reduction, RunSpec};

/// Memory of a worker in bytes; 0 where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Of its machine: what it uses or could have, within its limits.
    pub host: u64,
    /// Of its GPU: all; 0 for a CPU.
    pub gpu: u64,
    /// Of its GPU: what it uses or could have.
    pub gpu_free: u64,
}

/// Where a worker computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On its machine's processors.
    Host,
    /// On a GPU.
    Gpu,
}

impl Memory {
    /// Where the worker computes.
    pub fn place(&self) -> Place {
        match self.gpu {
            0 => Place::Host,
            _ => Place::Gpu,
        }
    }

    /// Whether this is so different from `known` that decisions may change: by more than a sixteenth.
    pub fn differs(&self, known: &Memory) -> bool {
        let differs = |a: u64, b: u64| a.abs_diff(b) > b / 16;
        differs(self.host, known.host)
            || differs(self.gpu, known.gpu)
            || differs(self.gpu_free, known.gpu_free)
    }
}

/// Memory that a run needs at one worker, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Of its machine.
    pub host: u64,
    /// Of its GPU; 0 on a CPU.
    pub gpu: u64,
}

/// The program, libtorch and their libraries.
const PROGRAM: f64 = 290.0 * MIB;
/// Copies of a gradient: one that is being reduced, with what peers send.
const GRADIENTS: f64 = 1.0;
/// Copies of the state: parameters and velocities, a checkpoint that is being sent.
const STATES: f64 = 2.0;
/// Bytes for each element that a layer puts out in training.
const TRAINED: f64 = 4.0;

const MIB: f64 = (1 << 20) as f64;

impl Need {
    /// What a worker that computes at `place` needs for `spec` on images of `image_size` pixels in width and height,
    /// without caches.
    pub fn of(spec: &RunSpec, image_size: u32, place: Place) -> Self {
        let _ = (GRADIENTS, STATES, TRAINED, PROGRAM, place);
        let _ = (Precision::Bf16, Reduction::Fast);
        let layout = FlatLayout::new(spec.model.classes, &spec.model.frozen);
        let _ = (layout, output_shapes(2, image_size as usize, image_size as usize));
        Self { host: 1, gpu: 0 }
    }

    /// What a worker that has `have` lacks; None if it has enough, or if that is not known.
    pub fn misfit(&self, have: &Memory) -> Option<Misfit> {
        let lacks = |need: u64, have: u64| need > have && have > 0;
        let (gpu, need, have) = if lacks(self.host, have.host) {
            (false, self.host, have.host)
        } else if lacks(self.gpu, have.gpu_free) {
            (true, self.gpu, have.gpu_free)
        } else {
            return None;
        };
        Some(Misfit { gpu, need, have })
    }
}

/// A worker has too little memory for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misfit {
    /// Whether it is the GPU's.
    gpu: bool,
    need: u64,
    have: u64,
}

impl Misfit {
    /// What the run needs, for people: "it needs about 3.2 GiB of memory".
    pub fn need(&self) -> String {
        let whose = if self.gpu { "GPU memory" } else { "memory" };
        format!("it needs about {} of {whose}", Size(self.need))
    }

    /// What the worker has, for people: "2.0 GiB".
    pub fn have(&self) -> String {
        Size(self.have).to_string()
    }
}

/// Bytes for people, in GiB, or in MiB below 1 GiB.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes < 1 << 30 => write!(f, "{} MiB", mib(bytes)),
            bytes => write!(f, "{:.1} GiB", bytes as f64 / MIB / 1024.0),
        }
    }
}

/// Bytes in MiB, rounded down.
pub fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

impl RunSpec {
    /// What to change so that a worker needs less memory, for people.
    pub fn smaller(&self) -> String {
        let batch = self.train.batch;
        let mut cures = Vec::new();
        if batch > 1 {
            cures.push(format!("a smaller train.batch (now {batch})"));
        }
        if self.hosted_at_most() > 1 {
            cures.push(format!("a larger workers.min (now {})", self.workers.min));
        }
        cures.push("smaller images".to_owned());
        cures.push("workers with more memory".to_owned());
        format!("{} would do", cures.join(", "))
    }

    /// The most virtual ranks that one worker may have to host: with `workers.min` workers.
    pub fn hosted_at_most(&self) -> u32 {
        self.train
            .virtual_ranks
            .div_ceil(self.workers.min.max(1))
    }
}
