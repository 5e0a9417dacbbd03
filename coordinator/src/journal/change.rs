//! What is written of a run in one transaction.

use fovea_core::ledger;
use fovea_core::run::{EpochScores, Run};

/// What is written of a run in one transaction.
#[derive(Debug, Clone)]
pub(crate) struct RunChange<'a> {
    pub number: u64,
    pub run: Option<&'a Run>,
    /// The ledger after this step, and scores of epochs that ended after it, are void.
    pub rewind: Option<u64>,
    pub steps: Vec<ledger::Entry>,
    pub scores: Option<&'a EpochScores>,
    /// Size of the training split, which the ledger's samples are packed by.
    pub train_samples: u64,
    /// Where the ledger begins when the journal has no head of this run, so 0 for a new run.
    pub head: u64,
}
