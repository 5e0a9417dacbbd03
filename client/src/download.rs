//! Fetching a checkpoint: into a temporary file beside the target, checked, and only then renamed.

use std::io::Write;
use std::path::Path;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_proto::pb::checkpoint_chunk::Part;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use crate::client::Client;
use crate::error::{Error, is_transient};

impl Client {
    /// Fetches the checkpoint of `step`, or the newest, to `target`.
    ///
    /// `progress` is told (bytes so far, bytes in all). The SHA-256 and the size that the coordinator
    /// announced are checked; when they do not fit, or the coordinator finds at the end of the stream that
    /// its own file is damaged, nothing is left behind and `target` stays as it was.
    pub async fn fetch_checkpoint(
        &self,
        run_id: &str,
        step: Option<u64>,
        target: &Path,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<CheckpointInfo, Error> {
        let mut stream = self.checkpoint_stream(run_id, step).await?;
        // A file that is missing or too short is found damaged before anything of it is sent.
        let first = match stream.message().await {
            Ok(first) => first.and_then(|m| m.part),
            Err(status) => return Err(self.broken_off(&status, run_id, step).await),
        };
        let Some(Part::Info(info)) = first else {
            return Err(Error::Protocol(
                "a checkpoint that does not begin with what is known of it".into(),
            ));
        };
        let info = CheckpointInfo::try_from(info)?;

        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".fovea-")
            .suffix(".part")
            .tempfile_in(folder)
            .map_err(|e| Error::io(folder, e))?;
        let mut state = Sha256::new();
        let mut received = 0u64;
        progress(0, info.bytes);
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(status) => {
                    return Err(self.broken_off(&status, run_id, Some(info.step)).await);
                }
            };
            let Some(Part::Data(data)) = message.part else {
                return Err(Error::Protocol("a checkpoint with two beginnings".into()));
            };
            received += data.len() as u64;
            if received > info.bytes {
                break;
            }
            state.update(&data);
            file.write_all(&data).map_err(|e| Error::io(target, e))?;
            progress(received, info.bytes);
        }
        let damaged = |problem: String| Error::Damaged {
            what: format!("the checkpoint of run {run_id} at step {}", info.step),
            problem,
        };
        if received != info.bytes {
            return Err(damaged(format!(
                "{received} bytes came, {} were announced",
                info.bytes
            )));
        }
        let digest = hex::encode(state.finalize());
        if !digest.eq_ignore_ascii_case(&info.sha256) {
            return Err(damaged(format!(
                "its SHA-256 is {digest}, announced was {}",
                info.sha256
            )));
        }
        file.as_file()
            .sync_all()
            .map_err(|e| Error::io(target, e))?;
        readable_by_all(file.as_file()).map_err(|e| Error::io(target, e))?;
        file.persist(target)
            .map_err(|e| Error::io(target, e.error))?;
        std::fs::File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| Error::io(folder, e))?;
        Ok(info)
    }

    /// What it means that the stream of a checkpoint ended with `status`. DATA_LOSS is the coordinator's
    /// word that its file is damaged: trying again is no use, but there may be an older one.
    async fn broken_off(&self, status: &Status, run_id: &str, step: Option<u64>) -> Error {
        if status.code() != Code::DataLoss || is_transient(status) {
            return self.error(status);
        }
        let before = self.checkpoints(run_id).await.ok().and_then(|listed| {
            listed
                .iter()
                .map(|c| c.step)
                .rfind(|s| step.is_none_or(|damaged| *s < damaged))
        });
        Error::PutAside {
            what: match step {
                Some(step) => format!("the checkpoint of run {run_id} at step {step}"),
                None => format!("the newest checkpoint of run {run_id}"),
            },
            problem: status.message().trim().to_owned(),
            next: match before {
                Some(before) => {
                    format!("`fovea checkpoint get {run_id} {before}` fetches the one before")
                }
                None => format!("`fovea checkpoints {run_id}` lists those that are left"),
            },
        }
    }
}

/// A temporary file is private to its owner; a result is not.
#[cfg(unix)]
fn readable_by_all(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}
