//! Packs in the cache: fetched, verified, opened, and replaced when a read shows that they are not what they were.
//!
//! ```text
//!              absent ──────────────────────────────┐
//! pack file ── corrupt, unreadable ── put aside ── fetch ── SHA-256 ── sidecar ── rename ── open
//!              sidecar absent or corrupt ── SHA-256 of the whole pack ── sidecar ── open
//!              good ── open
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fovea_dataset::{Blocks, BlocksId, PackEntry, PackError, PackFile};
use fovea_proto::pb;
use tokio::io::AsyncWriteExt;
use tracing::{info, warn};

use super::files::{Temporary, is_shortage, put, put_aside, sync_folder_of};
use super::room::{hold, make_room};
use super::{Cache, CacheError, CachedDataset};
use crate::threads::blocking;

/// A pack that arrives damaged is fetched so many times.
const ATTEMPTS: u32 = 3;

/// What is in the cache of a pack.
enum Cached {
    Open(PackFile),
    Absent,
    /// It was there, and could not be used.
    PutAside,
}

/// A pack and its place in the cache.
#[derive(Clone)]
struct Place {
    dataset: CachedDataset,
    pack: u32,
    path: PathBuf,
}

impl Place {
    fn new(dataset: &CachedDataset, pack: u32) -> Self {
        let path = dataset
            .dir
            .join(&dataset.manifest.packs[pack as usize].file);
        Self {
            dataset: dataset.clone(),
            pack,
            path,
        }
    }

    fn entry(&self) -> &PackEntry {
        &self.dataset.manifest.packs[self.pack as usize]
    }

    /// For people.
    fn name(&self) -> String {
        let manifest = &self.dataset.manifest;
        format!(
            "pack {} ({}) of dataset {:?} ({})",
            self.pack,
            self.entry().file,
            manifest.name.as_str(),
            manifest.digest
        )
    }
}

impl Cache {
    /// Opens `packs`, each of which is fetched first if it is not in the cache: then it is in `fetched`, also when a later one cannot
    /// be. Open packs are not evicted.
    pub async fn packs(
        &self,
        dataset: &CachedDataset,
        packs: &BTreeSet<u32>,
        fetched: &Mutex<BTreeSet<u32>>,
    ) -> Result<BTreeMap<u32, PackFile>, CacheError> {
        let mut open = BTreeMap::new();
        let mut absent = Vec::new();
        // All that are here are opened first, so that none of them is evicted for another.
        for &pack in packs {
            let place = Place::new(dataset, pack);
            match cached(&place).await? {
                Cached::Open(file) => drop(open.insert(pack, file)),
                Cached::Absent => absent.push((place, false)),
                Cached::PutAside => absent.push((place, true)),
            }
        }
        for (place, was_put_aside) in absent {
            let file = match was_put_aside {
                true => self.fetch_again(&place).await?,
                false => self.fetch(&place).await?,
            };
            fetched
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(place.pack);
            open.insert(place.pack, file);
        }
        Ok(open)
    }

    /// Fetches a pack if it is not in the cache and fits without evicting packs of the same dataset. Returns whether
    /// it is in the cache now.
    pub async fn prefetch(&self, dataset: &CachedDataset, pack: u32) -> Result<bool, CacheError> {
        let place = Place::new(dataset, pack);
        if let Cached::Open(_) = cached(&place).await? {
            return Ok(true);
        }
        if !self.make_room(&place, Some(dataset.dir.clone())).await? {
            return Ok(false);
        }
        self.fetch(&place).await.map(|_| true)
    }

    /// An open pack in place of one in which `record` could not be read because of `problem`.
    pub async fn replace(
        &self,
        dataset: &CachedDataset,
        pack: u32,
        record: u32,
        problem: &PackError,
    ) -> Result<PackFile, CacheError> {
        let place = Place::new(dataset, pack);
        // Another worker that shares the folder may have replaced it already.
        if let Some(file) = blocking(format!("reading {}", place.name()), {
            let place = place.clone();
            move || reread(&place, record)
        })
        .await
        {
            return Ok(file);
        }
        if let PackError::Io { source, .. } = problem
            && is_shortage(source)
        {
            return Err(CacheError::Io {
                path: place.path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            });
        }
        warn!(
            record,
            "pack.corrupt: record {record} of {}: {problem}; fetching the pack again",
            place.name()
        );
        let aside = place.clone();
        blocking(format!("putting {} aside", place.name()), move || {
            put_aside(&aside.path)
        })
        .await?;
        self.fetch_again(&place).await
    }

    async fn fetch_again(&self, place: &Place) -> Result<PackFile, CacheError> {
        let file = self.fetch(place).await?;
        info!(
            "pack.refetched: {} was fetched again and verified",
            place.name()
        );
        Ok(file)
    }

    /// Evicts packs until this one fits, but none below `keep`. Returns whether it does.
    async fn make_room(&self, place: &Place, keep: Option<PathBuf>) -> Result<bool, CacheError> {
        let (dir, limit, needed) = (self.dir.clone(), self.limit, place.entry().bytes);
        blocking("evicting packs", move || {
            make_room(&dir, limit, needed, keep.as_deref()).map_err(CacheError::io(dir))
        })
        .await
    }

    /// Fetches a pack, verifies it, and opens it.
    async fn fetch(&self, place: &Place) -> Result<PackFile, CacheError> {
        if !self.make_room(place, None).await? {
            warn!(
                limit_mib = self.limit >> 20,
                "cache.full: the packs in use need more than cache_disk_mib; exceeding it for {}. Raise \
                 cache_disk_mib, or give the run more workers",
                place.name()
            );
        }
        let mut attempt = 1;
        loop {
            match self.fetch_once(place).await {
                Err(error @ CacheError::Damaged { .. }) if attempt < ATTEMPTS => {
                    warn!("pack.damaged_in_transit: {error}; fetching it again");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn fetch_once(&self, place: &Place) -> Result<PackFile, CacheError> {
        let (what, bytes) = (place.name(), place.entry().bytes);
        info!(bytes, "pack.fetching: {what}");
        let path = place.path.clone();
        let temporary = blocking(format!("creating a file for {what}"), move || {
            Temporary::create(&path)
        })
        .await?;
        self.download(place, &temporary).await?;
        let place = place.clone();
        let file = blocking(format!("verifying {what}"), move || {
            admit(&place, temporary)
        })
        .await?;
        self.progress.tick();
        Ok(file)
    }

    async fn download(&self, place: &Place, temporary: &Temporary) -> Result<(), CacheError> {
        let (what, bytes) = (place.name(), place.entry().bytes);
        let rpc = |status| CacheError::Rpc {
            what: what.clone(),
            status,
        };
        let mut stream = self
            .datasets()
            .fetch_pack(pb::FetchPackRequest {
                digest: place.dataset.manifest.digest.clone(),
                pack: place.pack,
            })
            .await
            .map_err(rpc)?
            .into_inner();
        let mut file = tokio::fs::File::from_std(temporary.writer()?);
        let mut left = bytes;
        while let Some(chunk) = stream.message().await.map_err(rpc)? {
            left =
                left.checked_sub(chunk.data.len() as u64)
                    .ok_or_else(|| CacheError::Damaged {
                        what: what.clone(),
                        problem: format!("more than {bytes} bytes"),
                    })?;
            file.write_all(&chunk.data)
                .await
                .map_err(CacheError::io(temporary.path()))?;
            self.progress.tick();
        }
        file.flush().await.map_err(CacheError::io(temporary.path()))
    }
}

async fn cached(place: &Place) -> Result<Cached, CacheError> {
    let place = place.clone();
    blocking(format!("opening {}", place.name()), move || {
        open_cached(&place)
    })
    .await
}

/// Opens a pack that may be in the cache. One without usable digests is read once through.
fn open_cached(place: &Place) -> Result<Cached, CacheError> {
    match open(place) {
        Ok(file) => {
            hold(file.file());
            Ok(Cached::Open(file))
        }
        Err(PackError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Cached::Absent)
        }
        Err(error @ PackError::Request { .. }) => Err(error.into()),
        Err(PackError::Io { path, source }) if is_shortage(&source) => {
            Err(CacheError::Io { path, source })
        }
        Err(
            error @ (PackError::Io { .. }
            | PackError::Size { .. }
            | PackError::Digest { .. }
            | PackError::Record { .. }),
        ) => {
            warn!(
                "pack.corrupt: {}: {error}; fetching the pack again",
                place.name()
            );
            put_aside(&place.path)?;
            Ok(Cached::PutAside)
        }
    }
}

fn open(place: &Place) -> Result<PackFile, PackError> {
    let record_bytes = place.dataset.manifest.record_bytes;
    let file = PackFile::open(&place.path, record_bytes, place.entry())?;
    let id = BlocksId::new(&place.dataset.manifest, place.pack);
    let blocks = match Blocks::load(&place.path, &id) {
        Ok(blocks) => blocks,
        Err(error) => {
            if !error.is_missing() {
                warn!(
                    "pack.digests_corrupt: {error}; reading the whole pack to verify it and to write them again"
                );
            }
            let blocks = Blocks::of_pack(&place.path, record_bytes, place.entry())?;
            if let Err(error) = put(&Blocks::path(&place.path), &blocks.encode(&id)) {
                warn!(
                    "pack.digests_not_stored: {error}; the pack is read once through at the next start again"
                );
            }
            blocks
        }
    };
    Ok(file.with_blocks(blocks))
}

/// The pack that lies in its place now, if `record` can be read from it.
fn reread(place: &Place, record: u32) -> Option<PackFile> {
    let record_bytes = place.dataset.manifest.record_bytes;
    let file = PackFile::open(&place.path, record_bytes, place.entry()).ok()?;
    let id = BlocksId::new(&place.dataset.manifest, place.pack);
    let file = file.with_blocks(Blocks::load(&place.path, &id).ok()?);
    let mut buffer = vec![0; record_bytes as usize];
    file.read(record, &mut buffer).ok()?;
    hold(file.file());
    Some(file)
}

/// Verifies a fetched pack and gives it and its digests their names. The digests come first: a pack in its place has
/// them.
fn admit(place: &Place, temporary: Temporary) -> Result<PackFile, CacheError> {
    let record_bytes = place.dataset.manifest.record_bytes;
    let blocks = match Blocks::of_pack(temporary.path(), record_bytes, place.entry()) {
        Ok(blocks) => blocks,
        // The error must not name the temporary file: it means nothing to the reader.
        Err(PackError::Digest {
            found, expected, ..
        }) => {
            return Err(CacheError::Damaged {
                what: place.name(),
                problem: format!("SHA-256 {found}, expected {expected}"),
            });
        }
        Err(PackError::Size {
            found, expected, ..
        }) => {
            return Err(CacheError::Damaged {
                what: place.name(),
                problem: format!("{found} bytes, expected {expected}"),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let id = BlocksId::new(&place.dataset.manifest, place.pack);
    put(&Blocks::path(&place.path), &blocks.encode(&id))?;
    temporary.rename(&place.path)?;
    sync_folder_of(&place.path)?;
    let file = PackFile::open(&place.path, record_bytes, place.entry())?;
    hold(file.file());
    Ok(file.with_blocks(blocks))
}
