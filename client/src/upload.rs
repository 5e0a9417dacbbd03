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

/// Pieces read ahead of the network: enough to keep it busy, little enough to hold in memory.
const AHEAD: usize = 8;

/// What became of a dataset that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The dataset as the coordinator holds it.
    pub dataset: DatasetInfo,
    /// Whether it was there before, so that nothing had to be sent.
    pub already_there: bool,
}

impl Client {
    /// Gives the prepared dataset in `dir` to the coordinator; nothing is sent when it is there.
    ///
    /// `sent` counts the packs' bytes as they are handed to the network, out of `total`'s.
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
        let held = self.datasets().await?;
        if let Some(same) = held
            .into_iter()
            .find(|d| d.digest == manifest.digest && d.name == manifest.name.as_str())
        {
            return Ok(Added {
                dataset: same,
                already_there: true,
            });
        }
        let files = pb::DatasetFiles {
            manifest: read(&dir.join(MANIFEST_FILE))?.into(),
            index: read(&dir.join(INDEX_FILE))?.into(),
        };
        if files.manifest.len() + files.index.len() > MESSAGE_BYTES {
            return Err(Error::Dataset(format!(
                "{}: manifest and index together are more than the {} MiB that one message holds; \
                 split the dataset",
                dir.display(),
                MESSAGE_BYTES >> 20
            )));
        }
        let packs: Vec<PathBuf> = (0..manifest.packs.len())
            .map(|pack| dataset.pack_path(pack))
            .collect();
        total(manifest.packs.iter().map(|p| p.bytes).sum());

        let (parts, stream) = mpsc::channel(AHEAD);
        let reader = tokio::task::spawn_blocking(move || send_all(files, &packs, &parts, &sent));
        let outcome = self.create_dataset(ReceiverStream::new(stream)).await;
        // The stream is gone now, so the reader ends too, if only because nobody takes its pieces.
        let read = reader
            .await
            .map_err(|e| Error::Dataset(format!("reading {} failed: {e}", dir.display())))?;
        // A file that could not be read cuts the stream short; the coordinator's complaint about
        // that would hide the cause.
        read?;
        Ok(Added {
            dataset: outcome?,
            already_there: false,
        })
    }
}

fn send_all(
    files: pb::DatasetFiles,
    packs: &[PathBuf],
    parts: &mpsc::Sender<pb::CreateDatasetRequest>,
    sent: &AtomicU64,
) -> Result<(), Error> {
    // A send fails when the coordinator ended the call; its answer says why.
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
