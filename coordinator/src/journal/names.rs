//! Writes of what has a name: datasets, stores, tokens and denials.

use fovea_core::ids::DatasetName;

use super::rows::Change;
use super::{Journal, JournalError};

impl Journal {
    /// Writes a dataset's digest, new or instead of what it had.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with `OnFull::Refuse`.
    pub(crate) async fn put_dataset(
        &self,
        name: &DatasetName,
        digest: &str,
    ) -> Result<(), JournalError> {
        self.write_now(Change::PutDataset {
            name: name.as_str().into(),
            digest: digest.into(),
        })
        .await
    }

    /// Removes a dataset, if it is there.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with `OnFull::Refuse`.
    pub(crate) async fn remove_dataset(&self, name: &DatasetName) -> Result<(), JournalError> {
        self.write_now(Change::RemoveDataset {
            name: name.as_str().into(),
        })
        .await
    }

    /// Writes the identity of a store of files ("checkpoints", "datasets").
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with `OnFull::Refuse`.
    pub(crate) async fn put_store(&self, kind: &str, id: &str) -> Result<(), JournalError> {
        self.write_now(Change::PutStore {
            kind: kind.into(),
            id: id.into(),
        })
        .await
    }

    /// Writes who may do what, as JSON: a token or a denial, by `kind` and `id`.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with `OnFull::Refuse`.
    pub(crate) async fn put_access(
        &self,
        kind: &'static str,
        id: &str,
        entry: String,
    ) -> Result<(), JournalError> {
        let id = id.to_owned();
        self.write_now(Change::PutAccess { kind, id, entry }).await
    }

    /// Removes what [`Journal::put_access`] has written, if it is there.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with `OnFull::Refuse`.
    pub(crate) async fn remove_access(
        &self,
        kind: &'static str,
        id: &str,
    ) -> Result<(), JournalError> {
        let id = id.to_owned();
        self.write_now(Change::RemoveAccess { kind, id }).await
    }
}
