//! Brings what an assignment needs from the coordinator: packs, kept by digest, and checkpoints.
//!
//! Several workers of a machine may share one folder: files are written under temporary names,
//! checked, and renamed, so a file that has its name is whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_dataset::{
    INDEX_FILE, Index, IndexError, MANIFEST_FILE, Manifest, ManifestError, PackError, verify_pack,
};
use fovea_proto::{MESSAGE_BYTES, pb};
use sha2::{Digest, Sha256};
use tonic::transport::Channel;
use tracing::info;

use crate::link::is_away;
use crate::vitals::Vitals;

/// Something could not be fetched or kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The coordinator refused, or the connection broke.
    #[error("the coordinator did not deliver {what}: {}", status.message())]
    Rpc {
        /// What was asked for.
        what: String,
        /// Its answer.
        status: tonic::Status,
    },
    /// The folder.
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
    /// Other bytes than announced.
    #[error("{what} arrived damaged: {problem}")]
    Damaged {
        /// What was fetched.
        what: String,
        /// What is wrong.
        problem: String,
    },
}

impl CacheError {
    /// Whether it failed because the coordinator is away.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Rpc { status, .. } => is_away(status),
            Self::Io { .. }
            | Self::Manifest(_)
            | Self::Index(_)
            | Self::Pack(_)
            | Self::Damaged { .. } => false,
        }
    }
}

/// Fetched data below one folder.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
    channel: Channel,
    vitals: Vitals,
}

impl Cache {
    /// A cache in `dir` that fetches over `channel`; `vitals` shows that something comes.
    pub fn new(dir: PathBuf, channel: Channel, vitals: Vitals) -> Self {
        Self {
            dir,
            channel,
            vitals,
        }
    }

    /// Manifest, index and folder of the dataset with `digest`.
    pub async fn dataset(&self, digest: &str) -> Result<(Manifest, Index, PathBuf), CacheError> {
        let dir = self.dir.join("datasets").join(digest);
        let read = |name: &str| std::fs::read(dir.join(name));
        if let (Ok(manifest), Ok(index)) = (read(MANIFEST_FILE), read(INDEX_FILE))
            && let Ok(manifest) = Manifest::parse(&manifest)
            && manifest.digest == digest
            && let Ok(index) = Index::parse(&index, &manifest)
        {
            return Ok((manifest, index, dir));
        }
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
        create_dir(&dir.join("packs"))?;
        put(&dir.join(INDEX_FILE), &files.index)?;
        put(&dir.join(MANIFEST_FILE), &files.manifest)?;
        Ok((manifest, index, dir))
    }

    /// Fetches those of `packs` that are not there yet, and checks each once.
    pub async fn packs(
        &self,
        manifest: &Manifest,
        dir: &Path,
        packs: &BTreeSet<u32>,
    ) -> Result<(), CacheError> {
        for &pack in packs {
            let entry = &manifest.packs[pack as usize];
            let path = dir.join(&entry.file);
            if path.metadata().is_ok_and(|m| m.len() == entry.bytes) {
                continue;
            }
            info!(pack = %entry.file, bytes = entry.bytes, "fetching a pack");
            let temporary = Temporary(temporary(&path));
            self.fetch_pack(&manifest.digest, pack, &temporary.0, entry.bytes)
                .await?;
            // Reading it through takes long enough to keep other tasks waiting.
            let entry = entry.clone();
            let checked = move || {
                verify_pack(&temporary.0, &entry)?;
                rename(&temporary.0, &path)
            };
            tokio::task::spawn_blocking(checked)
                .await
                .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            self.vitals.tick();
        }
        Ok(())
    }

    async fn fetch_pack(
        &self,
        digest: &str,
        pack: u32,
        into: &Path,
        bytes: u64,
    ) -> Result<(), CacheError> {
        let what = format!("pack {pack} of dataset {digest}");
        let rpc = |status| CacheError::Rpc {
            what: what.clone(),
            status,
        };
        let mut stream = self
            .datasets()
            .fetch_pack(pb::FetchPackRequest {
                digest: digest.to_owned(),
                pack,
            })
            .await
            .map_err(rpc)?
            .into_inner();
        let io_error = |source| CacheError::Io {
            path: into.to_owned(),
            source,
        };
        let mut file = File::create(into).map_err(io_error)?;
        let mut left = bytes;
        while let Some(chunk) = stream.message().await.map_err(rpc)? {
            left =
                left.checked_sub(chunk.data.len() as u64)
                    .ok_or_else(|| CacheError::Damaged {
                        what: what.clone(),
                        problem: format!("more than {bytes} bytes"),
                    })?;
            file.write_all(&chunk.data).map_err(io_error)?;
            self.vitals.tick();
        }
        Ok(())
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
            self.vitals.tick();
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

fn create_dir(dir: &Path) -> Result<(), CacheError> {
    std::fs::create_dir_all(dir).map_err(|source| CacheError::Io {
        path: dir.to_owned(),
        source,
    })
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    let temporary = temporary(path);
    std::fs::write(&temporary, bytes).map_err(|source| CacheError::Io {
        path: temporary.clone(),
        source,
    })?;
    rename(&temporary, path)
}

fn rename(from: &Path, to: &Path) -> Result<(), CacheError> {
    std::fs::rename(from, to).map_err(|source| CacheError::Io {
        path: to.to_owned(),
        source,
    })
}

/// A file that is removed unless it got its name: fetching may fail, or be given up at any point.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A name beside `path` that no other process or task uses.
fn temporary(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".tmp-{}-{number}", std::process::id()));
    path.with_file_name(name)
}
