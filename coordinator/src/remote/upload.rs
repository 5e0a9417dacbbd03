//! Uploading one object, in parts that survive a kill, and one item: objects first, the manifest last.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_traces::{Context, Kind, Span, Traces, Work, names};
use prost::bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::Stores;
use super::error::RemoteError;
use super::item::Item;
use super::objects::Objects;
use super::state::Upload;
use crate::blocking::blocking;
use crate::store::StoreError;

/// Bytes of a part. A smaller object is written at once.
pub(super) const PART: u64 = 8 << 20;

/// What an upload has to be written down before it goes on.
#[derive(Debug)]
pub(super) enum Note {
    /// The upload of this key as it is now.
    Under(String, Upload),
    /// It is over.
    Over(String),
}

/// The way to whoever writes notes down.
#[derive(Debug, Clone)]
pub(super) struct Recorder(pub mpsc::Sender<(Note, oneshot::Sender<Result<(), RemoteError>>)>);

impl Recorder {
    async fn write(&self, note: Note) -> Result<(), RemoteError> {
        let gone = || RemoteError::Local("the coordinator is shutting down".into());
        let (reply, answer) = oneshot::channel();
        self.0.send((note, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// An object to be uploaded.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub key: String,
    pub file: Arc<File>,
    pub bytes: u64,
    /// What its content must have.
    pub sha256: String,
}

/// How far an item has come. The objects that were written, with their sizes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more of it.
    Partly(Vec<(String, u64)>),
    /// Its manifest is there.
    Done(Vec<(String, u64)>),
}

/// What an upload works with.
#[derive(Debug, Clone)]
pub(super) struct Uploader {
    pub objects: Arc<dyn Objects>,
    pub stores: Stores,
    pub recorder: Recorder,
    pub part_bytes: u64,
    pub traces: Traces,
}

impl Uploader {
    /// Uploads what `item` lacks: of a dataset, one object, so that others get their turn. `under`: uploads that were under
    /// way; `present`: the item's objects that are there.
    pub(super) async fn item(
        &self,
        item: &Item,
        info: Option<CheckpointInfo>,
        under: &BTreeMap<String, Upload>,
        present: &BTreeMap<String, u64>,
    ) -> Result<Step, RemoteError> {
        match item {
            Item::Ledger {
                run,
                step,
                generation,
            } => {
                let (store, run) = (self.stores.checkpoints.clone(), run.clone());
                let (step, generation) = (*step, *generation);
                let bytes = local(move || store.segment_bytes(&run, step, generation)).await?;
                match bytes {
                    Some(bytes) => self.small(item, bytes).await,
                    // Removed with its run meanwhile.
                    None => Ok(Step::Done(Vec::new())),
                }
            }
            Item::Checkpoint { run, .. } => {
                let Some(info) = info else {
                    return Err(RemoteError::Local(format!("{item} is not known here")));
                };
                let span = self.span(run, &info);
                let (store, run) = (self.stores.checkpoints.clone(), run.clone());
                let (bytes, sha256) = (info.bytes, info.sha256.clone());
                let opened = move || {
                    let file = store.open_file(&run, &info)?;
                    Ok((file, store.manifest_bytes(&run, &info)?))
                };
                let (file, manifest) = local(opened).await?;
                let uploaded = self
                    .single(item, file, bytes, sha256, manifest, under)
                    .await;
                match &uploaded {
                    Ok(_) => span.end(),
                    Err(error) => span.fail(&error.to_string()),
                }
                uploaded
            }
            Item::Weights(sha256) => {
                let (store, digest) = (self.stores.weights.clone(), sha256.clone());
                let opened = move || {
                    let (manifest, held) = store.manifest_bytes(&digest)?;
                    Ok((store.open_file(&held)?, manifest, held.bytes))
                };
                let (file, manifest, bytes) = local(opened).await?;
                self.single(item, file, bytes, sha256.clone(), manifest, under)
                    .await
            }
            Item::Dataset(digest) => self.dataset(item, digest, under, present).await,
            Item::Run(_) => Err(RemoteError::Local(format!("{item} cannot be uploaded"))),
        }
    }

    /// The span of one attempt to upload a checkpoint, a part of that in which it was assembled.
    fn span(&self, run: &RunId, info: &CheckpointInfo) -> Span {
        let work = Work {
            run: run.as_str(),
            lineage: info.lineage,
            generation: info.generation,
        };
        let parent = Context::checkpoint(work, info.step);
        self.traces
            .child(names::MIRROR, run.as_str(), Some(parent))
            .of_kind(Kind::Client)
            .with(names::GENERATION, info.generation)
            .with(names::STEP, info.step)
            .with(names::BYTES, info.bytes)
    }

    /// One large object and its manifest.
    async fn single(
        &self,
        item: &Item,
        file: File,
        bytes: u64,
        sha256: String,
        manifest: Vec<u8>,
        under: &BTreeMap<String, Upload>,
    ) -> Result<Step, RemoteError> {
        let (Some(key), Some(manifest_key)) = (item.data(), item.manifest()) else {
            return Err(RemoteError::Local(format!("{item} has no object")));
        };
        let source = Source {
            key: key.clone(),
            file: Arc::new(file),
            bytes,
            sha256,
        };
        let size = manifest.len() as u64;
        let manifest = Bytes::from(manifest);
        self.object(&source, under.get(&key)).await?;
        if !self.manifest(&manifest_key, manifest.clone()).await? {
            // A journal from a backup took the same step again in the same generation. A manifest goes first, so that none
            // ever describes another object than its own.
            warn!(
                "remote.replaced: another {item} was in the object store, which the journal does not list; it is replaced"
            );
            self.objects.delete(&manifest_key).await?;
            self.object(&source, None).await?;
            self.objects.put(&manifest_key, manifest).await?;
        }
        Ok(Step::Done(vec![(key, bytes), (manifest_key, size)]))
    }

    async fn dataset(
        &self,
        item: &Item,
        digest: &str,
        under: &BTreeMap<String, Upload>,
        present: &BTreeMap<String, u64>,
    ) -> Result<Step, RemoteError> {
        let (store, of) = (self.stores.datasets.clone(), digest.to_owned());
        let read = move || {
            let held = store.open_dataset(&of)?;
            let (manifest, index) = store.read_files(&of)?;
            Ok((held, manifest, index))
        };
        let (held, manifest, index) = local(read).await?;
        for (number, pack) in held.manifest.packs.iter().enumerate() {
            let key = format!("datasets/{digest}/{}", pack.file);
            // The digest names the content.
            if present.get(&key) == Some(&pack.bytes) {
                continue;
            }
            let (store, held) = (self.stores.datasets.clone(), held.clone());
            let file = local(move || store.open_pack(&held, number as u32)).await?;
            let source = Source {
                key: key.clone(),
                file: Arc::new(file),
                bytes: pack.bytes,
                sha256: pack.sha256.clone(),
            };
            self.object(&source, under.get(&key)).await?;
            return Ok(Step::Partly(vec![(key, pack.bytes)]));
        }
        let key = format!("datasets/{digest}/{}", fovea_dataset::INDEX_FILE);
        let bytes = index.len() as u64;
        self.objects.put(&key, Bytes::from(index)).await?;
        match self.small(item, manifest).await? {
            Step::Done(mut written) => {
                written.push((key, bytes));
                Ok(Step::Done(written))
            }
            partly => Ok(partly),
        }
    }

    /// An item whose manifest is named by its content, or is all that it has.
    async fn small(&self, item: &Item, bytes: Vec<u8>) -> Result<Step, RemoteError> {
        let key = item.manifest().unwrap_or_default();
        let size = bytes.len() as u64;
        let bytes = Bytes::from(bytes);
        if !self.manifest(&key, bytes.clone()).await? {
            self.objects.put(&key, bytes).await?;
        }
        Ok(Step::Done(vec![(key, size)]))
    }

    /// Writes a manifest where there is none. False: another one is there.
    async fn manifest(&self, key: &str, bytes: Bytes) -> Result<bool, RemoteError> {
        if self.objects.create(key, bytes.clone()).await? {
            return Ok(true);
        }
        // Perhaps the answer to an earlier request was lost.
        match self.objects.get(key).await {
            Ok(found) => Ok(found == bytes),
            Err(RemoteError::Missing { .. }) => self.objects.create(key, bytes).await,
            Err(error) => Err(error),
        }
    }

    /// Uploads an object, from where `under` was. One that the store has forgotten begins anew.
    async fn object(&self, source: &Source, under: Option<&Upload>) -> Result<(), RemoteError> {
        if source.bytes <= self.part_bytes {
            let mut hash = Sha256::new();
            let bytes = self.read(source, 0, source.bytes, &mut hash).await?;
            check(source, hash)?;
            return self.objects.put(&source.key, bytes).await;
        }
        let fits = |upload: &&Upload| {
            upload.sha256 == source.sha256 && upload.part_bytes == self.part_bytes
        };
        let mut upload = match under {
            Some(upload) if fits(&upload) => {
                let (there, key) = (upload.tags.len(), &source.key);
                info!("remote.resumed: the upload of {key} goes on after {there} of its parts");
                upload.clone()
            }
            Some(other) => {
                self.objects.abort(&source.key, &other.id).await?;
                self.begin(source).await?
            }
            None => self.begin(source).await?,
        };
        match self.parts(source, &mut upload).await {
            Err(RemoteError::NoUpload { .. }) => {
                self.recorder.write(Note::Over(source.key.clone())).await?;
                let mut upload = self.begin(source).await?;
                self.parts(source, &mut upload).await
            }
            result => result,
        }
    }

    async fn begin(&self, source: &Source) -> Result<Upload, RemoteError> {
        let upload = Upload {
            id: self.objects.begin(&source.key).await?,
            sha256: source.sha256.clone(),
            part_bytes: self.part_bytes,
            tags: Vec::new(),
        };
        // A kill before it is written down leaves an upload that the next sweep aborts.
        let note = Note::Under(source.key.clone(), upload.clone());
        self.recorder.write(note).await?;
        Ok(upload)
    }

    async fn parts(&self, source: &Source, upload: &mut Upload) -> Result<(), RemoteError> {
        let Source { key, bytes, .. } = source;
        let (mut hash, mut at, mut number) = (Sha256::new(), 0, 0);
        while at < *bytes {
            let size = self.part_bytes.min(bytes - at);
            // Parts that are there are read for the digest alone.
            let part = self.read(source, at, size, &mut hash).await?;
            if number >= upload.tags.len() {
                let tag = self.objects.part(key, &upload.id, number, part).await?;
                upload.tags.push(tag);
                let note = Note::Under(key.clone(), upload.clone());
                self.recorder.write(note).await?;
            }
            at += size;
            number += 1;
        }
        if let Err(error) = check(source, hash) {
            self.objects.abort(key, &upload.id).await?;
            self.recorder.write(Note::Over(key.clone())).await?;
            return Err(error);
        }
        self.objects
            .complete(key, &upload.id, upload.tags.clone())
            .await?;
        self.recorder.write(Note::Over(key.clone())).await
    }

    async fn read(
        &self,
        source: &Source,
        at: u64,
        size: u64,
        hash: &mut Sha256,
    ) -> Result<Bytes, RemoteError> {
        let (file, mut hashed) = (Arc::clone(&source.file), std::mem::take(hash));
        let read = blocking(move || {
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, at)?;
            hashed.update(&bytes);
            Ok::<_, std::io::Error>((bytes, hashed))
        })
        .await;
        match read {
            Ok(Ok((bytes, hashed))) => {
                *hash = hashed;
                Ok(Bytes::from(bytes))
            }
            Ok(Err(error)) => Err(RemoteError::Local(format!(
                "the local file of {} cannot be read: {error}",
                source.key
            ))),
            Err(panicked) => Err(RemoteError::Local(panicked.to_string())),
        }
    }
}

/// The content must be what was stored: a damaged file does not become a copy.
fn check(source: &Source, hash: Sha256) -> Result<(), RemoteError> {
    let found = hex::encode(hash.finalize());
    if found == source.sha256 {
        return Ok(());
    }
    Err(RemoteError::Local(format!(
        "the local file of {} has SHA-256 {found}, but {} was stored; it is not uploaded. `fovea admin verify` shows what is \
         damaged",
        source.key, source.sha256
    )))
}

/// Work on the stores, on a thread for that.
pub(super) async fn local<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RemoteError> {
    match blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(RemoteError::Local(error.to_string())),
        Err(panicked) => Err(RemoteError::Local(panicked.to_string())),
    }
}
