//! What a killed coordinator must know to go on: a small file beside the stores, `DATA/remote.json`.
//!
//! What is in the bucket, the bucket says; what should be, the journal and the stores say. The file holds what neither knows:
//! uploads that are under way with the tags of their parts, and what was removed here and is still to be removed there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::item::Item;
use crate::blocking::blocking;
use crate::data_dir::write_atomically;

/// The newest format that is read.
const FORMAT: u32 = 1;

/// An upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    /// The store's name for it.
    pub id: String,
    /// What is uploaded: another content needs another upload.
    pub sha256: String,
    /// Bytes of each part but the last.
    pub part_bytes: u64,
    /// Of the parts that are there, in their order.
    pub tags: Vec<String>,
}

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Which bucket all this is about.
    store: String,
    /// The bucket was found to be this cluster's.
    claimed: bool,
    uploads: BTreeMap<String, Upload>,
    removals: BTreeSet<Item>,
}

/// The file, which is written with each change.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    content: Content,
}

impl State {
    /// Reads the file. One that is missing, of another bucket or not valid counts as empty: then uploads begin anew, and what
    /// was to be removed stays in the bucket.
    pub(super) fn open(path: &Path, store: &str) -> Self {
        let empty = || Content {
            format: FORMAT,
            store: store.to_owned(),
            claimed: false,
            uploads: BTreeMap::new(),
            removals: BTreeSet::new(),
        };
        let content = match std::fs::read(path) {
            Ok(bytes) => match serde_json::from_slice::<Content>(&bytes) {
                Ok(content) if content.format == FORMAT && content.store == store => content,
                Ok(content) => {
                    warn!(
                        "remote.state_left: {} is about {}; it is begun anew for {store}",
                        path.display(),
                        content.store
                    );
                    empty()
                }
                Err(error) => {
                    warn!(
                        "remote.state_left: {} is not valid ({error}); it is begun anew",
                        path.display()
                    );
                    empty()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => empty(),
            Err(error) => {
                warn!(
                    "remote.state_left: {} cannot be read ({error}); it is begun anew",
                    path.display()
                );
                empty()
            }
        };
        Self {
            path: path.to_owned(),
            content,
        }
    }

    pub(super) fn claimed(&self) -> bool {
        self.content.claimed
    }

    pub(super) fn uploads(&self) -> &BTreeMap<String, Upload> {
        &self.content.uploads
    }

    pub(super) fn removals(&self) -> &BTreeSet<Item> {
        &self.content.removals
    }

    pub(super) async fn set_claimed(&mut self) -> io::Result<()> {
        self.change(|content| content.claimed = true).await
    }

    pub(super) async fn put_upload(&mut self, key: &str, upload: Upload) -> io::Result<()> {
        self.change(|content| drop(content.uploads.insert(key.to_owned(), upload)))
            .await
    }

    pub(super) async fn remove_upload(&mut self, key: &str) -> io::Result<()> {
        self.change(|content| drop(content.uploads.remove(key)))
            .await
    }

    pub(super) async fn add_removals(&mut self, items: Vec<Item>) -> io::Result<()> {
        self.change(|content| content.removals.extend(items)).await
    }

    pub(super) async fn drop_removal(&mut self, item: &Item) -> io::Result<()> {
        self.change(|content| content.removals.retain(|other| other != item))
            .await
    }

    /// Changes the content, in memory even when the file cannot be written: the next change writes it again.
    async fn change(&mut self, change: impl FnOnce(&mut Content)) -> io::Result<()> {
        let before = self.content.clone();
        change(&mut self.content);
        if self.content == before {
            return Ok(());
        }
        let mut bytes = serde_json::to_vec_pretty(&self.content)?;
        bytes.push(b'\n');
        let path = self.path.clone();
        let written = blocking(move || write_atomically(&path, &bytes)).await;
        written.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_comes_back_and_is_of_one_bucket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("remote.json");
        let mut state = State::open(&path, "a");
        assert!(!state.claimed());
        state.set_claimed().await.unwrap();
        let upload = Upload {
            id: "1".into(),
            sha256: "s".into(),
            part_bytes: 8,
            tags: vec!["t".into()],
        };
        state.put_upload("k", upload.clone()).await.unwrap();
        state
            .add_removals(vec![Item::Weights("w".into())])
            .await
            .unwrap();
        let state = State::open(&path, "a");
        assert!(state.claimed());
        assert_eq!(state.uploads().get("k"), Some(&upload));
        assert_eq!(state.removals().len(), 1);
        let other = State::open(&path, "b");
        assert!(!other.claimed() && other.uploads().is_empty() && other.removals().is_empty());
        std::fs::write(&path, "no json").unwrap();
        assert!(!State::open(&path, "a").claimed());
    }
}
