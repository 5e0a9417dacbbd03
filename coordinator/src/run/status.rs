//! What the cluster and people see of a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use fovea_core::count::count;
use fovea_core::run::{Phase, Run};

use super::report::{DataProblems, Demand, Report, RunStatus};
use super::state::Actor;

/// An ended run's actor closes when nobody has asked it for anything for so long, milliseconds.
pub(super) const LINGER_MS: u64 = 2_000;

/// Whom a run waits for since the coordinator's restart. Its phase is the one before: nothing was lost if they come back.
pub(super) fn recovering(run: &Run) -> Option<String> {
    let members = run.roster()?.members.len();
    let away: Vec<&str> = run.awaited().map(|worker| worker.as_str()).collect();
    (!away.is_empty()).then(|| {
        format!(
            "recovering after the coordinator's restart: {} of {} not back yet ({})",
            away.len(),
            count(members, "worker is", "workers are"),
            away.join(" ")
        )
    })
}

impl Actor {
    /// Why the run must not be given workers now.
    pub(super) fn blocked(&self) -> Option<String> {
        if !matches!(self.run.phase, Phase::Queued { .. }) {
            return None;
        }
        let now = self.cx.clock.now();
        let DataProblems { dataset, weights } = &self.data_problems;
        // With a checkpoint it starts from that.
        let weights = || match self.run.start_checkpoint(now) {
            Some(_) => None,
            None => weights.clone(),
        };
        let data = dataset.clone().or_else(weights);
        data.or_else(|| self.run.start_blocked(now))
    }

    /// Why a generation does not form: the checkpoint that it starts from cannot be read.
    fn forming_blocked(&self) -> Option<String> {
        let Phase::Forming { roster, .. } = &self.run.phase else {
            return None;
        };
        let now = self.cx.clock.now();
        // Members that hold a newer state do not need it.
        let start = self.run.start_checkpoint(now)?;
        (start.step == roster.start_step)
            .then(|| self.run.start_blocked(now))
            .flatten()
    }

    /// Nothing is left to be done for it.
    pub(super) fn has_ended(&self) -> bool {
        self.deleted
            || self.run.is_terminal()
                && self.assemblies.is_empty()
                && self.ledger.is_idle()
                && self.files_busy == 0
    }

    /// Tells the cluster what has changed for scheduling, and that the run has ended.
    pub(super) fn report(&mut self, handled: Option<u64>) {
        let status = self.scheduling_status();
        if handled.is_some() || self.status.as_ref() != Some(&status) {
            self.status = Some(status.clone());
            self.tell_cluster(Report::Status {
                number: self.run.number,
                status: Box::new(status),
                handled,
            });
        }
        let now = self.cx.clock.now();
        if self.has_ended() && !self.reported_end && (self.deleted || now >= self.used + LINGER_MS)
        {
            self.reported_end = true;
            self.tell_cluster(Report::Ended {
                number: self.run.number,
            });
        }
    }

    fn scheduling_status(&self) -> RunStatus {
        let run = &self.run;
        let demand = match &run.phase {
            _ if run.awaited().next().is_some() => Demand::Await {
                members: run.awaited().count(),
            },
            Phase::Queued { .. } if self.blocked().is_some() => Demand::Nothing,
            Phase::Queued { .. } => Demand::Start {
                min: run.spec.workers.min as usize,
                max: run.spec.max_workers() as usize,
            },
            Phase::Running { .. } => match run.vacancies() {
                0 => Demand::Nothing,
                room => Demand::Join { room },
            },
            Phase::Forming { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => Demand::Nothing,
        };
        RunStatus {
            demand,
            priority: run.priority(),
            generation: run.generation,
            roster: run.roster().cloned(),
            barred: match demand {
                Demand::Nothing => BTreeMap::new(),
                Demand::Start { .. } | Demand::Join { .. } | Demand::Await { .. } => run.barred(),
            },
            left_out: run.left_out(),
            machines: run.machines(),
            training: matches!(run.phase, Phase::Running { .. } | Phase::Finishing { .. }),
            storing: self.assemblies.any_whole(),
        }
    }

    /// A checkpoint of it is being stored, or may be next.
    fn stores(&self) -> bool {
        self.run.roster().is_some() || !self.assemblies.is_empty()
    }

    /// Shows people the run as it is now.
    pub(super) fn show(&self) {
        let waiting = self
            .blocked()
            .or_else(|| self.forming_blocked())
            .or_else(|| self.storage_problem.clone().filter(|_| self.stores()))
            .or_else(|| recovering(&self.run))
            .or_else(|| match self.run.phase {
                Phase::Queued { .. } => self.waits.clone(),
                _ => None,
            });
        self.shown.send_if_modified(|shown| {
            let same = *shown.run == self.run && shown.waiting == waiting;
            if !same {
                shown.run = Arc::new(self.run.clone());
                shown.progress = self.run.progress;
                shown.waiting = waiting;
            }
            !same
        });
    }
}
