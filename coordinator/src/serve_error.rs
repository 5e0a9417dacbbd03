//! Why the coordinator stops or does not begin, and its exit codes.

use fovea_service::FORCED;

use crate::blocking::Panicked;
use crate::cluster::ActorError;
use crate::data_dir::DataDirError;
use crate::journal::JournalError;
use crate::store::OpenError;
use fovea_core::count::count;

/// Why the coordinator stopped, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal cannot be opened, or was not closed with all that it should hold.
    #[error("data_dir: {0}")]
    Journal(JournalError),
    /// A store is not the one that the journal knows, or cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The disk does not take the first write.
    #[error("data_dir: the journal could not be written within 30 s; is the disk full or slow?")]
    Slow,
    /// It cannot act on what it cannot write down.
    #[error("stopped: {0}")]
    Actor(#[from] ActorError),
    /// The network.
    #[error("the server failed: {0}")]
    Server(String),
    /// Work on files panicked before it served.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// Runs were not checkpointed in time.
    #[error(
        "{} not checkpointed within drain_timeout_s ({seconds} s); each goes on from its newest checkpoint when the \
         coordinator is back",
        count(*runs, "run was", "runs were")
    )]
    DrainTimeout {
        /// How many.
        runs: usize,
        /// How long it waited.
        seconds: u64,
    },
}

impl ServeError {
    /// The program's exit code: 4 for the data folder, 5 for a drain by force, else 1.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::DataDir(_) | Self::Journal(_) | Self::Store(_) | Self::Slow => 4,
            Self::DrainTimeout { .. } => FORCED,
            Self::Actor(_) | Self::Server(_) | Self::Panicked(_) => 1,
        }
    }
}
