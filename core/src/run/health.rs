//! What follows from the members' health: which is evicted, and when the next generation forms.

use std::collections::BTreeSet;

use super::liveness::{Stage, Stuck};
use super::membership::{Cause, ids, peers};
use super::{Effect, FormationReason, Phase, Run};
use crate::ids::WorkerId;
use crate::roster::UNREACHABLE_HINT;

/// How long after an interruption the run waits for the news of a lost worker.
const SETTLE_MS: u64 = 200;
/// How long after the first complaint about an unreachable peer the run waits for others, to see which peer is cut off.
const COMPLAINTS_MS: u64 = 500;

impl Run {
    /// A member's connections to its peers broke. Most often a peer is lost, which will be known in a moment.
    pub(super) fn interrupted(
        &mut self,
        now: u64,
        worker: WorkerId,
        generation: u64,
        reason: String,
    ) {
        if self.is_expected(&worker, generation) {
            let reason = format!("worker {worker} was interrupted: {reason}");
            self.liveness
                .regroup_at
                .get_or_insert((now + SETTLE_MS, reason));
            self.liveness.interrupted.insert(worker);
        }
    }

    /// A member of a forming generation cannot reach `peers`.
    pub(super) fn unreachable(
        &mut self,
        now: u64,
        worker: WorkerId,
        generation: u64,
        mut peers: Vec<WorkerId>,
    ) {
        peers.retain(|peer| *peer != worker && self.is_member(peer, generation));
        if peers.is_empty() || !matches!(self.phase, Phase::Forming { .. }) {
            // No member is cut off, but this one does not go on either.
            let reason = "it cannot reach its peers".to_owned();
            self.interrupted(now, worker, generation, reason);
        } else if self.is_member(&worker, generation) {
            self.liveness
                .cannot_reach(worker, peers, now + COMPLAINTS_MS);
        }
    }

    /// Time has passed: finds what did not happen in time.
    pub(super) fn tick(&mut self, now: u64, out: &mut Vec<Effect>) {
        if self.tick_shortage(now, out) {
            return;
        }
        self.tick_availability(now, out);
        if self.roster().is_none() || self.liveness.overslept(now) {
            return;
        }
        if self.forming_falls_back(now, out) {
            return;
        }
        let overdue = |(_, until): &(&WorkerId, &u64)| **until <= now;
        while let Some((worker, _)) = self.liveness.awaited.iter().find(overdue) {
            let worker = worker.clone();
            let reason =
                format!("worker {worker} did not come back after the coordinator's restart");
            let cause = Cause {
                kind: FormationReason::WorkerLost,
                log: format!("worker.lost: {reason}"),
                reason,
            };
            self.lost(now, &worker, cause, out);
            self.liveness.awaited.remove(&worker);
        }
        let stage = match &self.phase {
            Phase::Running { .. } => Stage::Running,
            Phase::Forming { .. } => Stage::Forming,
            Phase::Finishing { .. } => Stage::Finishing,
            Phase::Queued { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => return,
        };
        let piece = || self.longest_piece_ms();
        match self.liveness.stuck(stage, now, piece) {
            Some(Stuck::Member(worker, still, patience)) => {
                self.evict_stuck(now, &worker, still, patience, out);
                return;
            }
            Some(Stuck::Deadlock(still)) => {
                let reason = format!(
                    "all workers have waited for each other for {}",
                    seconds(still)
                );
                let cause = Cause {
                    kind: FormationReason::Interrupted,
                    log: format!("generation.deadlocked: {reason}"),
                    reason,
                };
                self.break_up(now, None, cause, out);
                return;
            }
            None => {}
        }
        // A member that has not reconnected may be the one that is complained of.
        let ranks = self.roster().map(|r| ids(&peers(r))).unwrap_or_default();
        if let Some(worker) = self.liveness.cut_off(&ranks, now) {
            let address = self.roster().and_then(|roster| {
                let rank = roster.rank_of(&worker)?;
                Some(format!(" at {}", roster.members[rank].address))
            });
            let reason = format!(
                "worker {worker} cannot be reached by its peers{}; {UNREACHABLE_HINT}",
                address.unwrap_or_default()
            );
            let cause = Cause {
                kind: FormationReason::WorkerEvicted,
                log: format!("worker.evicted: {reason}"),
                reason,
            };
            self.liveness.penalize(&worker, now);
            self.evict(now, &worker, cause, out);
            return;
        }
        // A member that cannot reach a peer drops its other connections, too: an interruption that follows from a
        // complaint is not the cause.
        if let Some((at, reason)) = self.liveness.regroup_at.clone()
            && at <= now
            && !self.liveness.has_complaints()
        {
            self.liveness.regroup_at = None;
            let interrupted = std::mem::take(&mut self.liveness.interrupted);
            let cause = Cause {
                kind: FormationReason::Interrupted,
                log: format!("generation.interrupted: {reason}"),
                reason,
            };
            self.break_up(now, Some(interrupted), cause, out);
        }
    }

    /// A member makes no progress, though its heartbeats come.
    fn evict_stuck(
        &mut self,
        now: u64,
        worker: &WorkerId,
        still: u64,
        patience: u64,
        out: &mut Vec<Effect>,
    ) {
        let (still, limit) = (seconds(still), seconds(patience));
        let limit = match self.liveness.usual_step_ms() {
            Some(usual) => format!(
                "limit {limit}; the median step takes {}",
                seconds(usual as u64)
            ),
            None => format!("limit {limit}; no step has been taken yet"),
        };
        let reason = format!("worker {worker} made no progress for {still} ({limit})");
        let cause = Cause {
            kind: FormationReason::WorkerEvicted,
            log: format!("worker.evicted: {reason}"),
            reason,
        };
        self.liveness.penalize_stuck(worker, now);
        self.evict(now, worker, cause, out);
    }

    /// The members cannot go on over their present connections: the next generation forms. At the end of a run
    /// some have done their part already, so only those in `waiting` (None: all that are pending) are evicted.
    fn break_up(
        &mut self,
        now: u64,
        waiting: Option<BTreeSet<WorkerId>>,
        cause: Cause,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Finishing { pending, .. } = &self.phase else {
            let members = self.present();
            self.regroup(now, members, false, BTreeSet::new(), cause, out);
            return;
        };
        let given_up = |worker: &&WorkerId| waiting.as_ref().is_none_or(|w| w.contains(*worker));
        let given_up: Vec<WorkerId> = pending.iter().filter(given_up).cloned().collect();
        for worker in given_up {
            if matches!(&self.phase, Phase::Finishing { pending, .. } if pending.contains(&worker))
            {
                let Cause { kind, log, reason } = &cause;
                let cause = Cause {
                    kind: *kind,
                    log: log.clone(),
                    reason: reason.clone(),
                };
                self.evict(now, &worker, cause, out);
            }
        }
    }

    /// A member is connected, but does not do its part: it is told to let go, and the others go on without it.
    fn evict(&mut self, now: u64, worker: &WorkerId, cause: Cause, out: &mut Vec<Effect>) {
        self.abort(vec![worker.clone()], &cause.reason, out);
        self.lost(now, worker, cause, out);
    }
}

/// A duration for people: "5.04 s".
fn seconds(ms: u64) -> String {
    format!("{:.2} s", ms as f64 / 1000.0)
}
