//! The state of a run's actor.

use std::sync::Arc;

use fovea_core::run::Run;
use fovea_service::ops::Histogram;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::warn;

use super::assembly::Assemblies;
use super::ledger::Ledger;
use super::recovery::Recovery;
use super::report::{DataProblems, RunStatus};
use super::spans::Spans;
use super::{RunContext, RunEvent, RunInput, Shown};
use crate::blocking::Panicked;
use crate::error::ApiError;
use crate::journal::JournalError;

/// Why a run's actor, and with it the coordinator, cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunActorError {
    /// The journal is damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Work on its files panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// A run and all that is under way for it.
pub(super) struct Actor {
    pub cx: RunContext,
    pub run: Run,
    pub ledger: Ledger,
    pub assemblies: Assemblies,
    /// Why the newest checkpoint cannot be stored, while it cannot.
    pub storage_problem: Option<String>,
    /// Bytes of the checkpoint that could not be stored.
    pub storage_needed: u64,
    /// What is wrong with the dataset or the weights at the coordinator.
    pub(super) data_problems: DataProblems,
    /// The generation that was under way when this coordinator started.
    pub(super) inherited: Option<u64>,
    /// Why the cluster gives it no workers.
    pub(super) waits: Option<String>,
    pub(super) shown: watch::Sender<Shown>,
    pub(super) events: broadcast::Sender<RunEvent>,
    /// As last reported to the cluster.
    pub(super) status: Option<RunStatus>,
    /// When the run last got an `Event::Tick`.
    pub(super) ticked: u64,
    pub(super) refreshed: u64,
    /// To itself, from work on files.
    pub me: mpsc::WeakUnboundedSender<RunInput>,
    /// Pieces of work on files whose answers are to come.
    pub files_busy: usize,
    /// When it last had anything to do.
    pub(super) used: u64,
    pub(super) reported_end: bool,
    /// The run was removed: nothing of it is written any more.
    pub deleted: bool,
    /// Times of the steps that were reported to this actor.
    pub(super) step_seconds: Arc<Histogram>,
    /// Whether another generation forms in the place of one that ran.
    pub(super) recovery: Recovery,
    /// Its spans that are open.
    pub(super) spans: Spans,
}

/// The error of a request that cannot be journalled.
pub(super) fn not_written(error: &JournalError) -> ApiError {
    warn!(%error, "request.refused: it could not be journalled: {error}");
    ApiError::Unavailable(error.to_string())
}
