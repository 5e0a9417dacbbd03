//! Failure detection: which member is stuck, which is cut off from its peers, whose state differs.
//!
//! A dead worker stops sending heartbeats, and its session ends. A stuck worker keeps sending them, but its progress counter
//! (`ticks`) stands still. A worker that is blocked on a stuck peer makes no progress either; it is told apart by
//! its poll counter, which it increments while it waits. A worker that hangs inside a wait increments neither.
//!
//! Without progress, a member is evicted after
//!
//! | stage | before step times are known | afterwards (the larger of the two) |
//! |---|---|---|
//! | Forming, new in the run | 30 s | 15 s, 10x the median step |
//! | Forming, was ready before or waits for a peer | 30 s | 5 s, 10x the median step |
//! | Running | 60 s | 5 s, 10x the median step |
//! | Finishing | 60 s | 15 s, 10x the median step |
//!
//! Until two step times are known, a member that computes has at least as long as its largest piece of work takes a slow
//! machine (`patience`): it shows no progress within a piece. The only step that is known may be the last one of an epoch, which has
//! fewer images.
//!
//! This holds whether its heartbeats name the run, name another, or name none: a member that has not even begun its
//! assignment makes no progress either. The coordinator's own standstill is not counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Heartbeat;
use crate::ids::WorkerId;

/// A step may take so many times the median of the recent ones ...
const SLOWER: f64 = 10.0;
/// ... and at least this long, in milliseconds: any machine has short pauses.
const LEAST_PATIENCE_MS: u64 = 5_000;
/// Before the first steps are known, while the generation forms: fetching data takes long, but every chunk is a tick.
const FIRST_FORMING_MS: u64 = 30_000;
/// Before the first steps are known, afterwards: the first step also sets up libraries and caches.
const FIRST_PATIENCE_MS: u64 = 60_000;
/// Once step times are known: for a worker that is new in the run, which sets up its device and reads a state, and at the
/// end, when a checkpoint is written.
const LONG_PATIENCE_MS: u64 = 15_000;
/// Longest gap between polls of a healthy waiting worker: it polls 5 times a second, and heartbeats come at least twice.
const POLL_TIMEOUT_MS: u64 = 2_000;
/// A longer gap between ticks, which come 4 times a second, means that the coordinator itself stood still.
const OVERSLEPT_MS: u64 = 2_000;
/// More penalties do not bar a worker for longer: 64 s.
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
    /// When the next generation forms, and why, after connections between members broke.
    pub regroup_at: Option<(u64, String)>,
    /// Members whose connections broke: they wait for the next generation.
    pub interrupted: BTreeSet<WorkerId>,
    /// Which peers a member could not reach, and when it is decided which of them is cut off.
    unreachable: BTreeMap<WorkerId, BTreeSet<WorkerId>>,
    unreachable_at: Option<u64>,
    /// Members that have not reconnected since the coordinator's restart, and until when they may.
    pub awaited: BTreeMap<WorkerId, u64>,
    /// Stateless members: they reconnected without their part of the run, while others are still awaited.
    pub stateless: BTreeSet<WorkerId>,
    digests: BTreeMap<u64, BTreeMap<WorkerId, u128>>,
    penalties: BTreeMap<WorkerId, Penalty>,
    ticked_ms: Option<u64>,
}

/// What is known of a member.
#[derive(Debug, Clone, PartialEq, Default)]
struct Member {
    heartbeat: Heartbeat,
    worked_ms: u64,
    polled_ms: u64,
    /// It was ready in the generation before, so it has all that it needs.
    settled: bool,
}

impl Member {
    /// For how long it has made no progress, in milliseconds.
    fn still(&self, now: u64) -> u64 {
        now.saturating_sub(self.worked_ms)
    }

    /// It waits for a peer, and its polls show that it does not hang in the wait.
    fn waits(&self, now: u64, patience: u64) -> bool {
        self.heartbeat.waiting_for.is_some() && now.saturating_sub(self.polled_ms) <= patience
    }
}

/// The stage of a generation; each has its own patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Forming,
    Running,
    Finishing,
}

/// A worker's penalties in this run.
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

/// Why a generation makes no progress.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// This member is stuck: without progress for the first number of milliseconds, longer than the second.
    Member(WorkerId, u64, u64),
    /// All members wait for each other, for so many milliseconds.
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
        self.await_nobody();
        self.digests.clear();
        self.ticked_ms = None;
    }

    /// Samples that the members have scored in the evaluation under way, by their heartbeats.
    pub fn scored(&self) -> u64 {
        let members = self.members.values();
        members.fold(0, |sum, member| sum.saturating_add(member.heartbeat.scored))
    }

    /// All members are connected and have all that they need.
    pub fn all_ready(&mut self) {
        self.settle_complaints();
        for member in self.members.values_mut() {
            member.settled = true;
        }
    }

    /// Drops complaints about unreachable peers.
    pub fn settle_complaints(&mut self) {
        self.unreachable.clear();
        self.unreachable_at = None;
    }

    /// `worker` is no member any more; if it comes back, it is new.
    pub fn forget(&mut self, worker: &WorkerId) {
        self.members.remove(worker);
    }

    /// Takes a member's heartbeat in.
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

    /// Whoever has not come back since the coordinator's restart is not waited for any more.
    pub fn await_nobody(&mut self) {
        self.awaited.clear();
        self.stateless.clear();
    }

    /// Whether so much time has passed since the last tick that the coordinator itself must have stood still: then
    /// its workers' heartbeats are not read yet, and each gets its full patience again.
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

    /// A step took `ms` milliseconds.
    pub fn step_took(&mut self, ms: f64) {
        if self.steps_ms.len() == STEPS {
            self.steps_ms.pop_front();
        }
        self.steps_ms.push_back(ms);
    }

    /// The median time of the recent steps in milliseconds; None before any is known. Not the longest: a member may have
    /// been stuck in it.
    pub fn usual_step_ms(&self) -> Option<f64> {
        let mut steps: Vec<f64> = self.steps_ms.iter().copied().collect();
        steps.sort_by(f64::total_cmp);
        steps.get(steps.len() / 2).copied().filter(|ms| *ms > 0.0)
    }

    /// How long a member may go without progress, in milliseconds; `short` for one that has nothing to set up or to read.
    fn patience(&self, stage: Stage, short: bool) -> u64 {
        let Some(usual) = self.usual_step_ms() else {
            return match stage {
                Stage::Forming => FIRST_FORMING_MS,
                Stage::Running | Stage::Finishing => FIRST_PATIENCE_MS,
            };
        };
        let least = match stage {
            Stage::Running => LEAST_PATIENCE_MS,
            Stage::Forming if short => LEAST_PATIENCE_MS,
            Stage::Forming | Stage::Finishing => LONG_PATIENCE_MS,
        };
        ((usual * SLOWER) as u64).max(least)
    }

    /// Finds a stuck member, or a deadlock. `piece` is how long a member may compute without a sign of progress, in milliseconds,
    /// as far as step times do not say.
    pub fn stuck(&self, stage: Stage, now: u64, piece: impl FnOnce() -> u64) -> Option<Stuck> {
        let piece = match self.steps_ms.len() {
            0 | 1 => piece(),
            _ => 0,
        };
        for (worker, member) in &self.members {
            // A member that waits has nothing to set up or to read.
            let waiting = member.heartbeat.waiting_for.is_some();
            let (still, mut patience) = (
                member.still(now),
                self.patience(stage, member.settled || waiting),
            );
            // While a generation forms, those of the one before may still be in a step.
            if !waiting && (member.settled || stage != Stage::Forming) {
                patience = patience.max(piece);
            }
            let idle = still > patience && !member.waits(now, patience);
            if idle && !self.awaited.contains_key(worker) {
                return Some(Stuck::Member(worker.clone(), still, patience));
            }
        }
        // It is a deadlock only if all members poll; one that does not poll is about to be found stuck. A state that is
        // handed over takes long, and meanwhile all wait.
        let patience = self.patience(stage, false);
        let waits = |v: &Member| v.still(now) > patience && v.waits(now, POLL_TIMEOUT_MS);
        let shortest = self.members.values().map(|v| v.still(now)).min()?;
        let all_wait = self.members.values().all(waits);
        all_wait.then_some(Stuck::Deadlock(shortest))
    }

    /// `worker` reports that it cannot reach `peers`.
    pub fn cannot_reach(&mut self, worker: WorkerId, peers: Vec<WorkerId>, decide_at: u64) {
        self.unreachable.entry(worker).or_default().extend(peers);
        self.unreachable_at.get_or_insert(decide_at);
    }

    /// Whether a member could not reach a peer, and it is not decided yet which is cut off.
    pub fn has_complaints(&self) -> bool {
        self.unreachable_at.is_some()
    }

    /// The member that most could not reach; among equals the last of `ranks`. None before it is time.
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

    /// When the next tick is due.
    pub fn wake(&self) -> Option<u64> {
        // A complaint is decided before the interruptions that follow from it.
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

    /// A worker failed: from the second failure on it is barred from the run, each time for longer.
    pub fn penalize(&mut self, worker: &WorkerId, now: u64) {
        let penalties = self.penalties.entry(worker.clone()).or_default();
        penalties.count += 1;
        if penalties.count > 1 {
            penalties.until_ms = now + (1000 << penalties.count.min(MAX_PENALTIES));
        }
    }

    /// A worker was stuck, and all others had to wait for it: it is barred at once, and from the second time on for the
    /// longest time.
    pub fn penalize_stuck(&mut self, worker: &WorkerId, now: u64) {
        let penalties = self.penalties.entry(worker.clone()).or_default();
        penalties.count += MAX_PENALTIES / 2;
        penalties.until_ms = now + (1000 << penalties.count.min(MAX_PENALTIES));
    }

    /// A worker's state differed from the majority's. True if it must not serve this run again: one flipped bit may be
    /// chance, a second one points to a broken machine.
    pub fn differed(&mut self, worker: &WorkerId) -> bool {
        let penalties = self.penalties.entry(worker.clone()).or_default();
        penalties.differed += 1;
        if penalties.differed > 1 {
            penalties.until_ms = u64::MAX;
        }
        penalties.differed > 1
    }

    /// Workers that have ever been barred, and until when.
    pub fn barred(&self) -> BTreeMap<WorkerId, u64> {
        let barred = self.penalties.iter().filter(|(_, p)| p.until_ms > 0);
        barred
            .map(|(worker, p)| (worker.clone(), p.until_ms))
            .collect()
    }

    /// Until when a worker is barred from the run.
    pub fn barred_until(&self, worker: &WorkerId) -> u64 {
        self.penalties.get(worker).map_or(0, |s| s.until_ms)
    }

    /// A person resumed the run: every worker may serve it again.
    pub fn reset_penalties(&mut self) {
        self.penalties.clear();
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
