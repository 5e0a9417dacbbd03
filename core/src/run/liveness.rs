//! What is known of the members' health, and what follows from it: who is stuck, who is unreachable, whose
//! state differs.
//!
//! A stuck worker is told from a dead one by its heartbeats, which go on, and from one that waits for a stuck
//! peer by what the heartbeats say: who waits looks up again and again, and who hangs, within a wait or not,
//! does neither that nor any work. How long is too long follows from the run's own step times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Heartbeat;
use crate::ids::WorkerId;

/// A worker may take so many times the median of the recent steps without a sign of work ...
const SLOWER: f64 = 10.0;
/// ... and this in any case, milliseconds. Machines hiccup.
const LEAST_PATIENCE_MS: u64 = 5_000;
/// Before the first steps are known: fetching data takes its time, but every chunk is a sign of work.
const FIRST_PATIENCE_MS: u64 = 60_000;
/// In a run whose steps are known: for a worker that is new in it, which has a device to set up and a state to
/// read, and at the end, when a checkpoint goes to the disk.
const LONG_PATIENCE_MS: u64 = 15_000;
/// Who waits looks up five times a second, and heartbeats come at least twice.
const POLL_TIMEOUT_MS: u64 = 2_000;
/// Ticks come four times a second.
const OVERSLEPT_MS: u64 = 2_000;
/// More penalties do not keep a worker away for longer: some 64 seconds.
const MAX_PENALTIES: u32 = 6;
/// Steps whose times count.
const STEPS: usize = 16;
/// Steps whose digests are incomplete, at most.
const DIGESTS: usize = 8;

/// Health of the members of a generation, and of workers over generations.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Liveness {
    members: BTreeMap<WorkerId, Member>,
    steps_ms: VecDeque<f64>,
    /// When to form anew, and why: somebody's peers broke off.
    pub regroup_at: Option<(u64, String)>,
    /// Whose peers broke off: they keep still until the next generation.
    pub interrupted: BTreeSet<WorkerId>,
    /// Who could not reach whom, and when to draw the consequence.
    unreachable: BTreeMap<WorkerId, BTreeSet<WorkerId>>,
    unreachable_at: Option<u64>,
    /// Members that may still come back after the coordinator's restart, until then.
    pub awaited: BTreeMap<WorkerId, u64>,
    /// Members that came back without their part of the run, while others are still awaited.
    pub stateless: BTreeSet<WorkerId>,
    digests: BTreeMap<u64, BTreeMap<WorkerId, u128>>,
    penalties: BTreeMap<WorkerId, Penalty>,
    ticked_ms: Option<u64>,
}

/// A member's signs of work.
#[derive(Debug, Clone, PartialEq, Default)]
struct Member {
    heartbeat: Heartbeat,
    worked_ms: u64,
    polled_ms: u64,
    /// It has been ready in the generation before, so it has all that it needs.
    settled: bool,
}

impl Member {
    /// Without work for so long.
    fn still(&self, now: u64) -> u64 {
        now.saturating_sub(self.worked_ms)
    }

    /// It waits for a peer, and not just seemingly.
    fn waits(&self, now: u64, patience: u64) -> bool {
        self.heartbeat.waiting_for.is_some() && now.saturating_sub(self.polled_ms) <= patience
    }
}

/// What the members of a generation are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Forming,
    Running,
    Finishing,
}

/// What a worker has to its account.
#[derive(Debug, Clone, PartialEq, Default)]
struct Penalty {
    count: u32,
    until_ms: u64,
    differed: u32,
}

/// How the members' states compare.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not all digests are here yet.
    Incomplete,
    /// All are equal.
    Agreed,
    /// These differ from the majority.
    Differ(BTreeSet<WorkerId>),
    /// There is no majority.
    Disputed,
}

/// Who is to blame for standing still.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// This member does not work, for so long, longer than that.
    Member(WorkerId, u64, u64),
    /// All wait for each other, for so long.
    Deadlock(u64),
}

impl Liveness {
    /// A generation begins.
    pub fn begin(&mut self, members: impl Iterator<Item = WorkerId>, now: u64) {
        let before = std::mem::take(&mut self.members);
        let fresh = |worker| {
            let member = Member {
                worked_ms: now,
                polled_ms: now,
                settled: before.get(&worker).is_some_and(|v| v.settled),
                ..Member::default()
            };
            (worker, member)
        };
        self.members = members.map(fresh).collect();
        self.regroup_at = None;
        self.interrupted.clear();
        self.settle_complaints();
        self.awaited.clear();
        self.stateless.clear();
        self.digests.clear();
        self.ticked_ms = None;
    }

    /// All members reach each other and have all that they need.
    pub fn all_ready(&mut self) {
        self.settle_complaints();
        for member in self.members.values_mut() {
            member.settled = true;
        }
    }

    /// What was complained of is of no interest any more.
    pub fn settle_complaints(&mut self) {
        self.unreachable.clear();
        self.unreachable_at = None;
    }

    /// Nothing is expected of `worker` any more; if it comes back, it is new.
    pub fn forget(&mut self, worker: &WorkerId) {
        self.members.remove(worker);
    }

    /// A sign of life.
    pub fn progress(&mut self, worker: WorkerId, heartbeat: Heartbeat, now: u64) {
        let member = self.members.entry(worker).or_insert_with(|| Member {
            worked_ms: now,
            polled_ms: now,
            ..Member::default()
        });
        let before = std::mem::replace(&mut member.heartbeat, heartbeat);
        if heartbeat.ticks != before.ticks {
            member.worked_ms = now;
        }
        if (heartbeat.polls, heartbeat.waiting_for) != (before.polls, before.waiting_for) {
            member.polled_ms = now;
        }
    }

    /// Whether so much time has passed since the last look at it that the coordinator itself must have stood
    /// still: then what its workers did meanwhile is not known yet, and each gets its full time again.
    pub fn overslept(&mut self, now: u64) -> bool {
        let before = self.ticked_ms.replace(now);
        let asleep = before.is_some_and(|before| now > before + OVERSLEPT_MS);
        if let (true, Some(before)) = (asleep, before) {
            let lost = now - before;
            for member in self.members.values_mut() {
                member.worked_ms = now;
                member.polled_ms = now;
            }
            for until in self.awaited.values_mut() {
                *until += lost;
            }
        }
        asleep
    }

    /// A step took so long.
    pub fn step_took(&mut self, ms: f64) {
        if self.steps_ms.len() == STEPS {
            self.steps_ms.pop_front();
        }
        self.steps_ms.push_back(ms);
    }

    /// The median time of the recent steps in milliseconds; None before any is known.
    pub fn usual_step_ms(&self) -> Option<f64> {
        let mut steps: Vec<f64> = self.steps_ms.iter().copied().collect();
        steps.sort_by(f64::total_cmp);
        steps.get(steps.len() / 2).copied().filter(|ms| *ms > 0.0)
    }

    /// How long nobody need show any work; `short` where nothing but computing or waiting is to be done.
    fn patience(&self, doing: Stage, short: bool) -> u64 {
        // Not the longest: that may be one in which somebody was stuck.
        let mut steps: Vec<f64> = self.steps_ms.iter().copied().collect();
        steps.sort_by(f64::total_cmp);
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
        if usual == 0.0 {
            return FIRST_PATIENCE_MS;
        }
        let least = match doing {
            Stage::Running => LEAST_PATIENCE_MS,
            Stage::Forming if short => LEAST_PATIENCE_MS,
            Stage::Forming | Stage::Finishing => LONG_PATIENCE_MS,
        };
        ((usual * SLOWER) as u64).max(least)
    }

    /// Who, if anyone, stands still for too long.
    pub fn stuck(&self, doing: Stage, now: u64) -> Option<Stuck> {
        for (worker, member) in &self.members {
            // Who waits, or seems to, has nothing to set up or to read.
            let short = member.settled || member.heartbeat.waiting_for.is_some();
            let (still, patience) = (member.still(now), self.patience(doing, short));
            let idle = still > patience && !member.waits(now, patience);
            if idle && !self.awaited.contains_key(worker) {
                return Some(Stuck::Member(worker.clone(), still, patience));
            }
        }
        // Nobody is to blame only if all are awake; of one that is not, it will soon be known. A state that is handed
        // over takes its time, and meanwhile all wait.
        let patience = self.patience(doing, false);
        let waits = |v: &Member| v.still(now) > patience && v.waits(now, POLL_TIMEOUT_MS);
        let shortest = self.members.values().map(|v| v.still(now)).min()?;
        let all_wait = self.members.values().all(waits);
        all_wait.then_some(Stuck::Deadlock(shortest))
    }

    /// `worker` says that it cannot reach `peers`.
    pub fn cannot_reach(&mut self, worker: WorkerId, peers: Vec<WorkerId>, decide_at: u64) {
        self.unreachable.entry(worker).or_default().extend(peers);
        self.unreachable_at.get_or_insert(decide_at);
    }

    /// Whether somebody could not reach a peer, and no consequence was drawn yet.
    pub fn has_complaints(&self) -> bool {
        self.unreachable_at.is_some()
    }

    /// Whom most could not reach; among equals the last of `ranks`. None before it is time.
    pub fn cut_off(&self, ranks: &[WorkerId], now: u64) -> Option<WorkerId> {
        if self.unreachable_at.is_none_or(|at| now < at) {
            return None;
        }
        let votes = |worker: &&WorkerId| {
            let named = |peers: &&BTreeSet<WorkerId>| peers.contains(*worker);
            self.unreachable.values().filter(named).count()
        };
        let named = |worker: &&WorkerId| votes(worker) > 0;
        ranks.iter().filter(named).max_by_key(votes).cloned()
    }

    /// When something is to be looked at.
    pub fn wake(&self) -> Option<u64> {
        // A complaint comes before the interruptions that follow from it.
        let regroup = self.regroup_at.as_ref().map(|(at, _)| *at);
        let regroup = regroup.filter(|_| !self.has_complaints());
        let awaited = self.awaited.values().min().copied();
        [regroup, self.unreachable_at, awaited]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes a member's digest in and compares when all of `members` are there.
    pub fn compare(
        &mut self,
        members: &[WorkerId],
        worker: WorkerId,
        step: u64,
        digest: u128,
    ) -> Verdict {
        let here = self.digests.entry(step).or_default();
        here.insert(worker, digest);
        if members.iter().any(|m| !here.contains_key(m)) {
            while self.digests.len() > DIGESTS {
                self.digests.pop_first();
            }
            return Verdict::Incomplete;
        }
        let here = self.digests.remove(&step).unwrap_or_default();
        // Older ones that are not complete by now never will be.
        self.digests.retain(|other, _| *other > step);
        let mut count: BTreeMap<u128, usize> = BTreeMap::new();
        for digest in here.values() {
            *count.entry(*digest).or_default() += 1;
        }
        if count.len() == 1 {
            return Verdict::Agreed;
        }
        match count.iter().find(|(_, n)| **n * 2 > here.len()) {
            Some((winner, _)) => Verdict::Differ(
                here.iter()
                    .filter(|(_, digest)| *digest != winner)
                    .map(|(worker, _)| worker.clone())
                    .collect(),
            ),
            None => Verdict::Disputed,
        }
    }

    /// A worker failed: from the second time on it is kept away from the run for a while, each time longer.
    pub fn penalize(&mut self, worker: &WorkerId, now: u64) {
        let penalties = self.penalties.entry(worker.clone()).or_default();
        penalties.count += 1;
        if penalties.count > 1 {
            penalties.until_ms = now + (1000 << penalties.count.min(MAX_PENALTIES));
        }
    }

    /// A worker was stuck, for which all others had to wait: it is kept away at once, and the second time for as long
    /// as any.
    pub fn penalize_stuck(&mut self, worker: &WorkerId, now: u64) {
        let penalties = self.penalties.entry(worker.clone()).or_default();
        penalties.count += MAX_PENALTIES / 2;
        penalties.until_ms = now + (1000 << penalties.count.min(MAX_PENALTIES));
    }

    /// A worker's state differed from the majority's. True if it must not serve this run again: one flipped
    /// bit may be chance, a second is a machine to be looked at.
    pub fn differed(&mut self, worker: &WorkerId) -> bool {
        let penalties = self.penalties.entry(worker.clone()).or_default();
        penalties.differed += 1;
        if penalties.differed > 1 {
            penalties.until_ms = u64::MAX;
        }
        penalties.differed > 1
    }

    /// Until when a worker is kept away from the run.
    pub fn barred_until(&self, worker: &WorkerId) -> u64 {
        self.penalties.get(worker).map_or(0, |s| s.until_ms)
    }

    /// A person tries again.
    pub fn reset_penalties(&mut self) {
        self.penalties.clear();
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
