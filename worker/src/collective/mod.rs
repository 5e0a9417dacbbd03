//! Adding up gradients over the workers of one generation.
//!
//! A run is defined over virtual ranks, so the sum must not depend on who hosts them: every element
//! is added in the order of the virtual ranks, 0 to V-1, in 32-bit floats. That is what makes the
//! result bit-identical for any number of workers.

mod mesh;
mod tcp;

use std::time::Duration;

pub use mesh::{Mesh, MeshKey};
pub use tcp::{Aborter, TcpCollective};

/// Why a reduction did not happen. None of these leaves a step half applied: the caller has not
/// touched its parameters yet.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A peer went away or stopped answering.
    #[error("peer {peer} (rank {rank}) {problem}")]
    Peer {
        /// Worker id of the peer.
        peer: String,
        /// Its rank.
        rank: usize,
        /// What happened.
        problem: String,
    },
    /// A peer said something that does not belong here.
    #[error("peer {peer} (rank {rank}) is out of step: {problem}")]
    OutOfStep {
        /// Worker id of the peer.
        peer: String,
        /// Its rank.
        rank: usize,
        /// What was expected and what came.
        problem: String,
    },
    /// Not all peers connected in time.
    #[error("no connection with {missing} within {waited:?}")]
    Incomplete {
        /// Worker ids of those missing.
        missing: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The generation was aborted.
    #[error("the generation was aborted")]
    Aborted,
}

/// The reduction of one generation.
pub trait Collective: Send {
    /// Adds up the parts of all virtual ranks in their order.
    ///
    /// `parts` holds one buffer for each virtual rank hosted here, in order; `sum` receives the
    /// total. All have the same length on every worker.
    fn reduce(&mut self, parts: &[Vec<f32>], sum: &mut [f32]) -> Result<(), CollectiveError>;
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
