//! Fovea's coordinator: it owns all runs, the workers' membership, datasets and checkpoints.
//!
//! ```text
//!  sessions ──> cluster (who is connected, who is free, scheduling on change)
//!                  │ workers, messages            ^ status
//!                  v                              │
//!  people ────> run actors: pure Run::apply(event) -> effects
//!                  │ writes                       │ files
//!                  v                              v
//!               journal (SQLite)               store (checkpoints, packs)
//! ```
//!
//! - `services`: wire messages checked and made domain values; nothing is decided there
//! - `net`: connections, TLS handshakes, limits; `access`: who may do what, and the audit log
//! - `cluster`: sessions and scheduling, one actor
//! - `run`: one actor for each live run; `fovea_core::run` decides, it carries out
//! - `catalogue`: the datasets, one actor; `directory`: finding a run, live or ended
//! - `journal`: what was promised, one thread; `store`: the only code that touches checkpoint and dataset files
//! - `unjournalled`: checkpoints that were stored before the journal had their run
//! - `remote`: the object store, which has a copy of what the stores hold
//! - `selecting`: which runs of a sweep go on
//! - `tensorboard`: live event files
//! - `metrics`: the metrics for Prometheus; `audits`: audits of runs that go on beside them
//! - `backup`: copies of the journal for people, and their restoration
//! - `startup`, `server`: the coordinator's life; `stop`: how it ends; `space`: room on the disk;
//!   `housekeeping`: whether there is enough, trash
//!
//! Small actors, each owning its state; none waits for another within a turn. Whatever is acknowledged (an
//! accepted run, a stored checkpoint, an epoch's result) was on disk before.

mod access;
mod audits;
mod backup;
mod blocking;
mod catalogue;
mod clock;
mod cluster;
mod config;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod crash_tests;
mod dashboard;
mod data_dir;
mod directory;
mod error;
mod housekeeping;
mod journal;
mod messages;
mod metrics;
mod net;
mod remote;
mod run;
mod selecting;
mod serve_error;
mod server;
mod services;
#[cfg(test)]
#[path = "../../tests/src/faults/disk.rs"]
mod small_disk;
mod space;
mod startup;
mod stop;
mod store;
mod tensorboard;
mod unjournalled;
mod vitals;

pub use backup::{RestoreError, Restored, restore};
pub use blocking::Panicked;
pub use cluster::ActorError;
pub use config::Config;
pub use data_dir::{DataDirError, write_atomically};
pub use error::ApiError;
pub use journal::JournalError;
pub use net::{BindError, Listeners};
pub use remote::RemoteError;
pub use run::RunActorError;
pub use serve_error::ServeError;
pub use server::{Coordinator, serve};
pub use stop::{CLOSE_TIMEOUT, NoSuchStop, OnStop, StopLimits};
pub use store::OpenError;
pub use vitals::Vitals;
