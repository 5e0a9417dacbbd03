//! Weights in the cache: one file for each digest, fetched, verified, and opened for as long as they are read.
//!
//! Every opening reads the whole file and compares its SHA-256: that takes some tens of milliseconds, and a run reads
//! its first weights once.

use std::fs::File;
use std::io;
use std::path::Path;

use fovea_dataset::make_private;
use fovea_proto::pb;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tracing::{info, warn};

use super::files::{Temporary, is_shortage, put_aside, sync_folder_of};
use super::room::{WEIGHTS, hold, make_room};
use super::{Cache, CacheError};
use crate::threads::blocking;

/// A file that arrives damaged is fetched so many times.
const ATTEMPTS: u32 = 3;
/// Room that is made for a file, whose size is not known before. GoogLeNet's is 51 MiB.
const ROOM: u64 = 64 << 20;

impl Cache {
    /// The file with this SHA-256 (64 hexadecimal digits), verified and open; fetched first if it is not in the cache.
    /// While it is open it is not evicted.
    ///
    /// # Errors
    /// It cannot be fetched, or not be kept.
    pub async fn weights(&self, sha256: &str) -> Result<File, CacheError> {
        let path = self.dir.join(WEIGHTS).join(sha256);
        let what = format!("weights {sha256}");
        let cached = {
            let (path, sha256) = (path.clone(), sha256.to_owned());
            blocking(format!("verifying {what}"), move || {
                open_cached(&path, &sha256)
            })
            .await?
        };
        self.progress.tick();
        if let Some(file) = cached {
            return Ok(file);
        }
        self.make_room_for_weights().await?;
        let mut attempt = 1;
        loop {
            match self.fetch_weights(&what, &path, sha256).await {
                Err(error @ CacheError::Damaged { .. }) if attempt < ATTEMPTS => {
                    warn!("weights.damaged_in_transit: {error}; fetching them again");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn make_room_for_weights(&self) -> Result<(), CacheError> {
        let (dir, limit) = (self.dir.clone(), self.limit);
        let made = blocking("evicting packs", move || {
            make_room(&dir, limit, ROOM, None).map_err(CacheError::io(dir))
        });
        if !made.await? {
            warn!(
                limit_mib = self.limit >> 20,
                "cache.full: the packs in use need nearly all of cache_disk_mib; exceeding it for weights. Raise \
                 cache_disk_mib, or give the run more workers"
            );
        }
        Ok(())
    }

    async fn fetch_weights(
        &self,
        what: &str,
        path: &Path,
        sha256: &str,
    ) -> Result<File, CacheError> {
        info!("weights.fetching: {what}");
        let place = path.to_owned();
        let temporary = blocking(format!("creating a file for {what}"), move || {
            let folder = place.parent().unwrap_or(Path::new("."));
            make_private(folder).map_err(CacheError::io(folder))?;
            Temporary::create(&place)
        })
        .await?;
        // In a function of its own: its handle shares the writer's lock.
        self.download_weights(what, sha256, &temporary).await?;
        let (path, sha256, what) = (path.to_owned(), sha256.to_owned(), what.to_owned());
        let file = blocking(format!("verifying {what}"), move || {
            admit(temporary, &path, &sha256, what)
        })
        .await?;
        self.progress.tick();
        Ok(file)
    }

    async fn download_weights(
        &self,
        what: &str,
        sha256: &str,
        temporary: &Temporary,
    ) -> Result<(), CacheError> {
        let rpc = |status| CacheError::Rpc {
            what: what.to_owned(),
            status,
        };
        let mut client = pb::weights_client::WeightsClient::new(self.channel.clone());
        let request = pb::FetchWeightsRequest {
            sha256: sha256.to_owned(),
        };
        let mut stream = client.fetch(request).await.map_err(rpc)?.into_inner();
        let mut file = tokio::fs::File::from_std(temporary.writer()?);
        let mut bytes = 0;
        while let Some(chunk) = stream.message().await.map_err(rpc)? {
            bytes += chunk.data.len() as u64;
            if bytes > fovea_weights::MOST_BYTES {
                return Err(CacheError::Damaged {
                    what: what.to_owned(),
                    problem: format!("more than {} bytes", fovea_weights::MOST_BYTES),
                });
            }
            file.write_all(&chunk.data)
                .await
                .map_err(CacheError::io(temporary.path()))?;
            self.progress.tick();
        }
        file.flush().await.map_err(CacheError::io(temporary.path()))
    }
}

/// Opens a file that may be in the cache. One with another digest, or that cannot be read, is put aside.
fn open_cached(path: &Path, sha256: &str) -> Result<Option<File>, CacheError> {
    let opened = File::open(path).and_then(|file| {
        hold(&file);
        let found = digest_of(&file)?;
        Ok((file, found))
    });
    let problem = match opened {
        Ok((file, found)) if found == sha256 => return Ok(Some(file)),
        Ok((_, found)) => format!("SHA-256 {found}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) if is_shortage(&source) => return Err(CacheError::io(path)(source)),
        Err(error) => error.to_string(),
    };
    warn!(
        "weights.corrupt: {}: {problem}; fetching the file again",
        path.display()
    );
    put_aside(path)?;
    Ok(None)
}

/// SHA-256 of a file that was opened just now.
fn digest_of(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// Verifies a fetched file and gives it its name.
fn admit(
    temporary: Temporary,
    path: &Path,
    sha256: &str,
    what: String,
) -> Result<File, CacheError> {
    let found = File::open(temporary.path())
        .and_then(|file| digest_of(&file))
        .map_err(CacheError::io(temporary.path()))?;
    if found != sha256 {
        let problem = format!("SHA-256 {found}");
        return Err(CacheError::Damaged { what, problem });
    }
    // Until it has its name it is locked by the one who wrote it.
    temporary.rename(path)?;
    sync_folder_of(path)?;
    let file = File::open(path).map_err(CacheError::io(path))?;
    hold(&file);
    Ok(file)
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
