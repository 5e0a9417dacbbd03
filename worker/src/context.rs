//! What every assignment of a worker uses.

use std::sync::Arc;

use fovea_core::ids::WorkerId;
use fovea_traces::Traces;

use crate::collective::Mesh;
use crate::config::WorkerConfig;
use crate::hits::CacheHits;
use crate::job::DeviceThread;
use crate::link::Coordinator;

/// What every assignment uses.
#[derive(Clone)]
pub struct Context {
    /// This worker.
    pub worker: WorkerId,
    /// Its configuration.
    pub config: Arc<WorkerConfig>,
    /// Connections with peers.
    pub mesh: Mesh,
    /// The device's thread.
    pub device: DeviceThread,
    /// The coordinator.
    pub coordinator: Coordinator,
    /// Where spans go.
    pub traces: Traces,
    /// Where uses of the caches are counted.
    pub hits: CacheHits,
}
