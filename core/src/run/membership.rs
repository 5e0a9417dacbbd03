//! Membership: how a generation begins, what happens when members are lost, leave or join, and how the next one follows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Effect, FUTILE_FAILURES, FUTILE_GENERATIONS, FormationReason, Heartbeat, Outcome, Phase, Run,
    STALE_GENERATIONS, Stopping,
};
use crate::count::count;
use crate::ids::WorkerId;
use crate::roster::Roster;

/// A worker's id and address.
pub(super) type Peer = (WorkerId, String);

/// Why a generation changes or ends.
pub(super) struct Cause {
    /// For counting.
    pub kind: FormationReason,
    /// The line in the coordinator's log; it starts with the event's name.
    pub log: String,
    /// The reason that people are shown for the phase that follows.
    pub reason: String,
}

impl Run {
    /// A queued run is assigned workers. It accepts none while it is blocked ([`Run::start_blocked`]), and never fewer than
    /// it needs.
    pub(super) fn assigned(&mut self, now: u64, workers: Vec<Peer>, out: &mut Vec<Effect>) {
        if let Phase::Queued { reason } = &self.phase {
            let reason = reason.clone();
            let workers: Vec<Peer> = workers
                .into_iter()
                .take(self.spec.max_workers() as usize)
                .collect();
            if workers.len() < self.fewest() || self.start_blocked(now).is_some() {
                return;
            }
            self.fall_back(now, out);
            let kind = match self.times.began_ms {
                None => FormationReason::Started,
                Some(_) => FormationReason::Resumed,
            };
            let none = BTreeSet::new();
            self.begin(now, workers, false, none, kind, reason, None, out);
        }
    }

    /// Workers join a running generation at its next step boundary.
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
        let reason = format!("worker {} joins", names.join(" "));
        members.extend(joining);
        out.push(Effect::Log {
            warning: false,
            message: format!("generation.joined: {reason}"),
        });
        // A join is not a failed attempt.
        self.futile = self.futile.saturating_sub(1);
        // Members whose connections broke never reach the next boundary.
        let at_boundary = self.liveness.regroup_at.is_none();
        self.begin(
            now,
            members,
            at_boundary,
            BTreeSet::new(),
            FormationReason::WorkerJoined,
            Some(reason),
            None,
            out,
        );
    }

    /// The smallest number of workers that the run can have.
    pub(super) fn fewest(&self) -> usize {
        self.spec.workers.min.max(1) as usize
    }

    /// Begins the next generation with `members`. Those in `discard` must discard the state in their memory.
    #[expect(clippy::too_many_arguments, reason = "called from this file only")]
    fn begin(
        &mut self,
        now: u64,
        members: Vec<Peer>,
        at_boundary: bool,
        discard: BTreeSet<WorkerId>,
        kind: FormationReason,
        reason: Option<String>,
        stopping: Option<Stopping>,
        out: &mut Vec<Effect>,
    ) {
        self.generation += 1;
        self.formations.add(kind);
        // Generations that keep ending at the same step have a cause at that step; at changing steps it is chance. The
        // two are counted separately and have different limits.
        let here = self.progress.map_or(0, |p| p.step);
        self.futile = if self.ended_at == Some(here) {
            self.futile + 1
        } else {
            1
        };
        self.ended_at = Some(here);
        self.stale += 1;
        self.scores.clear();
        let start_step = self.newest_valid().map_or(0, |c| c.step);
        let roster = Roster::deal(
            self.generation,
            &members,
            self.spec.train.virtual_ranks,
            start_step,
        );
        self.liveness
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

    /// Forms the next generation of `members` of the present one, or queues the run if they are too few.
    pub(super) fn regroup(
        &mut self,
        now: u64,
        members: Vec<Peer>,
        at_boundary: bool,
        discard: BTreeSet<WorkerId>,
        cause: Cause,
        out: &mut Vec<Effect>,
    ) {
        let Cause { kind, log, reason } = cause;
        out.push(Effect::Log {
            warning: true,
            message: log,
        });
        if let Some(hopeless) = self.hopeless(&reason) {
            self.fail(hopeless, &ids(&members), out);
            return;
        }
        let (left, min) = (members.len(), self.fewest());
        if left >= min {
            let stopping = self.stopping();
            self.begin(
                now,
                members,
                at_boundary,
                discard,
                kind,
                Some(reason),
                stopping,
                out,
            );
            return;
        }
        self.formations.too_few(kind);
        let left = count(left, "worker", "workers");
        let reason = format!("{reason}; {left} left, at least {min} needed");
        let stopping = self.stopping();
        self.abort(ids(&members), &reason, out);
        let phase = match stopping {
            Some(Stopping::Cancel) => Phase::Cancelled,
            Some(Stopping::Pause) => Phase::Paused,
            Some(Stopping::Drain | Stopping::Give) | None => Phase::Queued {
                reason: Some(reason),
            },
        };
        self.enter(phase, out);
    }

    /// The reason to fail the run after too many attempts without progress; None if another attempt may help. `last` says
    /// why the last attempt ended.
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

    /// Ends the assignment of `workers` in the present generation at once.
    pub(super) fn abort(&self, workers: Vec<WorkerId>, reason: &str, out: &mut Vec<Effect>) {
        if !workers.is_empty() {
            out.push(Effect::SendAbort {
                workers,
                generation: self.generation,
                reason: reason.to_owned(),
            });
        }
    }

    /// Fails the run; the assignments of `members`, who still serve it, are aborted.
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

    /// `worker` is no longer a member.
    pub(super) fn lost(
        &mut self,
        now: u64,
        worker: &WorkerId,
        cause: Cause,
        out: &mut Vec<Effect>,
    ) {
        self.liveness.awaited.remove(worker);
        self.liveness.forget(worker);
        match &self.phase {
            Phase::Forming { roster, .. } | Phase::Running { roster, .. } => {
                if roster.rank_of(worker).is_some() {
                    let others = self.others(worker);
                    self.regroup(now, others, false, BTreeSet::new(), cause, out);
                }
            }
            Phase::Finishing { .. } => self.left_finishing(worker, cause, out),
            Phase::Queued { .. }
            | Phase::Paused
            | Phase::Completed
            | Phase::Failed { .. }
            | Phase::Cancelled => {}
        }
    }

    /// The present members without `worker`.
    pub(super) fn others(&self, worker: &WorkerId) -> Vec<Peer> {
        let mut members = self.present();
        members.retain(|(other, _)| other != worker);
        members
    }

    /// The members that are connected: without those that have not returned since the coordinator's restart, or have
    /// returned without their state.
    pub(super) fn present(&self) -> Vec<Peer> {
        let mut members = self.roster().map(peers).unwrap_or_default();
        members.retain(|(worker, _)| {
            !self.liveness.awaited.contains_key(worker) && !self.liveness.stateless.contains(worker)
        });
        members
    }

    /// A member reported an error after which another attempt may succeed.
    pub(super) fn failed(
        &mut self,
        now: u64,
        worker: &WorkerId,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        self.failures += 1;
        self.liveness.penalize(worker, now);
        let cause = Cause {
            kind: FormationReason::WorkerFailed,
            log: format!("worker.failed: {reason}"),
            reason,
        };
        self.lost(now, worker, cause, out);
    }

    /// A worker shuts down; the others continue from the next step boundary.
    pub(super) fn leaving(&mut self, now: u64, worker: &WorkerId, out: &mut Vec<Effect>) {
        let generation = self.generation;
        if !self.is_member(worker, generation) {
            return;
        }
        let others = self.others(worker);
        let enough = others.len() >= self.fewest();
        let reason = format!("worker {worker} shuts down and leaves");
        let cause = || Cause {
            kind: FormationReason::WorkerLeft,
            log: format!("worker.leaving: {reason}"),
            reason: reason.clone(),
        };
        match &self.phase {
            Phase::Running { .. } if enough => {
                // An announced leave is not a failed attempt.
                self.futile = self.futile.saturating_sub(1);
                let at_boundary = self.liveness.regroup_at.is_none();
                self.regroup(now, others, at_boundary, BTreeSet::new(), cause(), out);
                let worker = worker.clone();
                out.push(Effect::SendYield { worker, generation });
            }
            // Too few workers are left to adopt its state, so it is stored in a checkpoint.
            Phase::Running { .. } => self.drain(out),
            Phase::Forming { .. } => {
                self.abort(vec![worker.clone()], &reason, out);
                self.regroup(now, others, false, BTreeSet::new(), cause(), out);
            }
            // A finishing member is about to release the run anyway.
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
        if self.liveness.awaited.remove(&worker).is_none() {
            return;
        }
        let forming_or_running =
            matches!(self.phase, Phase::Forming { .. } | Phase::Running { .. });
        if serving == Some(self.generation) {
            self.liveness
                .progress(worker.clone(), Heartbeat::default(), now);
            if let Some(first) = self.liveness.stateless.first()
                && forming_or_running
                && self.present().len() >= self.fewest()
            {
                let cause = returned_without(first);
                let members = self.present();
                self.regroup(now, members, false, BTreeSet::new(), cause, out);
                return;
            }
            // The worker may not have received the request to stop before the coordinator died.
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
            if forming_or_running && too_few && !self.liveness.awaited.is_empty() {
                // Members that have not returned yet may hold the state, so the generation is kept until they have, or
                // until their time is up.
                self.liveness.stateless.insert(worker);
                return;
            }
            let cause = returned_without(&worker);
            self.lost(now, &worker, cause, out);
        }
    }

    /// A worker released the run.
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
                let cause = Cause {
                    kind: FormationReason::WorkerLeft,
                    log: format!("worker.released: {reason}"),
                    reason,
                };
                self.lost(now, worker, cause, out);
            }
            Outcome::Blocked { reason } => self.blocked(now, worker, reason, out),
            Outcome::Unfit { trouble, reason } => self.unfit(now, worker, trouble, reason, out),
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

fn returned_without(worker: &WorkerId) -> Cause {
    let reason = format!("worker {worker} came back without its part of the run");
    Cause {
        kind: FormationReason::WorkerLost,
        log: format!("worker.lost: {reason}"),
        reason,
    }
}

pub(super) fn ids(peers: &[Peer]) -> Vec<WorkerId> {
    peers.iter().map(|(worker, _)| worker.clone()).collect()
}
