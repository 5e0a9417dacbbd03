//! What the object store's mirror reads of the stores.

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;

use super::checkpoints::CheckpointStore;
use super::disk;
use super::error::StoreError;
use super::manifest;
use super::rooted::Rooted;
use super::weights::{HeldWeights, MANIFEST, MANIFEST_BYTES, WeightsStore};

impl CheckpointStore {
    /// The bytes of a checkpoint's manifest. Where it was lost, what the journal says of the checkpoint takes its place.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    pub(crate) fn manifest_bytes(
        &self,
        run: &RunId,
        info: &CheckpointInfo,
    ) -> Result<Vec<u8>, StoreError> {
        let path = self.inner().path(run, info).with_extension("json");
        let read = disk::read_whole(&path, manifest::MOST_BYTES)
            .map_err(|error| self.inner().root.read_error(&path, error));
        match read {
            Err(StoreError::Missing { .. }) => {
                serde_json::to_vec_pretty(info).map_err(|error| StoreError::Unreadable {
                    path,
                    source: error.into(),
                })
            }
            read => read,
        }
    }
}

impl WeightsStore {
    /// The bytes of the manifest of weights, and what they say.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`].
    pub(crate) fn manifest_bytes(
        &self,
        sha256: &str,
    ) -> Result<(Vec<u8>, HeldWeights), StoreError> {
        let path = self.place(sha256).join(MANIFEST);
        let bytes = self.root().read_whole(&path, MANIFEST_BYTES)?;
        let held = self.parse_manifest(sha256, &bytes)?;
        Ok((bytes, held))
    }
}
