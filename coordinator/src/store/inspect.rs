//! What a verification looks at beside the checkpoints' bytes: their manifests, and folders that belong to no run.

use std::collections::BTreeSet;
use std::io;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;

use super::checkpoints::CheckpointStore;
use super::disk;
use super::error::StoreError;
use super::names;

impl CheckpointStore {
    /// Reads a stored checkpoint's manifest and compares it with what is listed. Without its manifest a checkpoint is as
    /// good as before, but a journal that was restored from an older backup cannot adopt it.
    ///
    /// # Errors
    /// Any of the reading kinds of [`StoreError`]; `Corrupt` when it is not a manifest, or that of another checkpoint.
    pub(crate) fn verify_manifest(
        &self,
        run: &RunId,
        info: &CheckpointInfo,
    ) -> Result<(), StoreError> {
        let path = self.inner().path(run, info).with_extension("json");
        let problem = match self.inner().read_manifest(&path) {
            Ok(manifest) => {
                let of = manifest.record.as_ref().map_or(run, |record| &record.id);
                let found = &manifest.info;
                let key = |info: &CheckpointInfo| (info.step, info.generation);
                if of != run || key(found) != key(info) {
                    format!(
                        "it describes step {} (generation {}) of run {of}",
                        found.step, found.generation
                    )
                } else if (found.bytes, &found.sha256) != (info.bytes, &info.sha256) {
                    format!(
                        "it describes other weights: {} bytes, SHA-256 {}",
                        found.bytes, found.sha256
                    )
                } else {
                    return Ok(());
                }
            }
            Err(StoreError::Corrupt { problem, .. }) => problem,
            Err(error) => return Err(error),
        };
        // The volume may have been replaced while it was read.
        self.check()?;
        Err(StoreError::Corrupt { path, problem })
    }

    /// The runs that have checkpoints in the store and are not among `known`: what is left when a journal was lost or
    /// replaced. A folder that may not be listed counts, other folders without a checkpoint do not.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn unlisted_runs(&self, known: &BTreeSet<RunId>) -> Result<Vec<RunId>, StoreError> {
        self.check()?;
        let root = &self.inner().root;
        let names = disk::list(root.dir()).map_err(|e| root.read_error(root.dir(), e))?;
        let unknown = names
            .into_iter()
            .filter_map(|name| RunId::new(name).ok())
            .filter(|run| !known.contains(run));
        let mut unlisted = Vec::new();
        for run in unknown {
            let folder = self.inner().folder(&run);
            match disk::list(&folder) {
                Ok(files) if files.iter().any(|file| names::parse(file).is_some()) => {
                    unlisted.push(run);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unlisted.push(run),
                // A file, or a folder that has just been removed: no run's.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotADirectory | io::ErrorKind::NotFound
                    ) =>
                {
                    self.check()?;
                }
                Err(error) => return Err(root.read_error(&folder, error)),
            }
        }
        Ok(unlisted)
    }

    /// Where the checkpoints of a run lie, for people.
    pub(crate) fn folder(&self, run: &RunId) -> std::path::PathBuf {
        self.inner().folder(run)
    }
}
