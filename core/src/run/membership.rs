//! Who takes part: generations begin, lose members, gain some, and are put together anew.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Effect, FUTILE_FAILURES, FUTILE_GENERATIONS, Heartbeat, Outcome, Phase, Run, STALE_GENERATIONS,
    Stopping,
};
use crate::ids::WorkerId;
use crate::roster::Roster;

/// A worker's id and address.
pub(super) type Peer = (WorkerId, String);

impl Run {
    pub(super) fn assigned(&mut self, now: u64, workers: Vec<Peer>, out: &mut Vec<Effect>) {
        if let Phase::Queued { reason } = &self.phase {
            let reason = reason.clone();
            let workers: Vec<Peer> = workers
                .into_iter()
                .take(self.spec.max_workers() as usize)
                .collect();
            if workers.len() < self.fewest() {
                return;
            }
            self.begin(now, workers, false, BTreeSet::new(), reason, None, out);
        }
    }

    pub(super) fn joined(&mut self, now: u64, workers: Vec<Peer>, out: &mut Vec<Effect>) {
        let vacancies = self.vacancies();
        let Phase::Running { roster, .. } = &self.phase else {
            return;
        };
        let mut members = peers(roster);
        let fresh = |(worker, _): &Peer| roster.rank_of(worker).is_none();
        let joining: Vec<Peer> = workers.into_iter().filter(fresh).take(vacancies).collect();
        if joining.is_empty() {
            return;
        }
        let names: Vec<&str> = joining.iter().map(|(w, _)| w.as_str()).collect();
        let message = format!("worker {} joins", names.join(" "));
        members.extend(joining);
        out.push(Effect::Log {
            warning: false,
            message: message.clone(),
        });
        // Not a setback.
        self.futile = self.futile.saturating_sub(1);
        // Those whose peers broke off would never come to the next boundary.
        let at_boundary = self.vitals.regroup_at.is_none();
        self.begin(
            now,
            members,
            at_boundary,
            BTreeSet::new(),
            Some(message),
            None,
            out,
        );
    }

    /// With fewer workers it does not go on.
    fn fewest(&self) -> usize {
        self.spec.workers.min.max(1) as usize
    }

    /// The next generation begins.
    #[expect(clippy::too_many_arguments, reason = "called from this file only")]
    fn begin(
        &mut self,
        now: u64,
        members: Vec<Peer>,
        at_boundary: bool,
        discard: BTreeSet<WorkerId>,
        reason: Option<String>,
        stopping: Option<Stopping>,
        out: &mut Vec<Effect>,
    ) {
        self.generation += 1;
        // Dying at the same step again and again has a cause there; dying at one step or another is bad luck.
        let here = self.progress.map_or(0, |p| p.step);
        self.futile = if self.ended_at == Some(here) {
            self.futile + 1
        } else {
            1
        };
        self.ended_at = Some(here);
        self.stale += 1;
        self.scores.clear();
        let start_step = self.start_checkpoint().map_or(0, |c| c.step);
        let roster = Roster::deal(
            self.generation,
            &members,
            self.spec.train.virtual_ranks,
            start_step,
        );
        self.vitals
            .begin(roster.members.iter().map(|m| m.worker.clone()), now);
        self.enter(
            Phase::Forming {
                roster: roster.clone(),
                ready: BTreeMap::new(),
                stopping,
                reason,
            },
            out,
        );
        out.push(Effect::SendRoster {
            roster,
            at_boundary,
            discard,
        });
    }

    /// Goes on with `members` of the present generation, or waits if they are too few.
    pub(super) fn regroup(
        &mut self,
        now: u64,
        members: Vec<Peer>,
        at_boundary: bool,
        discard: BTreeSet<WorkerId>,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Log {
            warning: true,
            message: reason.clone(),
        });
        if let Some(hopeless) = self.hopeless(&reason) {
            self.fail(hopeless, &ids(&members), out);
            return;
        }
        let (count, min) = (members.len(), self.fewest());
        if count >= min {
            let stopping = self.stopping();
            self.begin(
                now,
                members,
                at_boundary,
                discard,
                Some(reason),
                stopping,
                out,
            );
            return;
        }
        let reason = format!("{reason}; {count} of at least {min} workers are left");
        let stopping = self.stopping();
        self.abort(ids(&members), &reason, out);
        let phase = match stopping {
            Some(Stopping::Cancel) => Phase::Cancelled,
            Some(Stopping::Pause) => Phase::Paused,
            Some(Stopping::Drain) | None => Phase::Queued {
                reason: Some(reason),
            },
        };
        self.enter(phase, out);
    }

    /// Why it is no use to try again, if it is not; `last` is what went wrong last.
    pub(super) fn hopeless(&self, last: &str) -> Option<String> {
        let attempts = if self.failures >= FUTILE_FAILURES {
            self.failures
        } else if self.futile >= FUTILE_GENERATIONS {
            self.futile
        } else if self.stale >= STALE_GENERATIONS {
            self.stale
        } else {
            return None;
        };
        Some(format!(
            "{attempts} attempts in a row got no further than step {}; the last: {last}",
            self.furthest
        ))
    }

    pub(super) fn abort(&self, workers: Vec<WorkerId>, reason: &str, out: &mut Vec<Effect>) {
        if !workers.is_empty() {
            out.push(Effect::SendAbort {
                workers,
                generation: self.generation,
                reason: reason.to_owned(),
            });
        }
    }

    /// Ends for good; `members` are still at it.
    pub(super) fn fail(&mut self, reason: String, members: &[WorkerId], out: &mut Vec<Effect>) {
        self.abort(members.to_vec(), &reason, out);
        self.enter(Phase::Failed { reason }, out);
    }

    pub(super) fn stopping(&self) -> Option<Stopping> {
        match &self.phase {
            Phase::Forming { stopping, .. } | Phase::Running { stopping, .. } => *stopping,
            Phase::Queued { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => None,
        }
    }

    /// `worker` takes no more part.
    pub(super) fn lost(
        &mut self,
        now: u64,
        worker: &WorkerId,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        self.vitals.awaited.remove(worker);
        self.vitals.forget(worker);
        match &self.phase {
            Phase::Forming { roster, .. } | Phase::Running { roster, .. } => {
                if roster.rank_of(worker).is_some() {
                    let others = self.others(worker);
                    self.regroup(now, others, false, BTreeSet::new(), reason, out);
                }
            }
            Phase::Finishing { .. } => self.left_finishing(worker, reason, out),
            Phase::Queued { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => {}
        }
    }

    /// The members that are there, without `worker`.
    fn others(&self, worker: &WorkerId) -> Vec<Peer> {
        let mut members = self.present();
        members.retain(|(other, _)| other != worker);
        members
    }

    /// The members that are there: not those that have not come back since the coordinator's restart.
    pub(super) fn present(&self) -> Vec<Peer> {
        let mut members = self.roster().map(peers).unwrap_or_default();
        members.retain(|(worker, _)| {
            !self.vitals.awaited.contains_key(worker) && !self.vitals.bereft.contains(worker)
        });
        members
    }

    /// A member reported that it could not go on, though trying again may help.
    pub(super) fn failed(
        &mut self,
        now: u64,
        worker: &WorkerId,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        self.failures += 1;
        self.vitals.strike(worker, now);
        self.lost(now, worker, reason, out);
    }

    /// A worker shuts down: the others go on from the next step boundary.
    pub(super) fn leaving(&mut self, now: u64, worker: &WorkerId, out: &mut Vec<Effect>) {
        let generation = self.generation;
        if !self.is_member(worker, generation) {
            return;
        }
        let others = self.others(worker);
        let enough = others.len() >= self.fewest();
        let reason = format!("worker {worker} leaves");
        match &self.phase {
            Phase::Running { .. } if enough => {
                // Not a setback.
                self.futile = self.futile.saturating_sub(1);
                let at_boundary = self.vitals.regroup_at.is_none();
                self.regroup(now, others, at_boundary, BTreeSet::new(), reason, out);
                let worker = worker.clone();
                out.push(Effect::SendYield { worker, generation });
            }
            // Nobody is left to take its state over: it goes into a checkpoint.
            Phase::Running { .. } => self.drain(out),
            Phase::Forming { .. } => {
                self.abort(vec![worker.clone()], &reason, out);
                self.regroup(now, others, false, BTreeSet::new(), reason, out);
            }
            // It will be done with its part in a moment.
            Phase::Finishing { .. }
            | Phase::Queued { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => {}
        }
    }

    /// A worker opened a session after the coordinator's restart.
    pub(super) fn back(
        &mut self,
        now: u64,
        worker: WorkerId,
        serving: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        if self.vitals.awaited.remove(&worker).is_none() {
            return;
        }
        let forming_or_running =
            matches!(self.phase, Phase::Forming { .. } | Phase::Running { .. });
        if serving == Some(self.generation) {
            self.vitals
                .progress(worker.clone(), Heartbeat::default(), now);
            if let Some(first) = self.vitals.bereft.first()
                && forming_or_running
                && self.present().len() >= self.fewest()
            {
                let reason = came_without(first);
                let members = self.present();
                self.regroup(now, members, false, BTreeSet::new(), reason, out);
                return;
            }
            // The word to stop may not have reached it.
            if let Phase::Running {
                stopping: Some(_), ..
            } = &self.phase
            {
                out.push(Effect::SendStop {
                    workers: vec![worker],
                    generation: self.generation,
                });
            }
        } else {
            let too_few = self.others(&worker).len() < self.fewest();
            if forming_or_running && too_few && !self.vitals.awaited.is_empty() {
                // Those who are yet to come may hold the state: the run is not given up before.
                self.vitals.bereft.insert(worker);
                return;
            }
            let reason = came_without(&worker);
            self.lost(now, &worker, reason, out);
        }
    }

    pub(super) fn released(
        &mut self,
        now: u64,
        worker: &WorkerId,
        outcome: Outcome,
        out: &mut Vec<Effect>,
    ) {
        match outcome {
            Outcome::Completed { .. } | Outcome::Stopped { .. } => {
                self.done(worker, outcome, out);
            }
            Outcome::Yielded { .. } | Outcome::Aborted => {
                let reason = format!("worker {worker} let go of the run");
                self.lost(now, worker, reason, out);
            }
            Outcome::Blocked { reason } => {
                let reason = format!("worker {worker}: {reason}");
                self.lost(now, worker, reason, out);
            }
            Outcome::Failed { reason, fatal } => {
                let reason = format!("worker {worker}: {reason}");
                if fatal && !self.ends_regardless() {
                    let others = ids(&self.others(worker));
                    self.fail(reason, &others, out);
                } else {
                    self.failed(now, worker, reason, out);
                }
            }
        }
    }
}

pub(super) fn peers(roster: &Roster) -> Vec<Peer> {
    let peer = |m: &crate::roster::Member| (m.worker.clone(), m.address.clone());
    roster.members.iter().map(peer).collect()
}

fn came_without(worker: &WorkerId) -> String {
    format!("worker {worker} came back without its part of the run")
}

pub(super) fn ids(peers: &[Peer]) -> Vec<WorkerId> {
    peers.iter().map(|(worker, _)| worker.clone()).collect()
}
