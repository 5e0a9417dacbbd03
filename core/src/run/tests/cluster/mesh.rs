//! What the model's workers do among themselves: they meet, take steps, and lose each other.

use std::collections::BTreeSet;

use super::super::*;
use super::Cluster;
use super::worker::{CoordinatorMessage, Doing, Serving, WorkerMessage};
use crate::adoption::{Adoption, adopt};

impl Cluster {
    /// A generation goes on by as much as it can at once: all its members meet, or take a step.
    pub fn advance(&mut self, i: usize, torn: Option<u32>) {
        let Some(Serving {
            roster, lineage, ..
        }) = self.workers[i].serving.clone()
        else {
            return;
        };
        let generation = roster.generation;
        let at: Vec<usize> = roster
            .members
            .iter()
            .filter_map(|m| self.workers.iter().position(|w| w.id == m.worker))
            .collect();
        let all = |doing: &Doing| {
            at.iter()
                .all(|i| !self.workers[*i].stuck && self.workers[*i].does(generation, doing))
        };
        if all(&Doing::Forming) {
            self.meet(&at, &roster, lineage);
        } else if all(&Doing::Running) {
            self.step(&at, generation, lineage, torn);
        }
    }

    pub fn meet(&mut self, at: &[usize], roster: &Roster, lineage: u64) {
        let generation = roster.generation;
        let offers: Vec<Option<StateId>> = at
            .iter()
            .map(|i| self.workers[*i].held.filter(|(of, _)| *of == lineage))
            .map(|held| held.map(|(_, held)| held))
            .collect();
        let from = roster.start_step;
        let state = match adopt(&offers, from) {
            Adoption::Member { source, .. } => offers[source],
            Adoption::Stored | Adoption::Disputed { .. } if from == 0 => {
                Some(StateId { step: 0, digest: 0 })
            }
            Adoption::Stored | Adoption::Disputed { .. }
                if self.unreadable.iter().any(|(step, _)| *step == from) =>
            {
                at.iter().for_each(|i| self.workers[*i].let_go(blocked()));
                return;
            }
            Adoption::Stored | Adoption::Disputed { .. } => self
                .store
                .iter()
                .rfind(|((step, _), _)| *step == from)
                .map(|(_, digest)| StateId {
                    step: from,
                    digest: *digest,
                }),
        };
        // Whoever takes a state over takes over what has not been told of it, too: its giver may be gone before.
        let taken: BTreeSet<u64> = at
            .iter()
            .filter(|i| self.workers[**i].held.map(|(_, held)| held) == state)
            .flat_map(|i| self.workers[*i].taken.clone())
            .collect();
        for i in at {
            let w = &mut self.workers[*i];
            w.taken.extend(&taken);
            let Some(held) = state else {
                w.let_go(failure(false));
                continue;
            };
            w.held = Some((lineage, held));
            if let Some(serving) = &mut w.serving {
                serving.doing = Doing::Running;
                serving.state = Some(held);
            }
            w.say(generation, WorkerMessage::Ready(held));
            let untold: Vec<u64> = w.taken.difference(&self.ledger).copied().collect();
            for step in untold {
                w.say(generation, WorkerMessage::Step(step));
            }
            if held.step == super::TOTAL {
                w.finish(Outcome::Completed { step: super::TOTAL });
            }
        }
    }

    /// The members agree at the boundary on what is next, or take a step. A torn one some do not complete.
    pub fn step(&mut self, at: &[usize], generation: u64, lineage: u64, torn: Option<u32>) {
        let has = |f: fn(&Serving) -> bool| {
            at.iter()
                .any(|i| self.workers[*i].serving.as_ref().is_some_and(f))
        };
        let (leave, stop) = (has(|s| s.next.is_some() || s.yields), has(|s| s.stop));
        for (rank, i) in at.iter().enumerate() {
            let w = &mut self.workers[*i];
            let Some((_, held)) = &mut w.held else {
                panic!("{} runs without a state", w.id);
            };
            if leave {
                w.move_on();
            } else if stop {
                let step = held.step;
                w.finish(Outcome::Stopped { step });
            } else if torn.is_none_or(|these| these >> rank & 1 == 1) {
                held.step += 1;
                // Not by the step alone: a wrong state stays wrong.
                held.digest += 1000;
                let StateId { step, digest } = *held;
                w.held = Some((lineage, StateId { step, digest }));
                w.taken.insert(step);
                w.ticks += 1;
                if rank == 0 {
                    w.say(generation, WorkerMessage::Step(step));
                }
                w.say(generation, WorkerMessage::Digest(step, digest));
                if step == super::TOTAL {
                    w.finish(Outcome::Completed { step });
                } else if step % super::EVERY == 0 {
                    w.say(generation, WorkerMessage::Slice { step, digest });
                }
            } else {
                self.break_off(*i);
            }
        }
    }

    /// A worker's peers break off.
    pub fn break_off(&mut self, i: usize) {
        let w = &mut self.workers[i];
        let Some(serving) = &w.serving else {
            return;
        };
        if !matches!(serving.doing, Doing::Forming | Doing::Running) {
            return;
        }
        let generation = serving.roster.generation;
        w.move_on();
        if w.does(generation, &Doing::Waiting) {
            w.say(generation, WorkerMessage::Interrupted);
        }
    }

    /// A worker notices that a peer of its generation is not there any more.
    pub fn notice(&mut self, i: usize) {
        let Some(Serving { roster, doing, .. }) = &self.workers[i].serving else {
            return;
        };
        let generation = roster.generation;
        let gone = |id: &WorkerId| {
            let Some(peer) = self.workers.iter().find(|w| w.id == *id) else {
                return true;
            };
            let newest = peer.serving.as_ref().map_or(0, |s| s.roster.generation);
            let coming = peer.inbox.iter().any(
                |m| matches!(m, CoordinatorMessage::Roster { roster, .. } if roster.generation == generation),
            );
            let later = peer
                .serving
                .as_ref()
                .is_some_and(|s| s.newest() == generation);
            let waits = peer.does(generation, &Doing::Waiting);
            let unheard = peer.outbox.iter().any(|(g, message)| {
                *g == generation
                    && matches!(message, WorkerMessage::Released(Outcome::Completed { .. }))
            });
            !peer.alive || !(newest == generation || coming || later || unheard) || waits
        };
        let gone: Vec<WorkerId> = roster
            .members
            .iter()
            .map(|m| m.worker.clone())
            .filter(|id| *id != self.workers[i].id && gone(id))
            .collect();
        if gone.is_empty() {
            return;
        }
        if *doing == Doing::Forming {
            let w = &mut self.workers[i];
            w.move_on();
            if w.does(generation, &Doing::Waiting) {
                w.say(generation, WorkerMessage::Unreachable(gone));
            }
        } else {
            self.break_off(i);
        }
    }
}
