//! Giving workers to runs: queued runs start, runs under way gain workers.
//!
//! A worker that is to join a run under way prepares first (it fetches its part of the data and connects to the
//! members), so that the run is interrupted for no longer than a step and the transfer of the state.

use std::collections::{BTreeMap, HashMap, HashSet};

use fovea_core::count::count;
use fovea_core::ids::{GroupId, RunId, WorkerId};
use fovea_core::roster::Roster;
use tracing::{info, trace, warn};

use super::SessionId;
use super::gpus::{Admission, InUse, reason};
use super::reasons::Cause;
use super::scheduler::{Verdict, Waiting, schedule};
use super::session::{Preparing, Session};
use super::state::Actor;
use crate::messages::{CoordinatorMessage, Gpu, NotPrepared, Prepare};
use crate::run::{Demand, RunInput};

/// A worker that could not prepare is not asked again for so long, milliseconds.
const PREPARE_AGAIN_MS: u64 = 5_000;
/// Workers that prepare at the same time wait so long for each other, milliseconds.
const JOIN_TOGETHER_MS: u64 = 3_000;

impl Actor {
    /// Starts what can start and lets join who can join. Returns when to schedule again.
    pub(super) fn schedule(&mut self) -> Option<u64> {
        if self.draining.is_some() {
            return None;
        }
        let starts = self.start_queued();
        let joins = self.let_join();
        [starts, joins].into_iter().flatten().min()
    }

    fn start_queued(&mut self) -> Option<u64> {
        let now = self.now();
        let mut wake: Option<u64> = None;
        self.forget_promises();
        let idle = self.idle_workers();
        let room = *self.room.borrow();
        let mut queued = Vec::new();
        let mut held_back = Vec::new();
        // Of a group, those after one that has yet to say what it wants wait for that.
        let mut ahead: HashSet<&GroupId> = HashSet::new();
        for (number, live) in &self.runs {
            if live.fresh {
                ahead.extend(&live.group);
            }
            let (min, max, recovers) = match live.status.demand {
                Demand::Start { min, max } => (min, max, false),
                Demand::Await { members } => (0, members, true),
                Demand::Join { .. } | Demand::Nothing => continue,
            };
            if live.group.as_ref().is_some_and(|of| ahead.contains(of)) {
                continue;
            }
            // A run that has started keeps its newest checkpoint whatever the disk; a new one does not begin.
            if live.status.generation == 0
                && let Some(reason) = room.too_little()
            {
                held_back.push((*number, reason));
                continue;
            }
            for until in live.status.barred.values() {
                // Looked at again when the bar ends.
                if *until > now && *until < u64::MAX {
                    wake = Some(wake.map_or(*until, |wake| wake.min(*until)));
                }
            }
            let suits = |id: &SessionId| {
                let promised = self.sessions.get(id).and_then(|s| s.promised);
                promised.is_none_or(|to| to == *number)
                    && self.barred_until(*number, *id) <= now
                    && self.unfit(live, *id).is_none()
            };
            let mut suitable: Vec<SessionId> = idle.iter().copied().filter(suits).collect();
            // First those that hold its state, then by order of joining.
            suitable.sort_by_key(|id| {
                let held = self.sessions.get(id).and_then(|s| s.held_run.as_ref());
                (held != Some(&live.handle.id), *id)
            });
            queued.push(Waiting {
                number: *number,
                min,
                max,
                recovers,
                startable_since: live.startable_since,
                owner: live.owner.clone(),
                suitable: self.by_machine(live, suitable),
            });
        }
        queued.sort_by_key(|waiting| self.place_of(waiting.number));
        for (number, reason) in held_back {
            self.waits(number, Cause::NoRoom, reason);
        }
        trace!(placed = queued.len(), "placing the queued runs");
        let wants = queued.iter().filter(|waiting| !waiting.recovers);
        self.count_usable(wants.map(|waiting| waiting.number));
        let gpus = self.gpus(&idle);
        let grace = self.config.forming_grace_ms;
        let holds = |waiting: &Waiting, free: &[SessionId]| self.others_come(waiting, free);
        let verdicts = schedule(now, grace, &queued, &gpus, self.quotas_left(), holds);
        for (waiting, (number, verdict)) in queued.iter().zip(verdicts) {
            let max = waiting.max;
            match verdict {
                Verdict::Start { workers } => self.offer(number, &workers, max),
                Verdict::Keep { workers } => {
                    self.keep_for(number, &workers);
                }
                Verdict::Quota { left } => self.over_quota(number, waiting.min, left),
                Verdict::Grace { since, until, free } => {
                    if let Some(live) = self.runs.get_mut(&number) {
                        live.startable_since = Some(since);
                    }
                    wake = Some(wake.map_or(until, |wake| wake.min(until)));
                    let reason = format!(
                        "could start with {}; waiting a moment for up to {max}",
                        count(free, "worker", "workers")
                    );
                    self.waits(number, Cause::Grace, reason);
                }
                Verdict::TooFew { free, sharing } => {
                    if let Some(live) = self.runs.get_mut(&number) {
                        live.startable_since = None;
                    }
                    let (coming, again) = self.take_workers(waiting, &free);
                    wake = wake.into_iter().chain(again).min();
                    self.too_few(waiting, &free, &sharing, coming, &idle);
                }
            }
        }
        wake
    }

    /// Offers workers to a queued run. They are not idle until it has handled the offer.
    fn offer(&mut self, number: u64, chosen: &[SessionId], max: usize) {
        let (now, hold) = (self.now(), self.config.min_hold_s * 1000);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        for session in self.sessions.values_mut() {
            session.promised = session.promised.filter(|to| *to != number);
        }
        let mut workers = Vec::with_capacity(chosen.len());
        for id in chosen {
            if let Some(session) = self.sessions.get_mut(id) {
                session.offered = Some((number, ticket));
                workers.push((session.hello.id.clone(), session.hello.address.clone()));
            }
        }
        let Some(live) = self.runs.get_mut(&number) else {
            return;
        };
        live.startable_since = None;
        live.queued_since = None;
        live.got_back(now, hold);
        // Until it reports: it is about to have what it wants.
        live.status.demand = Demand::Nothing;
        let names: Vec<&str> = workers.iter().map(|(id, _)| id.as_str()).collect();
        info!(
            run_id = %live.handle.id,
            generation = live.status.generation + 1,
            workers = names.join(" "),
            "run.starting: {} with {} of at most {}",
            live.handle.id,
            names.len(),
            count(max, "worker", "workers")
        );
        live.handle.send(RunInput::Assigned { workers, ticket });
    }

    /// Asks idle workers to prepare for runs that have room, and lets in those that are prepared.
    fn let_join(&mut self) -> Option<u64> {
        let now = self.now();
        let mut wake: Option<u64> = None;
        // Who prepares for a run that is no longer under way is free for others.
        for session in self.sessions.values_mut() {
            let under_way = |p: &Preparing| {
                let live = self.runs.get(&p.run);
                live.is_some_and(|live| live.status.roster.is_some())
            };
            session.preparing = session
                .preparing
                .filter(under_way)
                .filter(|_| !session.leaving);
        }
        let quotas = self.quotas_left();
        let mut with_room: Vec<(u64, usize)> = self
            .runs
            .iter()
            .filter_map(|(number, live)| match live.status.demand {
                Demand::Join { room } if room > 0 => {
                    let quota = live.owner.as_ref().and_then(|owner| quotas.get(owner));
                    Some((*number, quota.map_or(room, |left| room.min(*left))))
                }
                Demand::Join { .. }
                | Demand::Start { .. }
                | Demand::Await { .. }
                | Demand::Nothing => None,
            })
            .collect();
        with_room.sort_by_key(|(number, _)| self.place_of(*number));
        if with_room.is_empty() {
            return None;
        }
        let mut coming: HashMap<u64, Vec<(SessionId, Preparing)>> = HashMap::new();
        for (id, session) in &self.sessions {
            if let Some(preparing) = session.preparing {
                coming
                    .entry(preparing.run)
                    .or_default()
                    .push((*id, preparing));
            }
        }
        for (number, room) in with_room {
            let coming = coming.remove(&number).unwrap_or_default();
            let ready = coming.iter().any(|(_, p)| p.done);
            // Together, so that the run is interrupted once; but not for one that does not get ready.
            let waited_for = |p: &Preparing| !p.done && now < p.since + JOIN_TOGETHER_MS;
            if ready && !coming.iter().any(|(_, p)| waited_for(p)) {
                let done: Vec<SessionId> = coming
                    .iter()
                    .filter(|(_, p)| p.done)
                    .map(|(id, _)| *id)
                    .collect();
                self.let_in(number, &done);
                continue;
            }
            if ready {
                let until = coming
                    .iter()
                    .filter(|(_, p)| !p.done)
                    .map(|(_, p)| p.since + JOIN_TOGETHER_MS);
                wake = wake.into_iter().chain(until).min();
            }
            let mut room = room.saturating_sub(coming.len());
            let coming: Vec<SessionId> = coming.iter().map(|(id, _)| *id).collect();
            let mut asked = Vec::new();
            let mut in_use = self.gpus_in_use(number, &coming);
            for id in self.idle_workers() {
                let Some(session) = self.sessions.get(&id) else {
                    continue;
                };
                let gpu = self.own_gpu(session);
                let from = session.joins_from.max(self.barred_until(number, id));
                let is_member = self
                    .members
                    .get(&session.hello.id)
                    .is_some_and(|runs| runs.contains(&number));
                let promised = session.promised.is_some();
                if session.preparing.is_some() || promised || is_member || room == 0 {
                    continue;
                }
                // What it has does not change while it is connected.
                if self
                    .runs
                    .get(&number)
                    .is_some_and(|live| self.unfit(live, id).is_some())
                {
                    continue;
                }
                if from > now {
                    if from < u64::MAX {
                        wake = Some(wake.map_or(from, |wake| wake.min(from)));
                    }
                    continue;
                }
                // When that changes, so has a session or the run's roster.
                if in_use.admission(gpu) != Admission::Admitted {
                    continue;
                }
                in_use.add(gpu);
                asked.push(id);
                room -= 1;
            }
            for id in asked {
                self.ask_to_prepare(number, id);
            }
        }
        wake
    }

    fn let_in(&mut self, number: u64, done: &[SessionId]) {
        let mut in_use = self.gpus_in_use(number, &[]);
        let mut admitted = Vec::new();
        let mut refused = Vec::new();
        for id in done {
            let gpu = self.sessions.get(id).and_then(|s| self.own_gpu(s));
            match in_use.admission(gpu) {
                Admission::Admitted => admitted.push(*id),
                // A member on its GPU came back meanwhile.
                Admission::Shares => refused.push(*id),
                Admission::Later => continue,
            }
            in_use.add(gpu);
        }
        for id in refused {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.preparing = None;
            }
        }
        if admitted.is_empty() {
            return;
        }
        let (now, hold) = (self.now(), self.config.min_hold_s * 1000);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut workers = Vec::with_capacity(admitted.len());
        for id in admitted {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.preparing = None;
                session.offered = Some((number, ticket));
                workers.push((session.hello.id.clone(), session.hello.address.clone()));
            }
        }
        if let Some(live) = self.runs.get_mut(&number) {
            live.got_back(now, hold);
            // Until it reports.
            live.status.demand = Demand::Nothing;
            live.handle.send(RunInput::Joined { workers, ticket });
        }
    }

    fn ask_to_prepare(&mut self, number: u64, id: SessionId) {
        let now = self.now();
        let (Some(live), Some(session)) = (self.runs.get(&number), self.sessions.get_mut(&id))
        else {
            return;
        };
        let Some(roster) = &live.status.roster else {
            return;
        };
        let mut members: Vec<(WorkerId, String)> = roster
            .members
            .iter()
            .map(|m| (m.worker.clone(), m.address.clone()))
            .collect();
        members.push((session.hello.id.clone(), session.hello.address.clone()));
        session.preparing = Some(Preparing {
            run: number,
            since: now,
            done: false,
        });
        let worker = session.hello.id.clone();
        let run = &live.handle;
        info!(%worker, run_id = %run.id, "worker.preparing: {worker} prepares to join {}", run.id);
        let prepare = Prepare {
            run: run.id.clone(),
            spec: (*run.spec).clone(),
            dataset_digest: run.dataset_digest.to_string(),
            roster: Roster::deal(
                roster.generation + 1,
                &members,
                run.spec.train.virtual_ranks,
                roster.start_step,
            ),
        };
        self.send(&worker, CoordinatorMessage::Prepare(Box::new(prepare)));
    }

    /// A worker has prepared, or could not.
    pub(super) fn prepared(
        &mut self,
        id: SessionId,
        worker: &WorkerId,
        run: &RunId,
        problem: Option<NotPrepared>,
    ) {
        let number = self.number(run);
        let now = self.now();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(preparing) = &mut session.preparing else {
            return;
        };
        if Some(preparing.run) != number {
            return;
        }
        self.changed = true;
        let Some(NotPrepared { trouble, reason }) = problem else {
            preparing.done = true;
            return;
        };
        warn!(%worker, run_id = %run, reason, "worker.not_prepared: {worker} cannot join {run}: {reason}");
        session.preparing = None;
        session.joins_from = now + PREPARE_AGAIN_MS;
        if let Some(trouble) = trouble
            && let Some(live) = number.and_then(|n| self.runs.get(&n))
        {
            live.handle.send(RunInput::Unfit {
                worker: worker.clone(),
                trouble,
                reason,
            });
        }
    }

    /// Workers that can be given work, by order of joining.
    fn idle_workers(&self) -> Vec<SessionId> {
        self.sessions
            .iter()
            .filter(|(_, s)| s.is_idle())
            .map(|(id, _)| *id)
            .collect()
    }

    /// The GPU of a worker, if it uses one that no other worker of its run may use.
    fn own_gpu<'a>(&self, session: &'a Session) -> Option<&'a Gpu> {
        match self.config.allow_shared_gpu {
            true => None,
            false => session.hello.gpu.as_ref(),
        }
    }

    /// The GPUs of `workers`, where they must not be shared.
    pub(super) fn gpus(&self, workers: &[SessionId]) -> BTreeMap<SessionId, Gpu> {
        let gpu = |id: &SessionId| self.own_gpu(self.sessions.get(id)?).cloned();
        workers
            .iter()
            .filter_map(|id| Some((*id, gpu(id)?)))
            .collect()
    }

    /// The GPUs that the members of a run use, and those of workers that are about to join it.
    fn gpus_in_use(&self, number: u64, coming: &[SessionId]) -> InUse<'_> {
        let mut in_use = InUse::default();
        let roster = self
            .runs
            .get(&number)
            .and_then(|l| l.status.roster.as_ref());
        for member in roster.iter().flat_map(|roster| &roster.members) {
            let id = self.by_worker.get(&member.worker);
            match id.and_then(|id| self.sessions.get(id)) {
                Some(session) => in_use.add(self.own_gpu(session)),
                None => in_use.add_unknown(),
            }
        }
        for id in coming {
            if let Some(session) = self.sessions.get(id) {
                in_use.add(self.own_gpu(session));
            }
        }
        in_use
    }

    /// Why a worker is left out that shares the GPU of another.
    pub(super) fn shares(&self, left_out: SessionId, with: SessionId) -> Option<String> {
        let (left_out, with) = (self.sessions.get(&left_out)?, self.sessions.get(&with)?);
        let gpu = self.own_gpu(left_out)?;
        let (left_out, with) = (&left_out.hello.id, &with.hello.id);
        Some(reason(left_out.as_str(), gpu, with.as_str()))
    }

    /// Logs that a worker that has just joined shares the GPU of another.
    pub(super) fn note_shared_gpu(&self, id: SessionId) {
        let mine = |session: &Session| self.own_gpu(session).cloned();
        let Some(gpu) = self.sessions.get(&id).and_then(mine) else {
            return;
        };
        let same = |(other, session): &(&SessionId, &Session)| {
            **other != id && self.own_gpu(session) == Some(&gpu)
        };
        if let Some((with, _)) = self.sessions.iter().find(same)
            && let Some(why) = self.shares(id, *with)
        {
            warn!(gpu = gpu.uuid, "worker.shares_gpu: {why}");
        }
    }
}
