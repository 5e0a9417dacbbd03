//! Sending a prepared dataset to the coordinator as a stream of its files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fovea_dataset::{Dataset, INDEX_FILE, MANIFEST_FILE};
use fovea_proto::pb::create_dataset_request::Part;
use fovea_proto::{CHUNK_BYTES, MESSAGE_BYTES, pb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Client;
use crate::error::Error;
use crate::view::DatasetInfo;

/// Pieces read ahead of the network: enough to keep it busy, few enough to hold in memory.
const READ_AHEAD: usize = 8;

/// The result of offering a dataset to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The dataset as the coordinator holds it now.
    pub dataset: DatasetInfo,
    /// What the coordinator did.
    pub outcome: Outcome,
}

/// What the coordinator did with a dataset that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored it: there was none of this digest.
    Added,
    /// Verified it: it was there, and every digest is right.
    Unchanged,
    /// Replaced what was missing or corrupt.
    Repaired {
        /// Indices of packs.
        packs: Vec<u32>,
        /// Which of manifest.json and index.csv.
        files: Vec<String>,
    },
}

impl Client {
    /// Offers the prepared dataset in `dir` to the coordinator, which stores it, or verifies and
    /// repairs what it has.
    ///
    /// `sent` counts the bytes of packs handed to the network, out of those given to `total`. The
    /// coordinator may answer before everything is sent.
    pub async fn add_dataset(
        &self,
        dir: &Path,
        total: impl FnOnce(u64),
        sent: Arc<AtomicU64>,
    ) -> Result<Added, Error> {
        let folder = dir.to_owned();
        let dataset = tokio::task::spawn_blocking(move || Dataset::open(&folder))
            .await
            .map_err(|e| Error::Dataset(format!("opening {} failed: {e}", dir.display())))?
            .map_err(|e| Error::Dataset(e.to_string()))?;
        let manifest = dataset.manifest();
        let files = pb::DatasetFiles {
            manifest: read(&dir.join(MANIFEST_FILE))?.into(),
            index: read(&dir.join(INDEX_FILE))?.into(),
        };
        if files.manifest.len() + files.index.len() > MESSAGE_BYTES {
            return Err(Error::Dataset(format!(
                "{}: manifest and index together have {} MiB, more than the {} MiB of one message; \
                 split the dataset",
                dir.display(),
                (files.manifest.len() + files.index.len()).div_ceil(1 << 20),
                MESSAGE_BYTES >> 20
            )));
        }
        let packs: Vec<PathBuf> = (0..manifest.packs.len())
            .map(|pack| dataset.pack_path(pack))
            .collect();
        total(manifest.packs.iter().map(|p| p.bytes).sum());

        let (parts, stream) = mpsc::channel(READ_AHEAD);
        let reader = tokio::task::spawn_blocking(move || send_all(files, &packs, &parts, &sent));
        let reply = self.create_dataset(ReceiverStream::new(stream)).await;
        // The stream is dropped by now, so the reader ends too.
        let read = reader
            .await
            .map_err(|e| Error::Dataset(format!("reading {} failed: {e}", dir.display())))?;
        match (reply, read) {
            (Ok(reply), _) => added(reply),
            // A pack that could not be read cuts the stream short; that cause comes first, because the
            // coordinator only sees an incomplete upload.
            (Err(_), Err(unreadable)) => Err(unreadable),
            (Err(refused), Ok(())) => Err(refused.with_hint(|| {
                format!(
                    "`fovea dataset list` shows what is there; prepare with another --name to add {} \
                     beside it",
                    dir.display()
                )
            })),
        }
    }
}

fn added(reply: pb::CreateDatasetResponse) -> Result<Added, Error> {
    use pb::create_dataset_response::Outcome as Wire;
    let pb::CreateDatasetResponse {
        dataset,
        outcome,
        repaired_packs,
        repaired_files,
    } = reply;
    Ok(Added {
        dataset: dataset
            .ok_or_else(|| Error::Protocol("the reply to an upload lacks the dataset".into()))?
            .into(),
        outcome: match Wire::try_from(outcome) {
            // One that does not name an outcome answers only once it has stored everything.
            Ok(Wire::Added | Wire::Unspecified) => Outcome::Added,
            Ok(Wire::Unchanged) => Outcome::Unchanged,
            Ok(Wire::Repaired) => Outcome::Repaired {
                packs: repaired_packs,
                files: repaired_files,
            },
            Err(_) => {
                return Err(Error::Protocol(format!(
                    "outcome of an upload is {outcome}, expected 0 to 3"
                )));
            }
        },
    })
}

fn send_all(
    files: pb::DatasetFiles,
    packs: &[PathBuf],
    parts: &mpsc::Sender<pb::CreateDatasetRequest>,
    sent: &AtomicU64,
) -> Result<(), Error> {
    // Sending fails once the coordinator has ended the call; its reply has the reason.
    let send = |part| {
        parts
            .blocking_send(pb::CreateDatasetRequest { part: Some(part) })
            .is_ok()
    };
    if !send(Part::Header(files)) {
        return Ok(());
    }
    for (pack, path) in packs.iter().enumerate() {
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        loop {
            let mut data = Vec::with_capacity(CHUNK_BYTES);
            (&mut file)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut data)
                .map_err(|e| Error::io(path, e))?;
            if data.is_empty() {
                break;
            }
            let bytes = data.len() as u64;
            let piece = pb::PackPiece {
                pack: pack as u32,
                data: data.into(),
            };
            if !send(Part::Piece(piece)) {
                return Ok(());
            }
            sent.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error::io(path, e))
}
