//! Giving workers to a run of higher priority: as few as it needs at the next step boundary, or, if too few would be left, all
//! of them with a checkpoint. No step is lost, and the result is the same to the bit.

use std::collections::BTreeSet;

use super::membership::{Cause, ids};
use super::{Effect, FormationReason, Phase, Run, Stopping};
use crate::ids::{RunId, WorkerId};

impl Run {
    /// `taker` gets `workers`, as far as they are members.
    pub(super) fn gives(
        &mut self,
        now: u64,
        workers: &[WorkerId],
        taker: RunId,
        out: &mut Vec<Effect>,
    ) {
        let (given, left): (Vec<_>, Vec<_>) = self
            .present()
            .into_iter()
            .partition(|(worker, _)| workers.contains(worker));
        let given = ids(&given);
        if given.is_empty() {
            return;
        }
        let names: Vec<&str> = given.iter().map(WorkerId::as_str).collect();
        let reason = format!("{} goes to {taker}, of higher priority", names.join(" "));
        let cause = Cause {
            kind: FormationReason::Displaced,
            log: format!("run.gave_workers: {reason}"),
            reason: reason.clone(),
        };
        let enough = left.len() >= self.fewest();
        let generation = self.generation;
        match &self.phase {
            Phase::Running { stopping: None, .. } if enough => {
                // As with a worker that leaves: not a failed attempt.
                self.futile = self.futile.saturating_sub(1);
                let at_boundary = self.liveness.regroup_at.is_none();
                self.regroup(now, left, at_boundary, BTreeSet::new(), cause, out);
                out.extend(
                    given
                        .into_iter()
                        .map(|worker| Effect::SendYield { worker, generation }),
                );
            }
            Phase::Running { stopping: None, .. } => {
                self.given_to = Some(taker);
                self.stop_for(Stopping::Give, out);
            }
            Phase::Forming { stopping: None, .. } if enough => {
                self.futile = self.futile.saturating_sub(1);
                self.abort(given, &reason, out);
                self.regroup(now, left, false, BTreeSet::new(), cause, out);
            }
            Phase::Forming { stopping: None, .. } => {
                self.futile = self.futile.saturating_sub(1);
                self.given_to = Some(taker);
                let members: Vec<WorkerId> = ids(&self.present());
                self.abort(members, &reason, out);
                let reason = Some(self.given_reason());
                self.enter(Phase::Queued { reason }, out);
            }
            // It lets go of its workers anyway.
            Phase::Forming { .. }
            | Phase::Running { .. }
            | Phase::Finishing { .. }
            | Phase::Queued { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => {}
        }
    }

    /// Why a run waits that gave its workers away.
    pub(super) fn given_reason(&self) -> String {
        match &self.given_to {
            Some(taker) => format!("its workers went to {taker}, of higher priority"),
            None => "its workers went to a run of higher priority".into(),
        }
    }
}
