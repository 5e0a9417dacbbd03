//! What a run's actor reports to the cluster.

use std::collections::BTreeMap;

use fovea_core::ids::WorkerId;
use fovea_core::machine::Machines;
use fovea_core::priority::Priority;
use fovea_core::roster::Roster;
use fovea_core::run::LeftOut;

use crate::error::ApiError;
use crate::messages::CoordinatorMessage;

/// What a run actor reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// What scheduling needs to know of it has changed.
    Status {
        number: u64,
        status: Box<RunStatus>,
        /// The offer or release that it has handled: a roster that holds its workers was sent before.
        handled: Option<u64>,
    },
    /// A message for a worker.
    Send {
        number: u64,
        worker: WorkerId,
        message: CoordinatorMessage,
    },
    /// A worker broke the protocol: its session is to be ended.
    EndSession { worker: WorkerId, error: ApiError },
    /// The run has ended, everything of it is in the journal, and nothing is being stored.
    Ended { number: u64 },
    /// The request to drain was handled.
    Drained { number: u64 },
}

/// What scheduling needs to know of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunStatus {
    pub demand: Demand,
    /// The priority in force.
    pub priority: Priority,
    /// The newest generation; 0 for a run that never started.
    pub generation: u64,
    /// The members of the generation under way.
    pub roster: Option<Roster>,
    /// Workers that the run does not want before that time, on the coordinator's clock.
    pub barred: BTreeMap<WorkerId, u64>,
    /// Workers with trouble of their own. They are barred, too.
    pub left_out: BTreeMap<WorkerId, LeftOut>,
    /// The kinds of machine that it wants.
    pub machines: Machines,
    /// Its members take steps, or store the last checkpoint.
    pub training: bool,
    /// A whole checkpoint is being stored.
    pub storing: bool,
}

/// What a run wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Nothing.
    Nothing,
    /// Workers to start with.
    Start { min: usize, max: usize },
    /// So many more, while it is under way.
    Join { room: usize },
    /// None now. So many of its members may yet come back after the coordinator's restart; if they do not, it needs others.
    Await { members: usize },
}

/// What is known to be wrong with what a run reads from the stores; both None: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DataProblems {
    /// With its dataset.
    pub dataset: Option<String>,
    /// With the weights that it starts from, which a run with a checkpoint does not need.
    pub weights: Option<String>,
}
