//! The device's thread: keeps a run's state, and executes one generation after the other with it.
//!
//! ```text
//! connect to the peers ──> agree on a state ──> Ready ──> train ──> Ended; the state stays
//! ```
//!
//! The thread itself reads no file: such reads may hang, and run on threads that can be abandoned.

mod agreement;
mod error;
mod first_state;
mod generation;
mod read_once;
mod thread;
mod types;

pub use first_state::{FirstStateError, first_state};
pub use generation::MakeDevice;
pub use thread::DeviceThread;
pub use types::{Ended, FetchCheckpoint, FetchError, FetchWeights, Job, JobEvent, Took};

#[cfg(test)]
mod tests;
