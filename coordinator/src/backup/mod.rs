//! Backups of what the coordinator has promised: an archive of the journal, made while runs go on, and its restoration.
//!
//! ```text
//!  Journal::snapshot ──copy──> tmp-backup-* ──checked──> tar ──stream──> fovea admin backup FILE     (make)
//!  FILE ──read, every digest compared──> tmp-backup-* ──checked──> journal.db                        (restore)
//! ```
//!
//! The archive is a tar, so that anybody can look into it:
//!
//! | name | content |
//! |---|---|
//! | `backup.json` | [`About`]: format, time, versions, what the journal holds, its size and SHA-256 |
//! | `journal.db` | the journal, an SQLite database |
//! | `tls/...` | the coordinator's certificate, its key, the CAs, and the CA's key, as far as the configuration names them |
//!
//! Checkpoints and photographs are not in it. The journal knows the identities of their stores, and adopts checkpoints that
//! are newer than itself.

mod certificates;
mod make;
mod restore;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::journal::Content;

pub(crate) use certificates::paths as tls_paths;
pub(crate) use make::{Backup, BackupError};
pub use restore::{RestoreError, Restored, restore};

/// The version of the archive's layout.
const FORMAT: u32 = 1;
/// Names in the archive.
const ABOUT: &str = "backup.json";
const JOURNAL: &str = "journal.db";

/// What temporary copies in the data folder are called; those of killed coordinators are swept at the start.
pub(crate) const TEMPORARY: &str = "tmp-backup-";

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Version of the layout.
    pub format: u32,
    /// The program that made it.
    pub version: String,
    /// When the journal was copied, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Version of the journal's tables.
    pub schema: i64,
    /// All runs.
    pub runs: u64,
    /// Those that had not ended.
    pub live_runs: u64,
    /// Datasets that the journal lists.
    pub datasets: u64,
    /// Kind and identity of the stores that the journal knows.
    pub stores: Vec<(String, String)>,
    /// Size of `journal.db`.
    pub journal_bytes: u64,
    /// SHA-256 of `journal.db`, in hexadecimal digits.
    pub journal_sha256: String,
    /// The files of TLS.
    #[serde(default)]
    pub tls: Vec<certificates::Entry>,
}

impl About {
    fn new(
        created_at_ms: u64,
        content: Content,
        bytes: u64,
        sha256: String,
        tls: Vec<certificates::Entry>,
    ) -> Self {
        let Content {
            schema,
            runs,
            live,
            datasets,
            stores,
        } = content;
        Self {
            format: FORMAT,
            version: fovea_service::VERSION.to_owned(),
            created_at_ms,
            schema,
            runs,
            live_runs: live,
            datasets,
            stores,
            journal_bytes: bytes,
            journal_sha256: sha256,
            tls,
        }
    }
}
