//! `Admin`: looking after the stores and the journal.

use std::io;

use fovea_proto::pb::admin_server::Admin;
use fovea_proto::pb::backup_part::Part;
use fovea_proto::{CHUNK_BYTES, pb};
use prost::bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use tracing::info;

use super::transfer::Answers;
use super::verification::{self, Verification, Wanted};
use super::{Context, peer};
use crate::access::Subject;
use crate::backup::{Backup, BackupError, tls_paths};
use crate::blocking::blocking;
use crate::clock::unix_ms;
use crate::error::ApiError;

/// Parts of a backup ahead of the receiver.
const AHEAD: usize = 4;

/// The service.
#[derive(Debug)]
pub(crate) struct AdminService(pub Context);

#[tonic::async_trait]
impl Admin for AdminService {
    type VerifyStream = Answers<pb::VerifyStoreEvent>;
    type BackupStream = Answers<pb::BackupPart>;

    async fn verify(
        &self,
        request: Request<pb::VerifyStoreRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        Subject::of(&request).set("the store");
        let pb::VerifyStoreRequest {
            skip_checkpoints,
            skip_datasets,
            skip_weights,
        } = request.into_inner();
        let wanted = Wanted {
            checkpoints: !skip_checkpoints,
            datasets: !skip_datasets,
            weights: !skip_weights,
        };
        let (sender, receiver) = mpsc::channel(verification::AHEAD);
        let context = self.0.clone();
        self.0.tasks.spawn(async move {
            let _permit = permit;
            let closing = context.closing.clone();
            let verification = Verification::new(context, sender.clone());
            tokio::select! {
                () = closing.cancelled() => drop(sender.try_send(Err(ApiError::ShuttingDown.into()))),
                // The file that is being read is read to its end; no other is begun.
                () = sender.closed() => {}
                result = verification.run(wanted) => {
                    if let Err(error) = result {
                        let _ = sender.send(Err(error.into())).await;
                    }
                }
            }
        });
        Ok(Response::new(Answers::new(receiver)))
    }

    async fn backup(
        &self,
        request: Request<pb::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Subject::of(&request).set("the journal");
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        let folder = self.0.config.data_dir.clone();
        let snapshot = self.0.runs.journal.snapshot().await;
        let snapshot = snapshot.map_err(|error| ApiError::Unavailable(error.to_string()))?;
        let tls = tls_paths(&self.0.config);
        let making = move || Backup::make(snapshot, &folder, &tls, unix_ms());
        let backup = blocking(making).await?;
        let backup = backup.map_err(ApiError::from)?;
        let about = &backup.about;
        let described = pb::BackupInfo {
            bytes: backup.archive_bytes(),
            created_at_ms: about.created_at_ms,
            runs: about.runs,
            live_runs: about.live_runs,
            datasets: about.datasets,
        };
        info!(
            bytes = described.bytes,
            "backup.made: the journal was copied for a backup of {} bytes", described.bytes
        );
        let (sender, receiver) = mpsc::channel(AHEAD);
        let closing = self.0.closing.clone();
        self.0.tasks.spawn(async move {
            let _permit = permit;
            let ends = sender.clone();
            let sending = blocking(move || send(backup, described, sender));
            tokio::select! {
                // The thread ends when its receiver is gone.
                () = closing.cancelled() => drop(ends.try_send(Err(ApiError::ShuttingDown.into()))),
                _ = sending => {}
            }
        });
        Ok(Response::new(Answers::new(receiver)))
    }
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        let message = error.to_string();
        match error {
            BackupError::Full { .. } => Self::Exhausted(message),
            BackupError::Io { .. } | BackupError::Closed => Self::Unavailable(message),
            BackupError::Copy(_) => Self::Damaged(message),
        }
    }
}

/// Sends a backup at the receiver's pace. Waits for the disk and the receiver.
fn send(
    backup: Backup,
    described: pb::BackupInfo,
    to: mpsc::Sender<Result<pb::BackupPart, Status>>,
) {
    let mut parts = Parts {
        to,
        hash: Sha256::new(),
    };
    let sent = parts
        .send(Part::Info(described))
        .and_then(|()| backup.write(&mut parts))
        .and_then(|()| {
            let sha256 = hex::encode(parts.hash.finalize_reset());
            parts.send(Part::End(pb::BackupEnd { sha256 }))
        });
    // A receiver that is gone hears nothing.
    if let Err(error) = sent {
        let error = ApiError::Unavailable(format!(
            "backup: the copy of the journal cannot be read: {error}"
        ));
        let _ = parts.to.blocking_send(Err(error.into()));
    }
}

/// The stream of a backup's parts, for something that writes bytes.
struct Parts {
    to: mpsc::Sender<Result<pb::BackupPart, Status>>,
    hash: Sha256,
}

impl Parts {
    fn send(&self, part: Part) -> io::Result<()> {
        let part = pb::BackupPart { part: Some(part) };
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.to.blocking_send(Ok(part)).map_err(gone)
    }
}

impl io::Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK_BYTES)];
        self.hash.update(bytes);
        self.send(Part::Data(Bytes::copy_from_slice(bytes)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
