//! How much memory a run needs of a worker. It depends on the spec and the dataset alone, and takes a tenth of a millisecond
//! to estimate: once for each run and place, not whenever something changes in the cluster.

use std::sync::OnceLock;

use fovea_core::memory::{Need, Place};
use fovea_core::spec::RunSpec;
use tracing::trace;

/// What a run needs, as far as that was asked for.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Width and height of the dataset's images; None while its manifest cannot be read.
    image_size: Option<u32>,
    host: OnceLock<Need>,
    gpu: OnceLock<Need>,
}

impl Needs {
    /// The dataset's images have this size.
    pub fn of_images(&mut self, image_size: Option<u32>) {
        if self.image_size != image_size {
            *self = Self {
                image_size,
                ..Self::default()
            };
        }
    }

    /// What a worker that computes at `place` needs; None if that is not known.
    pub fn at(&self, place: Place, spec: &RunSpec) -> Option<Need> {
        let size = self.image_size?;
        let known = match place {
            Place::Host => &self.host,
            Place::Gpu => &self.gpu,
        };
        Some(*known.get_or_init(|| {
            trace!(estimated = ?place, "estimating the memory that {} needs", spec.name);
            Need::of(spec, size, place)
        }))
    }
}
