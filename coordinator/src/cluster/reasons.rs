//! Why queued runs wait: told to the run whenever the text changes, logged when the cause does.
//!
//! The texts hold figures, such as the number of idle workers, that change for the whole queue with each worker that
//! comes or goes.

use std::collections::BTreeSet;

use fovea_core::count::count;
use fovea_core::ids::WorkerId;
use tracing::info;

use super::SessionId;
use super::state::Actor;
use crate::run::RunInput;

/// What keeps a run from its start, without figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// The coordinator's disk has too little room.
    NoRoom,
    /// It could start, and waits for more workers.
    Grace,
    /// There are too few idle workers.
    TooFew {
        /// Workers that share a GPU count as one.
        sharing: bool,
        left_out: BTreeSet<WorkerId>,
        /// An idle worker has too little memory.
        too_small: bool,
    },
}

impl Actor {
    /// There are too few idle workers for a run: it needs `min` and could have `free`. The second of each pair in `sharing`
    /// shares its GPU with the first.
    pub(super) fn too_few(
        &mut self,
        number: u64,
        min: usize,
        free: usize,
        sharing: &[(SessionId, SessionId)],
        idle: &[SessionId],
    ) {
        let Some(live) = self.runs.get(&number) else {
            return;
        };
        let mut reason = format!("needs {}; idle: {free}", count(min, "worker", "workers"));
        for (left_out, with) in sharing {
            reason.extend(self.shares(*left_out, *with).map(|why| format!("; {why}")));
        }
        reason.extend(self.troubles(number).map(|why| format!("; {why}")));
        let too_small = self.too_small(number, idle);
        let cause = Cause::TooFew {
            sharing: !sharing.is_empty(),
            left_out: live.status.left_out.keys().cloned().collect(),
            too_small: too_small.is_some(),
        };
        reason.extend(too_small.map(|why| format!("; {why}")));
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
