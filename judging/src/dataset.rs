//! A dataset as it is judged on: what its photographs are, without their pixels.

use fovea_core::spec::FoldSpec;
use fovea_dataset::{Index, Manifest};

use crate::error::Error;

/// A dataset's description: what its photographs are, without their pixels.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its samples.
    pub index: Index,
}

impl Described {
    /// Parses the files of the dataset `dataset`, checked against each other.
    ///
    /// # Errors
    /// They are damaged, or do not belong together.
    pub fn parse(dataset: &str, manifest: &[u8], index: &[u8]) -> Result<Self, Error> {
        let broken = |e: &dyn std::fmt::Display| Error::Dataset(format!("dataset {dataset}: {e}"));
        let manifest = Manifest::parse(manifest).map_err(|e| broken(&e))?;
        let index = Index::parse(index, &manifest).map_err(|e| broken(&e))?;
        Ok(Self { manifest, index })
    }

    /// The dataset as a run that holds out `fold` sees it.
    ///
    /// # Errors
    /// It has too few patients for that, so there is no such run.
    pub fn folded(self, fold: Option<FoldSpec>) -> Result<Self, Error> {
        let Self { manifest, index } = self;
        let index = index
            .folded(fold)
            .map_err(|e| Error::Protocol(format!("dataset {}: {e}", manifest.name)))?;
        Ok(Self { manifest, index })
    }
}
