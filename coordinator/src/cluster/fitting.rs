//! Which connected workers could serve a run: those with enough memory that are neither left out nor barred.

use fovea_core::count::count;
use fovea_core::memory::Misfit;

use super::SessionId;
use super::state::{Actor, Live};
use crate::run::{Demand, RunInput};

/// Workers that a reason names, at most.
const NAMED: usize = 3;

impl Actor {
    /// Until when a run does not want a worker.
    pub(super) fn barred_until(&self, number: u64, id: SessionId) -> u64 {
        match (self.runs.get(&number), self.sessions.get(&id)) {
            (Some(live), Some(session)) => {
                let until = live.status.barred.get(&session.hello.id);
                until.copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// What a worker lacks of the memory that a run needs; None if it has enough, or if that is not known.
    pub(super) fn misfit(&self, live: &Live, id: SessionId) -> Option<Misfit> {
        let have = self.sessions.get(&id)?.hello.memory;
        live.needs
            .at(have.place(), &live.handle.spec)?
            .misfit(&have)
    }

    /// Whether a worker could serve a run when it has nothing else to do.
    fn is_usable(&self, live: &Live, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(&id) else {
            return false;
        };
        let worker = &session.hello.id;
        let for_good = |until: &u64| *until == u64::MAX;
        !session.leaving
            && !live.status.left_out.contains_key(worker)
            && !live.status.barred.get(worker).is_some_and(for_good)
            && self.misfit(live, id).is_none()
    }

    /// Tells queued runs how many workers could serve them, where that has changed.
    pub(super) fn count_usable(&mut self, runs: impl Iterator<Item = u64>) {
        for number in runs {
            let Some(live) = self.runs.get(&number) else {
                continue;
            };
            let usable = self.sessions.keys().filter(|id| self.is_usable(live, **id));
            let usable = usable.count();
            // While some are left out each change of them may matter, too.
            let same = live.usable == Some(usable) && live.status.left_out.is_empty();
            if !same && let Some(live) = self.runs.get_mut(&number) {
                live.usable = Some(usable);
                live.handle.send(RunInput::Usable(usable));
            }
        }
    }

    /// Which workers are left out of a run, for people.
    pub(super) fn troubles(&self, number: u64) -> Option<String> {
        let left_out = &self.runs.get(&number)?.status.left_out;
        let named: Vec<String> = left_out
            .iter()
            .take(NAMED)
            .map(|(worker, why)| format!("{worker} ({}): {}", why.trouble, why.reason))
            .collect();
        let more = left_out.len().saturating_sub(NAMED);
        match (named.is_empty(), more) {
            (true, _) => None,
            (false, 0) => Some(format!("left out: {}", named.join("; "))),
            (false, more) => Some(format!("left out: {}; and {more} more", named.join("; "))),
        }
    }

    /// Which of `workers` have too little memory for a run, for people.
    pub(super) fn too_small(&self, number: u64, workers: &[SessionId]) -> Option<String> {
        let live = self.runs.get(&number)?;
        let misfits: Vec<(&str, Misfit)> = workers
            .iter()
            .filter_map(|id| {
                let misfit = self.misfit(live, *id)?;
                Some((self.sessions.get(id)?.hello.id.as_str(), misfit))
            })
            .collect();
        let (_, first) = misfits.first()?;
        let named: Vec<String> = misfits
            .iter()
            .take(NAMED)
            .map(|(worker, misfit)| format!("{worker} has {}", misfit.have()))
            .collect();
        let more = match misfits.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {} less, too", count(more, "other has", "others have")),
        };
        let cure = live.handle.spec.smaller();
        Some(format!(
            "too little memory: {}, and {}{more}; {cure}",
            first.need(),
            named.join(", ")
        ))
    }

    /// Why the memory of no connected worker is enough for a run that waits, if that is so.
    pub(super) fn memory_shortage(&self, number: u64) -> Option<String> {
        let live = self.runs.get(&number)?;
        let waits = matches!(live.status.demand, Demand::Start { .. } | Demand::Nothing);
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        let fits = all.iter().any(|id| self.misfit(live, *id).is_none());
        (waits && !fits)
            .then(|| self.too_small(number, &all))
            .flatten()
    }
}
