//! The order of the queue, and how many workers the runs of one person may have.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use fovea_core::ids::RunId;
use fovea_core::priority::Priority;
use fovea_core::run::Phase;

use super::session::Session;
use super::state::Actor;

/// A queued run, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedRun {
    pub id: RunId,
    /// The priority in force.
    pub priority: Priority,
    /// Its place: the priority, raised by waiting.
    pub place: Priority,
    pub owner: Option<String>,
    /// Workers that it needs, and that it takes at most.
    pub min: u32,
    pub max: u32,
    /// How long it has waited, milliseconds.
    pub waited_ms: u64,
    /// Why.
    pub waiting: String,
}

impl Actor {
    /// Where a run stands in the queue: the higher priority first, raised by waiting, then the earlier submission.
    pub(super) fn place_of(&self, number: u64) -> (Reverse<Priority>, u64) {
        (Reverse(self.aged(number)), number)
    }

    /// A run's priority, raised by waiting.
    fn aged(&self, number: u64) -> Priority {
        let Some(live) = self.runs.get(&number) else {
            return Priority::Low;
        };
        let waited = live
            .queued_since
            .map_or(0, |since| self.now().saturating_sub(since));
        let age_ms = self.config.priority_age_s * 1000;
        live.status.priority.aged(waited, age_ms)
    }

    /// The queued runs, in the order of the queue.
    pub(super) fn queue(&self) -> Vec<QueuedRun> {
        let mut queue: Vec<(u64, QueuedRun)> = Vec::new();
        for (number, live) in &self.runs {
            let shown = live.handle.shown();
            let Phase::Queued { reason } = &shown.run.phase else {
                continue;
            };
            let spec = &live.handle.spec;
            let entry = QueuedRun {
                id: live.handle.id.clone(),
                priority: live.status.priority,
                place: self.aged(*number),
                owner: live.owner.clone(),
                min: spec.workers.min,
                max: spec.max_workers(),
                waited_ms: live
                    .queued_since
                    .map_or(0, |since| self.now().saturating_sub(since)),
                waiting: shown.waiting.or_else(|| reason.clone()).unwrap_or_default(),
            };
            queue.push((*number, entry));
        }
        queue.sort_by_key(|(number, _)| self.place_of(*number));
        queue.into_iter().map(|(_, entry)| entry).collect()
    }

    /// How many workers more the runs of each person may have, where that is limited.
    pub(super) fn quotas_left(&self) -> BTreeMap<String, usize> {
        let owners = self.runs.values().filter_map(|live| live.owner.as_ref());
        let quota = |owner: &String| Some((owner.clone(), self.config.quota_of(owner)?));
        let mut left: BTreeMap<String, usize> = owners.filter_map(quota).collect();
        if left.is_empty() {
            return left;
        }
        for session in self.sessions.values() {
            let run = self
                .works_for(session)
                .and_then(|number| self.runs.get(&number));
            let owner = run.and_then(|live| live.owner.as_ref());
            if let Some(left) = owner.and_then(|owner| left.get_mut(owner)) {
                *left = left.saturating_sub(1);
            }
        }
        left
    }

    /// The run that has a worker, or is about to have it.
    fn works_for(&self, session: &Session) -> Option<u64> {
        let served = session.assignment.as_ref();
        let offered = session.offered.map(|(number, _)| number);
        served
            .and_then(|served| self.number(&served.run))
            .or(offered)
            .or(session.preparing.map(|preparing| preparing.run))
    }
}
