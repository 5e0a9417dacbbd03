//! Fetching a backup of the coordinator's journal.

use std::path::Path;

use fovea_dataset::leftovers::Readers;
use fovea_proto::pb::backup_part::Part;
use fovea_proto::pb::{BackupInfo, BackupRequest};
use serde::Serialize;

use crate::client::Client;
use crate::error::Error;
use crate::receive::{Receiving, check_target};

/// A backup that was fetched and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupFile {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// When the journal was copied, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Number of all runs in it.
    pub runs: u64,
    /// Number of those that had not ended.
    pub live_runs: u64,
    /// Number of datasets that it lists.
    pub datasets: u64,
}

impl Client {
    /// Has the coordinator copy its journal, and fetches the copy to `target`, readable by its owner only. A file that is
    /// there already is replaced if `overwrite`, else [`Error::Exists`].
    ///
    /// `progress` is called with (bytes received, bytes in all). On any error nothing is left behind, and `target` stays as
    /// it was: [`Error::Damaged`] if size or SHA-256 differ.
    pub async fn fetch_backup(
        &self,
        target: &Path,
        overwrite: bool,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<BackupFile, Error> {
        check_target(target, overwrite)?;
        let mut stream = self.backup_stream(BackupRequest {}).await?;
        let broken = |problem: &str| {
            Error::Protocol(format!(
                "the stream of a backup {problem}; nothing was stored"
            ))
        };
        let mut next = async || -> Result<Option<Part>, Error> {
            let message = stream
                .message()
                .await
                .map_err(|status| self.error(&status))?;
            Ok(message.and_then(|message| message.part))
        };
        let Some(Part::Info(info)) = next().await? else {
            return Err(broken("does not begin with its description"));
        };
        let BackupInfo {
            bytes,
            created_at_ms,
            runs,
            live_runs,
            datasets,
        } = info;
        let what = "the backup".into();
        let mut file = Receiving::begin(what, target, overwrite, bytes, Readers::Owner)?;
        progress(0, bytes);
        let sha256 = loop {
            match next().await? {
                Some(Part::Data(data)) => progress(file.take(&data)?, bytes),
                Some(Part::End(end)) => break end.sha256,
                Some(Part::Info(_)) => return Err(broken("has a second description")),
                None => return Err(broken("ended too early")),
            }
        };
        file.finish(&sha256)?;
        Ok(BackupFile {
            bytes,
            sha256,
            created_at_ms,
            runs,
            live_runs,
            datasets,
        })
    }
}
