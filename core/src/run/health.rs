//! What follows from the members' health: who is put out, when to form anew, whose state is wrong.

use std::collections::BTreeSet;

use super::membership::{ids, peers};
use super::vitals::{Doing, Stuck};
use super::{Effect, Phase, Run};
use crate::ids::WorkerId;

/// When peers break off without a worker being lost, the loss may just not be known yet.
const SETTLE_MS: u64 = 200;
/// How long other complaints about unreachable peers are waited for.
const COMPLAINTS_MS: u64 = 500;

impl Run {
    /// A member's peers broke off. Most often one of them is lost, which will be known in a moment.
    pub(super) fn interrupted(
        &mut self,
        now: u64,
        worker: WorkerId,
        generation: u64,
        reason: String,
    ) {
        if self.is_expected(&worker, generation) {
            let reason = format!("worker {worker} was interrupted: {reason}");
            self.vitals
                .regroup_at
                .get_or_insert((now + SETTLE_MS, reason));
            self.vitals.interrupted.insert(worker);
        }
    }

    pub(super) fn unreachable(
        &mut self,
        now: u64,
        worker: WorkerId,
        generation: u64,
        mut peers: Vec<WorkerId>,
    ) {
        peers.retain(|peer| *peer != worker && self.is_member(peer, generation));
        if peers.is_empty() || !matches!(self.phase, Phase::Forming { .. }) {
            // Nobody to blame, but it does not go on either.
            let reason = "it cannot reach its peers".to_owned();
            self.interrupted(now, worker, generation, reason);
        } else if self.is_member(&worker, generation) {
            self.vitals.cannot_reach(worker, peers, now + COMPLAINTS_MS);
        }
    }

    /// Time has passed: draws the consequences of what did not happen.
    pub(super) fn tick(&mut self, now: u64, out: &mut Vec<Effect>) {
        if self.vitals.overslept(now) {
            return;
        }
        let overdue = |(_, until): &(&WorkerId, &u64)| **until <= now;
        while let Some((worker, _)) = self.vitals.awaited.iter().find(overdue) {
            let worker = worker.clone();
            let reason =
                format!("worker {worker} did not come back after the coordinator's restart");
            self.lost(now, &worker, reason, out);
            self.vitals.awaited.remove(&worker);
        }
        let doing = match &self.phase {
            Phase::Running { .. } => Doing::Running,
            Phase::Forming { .. } => Doing::Forming,
            Phase::Finishing { .. } => Doing::Finishing,
            Phase::Queued { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => return,
        };
        match self.vitals.stuck(doing, now) {
            Some(Stuck::Member(worker, still, patience)) => {
                let reason = format!(
                    "worker {worker} is stuck: its heart beats, but it has done nothing for {still} ms \
                     ({patience} ms are allowed, by the time that steps take)"
                );
                self.vitals.strike_stuck(&worker, now);
                self.put_out(now, &worker, reason, out);
                return;
            }
            Some(Stuck::Everybody(still)) => {
                let reason = format!("all workers have waited for each other for {still} ms");
                self.break_up(now, None, reason, out);
                return;
            }
            None => {}
        }
        // One that has not come back may be the one that is complained of.
        let ranks = self.roster().map(|r| ids(&peers(r))).unwrap_or_default();
        if let Some(worker) = self.vitals.cut_off(&ranks, now) {
            let reason = format!("worker {worker} cannot be reached by its peers");
            self.vitals.strike(&worker, now);
            self.put_out(now, &worker, reason, out);
            return;
        }
        // Who cannot reach a peer lets go of the others, too: what they say of it is not the cause.
        if let Some((at, reason)) = self.vitals.regroup_at.clone()
            && at <= now
            && !self.vitals.has_complaints()
        {
            self.vitals.regroup_at = None;
            let interrupted = std::mem::take(&mut self.vitals.interrupted);
            self.break_up(now, Some(interrupted), reason, out);
        }
    }

    /// The members' connections are of no use: they form anew. At the end of a generation some have done their
    /// part already, so only `waiting` ones (None is all) are given up.
    fn break_up(
        &mut self,
        now: u64,
        waiting: Option<BTreeSet<WorkerId>>,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Finishing { pending, .. } = &self.phase else {
            let members = self.present();
            self.regroup(now, members, false, BTreeSet::new(), reason, out);
            return;
        };
        let given_up = |worker: &&WorkerId| waiting.as_ref().is_none_or(|w| w.contains(*worker));
        let given_up: Vec<WorkerId> = pending.iter().filter(given_up).cloned().collect();
        for worker in given_up {
            if matches!(&self.phase, Phase::Finishing { pending, .. } if pending.contains(&worker))
            {
                self.put_out(now, &worker, reason.clone(), out);
            }
        }
    }

    /// A member that is there, but of no use: it is told to let go, and goes on without.
    fn put_out(&mut self, now: u64, worker: &WorkerId, reason: String, out: &mut Vec<Effect>) {
        self.abort(vec![worker.clone()], &reason, out);
        self.lost(now, worker, reason, out);
    }
}
