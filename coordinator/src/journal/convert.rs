//! Runs and steps as rows of the journal, and back.

use fovea_core::ledger;
use fovea_core::run::Run;

use super::error::JournalError;
use super::rows::{self, RunRow, StepRow};

pub(super) fn run_row(number: u64, run: &Run) -> Result<RunRow, JournalError> {
    if number != run.number {
        let problem = format!("it has number {} in itself", run.number);
        return Err(JournalError::entry(number, problem));
    }
    let phase = run.phase_name();
    Ok(RunRow {
        id: run.id.to_string(),
        json: serde_json::to_string(run).map_err(|e| JournalError::entry(number, e))?,
        phase,
        terminal: rows::is_terminal(phase),
        dataset_digest: run.dataset_digest.clone(),
        submitted_at_ms: run.submitted_at_ms,
    })
}

pub(super) fn parse(number: u64, json: &str) -> Result<Run, JournalError> {
    serde_json::from_str(json).map_err(|e| JournalError::entry(number, e))
}

pub(super) fn step_row(
    run: u64,
    entry: &ledger::Entry,
    train_samples: u64,
) -> Result<StepRow, JournalError> {
    let ledger::Entry {
        step,
        loss,
        samples,
    } = entry;
    if loss.is_nan() {
        // SQLite would store a null.
        let problem = format!("the loss of step {step} is not a number");
        return Err(JournalError::entry(run, problem));
    }
    Ok(StepRow {
        step: *step,
        loss: *loss,
        count: samples.len() as u64,
        samples: ledger::pack(samples, train_samples),
    })
}

pub(super) fn entry(
    run: u64,
    row: &StepRow,
    train_samples: u64,
) -> Result<ledger::Entry, JournalError> {
    let cut = || JournalError::entry(run, format!("step {} is cut off", row.step));
    let count = usize::try_from(row.count).map_err(|_| cut())?;
    Ok(ledger::Entry {
        step: row.step,
        loss: row.loss,
        samples: ledger::unpack(&row.samples, count, train_samples).ok_or_else(cut)?,
    })
}
