//! Collective operations of the workers of one generation: reduction of gradients, gathering of small messages, and
//! broadcast of the state.
//!
//! A run is defined over virtual ranks, so the sum must not depend on who hosts them: every element
//! is added in the order of the virtual ranks, 0 to V-1, in 32-bit floats. That is what makes the
//! result bit-identical for any number of workers.

mod calls;
mod channel;
mod exchange;
mod greeting;
mod mesh;
mod nccl;
mod offers;
mod tcp;
#[cfg(test)]
mod tls_tests;
mod waiting;
mod wire;

use std::fmt;
use std::io;
use std::time::Duration;

use tch::{Tensor, no_grad};

use crate::device::{Buffer, Ready};
use crate::gpu::GpuError;

pub use channel::Channel;
pub use greeting::GreetingError;
pub use mesh::Mesh;
pub use nccl::{Reducing, with_nccl};
pub use offers::Network;
pub use tcp::{Aborter, TcpCollective};
pub use waiting::Waiting;

/// The secret by which the peers of a generation recognize each other.
pub type MeshKey = [u8; 16];

/// Why a collective operation failed. No step is left half applied, because its caller has not changed its parameters
/// yet; a receiver's state in [`Collective::broadcast`] may be partly overwritten.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A peer disconnected or stopped answering.
    #[error("peer {peer} (rank {rank}) {problem}")]
    Peer {
        /// Worker id of the peer.
        peer: String,
        /// Its rank.
        rank: usize,
        /// What happened.
        problem: String,
    },
    /// A peer sent a message that is not expected here.
    #[error("peer {peer} (rank {rank}) is out of step: {problem}")]
    OutOfStep {
        /// Worker id of the peer.
        peer: String,
        /// Its rank.
        rank: usize,
        /// What was expected and what arrived.
        problem: String,
    },
    /// Not all peers connected in time.
    #[error("no connection with {} within {waited:?}", list(missing))]
    Incomplete {
        /// All those missing, by rank.
        missing: Vec<Unreached>,
        /// How long this worker waited.
        waited: Duration,
    },
    /// The driver, libtorch or NCCL failed.
    #[error("the reduction between GPUs failed: {0}")]
    Gpu(GpuError),
    /// The system cannot wait for connections.
    #[error("cannot wait for connections with peers: {0}")]
    Poll(#[source] io::Error),
    /// No peer accepts this worker any more.
    #[error(
        "this worker's certificate has expired on {until}, so that no peer accepts it; renew it (`fovea certs renew`)"
    )]
    Expired {
        /// The end of its validity.
        until: String,
    },
    /// The generation was aborted.
    #[error("the generation was aborted")]
    Aborted,
}

/// A peer that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// Its worker id.
    pub worker: String,
    /// Where it was tried.
    pub address: String,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.worker, self.address)
    }
}

/// Peers for people, with their addresses.
pub fn list(peers: &[Unreached]) -> String {
    let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
    peers.join(", ")
}

/// Collective operations of one generation. All workers make the same calls in the same order. After an error only
/// dropping it is allowed.
pub trait Collective: Send {
    /// Adds up the parts of all virtual ranks in their order.
    ///
    /// `parts` holds one buffer for each virtual rank hosted here, in order; `sum` receives the
    /// total. All have the same length on every worker, and are in the same kind of memory here. The parts
    /// are complete when `ready` says so.
    fn reduce(
        &mut self,
        parts: &[Buffer],
        sum: &mut Buffer,
        ready: Ready,
    ) -> Result<(), CollectiveError>;

    /// Sends `mine` to all ranks and returns all ranks' messages, by rank, `mine` included. Lengths may differ, and be
    /// zero; over 256 MiB are refused.
    fn gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// [`Collective::gather`] after work that takes one rank much longer than another: a peer may take any time while its
    /// connection stands. The coordinator finds one that is stuck by its progress.
    fn gather_patiently(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Overwrites `state` on each rank in `receivers` with that of rank `source`, to the bit. All
    /// ranks call it with the same `source` and `receivers`; those that are neither return at once.
    ///
    /// After an error a receiver's `state` is invalid: it may hold some of both.
    ///
    /// # Panics
    /// If a rank is not in the generation.
    fn broadcast(
        &mut self,
        source: usize,
        receivers: &[usize],
        state: &mut [f32],
    ) -> Result<(), CollectiveError>;
}

/// Adds `part` to `sum` element by element; the first part is copied.
///
/// x + 0 is not always x to the bit (-0 + 0 = +0), so the first part must not be added to zeros:
/// one worker hosting everything and many workers must do the very same additions.
fn accumulate(sum: &mut [f32], part: &[f32], first: bool) {
    if first {
        sum.copy_from_slice(part);
    } else {
        for (s, p) in sum.iter_mut().zip(part) {
            *s += *p;
        }
    }
}

/// [`accumulate`], of all parts, on the device that they are on.
fn accumulate_tensors<'a>(sum: &Tensor, parts: impl Iterator<Item = &'a Tensor>) {
    no_grad(|| {
        for (number, part) in parts.enumerate() {
            let mut sum = sum.shallow_clone();
            match number {
                0 => sum.copy_(part),
                _ => drop(sum.g_add_(part)),
            }
        }
    });
}
