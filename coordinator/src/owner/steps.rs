//! The ledger of committed steps: gathered for a moment, written in one go, then acknowledged.
//!
//! A step is told to watchers at once and is in the journal within half a second, or before anything that
//! rests on it. Until it is acknowledged the workers keep it, so that a coordinator that dies in between
//! hears of it again.

use fovea_core::ids::RunId;
use fovea_core::ledger::Entry;
use fovea_core::plan::ShardPlan;
use fovea_core::run::{Event, Phase, StepReport};

use super::state::{Owner, OwnerError};
use super::{Ledger, ToWorker};
use crate::error::ApiError;

/// Steps wait so long for others to be written with, milliseconds.
const TOGETHER_MS: u64 = 500;

impl Owner {
    /// A step was committed, or is told again.
    pub(super) fn step_committed(
        &mut self,
        number: u64,
        generation: u64,
        report: StepReport,
        samples: Vec<u32>,
    ) -> Result<(), OwnerError> {
        let at = self.now() + TOGETHER_MS;
        if let Some(entry) = self.runs.get_mut(&number) {
            let step = report.step;
            let entry_of_step = Entry {
                step,
                loss: report.loss,
                samples,
            };
            entry.unwritten.insert(step, entry_of_step);
            self.write_at.get_or_insert(at);
        }
        self.apply(number, Event::StepCommitted { generation, report })
    }

    /// Writes what waits when it has waited long enough. Returns when that will be.
    pub(super) fn write_steps_when_due(&mut self) -> Result<Option<u64>, OwnerError> {
        if self.write_at.is_some_and(|at| at <= self.now()) {
            self.write_steps()?;
        }
        Ok(self.write_at)
    }

    /// Writes all that waits.
    pub(super) fn write_steps(&mut self) -> Result<(), OwnerError> {
        self.write_at = None;
        let numbers: Vec<u64> = self.runs.keys().copied().collect();
        for number in numbers {
            self.write_steps_of(number)?;
        }
        Ok(())
    }

    /// Writes what waits of one run, and tells its workers.
    pub(super) fn write_steps_of(&mut self, number: u64) -> Result<(), OwnerError> {
        let Some(entry) = self.runs.get_mut(&number) else {
            return Ok(());
        };
        if entry.unwritten.is_empty() {
            return Ok(());
        }
        let steps: Vec<Entry> = std::mem::take(&mut entry.unwritten).into_values().collect();
        self.journal.put_steps(&entry.run, &steps)?;
        entry.ledger_head = self.journal.ledger_head(number, entry.ledger_head)?;
        self.acknowledge(number);
        Ok(())
    }

    /// A generation that has just formed tells of all its steps before it is ready. If some are missing all
    /// the same, whoever could tell of them handed its state on and died.
    pub(super) fn account_for(&mut self, number: u64) -> Result<(), OwnerError> {
        self.write_steps_of(number)?;
        let now = self.now();
        let Some(entry) = self.runs.get(&number) else {
            return Ok(());
        };
        let Phase::Running { roster, .. } = &entry.run.phase else {
            return Ok(());
        };
        let stored = entry.run.start_checkpoint(now).map_or(0, |c| c.step);
        let head = entry.ledger_head;
        if roster.start_step <= head.max(stored) {
            return Ok(());
        }
        let generation = roster.generation;
        self.apply(number, Event::Unaccounted { generation, head })
    }

    /// Tells a run's workers what they need not say again.
    pub(super) fn acknowledge(&mut self, number: u64) {
        let Some(entry) = self.runs.get(&number) else {
            return;
        };
        let (run, step) = (entry.run.id.clone(), entry.ledger_head);
        let next_epoch = entry.run.next_epoch();
        let on_it = self.sessions.values().filter(|s| s.is_on(number));
        let workers: Vec<_> = on_it.map(|s| s.hello.id.clone()).collect();
        for worker in workers {
            let message = ToWorker::Ack {
                run: run.clone(),
                step,
                next_epoch,
            };
            self.send(&worker, message);
        }
    }

    /// The ledger of a run and the plan that it is compared with.
    pub(super) fn read_ledger(
        &mut self,
        id: &RunId,
    ) -> Result<Result<Ledger, ApiError>, OwnerError> {
        let number = match self.number(id) {
            Ok(number) => number,
            Err(error) => return Ok(Err(error)),
        };
        self.write_steps_of(number)?;
        let Some(entry) = self.runs.get(&number) else {
            return Ok(Err(ApiError::no_run(id)));
        };
        let run = entry.run.clone();
        let held = self.datasets.values();
        let dataset = held
            .into_iter()
            .find(|d| d.manifest.digest == run.dataset_digest);
        let Some(dataset) = dataset else {
            return Ok(Err(ApiError::no_dataset(&run.dataset_digest)));
        };
        let plan = ShardPlan::new(
            &dataset.patients,
            dataset.validation,
            run.spec.train.virtual_ranks,
            run.spec.train.batch,
            run.spec.seed,
            run.spec.train.rotate,
        );
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(error.into())),
        };
        let (entries, bytes) = self.journal.steps(&run, 0)?;
        Ok(Ok(Ledger {
            run,
            plan,
            entries,
            bytes,
        }))
    }
}
