//! An object store in memory whose requests fail as a test wants, before they had an effect or after, when only the answer is
//! lost.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use object_store::Error as Cause;
use object_store::memory::InMemory;
use prost::bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::remote::error::RemoteError;
use crate::remote::item::Item;
use crate::remote::location::Location;
use crate::remote::objects::{Bucket, Objects, OpenUpload, OpenUploads};

pub fn location() -> Location {
    let read = Location::from_keys("s3://fovea/cluster", "", "", false);
    read.unwrap().unwrap()
}

type Open = Arc<Mutex<BTreeSet<OpenUpload>>>;

/// Uploads that are open, which the store in memory does not list.
#[derive(Debug)]
struct Tracked(Open);

#[tonic::async_trait]
impl OpenUploads for Tracked {
    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, Cause> {
        let open = self.0.lock().unwrap();
        let full = |upload: &OpenUpload| OpenUpload {
            key: format!("{prefix}{}", upload.key),
            id: upload.id.clone(),
        };
        Ok(open.iter().map(full).collect())
    }
}

/// The store.
#[derive(Debug)]
pub struct Faulty {
    bucket: Bucket,
    pub open: Open,
    /// One of so many requests fails, as if by chance; 0: none does.
    pub every: AtomicUsize,
    /// No answer comes to the part that is the so many-th to arrive; 0: to none.
    pub hangs_at: AtomicUsize,
    /// Somebody else has damaged what is in it.
    pub damaged: AtomicBool,
    /// The requests so far.
    pub requests: AtomicUsize,
    /// Parts that arrived.
    pub parts: AtomicUsize,
    /// What is to happen at the next requests: the first whose text begins so fails with it.
    pub next: Mutex<Option<(&'static str, RemoteError)>>,
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        let open = Open::default();
        let bucket = Bucket::new(
            Arc::new(InMemory::new()),
            Box::new(Tracked(Arc::clone(&open))),
            location(),
        );
        Arc::new(Self {
            bucket,
            open,
            every: AtomicUsize::new(0),
            hangs_at: AtomicUsize::new(0),
            damaged: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            parts: AtomicUsize::new(0),
            next: Mutex::new(None),
        })
    }

    pub fn away() -> RemoteError {
        RemoteError::Away {
            store: "memory".into(),
            problem: "on purpose".into(),
        }
    }

    /// The same, as the first start tells it.
    pub fn needed() -> RemoteError {
        RemoteError::Needed {
            store: "memory".into(),
            problem: "on purpose".into(),
        }
    }

    /// Does a request, unless it is to fail. Afterwards everything with a manifest must be whole.
    async fn ask<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        {
            let mut next = self.next.lock().unwrap();
            if next
                .as_ref()
                .is_some_and(|(name, _)| what.starts_with(name))
            {
                return Err(next.take().unwrap().1);
            }
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let every = self.every.load(Ordering::SeqCst);
        // The same at each run of the test, and in step with nothing.
        let chance = (number as u64).wrapping_mul(6_364_136_223_846_793_005) >> 33;
        let fails = every > 0 && chance.is_multiple_of(every as u64);
        if fails && (chance / every as u64).is_multiple_of(2) {
            return Err(Self::away());
        }
        let result = request.await;
        self.assert_whole(what).await;
        if fails {
            // It had its effect, and the answer is lost.
            return Err(Self::away());
        }
        result
    }

    /// Whatever has a manifest in the store has its objects, with the content that the manifest says.
    pub async fn assert_whole(&self, after: &str) {
        if self.damaged.load(Ordering::SeqCst) {
            return;
        }
        let objects = self.bucket.list().await.unwrap();
        for item in Item::complete(&objects) {
            let manifest = self.bucket.get(&item.manifest().unwrap()).await.unwrap();
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
            let check = async |key: String, sha256: &serde_json::Value| {
                let bytes = self.bucket.get(&key).await;
                let bytes = bytes.unwrap_or_else(|e| panic!("after {after}: {item}: {e}"));
                let found = hex::encode(Sha256::digest(&bytes));
                assert_eq!(Some(&*found), sha256.as_str(), "after {after}: {key}");
            };
            match &item {
                Item::Dataset(digest) => {
                    for pack in manifest["packs"].as_array().unwrap() {
                        let file = pack["file"].as_str().unwrap();
                        check(format!("datasets/{digest}/{file}"), &pack["sha256"]).await;
                    }
                }
                item => {
                    if let Some(key) = item.data() {
                        check(key, &manifest["sha256"]).await;
                    }
                }
            }
        }
    }

    /// What it holds.
    pub async fn objects(&self) -> BTreeMap<String, u64> {
        self.bucket.list().await.unwrap()
    }

    /// Changes an object behind everybody's back.
    pub async fn overwrite(&self, key: &str, bytes: &'static [u8]) {
        self.damaged.store(true, Ordering::SeqCst);
        let bytes = Bytes::from_static(bytes);
        self.bucket.put(key, bytes).await.unwrap();
    }
}

#[tonic::async_trait]
impl Objects for Faulty {
    async fn get(&self, key: &str) -> Result<Bytes, RemoteError> {
        self.ask("get", self.bucket.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, RemoteError> {
        self.ask("get", self.bucket.get_range(key, range)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), RemoteError> {
        self.ask(&format!("put {key}"), self.bucket.put(key, bytes))
            .await
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, RemoteError> {
        self.ask(&format!("create {key}"), self.bucket.create(key, bytes))
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), RemoteError> {
        self.ask(&format!("delete {key}"), self.bucket.delete(key))
            .await
    }

    async fn list(&self) -> Result<BTreeMap<String, u64>, RemoteError> {
        self.ask("list", self.bucket.list()).await
    }

    async fn begin(&self, key: &str) -> Result<String, RemoteError> {
        let begin = async {
            let id = self.bucket.begin(key).await?;
            let key = key.to_owned();
            let upload = OpenUpload {
                key,
                id: id.clone(),
            };
            self.open.lock().unwrap().insert(upload);
            Ok(id)
        };
        self.ask("begin", begin).await
    }

    async fn part(
        &self,
        key: &str,
        id: &str,
        number: usize,
        bytes: Bytes,
    ) -> Result<String, RemoteError> {
        let part = async {
            let upload = OpenUpload {
                key: key.into(),
                id: id.into(),
            };
            // The library's store in memory has no name for this error.
            if !self.open.lock().unwrap().contains(&upload) {
                return Err(RemoteError::NoUpload {
                    store: "memory".into(),
                    object: key.into(),
                });
            }
            let tag = self.bucket.part(key, id, number, bytes).await?;
            let arrived = self.parts.fetch_add(1, Ordering::SeqCst) + 1;
            if arrived == self.hangs_at.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            Ok(tag)
        };
        self.ask("part", part).await
    }

    async fn complete(&self, key: &str, id: &str, tags: Vec<String>) -> Result<(), RemoteError> {
        let complete = async {
            let upload = OpenUpload {
                key: key.into(),
                id: id.into(),
            };
            if !self.open.lock().unwrap().remove(&upload) {
                return Err(RemoteError::NoUpload {
                    store: "memory".into(),
                    object: key.into(),
                });
            }
            self.bucket.complete(key, id, tags).await
        };
        self.ask("complete", complete).await
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), RemoteError> {
        let abort = async {
            let upload = OpenUpload {
                key: key.into(),
                id: id.into(),
            };
            match self.open.lock().unwrap().remove(&upload) {
                true => {}
                false => return Ok(()),
            }
            self.bucket.abort(key, id).await
        };
        self.ask("abort", abort).await
    }

    async fn uploads(&self) -> Result<Vec<OpenUpload>, RemoteError> {
        self.ask("uploads", self.bucket.uploads()).await
    }
}
