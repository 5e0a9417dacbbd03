//! Fetching a checkpoint.

use std::path::Path;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_dataset::leftovers::Readers;
use fovea_proto::pb::checkpoint_chunk::Part;
use tonic::{Code, Status};

use crate::client::Client;
use crate::error::Error;
use crate::receive::{Receiving, check_target};

impl Client {
    /// Fetches the checkpoint of `step`, or the newest, to `target`. A file that is there already is
    /// replaced if `overwrite`, else [`Error::Exists`]. What killed fetches left in the folder is
    /// swept.
    ///
    /// `progress` is called with (bytes received, bytes in all). Size and SHA-256 are compared with
    /// those announced. On any error nothing is left behind, and `target` stays as it was:
    /// [`Error::Damaged`] if the bytes differ, [`Error::Corrupt`] if the coordinator found its own
    /// file to be corrupt, [`Error::Unreadable`] if it cannot read it now.
    pub async fn fetch_checkpoint(
        &self,
        run_id: &str,
        step: Option<u64>,
        target: &Path,
        overwrite: bool,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<CheckpointInfo, Error> {
        check_target(target, overwrite)?;
        // A file that is missing or too short is noticed before anything of it is sent.
        let begun = match self.checkpoint_stream(run_id, step).await {
            Ok(mut stream) => stream.message().await.map(|first| (first, stream)),
            Err(status) => Err(status),
        };
        let (first, mut stream) = match begun {
            Ok((first, stream)) => (first.and_then(|m| m.part), stream),
            Err(status) => return Err(self.broken_off(&status, run_id, step).await),
        };
        let Some(Part::Info(info)) = first else {
            return Err(Error::Protocol(
                "the stream of a checkpoint does not begin with its description".into(),
            ));
        };
        let info = CheckpointInfo::try_from(info)?;

        let what = format!("the checkpoint of run {run_id} at step {}", info.step);
        let mut file = Receiving::begin(what, target, overwrite, info.bytes, Readers::ByUmask)?;
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
                return Err(Error::Protocol(
                    "the stream of a checkpoint has a second description".into(),
                ));
            };
            progress(file.take(&data)?, info.bytes);
        }
        file.finish(&info.sha256)?;
        Ok(info)
    }

    /// The error for a checkpoint's stream that ended with `status`. DATA_LOSS means that the
    /// coordinator read its whole file and found it corrupt: fetching again is no use, but there may
    /// be an older one. UNAVAILABLE means that the file cannot be read now.
    async fn broken_off(&self, status: &Status, run_id: &str, step: Option<u64>) -> Error {
        let what = match step {
            Some(step) => format!("the checkpoint of run {run_id} at step {step}"),
            None => format!("the newest checkpoint of run {run_id}"),
        };
        let problem = status.message().trim().trim_end_matches('.').to_owned();
        match self.error(status) {
            Error::Unavailable { .. } => Error::Unreadable { what, problem },
            Error::Coordinator { .. } if status.code() == Code::DataLoss => {
                let older = self.checkpoints(run_id).await.ok().and_then(|listed| {
                    listed
                        .iter()
                        .map(|c| c.step)
                        .rfind(|s| step.is_none_or(|corrupt| *s < corrupt))
                });
                Error::Corrupt {
                    what,
                    problem,
                    next: match older {
                        Some(older) => format!(
                            "`fovea checkpoint get {run_id} {older}` fetches the previous one"
                        ),
                        None => format!("`fovea checkpoints {run_id}` lists the remaining ones"),
                    },
                }
            }
            other => other,
        }
    }
}
