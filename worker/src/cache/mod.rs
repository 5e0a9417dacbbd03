//! What an assignment needs from the coordinator: packs and weights, kept on this machine's disk by digest, and
//! checkpoints.
//!
//! A file with its final name is complete (see `files`). A pack has a sidecar with the digests of its records, written
//! when the whole pack matched its SHA-256; every read is compared with it (see `packs`). The cache stays within
//! `cache_disk_mib` (see `room`). Several workers of a machine may share one folder, if they run as one user: folders that
//! are made and files are for their owner alone.
//!
//! Every call that touches the disk runs on a thread that can be abandoned, because the folder may lie on a mount that
//! hangs.

mod files;
mod packs;
#[cfg(test)]
mod packs_tests;
mod room;
mod weights;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_core::run::Trouble;
use fovea_dataset::{
    INDEX_FILE, Index, IndexError, MANIFEST_FILE, Manifest, ManifestError, PackError, make_private,
};
use fovea_proto::{MESSAGE_BYTES, pb};
use sha2::{Digest, Sha256};
use tonic::transport::Channel;

pub use room::sweep;

use crate::link::{Refused, refusal};
use crate::progress::Progress;
use crate::threads::blocking;
use crate::trouble;
use files::put;

/// Something could not be fetched or kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The coordinator refused, or the connection broke.
    #[error("{what}: {}", fovea_proto::describe(status))]
    Rpc {
        /// What was asked for.
        what: String,
        /// Its answer.
        status: tonic::Status,
    },
    /// The cache's folder or a file in it.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A pack.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The coordinator sent other bytes than announced, without saying so.
    #[error("{what} arrived damaged: {problem}")]
    Damaged {
        /// What was fetched.
        what: String,
        /// What differs.
        problem: String,
    },
}

impl CacheError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }

    /// What the coordinator's answer means; None if the error is this worker's own.
    pub fn refusal(&self) -> Option<Refused> {
        match self {
            Self::Rpc { status, .. } => Some(refusal(status)),
            Self::Io { .. }
            | Self::Manifest(_)
            | Self::Index(_)
            | Self::Pack(_)
            | Self::Damaged { .. } => None,
        }
    }

    /// The trouble of this worker alone that it shows; None if it may lie elsewhere.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Io { source, .. } => Some(trouble::of_folder(source)),
            Self::Pack(PackError::Io { source, .. }) => {
                Some(trouble::of_system(source).unwrap_or(Trouble::Data))
            }
            Self::Pack(_) => Some(Trouble::Data),
            // What the coordinator sent, and every worker would get.
            Self::Manifest(_) | Self::Index(_) => Some(Trouble::Content),
            Self::Rpc { .. } | Self::Damaged { .. } => None,
        }
    }

    /// Whether it failed because the coordinator is away.
    pub fn is_away(&self) -> bool {
        self.refusal() == Some(Refused::Away)
    }

    /// Whether the coordinator's own copy is corrupt, or cannot be read now: another attempt succeeds only after a
    /// repair there.
    pub fn is_blocked(&self) -> bool {
        matches!(
            self.refusal(),
            Some(Refused::Corrupt | Refused::Unreadable | Refused::Precondition)
        )
    }
}

/// A dataset's manifest and folder in the cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CachedDataset {
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// The folder, in the layout of a prepared dataset.
    pub dir: PathBuf,
}

/// Fetched data below one folder.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
    /// Bytes that packs may take; 0 is no limit.
    limit: u64,
    channel: Channel,
    progress: Progress,
}

impl Cache {
    /// A cache in `dir` of at most `limit` bytes (0: no limit) that fetches over `channel`. Every chunk that arrives
    /// is a tick of `progress`.
    pub fn new(dir: PathBuf, limit: u64, channel: Channel, progress: Progress) -> Self {
        Self {
            dir,
            limit,
            channel,
            progress,
        }
    }

    /// The dataset with `digest`: its manifest and folder, and its index.
    pub async fn dataset(&self, digest: &str) -> Result<(CachedDataset, Index), CacheError> {
        let dir = self.dir.join("datasets").join(digest);
        let cached = {
            let (dir, digest) = (dir.clone(), digest.to_owned());
            blocking("reading the cached dataset's index", move || {
                read_cached(&dir, &digest)
            })
            .await
        };
        let (manifest, index) = match cached {
            Some(cached) => cached,
            None => self.fetch_dataset(digest, &dir).await?,
        };
        let manifest = Arc::new(manifest);
        Ok((CachedDataset { manifest, dir }, index))
    }

    async fn fetch_dataset(
        &self,
        digest: &str,
        dir: &Path,
    ) -> Result<(Manifest, Index), CacheError> {
        let what = format!("dataset {digest}");
        let rpc = |status| CacheError::Rpc {
            what: what.clone(),
            status,
        };
        let files = self
            .datasets()
            .get(pb::GetDatasetRequest {
                dataset: digest.to_owned(),
            })
            .await
            .map_err(rpc)?
            .into_inner();
        let manifest = Manifest::parse(&files.manifest)?;
        if manifest.digest != digest {
            return Err(CacheError::Damaged {
                what,
                problem: format!("its digest is {}", manifest.digest),
            });
        }
        let index = Index::parse(&files.index, &manifest)?;
        let dir = dir.to_owned();
        blocking("writing the dataset's index", move || {
            let packs = dir.join("packs");
            make_private(&packs).map_err(CacheError::io(packs))?;
            put(&dir.join(INDEX_FILE), &files.index)?;
            put(&dir.join(MANIFEST_FILE), &files.manifest)
        })
        .await?;
        Ok((manifest, index))
    }

    /// The bytes of a checkpoint, verified against what was announced.
    pub async fn checkpoint(
        &self,
        run: &RunId,
        info: &CheckpointInfo,
    ) -> Result<Vec<u8>, CacheError> {
        let what = format!("checkpoint {} of run {run}", info.step);
        let rpc = |status| CacheError::Rpc {
            what: what.clone(),
            status,
        };
        let damaged = |problem: String| CacheError::Damaged {
            what: what.clone(),
            problem,
        };
        let mut client = pb::checkpoints_client::CheckpointsClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES);
        let mut stream = client
            .get(pb::GetCheckpointRequest {
                run_id: run.to_string(),
                step: Some(info.step),
            })
            .await
            .map_err(rpc)?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await.map_err(rpc)? {
            self.progress.tick();
            match chunk.part {
                Some(pb::checkpoint_chunk::Part::Data(data)) => bytes.extend_from_slice(&data),
                Some(pb::checkpoint_chunk::Part::Info(_)) | None => {}
            }
            if bytes.len() as u64 > info.bytes {
                return Err(damaged(format!("more than {} bytes", info.bytes)));
            }
        }
        let sha256 = hex::encode(Sha256::digest(&bytes));
        if sha256 != info.sha256 {
            return Err(damaged(format!(
                "SHA-256 {sha256}, expected {}; try an older checkpoint",
                info.sha256
            )));
        }
        Ok(bytes)
    }

    fn datasets(&self) -> pb::datasets_client::DatasetsClient<Channel> {
        pb::datasets_client::DatasetsClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
    }
}

/// Manifest and index in the folder `dir`, if they are those of `digest`.
fn read_cached(dir: &Path, digest: &str) -> Option<(Manifest, Index)> {
    let manifest = Manifest::parse(&std::fs::read(dir.join(MANIFEST_FILE)).ok()?).ok()?;
    if manifest.digest != digest {
        return None;
    }
    let index = Index::parse(&std::fs::read(dir.join(INDEX_FILE)).ok()?, &manifest).ok()?;
    Some((manifest, index))
}
