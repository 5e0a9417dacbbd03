//! A model of a worker: what it holds, what it does, and what it says.

use std::collections::{BTreeSet, VecDeque};

use super::super::*;

#[derive(Debug, Clone)]
pub(super) enum CoordinatorMessage {
    Roster {
        roster: Roster,
        lineage: u64,
        at_boundary: bool,
        discard: bool,
    },
    Stop(u64),
    Yield(u64),
    Abort(u64),
}

/// What a worker says, of a generation.
#[derive(Debug, Clone)]
pub(super) enum WorkerMessage {
    Ready(StateId),
    Step(u64),
    Digest(u64, u128),
    Slice {
        step: u64,
        digest: u128,
    },
    Interrupted,
    Unreachable(Vec<WorkerId>),
    Released(Outcome),
    Leaving,
    /// Its process ended.
    Gone,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Doing {
    Forming,
    Running,
    /// Its peers broke off: it waits for the next generation.
    Waiting,
    /// It has reported that it released its assignment, and why; until that arrives it counts as serving.
    Done(Outcome),
}

#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub roster: Roster,
    pub lineage: u64,
    pub doing: Doing,
    pub state: Option<StateId>,
    pub stop: bool,
    pub yields: bool,
    /// To be begun at the next boundary.
    pub next: Option<(Roster, u64)>,
}

impl Serving {
    pub fn newest(&self) -> u64 {
        self.next
            .as_ref()
            .map_or(self.roster.generation, |(r, _)| r.generation)
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    pub id: WorkerId,
    pub alive: bool,
    pub stuck: bool,
    pub leaving: bool,
    /// Lineage and state.
    pub held: Option<(u64, StateId)>,
    /// Steps that it took, of this lineage.
    pub taken: BTreeSet<u64>,
    pub serving: Option<Serving>,
    pub ticks: u64,
    // The coordinator's side of it.
    pub connected: bool,
    pub assignment: Option<u64>,
    pub said_leaving: bool,
    pub inbox: VecDeque<CoordinatorMessage>,
    pub outbox: VecDeque<(u64, WorkerMessage)>,
}

impl Worker {
    pub fn in_generation(&self, generation: u64) -> bool {
        let serves = |s: &Serving| s.roster.generation == generation;
        self.alive && self.serving.as_ref().is_some_and(serves)
    }

    pub fn does(&self, generation: u64, doing: &Doing) -> bool {
        let does = |s: &Serving| s.doing == *doing;
        self.in_generation(generation) && self.serving.as_ref().is_some_and(does)
    }

    pub fn say(&mut self, generation: u64, message: WorkerMessage) {
        self.outbox.push_back((generation, message));
    }

    pub fn begin(&mut self, roster: Roster, lineage: u64) {
        if self.held.is_some_and(|(of, _)| of != lineage) {
            self.held = None;
            self.taken.clear();
        }
        self.serving = Some(Serving {
            roster,
            lineage,
            doing: Doing::Forming,
            state: None,
            stop: false,
            yields: false,
            next: None,
        });
    }

    pub fn let_go(&mut self, outcome: Outcome) {
        if let Some(serving) = &mut self.serving {
            serving.doing = Doing::Done(outcome.clone());
            let generation = serving.newest();
            self.say(generation, WorkerMessage::Released(outcome));
        }
    }

    /// Its part of the last checkpoint, then the word that it is done.
    pub fn finish(&mut self, outcome: Outcome) {
        if let (Some(serving), Some((_, held))) = (&self.serving, self.held) {
            let generation = serving.roster.generation;
            let (step, digest) = (held.step, held.digest);
            self.say(generation, WorkerMessage::Slice { step, digest });
            self.let_go(outcome);
        }
    }

    /// The generation is over for it, without its doing: what comes next, if that is known?
    pub fn move_on(&mut self) {
        let Some(serving) = &mut self.serving else {
            return;
        };
        if let Some((roster, lineage)) = serving.next.take() {
            self.begin(roster, lineage);
        } else if serving.yields {
            let step = self.held.map_or(0, |(_, held)| held.step);
            self.let_go(Outcome::Yielded { step });
        } else {
            serving.doing = Doing::Waiting;
        }
    }

    pub fn take(&mut self, message: CoordinatorMessage) {
        match message {
            CoordinatorMessage::Roster {
                roster,
                lineage,
                at_boundary,
                discard,
            } => {
                if discard {
                    self.held = None;
                    self.taken.clear();
                }
                match &mut self.serving {
                    Some(serving) if at_boundary && serving.doing == Doing::Running => {
                        serving.next = Some((roster, lineage));
                    }
                    _ => self.begin(roster, lineage),
                }
            }
            CoordinatorMessage::Stop(generation) => {
                if let Some(serving) = self.serving.as_mut().filter(|s| s.newest() == generation) {
                    serving.stop = true;
                }
            }
            CoordinatorMessage::Yield(generation) => {
                if let Some(serving) = self.serving.as_mut().filter(|s| s.newest() == generation) {
                    serving.yields = true;
                    if serving.doing == Doing::Waiting {
                        self.move_on();
                    }
                }
            }
            CoordinatorMessage::Abort(generation) => {
                if self
                    .serving
                    .as_ref()
                    .is_some_and(|s| s.newest() <= generation)
                {
                    self.let_go(Outcome::Aborted);
                }
            }
        }
    }
}
