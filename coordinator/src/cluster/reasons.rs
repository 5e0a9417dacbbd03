//! Why queued runs wait: told to the run whenever the text changes, logged when the cause does.
//!
//! The texts hold figures, such as the number of idle workers, that change for the whole queue with each worker that
//! comes or goes.

use std::collections::BTreeSet;

use fovea_core::count::count;
use fovea_core::ids::WorkerId;
use tracing::info;

use super::SessionId;
use super::scheduler::{Alike, Waiting};
use super::state::Actor;
use crate::run::RunInput;

/// What keeps a run from its start, without figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// The coordinator's disk has too little room.
    NoRoom,
    /// It could start, and waits for more workers.
    Grace,
    /// Its owner's runs have as many workers as they may.
    Quota,
    /// There are too few idle workers.
    TooFew {
        /// Runs of lower priority give it theirs, or will.
        coming: bool,
        /// Workers that share a GPU count as one.
        sharing: bool,
        left_out: BTreeSet<WorkerId>,
        /// An idle worker has too little memory, or is of another kind than the run wants.
        unfit: bool,
    },
}

impl Actor {
    /// Its owner's runs may have `left` workers more.
    pub(super) fn over_quota(&mut self, number: u64, min: usize, left: usize) {
        let Some(live) = self.runs.get_mut(&number) else {
            return;
        };
        live.startable_since = None;
        let owner = live.owner.clone().unwrap_or_default();
        let quota = self.config.quota_of(&owner).unwrap_or_default();
        let reason = format!(
            "needs {}; the runs of {owner} have {} of the {quota} that {owner} may have at a time",
            count(min, "worker", "workers"),
            quota.saturating_sub(left),
        );
        self.waits(number, Cause::Quota, reason);
    }

    /// There are too few idle workers for a run: it could have `free`. The second of each pair in `sharing` shares its GPU with
    /// the first. `coming` says what runs of lower priority do for it.
    pub(super) fn too_few(
        &mut self,
        waiting: &Waiting,
        free: &[SessionId],
        sharing: &[(SessionId, SessionId)],
        coming: Option<String>,
        idle: &[SessionId],
    ) {
        let Waiting { number, min, .. } = *waiting;
        let Some(live) = self.runs.get(&number) else {
            return;
        };
        let needed = count(min, "worker", "workers");
        let mut reason = format!("needs {needed}; idle: {}", free.len());
        let takes = coming.is_some();
        reason.extend(coming.map(|what| format!("; {what}")));
        for (left_out, with) in sharing {
            reason.extend(self.shares(*left_out, *with).map(|why| format!("; {why}")));
        }
        reason.extend(self.troubles(number).map(|why| format!("; {why}")));
        let unfit = self
            .unsuitable(number, idle)
            .or_else(|| others(waiting, free, &|id| self.untaken(*id, number)));
        let cause = Cause::TooFew {
            coming: takes,
            sharing: !sharing.is_empty(),
            left_out: live.status.left_out.keys().cloned().collect(),
            unfit: unfit.is_some(),
        };
        reason.extend(unfit.map(|why| format!("; {why}")));
        self.waits(number, cause, reason);
    }

    /// Whether an idle worker is still there for the run, after those before it in the queue have taken theirs.
    fn untaken(&self, id: SessionId, number: u64) -> bool {
        self.sessions.get(&id).is_some_and(|session| {
            session.offered.is_none() && session.promised.is_none_or(|to| to == number)
        })
    }

    /// Tells a run's actor why the run waits when that is news, and logs it when the cause is.
    pub(super) fn waits(&mut self, number: u64, cause: Cause, reason: String) {
        let Some(live) = self.runs.get_mut(&number) else {
            return;
        };
        if live.waiting.as_ref() == Some(&reason) {
            return;
        }
        if live.logged.as_ref() != Some(&cause) {
            info!(run_id = %live.handle.id, "run.waiting: {}: {reason}", live.handle.id);
            live.logged = Some(cause);
        }
        live.waiting = Some(reason.clone());
        live.handle.send(RunInput::Waits(Some(reason)));
    }
}

/// Idle workers that a run could have, but not together with those that it has a claim to, for people. `untaken`: those that no other run
/// has taken just now.
fn others(
    waiting: &Waiting,
    free: &[SessionId],
    untaken: &dyn Fn(&SessionId) -> bool,
) -> Option<String> {
    let has_none = |alike: &&Alike| !alike.workers.iter().any(|id| free.contains(id));
    let others = waiting
        .suitable
        .iter()
        .filter(has_none)
        .flat_map(|alike| &alike.workers)
        .filter(|id| untaken(id))
        .count();
    (others > 0).then(|| {
        format!(
            "{} on machines of another kind, which a run does not mix (workers.mixed)",
            count(others, "idle worker computes", "idle workers compute")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_another_run_has_taken_is_of_no_other_kind() {
        let waiting = Waiting {
            number: 2,
            min: 1,
            max: 1,
            recovers: false,
            startable_since: None,
            owner: None,
            suitable: vec![Alike {
                rank: 1,
                workers: vec![SessionId(7), SessionId(8)],
            }],
        };
        let said =
            |free: &[SessionId], taken: SessionId| others(&waiting, free, &|id| *id != taken);
        assert_eq!(said(&[SessionId(8)], SessionId(7)), None);
        let one = said(&[], SessionId(7)).unwrap();
        assert!(
            one.starts_with("1 idle worker computes on machines of another kind"),
            "{one}"
        );
        let none = Waiting {
            suitable: vec![Alike {
                rank: 1,
                workers: vec![SessionId(7)],
            }],
            ..waiting.clone()
        };
        assert_eq!(others(&none, &[], &|id| *id != SessionId(7)), None);
    }
}
