//! The gRPC services: wire messages in, checked; the owner asked; answers out.
//!
//! Nothing is decided here. Each method turns what came over the wire into domain values (or
//! refuses it, naming the field), and `pb::` types go no further.

mod check;
mod checkpoints;
mod datasets;
mod runs;
mod transfer;
mod workers;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::owner::Handle;

pub(crate) use checkpoints::CheckpointsService;
pub(crate) use datasets::DatasetsService;
pub(crate) use runs::RunsService;
pub(crate) use workers::WorkersService;

/// What every service needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub config: Arc<Config>,
    pub dir: Arc<DataDir>,
    pub owner: Handle,
    /// Streams under way; the server waits for them when it stops.
    pub tasks: TaskTracker,
    /// Streams end when it is cancelled.
    pub closing: CancellationToken,
    /// Room for uploads of datasets.
    pub uploads: Arc<Semaphore>,
}
