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
            .or_else(|| others(waiting, free));
        let cause = Cause::TooFew {
            coming: takes,
            sharing: !sharing.is_empty(),
            left_out: live.status.left_out.keys().cloned().collect(),
            unfit: unfit.is_some(),
        };
        reason.extend(unfit.map(|why| format!("; {why}")));
        self.waits(number, cause, reason);
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

/// Idle workers that a run could have, but not together with those that it has a claim to, for people.
fn others(waiting: &Waiting, free: &[SessionId]) -> Option<String> {
    let has_none = |alike: &&Alike| !alike.workers.iter().any(|id| free.contains(id));
    let others: usize = waiting
        .suitable
        .iter()
        .filter(has_none)
        .map(|alike| alike.workers.len())
        .sum();
    (others > 0).then(|| {
        format!(
            "{} on machines of another kind, which a run does not mix (workers.mixed)",
            count(others, "idle worker computes", "idle workers compute")
        )
    })
}
