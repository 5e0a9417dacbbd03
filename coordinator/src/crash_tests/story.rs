//! What the child does: the acts, their order, and what each does to the disk.

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ledger::Entry;
use fovea_core::run::Run;

use crate::store::RunRecord;

/// Something that the child does and acknowledges. Numbers of runs are 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Act {
    /// Opens the data folder, the journal and the stores; registers the stores in the journal at first.
    Open,
    /// Closes the journal, which merges its log into the database.
    Close,
    AddDataset,
    RemoveDataset,
    Accept(u64),
    /// A worker is assigned to run 1.
    Assign,
    /// It is ready at this step: the run is under way.
    Ready(u64),
    /// Steps up to this one are committed.
    Steps(u64),
    /// The checkpoint of this step is stored and listed; this many steps are journalled with it. Retention removes what
    /// has expired.
    Checkpoint(u64, u64),
    /// The only worker is lost: the run is queued.
    Lose,
    Cancel,
    /// A person resumes from this step: a rewind.
    Resume(u64),
    /// A person removes the checkpoint of this step.
    DeleteCheckpoint(u64),
    /// A person removes the run with its checkpoints.
    DeleteRun,
}

use Act::*;

pub(super) const STORY: &[Act] = &[
    Open,
    AddDataset,
    Accept(1),
    Assign,
    Ready(0),
    Steps(4),
    Steps(6),
    Checkpoint(5, 1),
    Steps(11),
    Checkpoint(10, 0),
    Steps(14),
    // The first one expires; its part of the ledger stays as a segment.
    Checkpoint(14, 2),
    Lose,
    Cancel,
    Resume(10),
    Assign,
    Ready(10),
    Steps(15),
    // Takes the place of the void one of the same step.
    Checkpoint(14, 0),
    Close,
    Open,
    Accept(2),
    Steps(17),
    Checkpoint(17, 1),
    Lose,
    Cancel,
    DeleteCheckpoint(14),
    DeleteRun,
    RemoveDataset,
    Close,
];

/// What an act does to the disk.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// As `startup::open`.
    Open,
    Close,
    /// As `Catalogue`'s `add`: the files, then the journal.
    AddDataset,
    /// As `Catalogue`'s `remove`: the journal, then the files.
    RemoveDataset,
    /// As the actor's `open_assembly`, slices from a worker, and `Unfinished::store`.
    Store(CheckpointInfo, RunRecord),
    /// As the actor's `persist`, or the writing of its ledger when there is no run.
    Put {
        number: u64,
        run: Option<Box<Run>>,
        rewind: Option<u64>,
        steps: Vec<Entry>,
    },
    /// As the actor's `remove_file` and `delete_checkpoint`: the ledger is kept, then the files are removed.
    RemoveFile(CheckpointInfo),
    /// As the actor's `delete`: the files, then the journal.
    RemoveRun,
}
