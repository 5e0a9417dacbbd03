//! The requests that are made to an object store, each in one place, so that a test can make any single one fail.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error as Cause, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use prost::bytes::Bytes;
use tokio_stream::StreamExt;

use super::error::RemoteError;
use super::location::Location;

/// How long a request may take, with what the library repeats of it.
const LIMIT: Duration = Duration::from_secs(120);

/// An upload in parts that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpenUpload {
    pub key: String,
    pub id: String,
}

/// An object store, below its prefix: keys are relative to it.
#[tonic::async_trait]
pub(super) trait Objects: Send + Sync + Debug {
    /// Reads an object.
    async fn get(&self, key: &str) -> Result<Bytes, RemoteError>;
    /// Reads a part of an object.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, RemoteError>;
    /// Writes an object, over one that is there.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), RemoteError>;
    /// Writes an object where there is none. False: there is one, and it was left.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, RemoteError>;
    /// Removes an object, which may be gone already.
    async fn delete(&self, key: &str) -> Result<(), RemoteError>;
    /// All objects, with their sizes.
    async fn list(&self) -> Result<BTreeMap<String, u64>, RemoteError>;
    /// Begins an upload in parts; gives its id.
    async fn begin(&self, key: &str) -> Result<String, RemoteError>;
    /// Uploads the part `number` (from 0); gives its tag.
    async fn part(
        &self,
        key: &str,
        id: &str,
        number: usize,
        bytes: Bytes,
    ) -> Result<String, RemoteError>;
    /// Makes the object of its parts.
    async fn complete(&self, key: &str, id: &str, tags: Vec<String>) -> Result<(), RemoteError>;
    /// Gives an upload up; it may be gone already.
    async fn abort(&self, key: &str, id: &str) -> Result<(), RemoteError>;
    /// The uploads that were begun and are not ended.
    async fn uploads(&self) -> Result<Vec<OpenUpload>, RemoteError>;
}

/// What the library has no request for.
#[tonic::async_trait]
pub(super) trait OpenUploads: Send + Sync + Debug {
    /// Uploads that were begun and are not ended, whose full key begins with `prefix`.
    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, Cause>;
}

/// A bucket's prefix.
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    uploads: Box<dyn OpenUploads>,
    location: Location,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.location)
    }
}

impl Bucket {
    pub(super) fn new<S: ObjectStore + MultipartStore>(
        store: Arc<S>,
        uploads: Box<dyn OpenUploads>,
        location: Location,
    ) -> Self {
        Self {
            parts: Arc::clone(&store) as Arc<dyn MultipartStore>,
            store,
            uploads,
            location,
        }
    }

    fn path(&self, key: &str) -> Path {
        match self.location.prefix() {
            "" => Path::from(key),
            prefix => Path::from(format!("{prefix}/{key}")),
        }
    }

    fn relative<'a>(&self, full: &'a str) -> Option<&'a str> {
        match self.location.prefix() {
            "" => Some(full),
            prefix => full.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }

    /// Does a request, and says what its error means.
    async fn ask<T>(
        &self,
        verb: &str,
        key: &str,
        request: impl Future<Output = Result<T, Cause>> + Send,
    ) -> Result<T, RemoteError> {
        let action = format!("{verb} {key}");
        match tokio::time::timeout(LIMIT, request).await {
            Ok(result) => {
                result.map_err(|error| RemoteError::of(&self.location, &action, key, &error))
            }
            Err(_) => Err(RemoteError::Away {
                store: self.location.key(),
                problem: format!("{action} took more than {LIMIT:?}"),
            }),
        }
    }
}

#[tonic::async_trait]
impl Objects for Bucket {
    async fn get(&self, key: &str) -> Result<Bytes, RemoteError> {
        let path = self.path(key);
        let read = async { self.store.get(&path).await?.bytes().await };
        self.ask("read", key, read).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let path = self.path(key);
        self.ask("read", key, self.store.get_range(&path, range))
            .await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), RemoteError> {
        let path = self.path(key);
        let put = self.store.put(&path, PutPayload::from_bytes(bytes));
        self.ask("write", key, put).await.map(|_| ())
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, RemoteError> {
        let path = self.path(key);
        let options = PutOptions::from(PutMode::Create);
        let put = async {
            let put = self
                .store
                .put_opts(&path, PutPayload::from_bytes(bytes), options);
            match put.await {
                Ok(_) => Ok(true),
                Err(Cause::AlreadyExists { .. } | Cause::Precondition { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.ask("write", key, put).await
    }

    async fn delete(&self, key: &str) -> Result<(), RemoteError> {
        let path = self.path(key);
        match self.ask("remove", key, self.store.delete(&path)).await {
            Err(RemoteError::Missing { .. }) => Ok(()),
            result => result,
        }
    }

    async fn list(&self) -> Result<BTreeMap<String, u64>, RemoteError> {
        let prefix = Some(self.location.prefix()).filter(|prefix| !prefix.is_empty());
        let mut listed = self.store.list(prefix.map(Path::from).as_ref());
        let mut objects = BTreeMap::new();
        // A page at a time: a large bucket must not hit the limit of one request.
        while let Some(object) = self
            .ask("list", "the bucket", async { listed.try_next().await })
            .await?
        {
            if let Some(key) = self.relative(object.location.as_ref()) {
                objects.insert(key.to_owned(), object.size);
            }
        }
        Ok(objects)
    }

    async fn begin(&self, key: &str) -> Result<String, RemoteError> {
        let path = self.path(key);
        self.ask("write", key, self.parts.create_multipart(&path))
            .await
    }

    async fn part(
        &self,
        key: &str,
        id: &str,
        number: usize,
        bytes: Bytes,
    ) -> Result<String, RemoteError> {
        let (path, id) = (self.path(key), id.to_owned());
        let part = self
            .parts
            .put_part(&path, &id, number, PutPayload::from_bytes(bytes));
        let part = self.ask("write", key, part).await;
        part.map(|part| part.content_id).map_err(of_upload)
    }

    async fn complete(&self, key: &str, id: &str, tags: Vec<String>) -> Result<(), RemoteError> {
        let (path, id) = (self.path(key), id.to_owned());
        let parts = tags.into_iter().map(|content_id| PartId { content_id });
        let completed = self.parts.complete_multipart(&path, &id, parts.collect());
        let completed = self.ask("write", key, completed).await;
        completed.map(|_| ()).map_err(of_upload)
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), RemoteError> {
        let (path, id) = (self.path(key), id.to_owned());
        let aborted = self.parts.abort_multipart(&path, &id);
        match self.ask("abort the upload of", key, aborted).await {
            Err(RemoteError::Missing { .. } | RemoteError::NoUpload { .. }) => Ok(()),
            result => result,
        }
    }

    async fn uploads(&self) -> Result<Vec<OpenUpload>, RemoteError> {
        let prefix = match self.location.prefix() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let open = self.uploads.open_uploads(&prefix);
        let open = self.ask("list", "unfinished uploads", open).await?;
        let relative = open.into_iter().filter_map(|OpenUpload { key, id }| {
            let key = self.relative(&key)?.to_owned();
            Some(OpenUpload { key, id })
        });
        Ok(relative.collect())
    }
}

/// Of a part or a completion, "not found" is about the upload.
fn of_upload(error: RemoteError) -> RemoteError {
    match error {
        RemoteError::Missing { store, object } => RemoteError::NoUpload { store, object },
        error => error,
    }
}
