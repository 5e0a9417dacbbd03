//! Workers as the coordinator reports them.

use fovea_judging::LeftOutInfo;
use fovea_proto::pb;
use serde::Serialize;

use crate::error::Error;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Nothing, and nothing keeps it from a run.
    Idle,
    /// It prepares to take part in a run.
    Preparing,
    /// It takes the steps of a run.
    Training,
    /// A run wants workers and cannot have it now.
    Waiting,
    /// A run does not want it for a while.
    Barred,
    /// It is left out of a run because of trouble of its own.
    LeftOut,
    /// It will shut down.
    Leaving,
}

impl WorkerState {
    /// The state for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Preparing => "preparing",
            Self::Training => "training",
            Self::Waiting => "waiting",
            Self::Barred => "barred",
            Self::LeftOut => "left out",
            Self::Leaving => "leaving",
        }
    }
}

/// A connected worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerInfo {
    /// Its id.
    pub id: String,
    /// What it does.
    pub state: WorkerState,
    /// Why it does nothing; empty if it works or is idle.
    pub reason: String,
    /// Name of its machine.
    pub host: String,
    /// Where its peers reach it.
    pub address: String,
    /// Its device.
    pub device: String,
    /// Version of its program.
    pub version: String,
    /// Memory of its machine that it could use, in bytes; 0 if it is not known.
    pub host_bytes: u64,
    /// Its GPU's memory in bytes; 0 for a CPU.
    pub gpu_bytes: u64,
    /// What it could use of that.
    pub gpu_free_bytes: u64,
    /// The run that it serves or prepares for; empty if there is none.
    pub run: String,
    /// The first virtual rank that it hosts.
    pub first_virtual_rank: u32,
    /// How many virtual ranks it hosts.
    pub virtual_ranks: u32,
    /// How long ago it was last heard, in milliseconds.
    pub last_seen_ms: u64,
    /// For how long it has been connected, in milliseconds.
    pub connected_ms: u64,
    /// The runs that it is left out of.
    pub left_out: Vec<LeftOutInfo>,
    /// Id of the token with which it has joined; empty if its certificate is not by a token.
    pub token_id: String,
    /// Mean wall-clock time of its last steps in milliseconds; None before the first step, and if it is idle.
    pub step_ms: Option<f64>,
    /// The part of a step, 0 to 1, in which it only waits for the reduction: for slower workers and the network.
    pub wait_ratio: Option<f64>,
    /// Memory of its GPU in use, by whatever process, in bytes; None for a CPU.
    pub gpu_used_bytes: Option<u64>,
    /// Resident memory of its process, in bytes.
    pub resident_bytes: Option<u64>,
}

impl TryFrom<pb::Worker> for WorkerInfo {
    type Error = Error;

    fn try_from(wire: pb::Worker) -> Result<Self, Error> {
        let pb::Worker {
            id,
            state,
            reason,
            host,
            address,
            device,
            version,
            host_bytes,
            gpu_bytes,
            gpu_free_bytes,
            run_id,
            first_virtual_rank,
            virtual_ranks,
            last_seen_ms,
            connected_ms,
            left_out,
            token_id,
            load,
        } = wire;
        let pb::Load {
            step_ms,
            wait_ratio,
            gpu_used_bytes,
            resident_bytes,
        } = load.unwrap_or_default();
        let state = match pb::WorkerState::try_from(state) {
            Ok(pb::WorkerState::Idle) => WorkerState::Idle,
            Ok(pb::WorkerState::Preparing) => WorkerState::Preparing,
            Ok(pb::WorkerState::Training) => WorkerState::Training,
            Ok(pb::WorkerState::Waiting) => WorkerState::Waiting,
            Ok(pb::WorkerState::Barred) => WorkerState::Barred,
            Ok(pb::WorkerState::LeftOut) => WorkerState::LeftOut,
            Ok(pb::WorkerState::Leaving) => WorkerState::Leaving,
            Ok(pb::WorkerState::Unspecified) | Err(_) => {
                return Err(Error::Protocol(format!(
                    "state of worker {id} is {state}, expected 1 to 7"
                )));
            }
        };
        Ok(Self {
            id,
            state,
            reason,
            host,
            address,
            device,
            version,
            host_bytes,
            gpu_bytes,
            gpu_free_bytes,
            run: run_id,
            first_virtual_rank,
            virtual_ranks,
            last_seen_ms,
            connected_ms,
            left_out: left_out.into_iter().map(Into::into).collect(),
            token_id,
            step_ms,
            wait_ratio,
            gpu_used_bytes,
            resident_bytes,
        })
    }
}
