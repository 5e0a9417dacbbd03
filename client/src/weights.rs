//! Sending files of weights to the coordinator.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fovea_proto::pb::create_weights_request::Part;
use fovea_proto::{CHUNK_BYTES, pb};
use fovea_weights::{MOST_BYTES, Source, check};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Client;
use crate::error::Error;
use crate::view::WeightsInfo;

/// Pieces read ahead of the network.
const READ_AHEAD: usize = 8;

/// A file of weights on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// The result of offering weights to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedWeights {
    /// The weights as the coordinator holds them now.
    pub weights: WeightsInfo,
    /// What the coordinator did.
    pub outcome: WeightsOutcome,
}

/// What the coordinator did with weights that were offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsOutcome {
    /// Stored them: it did not have the file.
    Added,
    /// Verified them: it had the file, and its copy is right.
    Unchanged,
    /// Replaced its copy, which was missing or corrupt.
    Repaired,
}

impl WeightsOutcome {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Unchanged => "unchanged",
            Self::Repaired => "repaired",
        }
    }
}

impl WeightsFile {
    /// Reads a file to its end.
    ///
    /// # Errors
    /// The text names the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let mut source = Source::open(path).map_err(|e| e.to_string())?;
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let bytes = source.file().metadata().map_err(failed)?.len();
        if bytes == 0 || bytes > MOST_BYTES {
            return Err(format!(
                "{} has {bytes} bytes; 1 to {MOST_BYTES} are taken, and BVLC's GoogLeNet has about 53000000",
                path.display()
            ));
        }
        let mut hash = Sha256::new();
        std::io::copy(source.file(), &mut hash).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            sha256: hex::encode(hash.finalize()),
            bytes,
        })
    }

    /// The file's name, without its folder.
    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().chars().take(100).collect()
    }
}

impl Client {
    /// Offers a file to the coordinator, which checks and stores it, or verifies and repairs what it has. `name`: what to
    /// call the weights; None: as the file.
    ///
    /// `sent` counts the bytes handed to the network. The coordinator may answer before everything is sent.
    pub async fn add_weights(
        &self,
        file: &WeightsFile,
        name: Option<&str>,
        sent: Arc<AtomicU64>,
    ) -> Result<AddedWeights, Error> {
        let shown = file.path.display().to_string();
        let broken =
            |e: tokio::task::JoinError| Error::Weights(format!("reading {shown} failed: {e}"));
        let path = file.path.clone();
        // The coordinator checks, too; here it saves sending a file that it would refuse.
        let open = tokio::task::spawn_blocking(move || {
            let mut source = Source::open(&path)?;
            check(&mut source)?;
            Ok::<_, fovea_weights::WeightsError>(source)
        });
        let mut source = open
            .await
            .map_err(broken)?
            .map_err(|e| Error::Weights(e.to_string()))?;
        let io = |e| Error::io(&file.path, e);
        source.file().rewind().map_err(io)?;
        let open = source.file().try_clone().map_err(io)?;
        let header = pb::WeightsHeader {
            name: name.unwrap_or_default().to_owned(),
            file_name: file.name(),
            sha256: file.sha256.clone(),
            size_bytes: file.bytes,
        };
        let (parts, stream) = mpsc::channel(READ_AHEAD);
        let path = file.path.clone();
        let reader =
            tokio::task::spawn_blocking(move || send_all(header, open, &path, &parts, &sent));
        let reply = self.create_weights(ReceiverStream::new(stream)).await;
        // The stream is dropped by now, so the reader ends too.
        let read = reader.await.map_err(broken)?;
        match (reply, read) {
            (Ok(reply), _) => added(reply),
            // A file that could not be read cuts the stream short; that cause comes first.
            (Err(_), Err(unreadable)) => Err(unreadable),
            (Err(refused), Ok(())) => Err(refused),
        }
    }
}

fn added(reply: pb::CreateWeightsResponse) -> Result<AddedWeights, Error> {
    use pb::create_weights_response::Outcome as Wire;
    let pb::CreateWeightsResponse { weights, outcome } = reply;
    Ok(AddedWeights {
        weights: weights
            .ok_or_else(|| Error::Protocol("the reply to an upload lacks the weights".into()))?
            .into(),
        outcome: match Wire::try_from(outcome) {
            Ok(Wire::Added | Wire::Unspecified) => WeightsOutcome::Added,
            Ok(Wire::Unchanged) => WeightsOutcome::Unchanged,
            Ok(Wire::Repaired) => WeightsOutcome::Repaired,
            Err(_) => {
                return Err(Error::Protocol(format!(
                    "outcome of an upload is {outcome}, expected 0 to 3"
                )));
            }
        },
    })
}

fn send_all(
    header: pb::WeightsHeader,
    mut file: File,
    path: &Path,
    parts: &mpsc::Sender<pb::CreateWeightsRequest>,
    sent: &AtomicU64,
) -> Result<(), Error> {
    // Sending fails once the coordinator has ended the call; its reply has the reason.
    let send = |part| {
        parts
            .blocking_send(pb::CreateWeightsRequest { part: Some(part) })
            .is_ok()
    };
    if !send(Part::Header(header)) {
        return Ok(());
    }
    loop {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        (&mut file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut data)
            .map_err(|e| Error::io(path, e))?;
        let bytes = data.len() as u64;
        if data.is_empty() || !send(Part::Data(data.into())) {
            return Ok(());
        }
        sent.fetch_add(bytes, Ordering::Relaxed);
    }
}
