//! Which connected workers could serve a run: those with enough memory and the right device, of the kind of machine that the run began
//! on, that are neither left out nor barred.

use std::fmt;

use fovea_core::count::count;
use fovea_core::machine::{Machine, Machines, is_device};
use fovea_core::memory::Misfit;

use super::SessionId;
use super::scheduler::Alike;
use super::state::{Actor, Live};
use crate::run::{Demand, RunInput};

/// Workers that a reason names, at most.
const NAMED: usize = 3;

/// Why a worker is not fit for a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Unfit {
    /// It has too little memory.
    Memory(Misfit),
    /// Its device is not the one that the run asks for.
    Device { wish: String, device: String },
    /// Its machine is of another kind than those that the run began on.
    Machine { differences: Vec<String> },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(misfit) => {
                write!(f, "{}, and the worker has {}", misfit.need(), misfit.have())
            }
            Self::Device { wish, device } => {
                write!(f, "workers.device = {wish:?}, and the worker has {device}")
            }
            Self::Machine { differences } => write!(
                f,
                "other machines than those that it began on would change its bits: {}",
                differences.join(", ")
            ),
        }
    }
}

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

    /// What keeps a worker from a run as long as both stay as they are; None if nothing does, or if that is not known.
    pub(super) fn unfit(&self, live: &Live, id: SessionId) -> Option<Unfit> {
        let hello = &self.sessions.get(&id)?.hello;
        let wish = &live.handle.spec.workers.device;
        if !is_device(&hello.device, wish) {
            return Some(Unfit::Device {
                wish: wish.clone(),
                device: hello.device.clone(),
            });
        }
        if let (Machines::Only(then), Some(now)) = (&live.status.machines, &hello.machine) {
            let differences = now.differences(then);
            if !differences.is_empty() {
                return Some(Unfit::Machine { differences });
            }
        }
        let need = live.needs.at(hello.memory.place(), &live.handle.spec)?;
        need.misfit(&hello.memory).map(Unfit::Memory)
    }

    /// The workers that a run could have, those of each kind of machine by themselves if it wants them alike. What it wants rather
    /// comes first, then GPUs.
    pub(super) fn by_machine(&self, live: &Live, suitable: Vec<SessionId>) -> Vec<Alike> {
        let Machines::Alike { rather } = &live.status.machines else {
            return vec![Alike {
                rank: 0,
                workers: suitable,
            }];
        };
        let mut kinds: Vec<(Option<&Machine>, Alike)> = Vec::new();
        for id in suitable {
            let machine = self.machine(id);
            match kinds.iter_mut().find(|(of, _)| *of == machine) {
                Some((_, alike)) => alike.workers.push(id),
                None => {
                    let rank = match machine {
                        Some(machine) if Some(machine) == rather.as_ref() => 0,
                        Some(machine) if machine.is_gpu() => 1,
                        Some(_) | None => 2,
                    };
                    let workers = vec![id];
                    kinds.push((machine, Alike { rank, workers }));
                }
            }
        }
        kinds.sort_by_key(|(_, alike)| alike.rank);
        kinds.into_iter().map(|(_, alike)| alike).collect()
    }

    /// The kind of a worker's machine, if it is known.
    pub(super) fn machine(&self, id: SessionId) -> Option<&Machine> {
        self.sessions.get(&id)?.hello.machine.as_ref()
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
            && self.unfit(live, id).is_none()
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

    /// What keeps those of `workers` from a run that are not fit for it, for people.
    pub(super) fn unsuitable(&self, number: u64, workers: &[SessionId]) -> Option<String> {
        let live = self.runs.get(&number)?;
        let (mut small, mut devices, mut machines) = (Vec::new(), Vec::new(), Vec::new());
        for id in workers {
            let Some(session) = self.sessions.get(id) else {
                continue;
            };
            let worker = session.hello.id.as_str();
            match self.unfit(live, *id) {
                Some(Unfit::Memory(misfit)) => small.push((worker, misfit)),
                Some(Unfit::Device { device, .. }) => {
                    devices.push(format!("{worker} has {device}"))
                }
                Some(Unfit::Machine { differences }) => {
                    machines.push(format!("{worker} ({})", differences.join(", ")));
                }
                None => {}
            }
        }
        let mut reasons = Vec::new();
        if let Some((_, first)) = small.first() {
            let named = small.iter().map(|(w, m)| format!("{w} has {}", m.have()));
            reasons.push(format!(
                "too little memory: {}, and {}; {}",
                first.need(),
                some_of(named, "less, too"),
                live.handle.spec.smaller()
            ));
        }
        if !devices.is_empty() {
            reasons.push(format!(
                "workers.device = {:?}: {}",
                live.handle.spec.workers.device,
                some_of(devices.into_iter(), "another device, too")
            ));
        }
        if !machines.is_empty() {
            reasons.push(format!(
                "other machines than those that it began on, which would change its bits: {}; a pause and a resume let it go on with \
                 them",
                some_of(machines.into_iter(), "another kind, too")
            ));
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Why no connected worker is fit for a run that waits, if that is so.
    pub(super) fn nobody_fits(&self, number: u64) -> Option<String> {
        let live = self.runs.get(&number)?;
        let waits = matches!(live.status.demand, Demand::Start { .. } | Demand::Nothing);
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        let fits = all.iter().any(|id| self.unfit(live, *id).is_none());
        (waits && !fits)
            .then(|| self.unsuitable(number, &all))
            .flatten()
    }
}

/// The first few of `named`, and how many others have `the_same`.
fn some_of(named: impl ExactSizeIterator<Item = String>, the_same: &str) -> String {
    let more = named.len().saturating_sub(NAMED);
    let named: Vec<String> = named.take(NAMED).collect();
    match more {
        0 => named.join(", "),
        more => {
            let others = count(more, "other has", "others have");
            format!("{} and {others} {the_same}", named.join(", "))
        }
    }
}
