//! The model's coordinator: hears workers, carries effects out, keeps checkpoints, dies and comes back.

use super::super::*;
use super::Cluster;
use super::worker::{CoordinatorMessage, Doing, Serving, WorkerMessage};

impl Cluster {
    /// Applies an event and carries out what follows, as the owner does.
    pub fn apply(&mut self, event: Event) {
        let mut line = match &event {
            Event::StepCommitted { generation, report } => {
                format!("step {} in {generation}", report.step)
            }
            Event::CheckpointStored { info } => {
                format!("stored {} by {}", info.step, info.generation)
            }
            Event::Ready { worker, state, .. } => format!("ready {worker} {state:?}"),
            event => format!("{event:?}"),
        };
        let idle = matches!(event, Event::Tick | Event::Progress { .. });
        let effects = self.run.apply(self.now, event);
        for effect in &effects {
            match effect {
                Effect::Log { message, .. } => line.push_str(&format!("\n    {message}")),
                Effect::Rewind { .. } | Effect::SendStop { .. } | Effect::SendAbort { .. } => {
                    line.push_str(&format!("\n    {effect:?}"));
                }
                Effect::PublishPhase => line.push_str(&format!("\n    {:?}", self.run.phase)),
                _ => {}
            }
        }
        if !idle || !effects.is_empty() {
            self.history.push(format!("{} {line}", self.now));
        }
        let lineage = self.run.lineage;
        for effect in effects {
            match effect {
                Effect::SendRoster {
                    roster,
                    at_boundary,
                    discard,
                } => {
                    for member in &roster.members {
                        let discard = discard.contains(&member.worker);
                        if let Some(w) = self.find(&member.worker).filter(|w| w.connected) {
                            w.assignment = Some(roster.generation);
                            w.inbox.push_back(CoordinatorMessage::Roster {
                                roster: roster.clone(),
                                lineage,
                                at_boundary,
                                discard,
                            });
                        }
                    }
                }
                Effect::SendStop {
                    workers,
                    generation,
                } => self.send(&workers, &CoordinatorMessage::Stop(generation)),
                Effect::SendYield { worker, generation } => {
                    self.send(&[worker], &CoordinatorMessage::Yield(generation));
                }
                Effect::SendAbort {
                    workers,
                    generation,
                    ..
                } => self.send(&workers, &CoordinatorMessage::Abort(generation)),
                Effect::Rewind { step } => self.ledger.retain(|s| *s <= step),
                Effect::RemoveCheckpoint(info) | Effect::QuarantineCheckpoint(info) => {
                    self.store.remove(&(info.step, info.generation));
                }
                Effect::ProbeCheckpoint(info) => {
                    self.probing.push_back((info.step, info.generation));
                }
                Effect::Persist
                | Effect::KeepScores(_)
                | Effect::PublishPhase
                | Effect::PublishStep(_)
                | Effect::PublishEpoch(_)
                | Effect::PublishCheckpoint(_)
                | Effect::Log { .. } => {}
            }
        }
        if let Phase::Failed { reason } = &self.run.phase {
            self.failed_for = Some(reason.clone());
        }
        let current = self.run.roster().map(|r| r.generation);
        self.gathering
            .retain(|(generation, _), _| Some(*generation) == current);
        if let Phase::Finishing { pending, next, .. } = &self.run.phase
            && pending.is_empty()
            && let Some(step) = next.awaited()
            && !self.storing.iter().any(|(s, _, _)| *s == step)
        {
            let generation = self.run.generation;
            self.not_stored(generation, step, "slices are missing");
        }
    }

    pub fn send(&mut self, to: &[WorkerId], message: &CoordinatorMessage) {
        for id in to {
            if let Some(w) = self.find(id).filter(|w| w.connected) {
                w.inbox.push_back(message.clone());
            }
        }
    }

    /// The coordinator hears the next thing that a worker says.
    pub fn hear(&mut self, i: usize) {
        let w = &mut self.workers[i];
        if !w.connected {
            return;
        }
        let Some((generation, message)) = w.outbox.pop_front() else {
            return;
        };
        let (worker, on_it) = (w.id.clone(), w.assignment == Some(generation));
        match message {
            WorkerMessage::Gone => {
                w.connected = false;
                w.inbox.clear();
                if w.assignment.take().is_some() {
                    let reason = "gone".into();
                    self.apply(Event::WorkerLost { worker, reason });
                }
            }
            WorkerMessage::Leaving => {
                w.said_leaving = true;
                if w.assignment.is_some() {
                    self.apply(Event::WorkerLeaving { worker });
                }
            }
            // A message about an old assignment.
            _ if !on_it => {}
            WorkerMessage::Ready(state) => self.apply(Event::Ready {
                worker,
                generation,
                state,
                fingerprint: fingerprint(),
            }),
            WorkerMessage::Step(step) => {
                if generation == self.run.generation {
                    self.ledger.insert(step);
                    self.apply(committed(step, generation));
                }
            }
            WorkerMessage::Digest(step, digest) => self.apply(Event::Digest {
                worker,
                generation,
                step,
                digest,
            }),
            WorkerMessage::Interrupted => self.apply(Event::Interrupted {
                worker,
                generation,
                reason: "reset".into(),
            }),
            WorkerMessage::Unreachable(peers) => self.apply(Event::Unreachable {
                worker,
                generation,
                peers,
            }),
            WorkerMessage::Released(outcome) => {
                w.assignment = None;
                // Not if it has begun something else meanwhile.
                if w.serving.as_ref().is_some_and(|s| s.newest() == generation) {
                    w.serving = None;
                }
                self.apply(Event::Released {
                    worker,
                    generation,
                    outcome,
                });
            }
            WorkerMessage::Slice { step, digest } => self.gather(worker, generation, step, digest),
        }
    }

    pub fn gather(&mut self, worker: WorkerId, generation: u64, step: u64, digest: u128) {
        let members = self.run.roster().map_or(0, |r| r.members.len());
        let there = self.store.contains_key(&(step, generation))
            || self
                .storing
                .iter()
                .any(|(s, g, _)| (*s, *g) == (step, generation));
        if generation != self.run.generation || there {
            return;
        }
        let slices = self.gathering.entry((generation, step)).or_default();
        slices.insert(worker, digest);
        let agree = slices.values().all(|d| *d == digest);
        if !agree {
            self.gathering.remove(&(generation, step));
            self.not_stored(generation, step, "of different states");
        } else if slices.len() == members {
            self.gathering.remove(&(generation, step));
            self.storing.push_back((step, generation, digest));
        }
    }

    /// The coordinator has looked at a file for the run.
    pub fn probe(&mut self) {
        if let Some(file) = self.probing.pop_front() {
            self.apply(if self.unreadable.contains(&file) {
                unreadable(file.0, file.1)
            } else {
                readable(file.0, file.1)
            });
        }
    }

    fn not_stored(&mut self, generation: u64, step: u64, reason: &str) {
        self.apply(Event::CheckpointFailed {
            generation,
            step,
            reason: reason.into(),
        });
    }

    pub fn store(&mut self, fails: bool) {
        let Some((step, generation, digest)) = self.storing.pop_front() else {
            return;
        };
        if fails {
            self.not_stored(generation, step, "disk full");
        } else {
            self.store.insert((step, generation), digest);
            self.apply(stored(step, generation));
        }
    }

    /// Time passes; hearts beat.
    pub fn tick(&mut self, ms: u64) {
        self.now += ms;
        for i in 0..self.workers.len() {
            let w = &mut self.workers[i];
            let Some(serving) = w.serving.as_ref().filter(|_| w.alive && w.connected) else {
                continue;
            };
            if w.assignment != Some(serving.newest()) {
                continue;
            }
            let event = Event::Progress {
                worker: w.id.clone(),
                generation: serving.newest(),
                heartbeat: Heartbeat {
                    ticks: w.ticks,
                    // Some hang while they work, others within a wait.
                    waiting_for: (!w.stuck || w.ticks.is_multiple_of(2)).then_some(0),
                    polls: if w.stuck { 0 } else { self.now },
                    scored: 0,
                },
            };
            self.apply(event);
        }
        self.apply(Event::Tick);
    }

    /// Plays the scheduler.
    pub fn schedule(&mut self) {
        let (min, max) = (
            self.run.spec.workers.min as usize,
            self.run.spec.max_workers() as usize,
        );
        let mut idle: Vec<(WorkerId, String)> = self
            .workers
            .iter()
            .filter(|w| w.connected && w.assignment.is_none() && !w.said_leaving)
            .filter(|w| self.run.barred_until(&w.id) <= self.now)
            .map(|w| (w.id.clone(), "h:1".into()))
            .collect();
        let blocked = self.run.start_blocked(self.now).is_some();
        if matches!(self.run.phase, Phase::Queued { .. }) && idle.len() >= min && !blocked {
            idle.truncate(max);
            self.apply(Event::Assigned { workers: idle });
        } else if self.run.vacancies() > 0 && !idle.is_empty() {
            idle.truncate(self.run.vacancies());
            self.apply(Event::Joined { workers: idle });
        }
    }

    /// The coordinator dies and starts again from its journal.
    pub fn restart(&mut self) {
        let json = serde_json::to_string(&self.run).unwrap();
        self.run = serde_json::from_str::<Run>(&json)
            .unwrap()
            .recovered(self.now);
        self.run.limits.unreadable_patience_ms = super::PATIENCE_MS;
        self.probing.clear();
        self.gathering.clear();
        self.storing.clear();
        for w in &mut self.workers {
            w.connected = false;
            w.assignment = None;
            w.inbox.clear();
            w.outbox.clear();
        }
    }

    /// A worker opens a session again, and says again what may not have been heard.
    pub fn hello(&mut self, i: usize) {
        let w = &mut self.workers[i];
        if w.connected || !w.alive || w.stuck {
            return;
        }
        w.connected = true;
        w.said_leaving = false;
        // What it would have sent meanwhile it sends again, in order.
        w.outbox.clear();
        w.assignment = w.serving.as_ref().map(Serving::newest);
        let (worker, serving) = (w.id.clone(), w.assignment);
        if let Some(s) = w.serving.clone() {
            let generation = s.roster.generation;
            if let Some(state) = s.state {
                w.say(generation, WorkerMessage::Ready(state));
            }
            let untold: Vec<u64> = w.taken.difference(&self.ledger).copied().collect();
            for step in untold {
                w.say(generation, WorkerMessage::Step(step));
            }
            match s.doing {
                Doing::Waiting => w.say(generation, WorkerMessage::Interrupted),
                Doing::Done(outcome @ (Outcome::Completed { .. } | Outcome::Stopped { .. })) => {
                    w.finish(outcome);
                }
                Doing::Done(outcome) => w.let_go(outcome),
                Doing::Forming | Doing::Running => {}
            }
        }
        if w.leaving {
            w.say(0, WorkerMessage::Leaving);
        }
        let back = worker.clone();
        self.apply(Event::WorkerBack {
            worker: back,
            serving,
        });
        if let Some(generation) = serving
            && !self.run.is_member(&worker, generation)
        {
            self.send(&[worker], &CoordinatorMessage::Abort(generation));
        }
    }
}
