//! Why the coordinator stops or does not begin, and its exit codes.

use fovea_security::TlsError;
use fovea_service::{ConfigError, FORCED};

use crate::blocking::Panicked;
use crate::cluster::ActorError;
use crate::data_dir::DataDirError;
use crate::journal::JournalError;
use crate::remote::RemoteError;
use crate::store::OpenError;
use fovea_core::count::count;

/// Why the coordinator stopped, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal cannot be opened, turned out to be damaged, or was not closed with all that it should hold.
    #[error("data_dir: {0}")]
    Journal(JournalError),
    /// A store is not the one that the journal knows, or cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The object store cannot be used.
    #[error("store: {0}")]
    Remote(#[from] RemoteError),
    /// The disk does not take the first write.
    #[error("data_dir: the journal could not be written within 30 s; is the disk full or slow?")]
    Slow,
    /// It cannot act on what it cannot write down.
    #[error("stopped: {0}")]
    Actor(#[from] ActorError),
    /// The certificate, the key or the CAs.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The CA's key.
    #[error("tls_ca_key: {0}")]
    CaKey(String),
    /// Some of the configuration's keys of TLS are missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
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
    /// Runs were not handed over in time.
    #[error(
        "hand-over: {} not written out in time{}; nothing that was acknowledged is lost, and workers report the rest \
         again to the next coordinator",
        count(*runs, "run was", "runs were"),
        because(reason.as_ref())
    )]
    HandOverTimeout {
        /// How many.
        runs: usize,
        /// Why the journal cannot be written, if that is known.
        reason: Option<String>,
    },
    /// The journal was not closed in time after a hand-over.
    #[error(
        "hand-over: the journal was not closed in time; nothing that was acknowledged is lost, and the next start \
         reads its log"
    )]
    JournalNotClosed,
}

impl ServeError {
    /// The program's exit code: 2 for configuration and certificates, 4 for the data folder and the object store, 5 for a stop by force, else 1.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Tls(_) | Self::CaKey(_) | Self::Config(_) => 2,
            Self::DataDir(_) | Self::Journal(_) | Self::Store(_) | Self::Remote(_) | Self::Slow => {
                4
            }
            Self::DrainTimeout { .. } | Self::HandOverTimeout { .. } | Self::JournalNotClosed => {
                FORCED
            }
            Self::Actor(_) | Self::Server(_) | Self::Panicked(_) => 1,
        }
    }
}

fn because(reason: Option<&String>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}
