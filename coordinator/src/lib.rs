//! Fovea's coordinator: it owns all runs, the workers' membership, datasets and checkpoints.
//!
//! ```text
//!  people, workers ──gRPC──> services ──messages──> owner ──> journal, then answers and orders
//!                               │                     │
//!                               └─ datasets, slices ──┴─> data folder
//! ```
//!
//! - `net`: the accept loop, limits and deadlines of connections, checks before every request
//! - `services`: wire messages checked and made domain values; nothing is decided there
//! - `owner`: the one task that owns all state; `fovea_core::run` decides, it carries out
//! - `scheduler`: which queued run gets which idle workers, a pure function
//! - `legacy_journal`, `datasets`, `checkpoints`, `data_dir`: what lies on disk
//!
//! Invariant: whatever is acknowledged (an accepted run, a stored checkpoint, an epoch's result) was
//! made to last before anyone was told.

mod checkpoints;
mod config;
mod data_dir;
mod datasets;
mod error;
mod legacy_journal;
mod net;
mod owner;
mod scheduler;
mod server;
mod services;
#[cfg(test)]
mod torn;

pub use config::{Config, Tls};
pub use data_dir::{DataDirError, write_atomically};
pub use error::ApiError;
pub use legacy_journal::JournalError;
pub use owner::OwnerError;
pub use server::{Coordinator, ServeError, serve};
