//! What people are shown of the connected workers.

use std::collections::BTreeMap;

use fovea_core::ids::{RunId, WorkerId};
use fovea_core::memory::Memory;
use fovea_core::run::LeftOut;

use super::SessionId;
use super::session::Session;
use super::state::{Actor, Live};
use crate::messages::Load;
use crate::run::Demand;

/// What a worker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// Nothing, and nothing keeps it from a run.
    Idle,
    /// It gets ready to take part in a run.
    Preparing(RunId),
    /// It takes the steps of a run, or stores its last checkpoint.
    Training(RunId),
    /// A run wants workers and cannot have it now.
    Waiting { reason: String },
    /// A run does not want it before that time, on the coordinator's clock.
    Barred { run: RunId, until: u64 },
    /// It is left out of the runs that its view lists.
    LeftOut,
    /// It will shut down, after it has left this run if it serves one.
    Leaving(Option<RunId>),
}

/// A connected worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerView {
    pub id: WorkerId,
    pub state: WorkerState,
    pub host: String,
    pub address: String,
    pub device: String,
    pub version: String,
    pub memory: Memory,
    /// The first virtual rank that it hosts, and how many.
    pub hosts: Option<(u32, u32)>,
    /// When it was last heard, and since when it is connected, on the coordinator's clock.
    pub heard: u64,
    pub since: u64,
    pub left_out: BTreeMap<RunId, LeftOut>,
    /// By its last heartbeat.
    pub load: Load,
}

impl Actor {
    /// All connected workers, in the order in which they joined.
    pub(super) fn workers(&self) -> Vec<WorkerView> {
        let view = |(id, session): (&SessionId, &Session)| {
            let hello = &session.hello;
            let left_out = |live: &Live| {
                let why = live.status.left_out.get(&hello.id)?;
                Some((live.handle.id.clone(), why.clone()))
            };
            WorkerView {
                id: hello.id.clone(),
                state: self.state_of(*id, session),
                host: hello.host.clone(),
                address: hello.address.clone(),
                device: hello.device.clone(),
                version: hello.version.clone(),
                memory: hello.memory,
                hosts: self.hosts(session),
                heard: session.heard.at(),
                since: session.since,
                left_out: self.runs.values().filter_map(left_out).collect(),
                load: session.heard.load(),
            }
        };
        self.sessions.iter().map(view).collect()
    }

    fn state_of(&self, id: SessionId, session: &Session) -> WorkerState {
        let served = session.assignment.as_ref().map(|served| &served.run);
        if session.leaving {
            return WorkerState::Leaving(served.cloned());
        }
        if let Some(run) = served {
            let live = self.number(run).and_then(|number| self.runs.get(&number));
            return match live.is_some_and(|live| live.status.training) {
                true => WorkerState::Training(run.clone()),
                false => WorkerState::Preparing(run.clone()),
            };
        }
        let offered = session.offered.map(|(number, _)| number);
        let coming = offered.or(session.preparing.map(|preparing| preparing.run));
        if let Some(live) = coming.and_then(|number| self.runs.get(&number)) {
            return WorkerState::Preparing(live.handle.id.clone());
        }
        if let Some(live) = session.promised.and_then(|number| self.runs.get(&number)) {
            let reason = format!("kept for {}, which waits for others", live.handle.id);
            return WorkerState::Waiting { reason };
        }
        let worker = &session.hello.id;
        let left_out = |live: &Live| live.status.left_out.contains_key(worker);
        if self.runs.values().any(left_out) {
            return WorkerState::LeftOut;
        }
        self.kept_from_runs(id, worker).unwrap_or(WorkerState::Idle)
    }

    /// What keeps an idle worker from the first run that wants workers.
    fn kept_from_runs(&self, id: SessionId, worker: &WorkerId) -> Option<WorkerState> {
        let now = self.now();
        for (number, live) in &self.runs {
            if matches!(live.status.demand, Demand::Nothing | Demand::Await { .. }) {
                continue;
            }
            let run = &live.handle.id;
            let barred = live.status.barred.get(worker).copied();
            if let Some(until) = barred.filter(|until| *until > now) {
                let run = run.clone();
                return Some(WorkerState::Barred { run, until });
            }
            let reason = match (self.unfit(live, id), &live.waiting) {
                (Some(unfit), _) => unfit.to_string(),
                (None, Some(waiting)) => waiting.clone(),
                (None, None) => match self.sharing_member(*number, id) {
                    Some(reason) => reason,
                    None => continue,
                },
            };
            return Some(WorkerState::Waiting {
                reason: format!("{run}: {reason}"),
            });
        }
        None
    }

    /// Why a worker cannot join a run whose member uses its GPU.
    fn sharing_member(&self, number: u64, id: SessionId) -> Option<String> {
        let roster = self.runs.get(&number)?.status.roster.as_ref()?;
        let gpu = self.sessions.get(&id)?.hello.gpu.as_ref()?;
        roster.members.iter().find_map(|member| {
            let with = self.by_worker.get(&member.worker)?;
            let theirs = self.sessions.get(with)?.hello.gpu.as_ref()?;
            (theirs == gpu).then(|| self.shares(id, *with)).flatten()
        })
    }

    /// The virtual ranks that a worker hosts in its generation.
    fn hosts(&self, session: &Session) -> Option<(u32, u32)> {
        let served = session.assignment.as_ref()?;
        let live = self.runs.get(&self.number(&served.run)?)?;
        let roster = live.status.roster.as_ref()?;
        if roster.generation != served.generation {
            return None;
        }
        let member = &roster.members[roster.rank_of(&session.hello.id)?];
        Some((member.first_virtual_rank, member.virtual_ranks))
    }
}
