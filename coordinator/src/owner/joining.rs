//! Giving workers to runs: queued runs start, runs under way gain workers.
//!
//! A worker that is to join a run under way first prepares itself (fetches its part of the data, tries to
//! reach the others), so that those who train wait for no more than a step and the state's transfer.

use fovea_core::ids::{RunId, WorkerId};
use fovea_core::roster::Roster;
use fovea_core::run::{Event, Phase};
use tracing::{info, warn};

use super::state::{Entry, Owner, OwnerError};
use super::workers::{Preparing, Session};
use super::{Prepare, SessionId, ToWorker};
use crate::scheduler::{Verdict, Waiting, schedule};

/// A worker that could not prepare itself is not asked again for so long, milliseconds.
const NOT_AGAIN_MS: u64 = 5_000;
/// Workers that prepare themselves at the same time wait so long for each other, milliseconds.
const TOGETHER_MS: u64 = 3_000;

impl Owner {
    /// Starts what can start and lets join who can join. Returns when to look again.
    pub(super) fn schedule(&mut self) -> Result<Option<u64>, OwnerError> {
        if self.draining.is_some() {
            return Ok(None);
        }
        let starts = self.start_queued()?;
        let joins = self.let_join()?;
        Ok([starts, joins].into_iter().flatten().min())
    }

    fn start_queued(&mut self) -> Result<Option<u64>, OwnerError> {
        let now = self.now();
        let mut wake: Option<u64> = None;
        let mut idle = self.idle_workers();
        let mut queued = Vec::new();
        for (number, entry) in &self.runs {
            if !matches!(entry.run.phase, Phase::Queued { .. }) {
                continue;
            }
            let wanted = idle.iter().filter(|id| {
                let until = self.barred_until(*number, **id);
                // Looked at again when the last of them is welcome again.
                if until > now && until < u64::MAX {
                    wake = Some(wake.map_or(until, |wake| wake.min(until)));
                }
                until <= now
            });
            queued.push(Waiting {
                number: *number,
                min: entry.run.spec.workers.min as usize,
                max: entry.run.spec.max_workers() as usize,
                startable_since: entry.startable_since,
                suitable: wanted.count(),
            });
        }
        for (number, verdict) in schedule(now, self.config.forming_grace_ms, &queued, idle.len()) {
            let Some(entry) = self.runs.get_mut(&number) else {
                continue;
            };
            let (min, max) = (entry.run.spec.workers.min, entry.run.spec.max_workers());
            match verdict {
                Verdict::Start { workers } => {
                    let chosen = self.choose(number, &mut idle, workers);
                    if chosen.len() < min as usize {
                        continue;
                    }
                    let names: Vec<&str> = chosen.iter().map(|(id, _)| id.as_str()).collect();
                    if let Some(entry) = self.runs.get(&number) {
                        info!(
                            run_id = %entry.run.id,
                            generation = entry.run.generation + 1,
                            workers = names.join(" "),
                            "starting with {} of at most {max} workers", names.len()
                        );
                    }
                    self.apply(number, Event::Assigned { workers: chosen })?;
                }
                Verdict::Grace { since, until, free } => {
                    entry.startable_since = Some(since);
                    wake = Some(wake.map_or(until, |wake| wake.min(until)));
                    entry.waits(format!(
                        "could start with {free} workers, waits a moment for up to {max}"
                    ));
                }
                Verdict::TooFew { free } => {
                    entry.startable_since = None;
                    entry.waits(format!("needs {min} workers, {free} are idle"));
                }
            }
        }
        Ok(wake)
    }

    /// Takes `count` workers for a run out of `idle`: first those that hold its state, then by order of
    /// joining.
    fn choose(
        &self,
        number: u64,
        idle: &mut Vec<SessionId>,
        count: usize,
    ) -> Vec<(WorkerId, String)> {
        let now = self.now();
        let mut suitable: Vec<SessionId> = idle
            .iter()
            .copied()
            .filter(|id| self.barred_until(number, *id) <= now)
            .collect();
        suitable.sort_by_key(|id| {
            let holds = self.sessions.get(id).and_then(|s| s.held_run) == Some(number);
            (!holds, *id)
        });
        suitable.truncate(count);
        idle.retain(|id| !suitable.contains(id));
        let hello = |id| self.sessions.get(&id).map(|s| &s.hello);
        suitable
            .into_iter()
            .filter_map(hello)
            .map(|h| (h.id.clone(), h.address.clone()))
            .collect()
    }

    /// Asks idle workers to prepare themselves for runs that have room, and lets in those that have.
    fn let_join(&mut self) -> Result<Option<u64>, OwnerError> {
        let now = self.now();
        let mut wake: Option<u64> = None;
        // Who prepares for a run that has come to rest is free for others.
        for session in self.sessions.values_mut() {
            let under_way = |p: &Preparing| {
                let entry = self.runs.get(&p.run);
                entry.is_some_and(|entry| entry.run.roster().is_some())
            };
            session.preparing = session
                .preparing
                .filter(under_way)
                .filter(|_| !session.leaving);
        }
        let with_room: Vec<(u64, usize)> = self
            .runs
            .iter()
            .map(|(number, entry)| (*number, entry.run.vacancies()))
            .filter(|(_, room)| *room > 0)
            .collect();
        for (number, room) in with_room {
            let on_the_way = |s: &Session| s.preparing.filter(|p| p.run == number);
            let coming: Vec<Preparing> = self.sessions.values().filter_map(on_the_way).collect();
            let ready = coming.iter().any(|p| p.done);
            // Together, so that the run is interrupted once; but not for one that does not get ready.
            let waited_for = |p: &Preparing| !p.done && now < p.since + TOGETHER_MS;
            if ready && !coming.iter().any(waited_for) {
                let workers: Vec<(WorkerId, String)> = self
                    .sessions
                    .values_mut()
                    .filter(|s| s.preparing.is_some_and(|p| p.run == number && p.done))
                    .map(|s| {
                        s.preparing = None;
                        (s.hello.id.clone(), s.hello.address.clone())
                    })
                    .collect();
                self.apply(number, Event::Joined { workers })?;
                continue;
            }
            if ready {
                let until = coming
                    .iter()
                    .filter(|p| !p.done)
                    .map(|p| p.since + TOGETHER_MS);
                wake = wake.into_iter().chain(until).min();
            }
            let mut room = room.saturating_sub(coming.len());
            for id in self.idle_workers() {
                let Some(session) = self.sessions.get(&id) else {
                    continue;
                };
                let from = session.joins_from.max(self.barred_until(number, id));
                if session.preparing.is_some() || room == 0 {
                    continue;
                }
                if from > now {
                    if from < u64::MAX {
                        wake = Some(wake.map_or(from, |wake| wake.min(from)));
                    }
                    continue;
                }
                self.ask_to_prepare(number, id);
                room -= 1;
            }
        }
        Ok(wake)
    }

    fn ask_to_prepare(&mut self, number: u64, id: SessionId) {
        let now = self.now();
        let (Some(entry), Some(session)) = (self.runs.get(&number), self.sessions.get_mut(&id))
        else {
            return;
        };
        let Some(roster) = entry.run.roster() else {
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
        info!(%worker, run_id = %entry.run.id, "asking a worker to prepare itself to join");
        let prepare = Prepare {
            run: entry.run.id.clone(),
            spec: entry.run.spec.clone(),
            dataset_digest: entry.run.dataset_digest.clone(),
            roster: Roster::deal(
                roster.generation + 1,
                &members,
                entry.run.spec.train.virtual_ranks,
                roster.start_step,
            ),
        };
        self.send(&worker, ToWorker::Prepare(Box::new(prepare)));
    }

    /// A worker has prepared itself, or could not.
    pub(super) fn prepared(
        &mut self,
        id: SessionId,
        worker: &WorkerId,
        run: &RunId,
        problem: &str,
    ) {
        let number = self.number(run).ok();
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
        if problem.is_empty() {
            preparing.done = true;
        } else {
            warn!(%worker, run_id = %run, problem, "worker cannot join");
            session.preparing = None;
            session.joins_from = now + NOT_AGAIN_MS;
        }
    }

    /// Workers that can be given work, by order of joining.
    fn idle_workers(&self) -> Vec<SessionId> {
        self.sessions
            .iter()
            .filter(|(_, s)| s.assignment.is_none() && !s.leaving)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Until when a run does not want a worker.
    fn barred_until(&self, number: u64, id: SessionId) -> u64 {
        match (self.runs.get(&number), self.sessions.get(&id)) {
            (Some(entry), Some(session)) => entry.run.barred_until(&session.hello.id),
            _ => 0,
        }
    }
}

impl Entry {
    /// Notes why the run waits; says it when it is news.
    fn waits(&mut self, reason: String) {
        if self.waiting.as_ref() != Some(&reason) {
            info!(run_id = %self.run.id, reason, "run waits");
            self.waiting = Some(reason);
        }
    }
}
