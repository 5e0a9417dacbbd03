//! The coordinator and its queue, as it reports them.

use fovea_core::priority::Priority;
use fovea_proto::{pb, priority_from_wire};
use serde::Serialize;

/// A run that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueuedInfo {
    /// The run's id.
    pub run: String,
    /// The priority in force.
    pub priority: Priority,
    /// Its place in the queue: the priority, raised by waiting.
    pub place: Priority,
    /// Who submitted it; empty without TLS.
    pub submitted_by: String,
    /// Workers that it needs.
    pub min_workers: u32,
    /// Workers that it takes at most.
    pub max_workers: u32,
    /// How long it has waited, in milliseconds.
    pub waited_ms: u64,
    /// Why it waits.
    pub waiting: String,
}

impl QueuedInfo {
    /// Its priority, and its place where waiting has raised that.
    pub fn priority_in_words(&self) -> String {
        match self.place == self.priority {
            true => self.priority.to_string(),
            false => format!("{}, by now {}", self.priority, self.place),
        }
    }
}

impl From<pb::QueuedRun> for QueuedInfo {
    fn from(wire: pb::QueuedRun) -> Self {
        let pb::QueuedRun {
            run_id,
            priority,
            place,
            submitted_by,
            min_workers,
            max_workers,
            waited_ms,
            waiting,
        } = wire;
        // Of a newer coordinator there may be others.
        let known = |priority| priority_from_wire(priority).unwrap_or_default();
        Self {
            run: run_id,
            priority: known(priority),
            place: known(place),
            submitted_by,
            min_workers,
            max_workers,
            waited_ms,
            waiting,
        }
    }
}

/// How the coordinator is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusInfo {
    /// Its version, with the commit.
    pub version: String,
    /// How long it has run, in milliseconds.
    pub up_ms: u64,
    /// Bytes that can still be written where it stores checkpoints; None while that disk does not answer.
    pub disk_free_bytes: Option<u64>,
    /// With fewer no run starts.
    pub disk_min_free_bytes: u64,
}

impl From<pb::StatusResponse> for StatusInfo {
    fn from(wire: pb::StatusResponse) -> Self {
        let pb::StatusResponse {
            version,
            up_ms,
            disk_free_bytes,
            disk_min_free_bytes,
        } = wire;
        Self {
            version,
            up_ms,
            disk_free_bytes,
            disk_min_free_bytes,
        }
    }
}
