//! The priority in force: that of the spec until somebody changes it. It is no part of what the run computes, so the spec, its
//! digest and the checkpoints stay as they are.

use super::{Effect, Run};
use crate::priority::Priority;

impl Run {
    /// The priority in force.
    pub fn priority(&self) -> Priority {
        self.changed_priority.unwrap_or(self.spec.priority)
    }

    /// A person sets the priority; the same again changes nothing.
    pub(super) fn set_priority(
        &mut self,
        priority: Priority,
        by: Option<&str>,
        out: &mut Vec<Effect>,
    ) {
        let before = self.priority();
        if priority == before {
            return;
        }
        self.changed_priority = (priority != self.spec.priority).then_some(priority);
        let by = by.map_or_else(String::new, |name| format!(" by {name}"));
        let message =
            format!("run.priority_changed: priority changed from {before} to {priority}{by}");
        out.extend([
            Effect::Persist,
            Effect::Log {
                warning: false,
                message,
            },
        ]);
    }
}
