//! The folder of an upload under way.

use std::path::{Path, PathBuf};

use super::disk;
use super::error::StoreError;
use super::rooted::Rooted;

/// A folder in a store that is removed when it is dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct TemporaryFolder<S: Rooted> {
    store: S,
    path: PathBuf,
    kept: bool,
}

impl<S: Rooted> TemporaryFolder<S> {
    /// Makes one in the folder of `store`.
    pub(super) fn make(store: &S, about: &str) -> Result<Self, StoreError> {
        let root = store.root();
        let path = root.temporary(root.dir(), about);
        disk::make_folder(&path).map_err(|error| root.write_error(&path, 0, error))?;
        Ok(Self {
            store: store.clone(),
            path,
            kept: false,
        })
    }

    pub(super) fn store(&self) -> &S {
        &self.store
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it the name `place`, for good.
    pub(super) fn keep_as(&mut self, place: &Path) -> Result<(), StoreError> {
        let root = self.store.root();
        disk::rename(&self.path, place).map_err(|error| root.write_error(place, 0, error))?;
        self.kept = true;
        let dir = root.dir();
        disk::sync_folder(dir).map_err(|error| root.write_error(dir, 0, error))
    }
}

impl<S: Rooted> Drop for TemporaryFolder<S> {
    fn drop(&mut self) {
        if !self.kept {
            self.store.root().discard_temporary(&self.path);
        }
    }
}
