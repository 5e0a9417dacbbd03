//! The gRPC services: wire messages in, checked; actors and stores asked; answers out.
//!
//! Nothing is decided here. Each method turns what came over the wire into domain values (or
//! refuses it, naming the field), and `pb::` types go no further.

mod accepting;
mod admin;
mod check;
mod checkpoints;
mod classes;
mod cluster;
mod datasets;
mod evaluations;
mod file_state;
mod groups;
mod identity;
mod runs;
mod tokens;
mod transfer;
mod verification;
mod weights;
mod workers;

use std::sync::Arc;

use fovea_core::ids::RunId;
use fovea_security::Tls;
use fovea_traces::Traces;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Caller, Registry, Signer};
use crate::catalogue::Datasets;
use crate::catalogue::weights::Weights;
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::error::ApiError;
use crate::net::{Limits, peer};
use crate::remote::Remote;
use crate::run::Notes;
use crate::space::DiskSpace;
use crate::store::{CheckpointStore, DatasetStore, WeightsStore};

pub(crate) use accepting::plan;
pub(crate) use admin::AdminService;
pub(crate) use checkpoints::CheckpointsService;
pub(crate) use cluster::ClusterService;
pub(crate) use datasets::DatasetsService;
pub(crate) use groups::GroupsService;
pub(crate) use identity::IdentityService;
pub(crate) use runs::RunsService;
pub(crate) use tokens::TokensService;
pub(crate) use weights::WeightsService;
pub(crate) use workers::WorkersService;

/// What every service needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub config: Arc<Config>,
    /// None without TLS.
    pub tls: Option<Tls>,
    /// Tokens, and who is denied.
    pub registry: Registry,
    /// Signs certificates of workers that join, if it may.
    pub signer: Option<Signer>,
    /// That of the actors.
    pub clock: Clock,
    pub runs: Directory,
    pub datasets: Datasets,
    pub dataset_files: DatasetStore,
    pub weights: Weights,
    pub weight_files: WeightsStore,
    pub checkpoints: CheckpointStore,
    /// Room on their disk.
    pub space: DiskSpace,
    pub remote: Remote,
    /// A turn to check an uploaded file of weights.
    pub checking: Arc<Semaphore>,
    /// A turn to copy a checkpoint for an evaluation.
    pub copying: Arc<Semaphore>,
    /// What was decided about runs lately.
    pub notes: Notes,
    /// How much clients may have under way.
    pub limits: Limits,
    /// Streams under way; the server waits for them when it stops.
    pub tasks: TaskTracker,
    /// Streams end when it is cancelled.
    pub closing: CancellationToken,
    /// Where spans go.
    pub traces: Traces,
}

impl Context {
    /// Refuses the caller if it may not change this run.
    async fn authorize(&self, caller: &Caller, run: &RunId) -> Result<(), ApiError> {
        // Without identities there is nothing to look up.
        if caller.identity.is_none() {
            return Ok(());
        }
        let shown = self.runs.shown(run).await?;
        caller.may_change(run, shown.run.submitted_by.as_deref())
    }
}
