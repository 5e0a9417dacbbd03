//! Taking workers from runs of lower priority for a queued run that has too few.
//!
//! A worker that is taken is promised to the run: from then on nobody else gets it. It is idle when its run has let it go at a
//! step boundary, or has stored a checkpoint. Idle workers that the run could have are promised to it, too.

use std::collections::BTreeMap;

use fovea_core::count::count;
use fovea_core::ids::{RunId, WorkerId};
use fovea_core::priority::Priority;
use tracing::info;

use super::SessionId;
use super::displacement::{Displacement, Gift, Holder, displace};
use super::gpus::apart;
use super::scheduler::{Alike, Waiting};
use super::session::Session;
use super::state::{Actor, Live};
use crate::run::{Demand, RunInput};

impl Actor {
    /// Promises to runs that do not wait any more are void.
    pub(super) fn forget_promises(&mut self) {
        for session in self.sessions.values_mut() {
            let waits = |to: &u64| {
                let live = self.runs.get(to);
                live.is_some_and(|live| {
                    matches!(
                        live.status.demand,
                        Demand::Start { .. } | Demand::Await { .. }
                    )
                })
            };
            session.promised = session.promised.filter(waits);
        }
    }

    /// Whether workers come, or could come, to a run that could have `free` now.
    pub(super) fn others_come(&self, waiting: &Waiting, free: &[SessionId]) -> bool {
        !self.coming(waiting.number).is_empty()
            || self.displacement(waiting, free).0 != Displacement::Never
    }

    /// Takes what is needed beside `free`. Returns what is coming, for people, and when to look again.
    pub(super) fn take_workers(
        &mut self,
        waiting: &Waiting,
        free: &[SessionId],
    ) -> (Option<String>, Option<u64>) {
        let number = waiting.number;
        let coming = self.coming(number);
        if !coming.is_empty() {
            return (Some(what_comes(&coming)), None);
        }
        let Some(taker) = self.runs.get(&number).map(|live| live.handle.id.clone()) else {
            return (None, None);
        };
        let (displacement, free) = self.displacement(waiting, free);
        match displacement {
            Displacement::Never => {
                // They may be what a run needs that was asked before this one.
                let freed = self.keep_for(number, &[]);
                (None, freed.then(|| self.now()))
            }
            Displacement::Later { until, runs } => {
                self.keep_for(number, &free);
                let s = until.saturating_sub(self.now()).div_ceil(1000);
                let names: Vec<&str> = runs
                    .iter()
                    .filter_map(|run| Some(self.runs.get(run)?.handle.id.as_str()))
                    .collect();
                let reason = format!(
                    "{} gave workers away before and keeps those that it has got back for {s} s",
                    names.join(" ")
                );
                (Some(reason), Some(until))
            }
            Displacement::Now(gifts) => {
                self.keep_for(number, &free);
                for Gift { from, workers } in gifts {
                    self.take_from(number, &taker, from, &workers);
                }
                (Some(what_comes(&self.coming(number))), None)
            }
        }
    }

    /// What runs of lower priority can do for one that could have `free`, which are too few; and those of them that it keeps for that.
    fn displacement(
        &self,
        waiting: &Waiting,
        free: &[SessionId],
    ) -> (Displacement, Vec<SessionId>) {
        let never = (Displacement::Never, Vec::new());
        let Some(live) = self.runs.get(&waiting.number) else {
            return never;
        };
        let priority = live.status.priority;
        let holders = self.holders(priority);
        if holders.is_empty() {
            return never;
        }
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        let gpus = self.gpus(&all);
        let suits = |id: &SessionId| {
            self.barred_until(waiting.number, *id) <= self.now() && self.unfit(live, *id).is_none()
        };
        let suitable: Vec<SessionId> = all.iter().copied().filter(suits).collect();
        let mut later = None;
        for Alike { workers, .. } in self.by_machine(live, suitable) {
            let here: Vec<SessionId> = free
                .iter()
                .copied()
                .filter(|id| workers.contains(id))
                .collect();
            let enough = |taken: &[SessionId]| {
                let all = here.iter().chain(taken).copied();
                apart(all, &gpus, waiting.min).len() >= waiting.min
            };
            let of_kind = |id: SessionId| workers.contains(&id);
            match displace(self.now(), priority, &holders, of_kind, enough) {
                Displacement::Never => {}
                at @ Displacement::Later { .. } => later = later.or(Some((at, here))),
                at @ Displacement::Now(_) => return (at, here),
            }
        }
        later.unwrap_or(never)
    }

    fn take_from(&mut self, number: u64, taker: &RunId, from: u64, workers: &[SessionId]) {
        let mut names: Vec<WorkerId> = Vec::with_capacity(workers.len());
        for id in workers {
            if let Some(session) = self.sessions.get_mut(id) {
                session.promised = Some(number);
                names.push(session.hello.id.clone());
            }
        }
        let Some(live) = self.runs.get_mut(&from) else {
            return;
        };
        live.gave = true;
        let shown: Vec<&str> = names.iter().map(WorkerId::as_str).collect();
        info!(
            run_id = %taker, from = %live.handle.id, workers = shown.join(" "),
            "run.takes_workers: {taker} takes {} from {}, of lower priority",
            count(shown.len(), "worker", "workers"), live.handle.id
        );
        live.handle.send(RunInput::Give {
            workers: names,
            taker: taker.clone(),
        });
    }

    /// From now on these alone are promised to a run. Returns whether others were until now.
    pub(super) fn keep_for(&mut self, number: u64, workers: &[SessionId]) -> bool {
        let mut freed = false;
        for (id, session) in &mut self.sessions {
            if workers.contains(id) {
                session.promised = Some(number);
            } else if session.promised == Some(number) {
                session.promised = None;
                freed = true;
            }
        }
        freed
    }

    /// The run was lowered: idle workers that were promised to it are for whoever comes first now. Those that others are about
    /// to give come to it as before.
    pub(super) fn release_promised(&mut self, number: u64) {
        for session in self.sessions.values_mut() {
            let is_idle = session.assignment.is_none() && session.offered.is_none();
            session.promised = session.promised.filter(|to| *to != number || !is_idle);
        }
    }

    /// How many workers promised to a run are still with others, by the id of their run.
    fn coming(&self, number: u64) -> BTreeMap<RunId, usize> {
        let mut coming = BTreeMap::new();
        for session in self.sessions.values() {
            // One that has released its run is free when that run has handled it.
            let with = session.offered.map(|(of, _)| of);
            let with = with.or_else(|| self.number(&session.assignment.as_ref()?.run));
            let with = with.filter(|with| *with != number);
            if session.promised == Some(number)
                && let Some(live) = with.and_then(|with| self.runs.get(&with))
            {
                *coming.entry(live.handle.id.clone()).or_default() += 1;
            }
        }
        coming
    }

    /// The runs below a priority that could give workers: those that take steps. One that is about to give some is asked for no
    /// more.
    fn holders(&self, below: Priority) -> Vec<Holder> {
        let holder = |(number, live): (&u64, &Live)| {
            let roster = live.status.roster.as_ref()?;
            if live.status.priority >= below {
                return None;
            }
            let takes_steps = live.status.training && live.handle.spec.evaluate.is_none();
            let sessions: Vec<(SessionId, &Session)> = roster
                .members
                .iter()
                .filter_map(|member| {
                    let id = self.by_worker.get(&member.worker)?;
                    Some((*id, self.sessions.get(id)?))
                })
                .filter(|(_, session)| {
                    let served = session.assignment.as_ref();
                    !session.leaving && served.is_some_and(|s| s.run == live.handle.id)
                })
                .collect();
            let gives = sessions
                .iter()
                .any(|(_, session)| session.promised.is_some());
            (takes_steps && !gives).then(|| Holder {
                number: *number,
                priority: live.status.priority,
                min: live.handle.spec.workers.min as usize,
                members: sessions.iter().map(|(id, _)| *id).collect(),
                safe_until: live.safe_until,
            })
        };
        self.runs.iter().filter_map(holder).collect()
    }
}

/// What runs give, for people.
fn what_comes(coming: &BTreeMap<RunId, usize>) -> String {
    let from: Vec<String> = coming
        .iter()
        .map(|(run, workers)| format!("{} from {run}", count(*workers, "worker", "workers")))
        .collect();
    format!("on the way: {}", from.join(", "))
}
