//! The datasets that the coordinator holds.

use std::sync::Arc;

use fovea_core::ids::DatasetName;
use tracing::{info, warn};

use super::state::{Owner, OwnerError};
use crate::datasets::{HeldDataset, Verified};
use crate::error::ApiError;

impl Owner {
    /// Opens the datasets that the journal names. One that cannot be opened is not shown; adding
    /// it again mends it.
    pub(super) fn recover_datasets(&mut self) -> Result<(), OwnerError> {
        for (name, digest) in self.journal.datasets()? {
            match HeldDataset::open(&self.dir.datasets().join(&digest)) {
                Ok(held) => {
                    self.datasets
                        .insert(held.manifest.name.clone(), Arc::new(held));
                }
                Err(error) => {
                    warn!(dataset = name, digest, %error, "dropping a dataset; add it again");
                }
            }
        }
        Ok(())
    }

    pub(super) fn list_datasets(&self) -> Vec<Arc<HeldDataset>> {
        self.datasets.values().cloned().collect()
    }

    pub(super) fn find_dataset(&self, wanted: &str) -> Result<Arc<HeldDataset>, ApiError> {
        self.datasets
            .values()
            .find(|d| d.manifest.digest == wanted || d.manifest.name.as_str() == wanted)
            .cloned()
            .ok_or_else(|| ApiError::no_dataset(wanted))
    }

    /// Whether a dataset may come in: None if it may, the held one if it is here already.
    pub(super) fn offer_dataset(
        &self,
        name: &DatasetName,
        digest: &str,
    ) -> Result<Option<Arc<HeldDataset>>, ApiError> {
        if self.draining.is_some() {
            return Err(ApiError::ShuttingDown);
        }
        match self.datasets.get(name) {
            Some(held) if held.manifest.digest == digest => Ok(Some(Arc::clone(held))),
            Some(held) => Err(ApiError::AlreadyExists(format!(
                "dataset {name} is another one here (digest {}); prepare yours under another name",
                held.manifest.digest
            ))),
            None => Ok(None),
        }
    }

    /// Takes a verified upload in: moved to its place, journalled, shown.
    pub(super) fn add_dataset(&mut self, upload: Verified) -> Result<Arc<HeldDataset>, ApiError> {
        let (name, digest) = upload.name_and_digest();
        // Another upload may have been faster.
        if let Some(held) = self.offer_dataset(&name, &digest)? {
            return Ok(held);
        }
        let held = upload.store(&self.dir.datasets())?;
        self.journal
            .put_dataset(&name, &digest)
            .map_err(|e| ApiError::Internal(e.to_string()))?;
        info!(
            dataset = %name,
            digest,
            train = held.patients.len(),
            validation = held.validation,
            "dataset added"
        );
        let held = Arc::new(held);
        self.datasets.insert(name, Arc::clone(&held));
        Ok(held)
    }
}
