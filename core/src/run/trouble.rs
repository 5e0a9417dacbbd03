//! A worker's own trouble: what keeps one worker from serving a run that others can serve.
//!
//! Missing or unreadable data, too little memory, a broken GPU, a wrong library, a full disk: such a worker is *left out*
//! of the run with the reason, and the run goes on with the others. It is offered again after a pause that depends on the
//! kind of trouble and doubles each time, and a new process at once, because it is another worker. A worker that reaches
//! the run (it is ready in a generation) is not left out any more.
//!
//! The run fails only if for `Limits::no_worker_patience_ms` fewer workers than it needs were without trouble, and then
//! with all reasons. Trouble of the run itself fails it at once: an outcome that is fatal, or the same wrong
//! content reported by several workers with nobody left.
//!
//! None of this is journalled: after a restart of the coordinator it is found out again.

use std::collections::BTreeMap;
use std::fmt;

use super::membership::Cause;
use super::{Effect, FormationReason, Phase, Run};
use crate::count::count;
use crate::ids::WorkerId;

/// Reasons that a failed run lists, at most.
const REASONS: usize = 32;

/// A kind of trouble of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// Too little memory of its machine or GPU.
    Memory,
    /// Its data folder is full, read-only or cannot be used.
    Disk,
    /// A file that it needs is missing or cannot be read there.
    Data,
    /// A file is there and is not what the run names. The same content at every worker is the run's trouble.
    Content,
    /// Its GPU, or the library that computes on it.
    Device,
    /// A library or a limit of its system.
    System,
}

impl Trouble {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Memory,
        Self::Disk,
        Self::Data,
        Self::Content,
        Self::Device,
        Self::System,
    ];

    /// The kind as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Data => "data",
            Self::Content => "content",
            Self::Device => "device",
            Self::System => "system",
        }
    }

    /// How long the worker is not offered to the run after the first time, and at the longest, in milliseconds. A disk
    /// may have room again soon; a GPU or a library needs a person, who restarts the worker.
    pub fn pauses_ms(self) -> (u64, u64) {
        match self {
            Self::Disk | Self::Data => (10_000, 600_000),
            Self::Memory => (30_000, 1_800_000),
            Self::Content | Self::Device | Self::System => (60_000, 3_600_000),
        }
    }

    /// The pause after the `times`-th time in a row, from 1.
    fn pause_ms(self, times: u32) -> u64 {
        let (first, longest) = self.pauses_ms();
        (first << times.saturating_sub(1).min(20)).min(longest)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A worker that is left out of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// What kind of trouble it has.
    pub trouble: Trouble,
    /// What it reported.
    pub reason: String,
    /// Since when, in milliseconds on the coordinator's clock.
    pub since_ms: u64,
    /// It is not offered before, on the same clock.
    pub until_ms: u64,
}

/// What is known of a worker's trouble.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    last: LeftOut,
    /// Times in a row.
    times: u32,
    /// It has not been ready since.
    holds: bool,
    /// It is not connected.
    gone: bool,
}

/// The workers that are left out, and since when too few others are there.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Troubles {
    records: BTreeMap<WorkerId, Record>,
    /// Connected workers that could serve the run, busy or not, as the cluster last counted them.
    usable: Option<usize>,
    /// Since when they have been too few while some are left out.
    short_since: Option<u64>,
}

impl Troubles {
    fn add(&mut self, now: u64, worker: &WorkerId, trouble: Trouble, reason: String) -> u64 {
        let before = self.records.get(worker);
        // Trouble of long ago says nothing of this one.
        let recent = |record: &&Record| {
            record.last.trouble == trouble && now < record.last.until_ms + trouble.pauses_ms().1
        };
        let times = before.filter(recent).map_or(0, |record| record.times) + 1;
        let pause = trouble.pause_ms(times);
        let last = LeftOut {
            trouble,
            reason,
            since_ms: now,
            until_ms: now + pause,
        };
        let record = Record {
            last,
            times,
            holds: true,
            gone: false,
        };
        self.records.insert(worker.clone(), record);
        pause
    }

    /// Workers whose trouble has not ended, as far as is known.
    fn holding(&self) -> impl Iterator<Item = (&WorkerId, &LeftOut)> {
        let holding = self.records.iter().filter(|(_, r)| r.holds && !r.gone);
        holding.map(|(worker, record)| (worker, &record.last))
    }

    /// `worker` is ready: it has all that it needs.
    pub fn over(&mut self, worker: &WorkerId) {
        if let Some(record) = self.records.get_mut(worker) {
            record.holds = false;
        }
    }

    /// `worker` is not connected any more. If its process says hello again it is offered after the shortest pause.
    pub fn gone(&mut self, worker: &WorkerId) {
        if let Some(record) = self.records.get_mut(worker) {
            record.gone = true;
            let (first, _) = record.last.trouble.pauses_ms();
            record.last.until_ms = record.last.until_ms.min(record.last.since_ms + first);
        }
    }

    /// A person resumed the run: every worker may serve it again.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// A generation is under way: there were enough workers.
    pub fn settled(&mut self) {
        self.short_since = None;
    }
}

impl Run {
    /// The workers that are left out of the run because of trouble of their own.
    pub fn left_out(&self) -> BTreeMap<WorkerId, LeftOut> {
        let member = |worker: &WorkerId| {
            let roster = self.roster();
            roster.is_some_and(|roster| roster.rank_of(worker).is_some())
        };
        self.troubles
            .holding()
            .filter(|(worker, _)| !member(worker))
            .map(|(worker, left_out)| (worker.clone(), left_out.clone()))
            .collect()
    }

    /// Until when trouble of its own keeps `worker` from the run, in milliseconds.
    pub(super) fn troubled_until(&self, worker: &WorkerId) -> u64 {
        let record = self.troubles.records.get(worker);
        record.filter(|r| r.holds).map_or(0, |r| r.last.until_ms)
    }

    /// `worker` has trouble of its own: as a member, or while it prepared to join.
    pub(super) fn unfit(
        &mut self,
        now: u64,
        worker: &WorkerId,
        trouble: Trouble,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        let pause = self.troubles.add(now, worker, trouble, reason.clone());
        let text = format!("worker {worker} is left out ({trouble})");
        let log = format!(
            "worker.left_out: {text}: {reason}; the run goes on without it, and it is offered again after {} s",
            pause / 1000
        );
        let generation = self.generation;
        if !self.is_member(worker, generation) {
            out.push(Effect::Log {
                warning: true,
                message: log,
            });
            return;
        }
        let others = self.others(worker);
        if others.is_empty()
            && !self.ends_regardless()
            && let Some(common) = self.common_content(&reason)
        {
            self.fail(common, &[], out);
            return;
        }
        // No attempt of the run failed.
        self.futile = self.futile.saturating_sub(1);
        self.stale = self.stale.saturating_sub(1);
        let cause = Cause {
            kind: FormationReason::WorkerUnfit,
            log,
            reason: text,
        };
        self.lost(now, worker, cause, out);
    }

    /// The reason to fail the run because workers agree on what is wrong: at least two that are left out report the same
    /// content, and no other trouble is known.
    fn common_content(&self, reason: &str) -> Option<String> {
        let all: Vec<&LeftOut> = self.troubles.holding().map(|(_, l)| l).collect();
        let same = |l: &&LeftOut| l.trouble == Trouble::Content && l.reason == reason;
        (all.len() >= 2 && all.iter().all(same)).then(|| {
            format!(
                "all {} that tried report the same: {reason}",
                count(all.len(), "worker", "workers")
            )
        })
    }

    /// So many connected workers could serve the run, busy or not, of those that are not left out.
    pub(super) fn usable(&mut self, now: u64, usable: usize) {
        self.troubles.usable = Some(usable);
        let queued = matches!(self.phase, Phase::Queued { .. });
        let short = usable < self.fewest() && self.troubles.holding().next().is_some();
        if queued && short {
            self.troubles.short_since.get_or_insert(now);
        } else if !short {
            self.troubles.short_since = None;
        }
    }

    /// When a tick is due because too few workers are without trouble.
    pub(super) fn shortage_wake(&self) -> Option<u64> {
        let queued = matches!(self.phase, Phase::Queued { .. });
        let since = self.troubles.short_since.filter(|_| queued)?;
        Some(since.saturating_add(self.limits.no_worker_patience_ms))
    }

    /// Fails a run that has had too few workers without trouble for too long. Returns whether it did.
    pub(super) fn tick_shortage(&mut self, now: u64, out: &mut Vec<Effect>) -> bool {
        if self.shortage_wake().is_none_or(|due| now < due) {
            return false;
        }
        let patience = self.limits.no_worker_patience_ms / 1000;
        let usable = self.troubles.usable.unwrap_or(0);
        let mut reason = format!(
            "{} needed, and for {patience} s (no_worker_patience_s) only {usable} could serve the run; the others \
             reported trouble of their own. Correct it and resume the run",
            count(self.fewest(), "worker is", "workers are"),
        );
        let all: Vec<(&WorkerId, &LeftOut)> = self.troubles.holding().collect();
        for (worker, left_out) in all.iter().take(REASONS) {
            let LeftOut {
                trouble,
                reason: why,
                ..
            } = left_out;
            reason.push_str(&format!("\nworker {worker} ({trouble}): {}", one_line(why)));
        }
        if all.len() > REASONS {
            reason.push_str(&format!("\nand {} more", all.len() - REASONS));
        }
        self.fail(reason, &[], out);
        true
    }
}

/// Text without line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
