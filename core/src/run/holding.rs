//! Pausing for the group: after an epoch at which its runs are compared, or when the metric does not improve any more.

use super::{Effect, Phase, Run, Stopping};
use crate::selection::Verdict;

impl Run {
    /// An epoch's result has come: the run pauses at the next step boundary if its group wants it to. No step is lost.
    pub(super) fn hold_if_due(&mut self, out: &mut Vec<Effect>) {
        let results = &self.epochs[..self.next_epoch() as usize];
        let due = self
            .hold
            .and_then(|hold| hold.after(results, self.spec.train.epochs));
        let Some(held) = due else {
            return;
        };
        // A person's wish to end it counts for more.
        if let Phase::Running {
            stopping: Some(Stopping::Cancel),
            ..
        } = self.phase
        {
            return;
        }
        let reason = held.reason.clone();
        self.group_pause = Some(held);
        out.push(Effect::Log {
            warning: false,
            message: format!("run.held: {reason}"),
        });
        self.pause(out);
    }

    /// The rung at which it waits for its group's decision.
    pub fn waits_at(&self) -> Option<u32> {
        match self.phase {
            Phase::Paused => self.group_pause.as_ref()?.rung,
            _ => None,
        }
    }

    /// Whether it is paused because its metric did not improve, or because its variant was dropped.
    pub fn stopped_early(&self) -> bool {
        self.phase == Phase::Paused
            && self
                .group_pause
                .as_ref()
                .is_some_and(|held| held.rung.is_none())
    }

    /// Its group has decided about the rung at which it waits.
    pub(super) fn selected(&mut self, rung: u32, verdict: Verdict, out: &mut Vec<Effect>) {
        if self.waits_at() != Some(rung) {
            return;
        }
        match verdict {
            Verdict::GoOn { until } => {
                self.group_pause = None;
                if let Some(hold) = &mut self.hold {
                    hold.until = until;
                }
                self.resume(None, out);
            }
            Verdict::Drop { reason } => {
                out.push(Effect::Log {
                    warning: false,
                    message: format!("run.dropped: {reason}"),
                });
                if let Some(held) = &mut self.group_pause {
                    (held.rung, held.reason) = (None, reason);
                }
                self.enter(Phase::Paused, out);
            }
        }
    }
}
