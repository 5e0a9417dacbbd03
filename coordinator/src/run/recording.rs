//! Committed steps: written, acknowledged, and accounted for.

use fovea_core::run::{Event, Phase};

use super::state::{Actor, RunActorError};
use crate::messages::CoordinatorMessage;

impl Actor {
    /// Writes all steps that wait, and acknowledges them.
    pub(super) async fn flush(&mut self) -> Result<(), RunActorError> {
        let waits = !self.ledger.is_idle();
        while !self.ledger.is_idle() {
            self.ledger.write(&self.cx.journal, &self.run);
            self.ledger.finish().await?;
        }
        if waits {
            self.acknowledge();
        }
        Ok(())
    }

    /// A generation that has just formed reports all its steps before it is ready. If some are missing all the same,
    /// whoever could report them handed its state on and died.
    pub(super) async fn account_for(&mut self) -> Result<(), RunActorError> {
        if !matches!(self.run.phase, Phase::Running { .. }) {
            return Ok(());
        }
        self.flush().await?;
        let Phase::Running { roster, .. } = &self.run.phase else {
            return Ok(());
        };
        let now = self.cx.clock.now();
        let stored = self.run.start_checkpoint(now).map_or(0, |c| c.step);
        let head = self.ledger.head();
        if roster.start_step <= head.max(stored) {
            return Ok(());
        }
        let (generation, last) = (roster.generation, roster.start_step);
        self.apply(Event::Unaccounted {
            generation,
            head,
            last,
        })
        .await
    }

    /// Whether steps are missing between the ledger and `step`, which a generation reports that was running when this
    /// coordinator started. Then its journal is an older one than that which acknowledged them, and the workers have
    /// forgotten them.
    pub(super) fn is_gap(&self, step: u64) -> bool {
        match &self.run.phase {
            Phase::Running { roster, .. } if Some(roster.generation) == self.inherited => {
                step > self.ledger.end().max(roster.start_step) + 1
            }
            _ => false,
        }
    }

    /// The steps between the ledger and `step` are missing for good.
    pub(super) async fn gap(&mut self, generation: u64, step: u64) -> Result<(), RunActorError> {
        self.flush().await?;
        self.apply(Event::Unaccounted {
            generation,
            head: self.ledger.head(),
            last: step - 1,
        })
        .await
    }

    /// Tells the run's workers what they need not report again.
    pub(super) fn acknowledge(&self) {
        let Some(roster) = self.run.roster() else {
            return;
        };
        for member in &roster.members {
            let message = CoordinatorMessage::Ack {
                run: self.run.id.clone(),
                step: self.ledger.head(),
                next_epoch: self.run.next_epoch(),
            };
            self.send(&member.worker, message);
        }
    }
}
