//! Asking each run of a group for the same.

use fovea_core::group::{Group, Member};
use fovea_core::ids::RunId;
use fovea_core::run::{Phase, Run};

use super::Context;
use crate::error::ApiError;
use crate::run::{PersonRequest, RunInput};

/// What came of it.
pub(super) struct Asked {
    /// The runs that do what was asked.
    pub runs: Vec<RunId>,
    /// Why the first of the others could not be asked.
    pub failed: Option<ApiError>,
}

/// Asks the runs of a group that have not ended, in this order. One that cannot be asked holds up no other.
pub(super) async fn ask_each<K: Ord>(
    context: &Context,
    group: &Group,
    order: impl Fn(&Run) -> K,
    request: &PersonRequest,
) -> Asked {
    let mut failed = None;
    let mut runs = Vec::new();
    for Member { run, .. } in &group.runs {
        match context.runs.shown(run).await {
            Ok(shown) if shown.run.is_terminal() => {}
            Ok(shown) => runs.push(shown.run),
            Err(ApiError::NotFound(_)) => {}
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    runs.sort_by_key(|run| order(run));
    let mut asked = Vec::new();
    for run in &runs {
        let ask = |reply| RunInput::Request {
            request: request.clone(),
            reply,
        };
        match context.runs.ask(&run.id, ask).await {
            Ok(_) => asked.push(run.id.clone()),
            // It has ended, or was removed, in between.
            Err(ApiError::Precondition(_) | ApiError::NotFound(_)) => {}
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    Asked {
        runs: asked,
        failed,
    }
}

/// Whether a run in this phase has workers.
pub(super) fn has_workers(phase: &Phase) -> bool {
    match phase {
        Phase::Forming { .. } | Phase::Running { .. } | Phase::Finishing { .. } => true,
        Phase::Queued { .. }
        | Phase::Paused
        | Phase::Completed
        | Phase::Failed { .. }
        | Phase::Cancelled => false,
    }
}

/// The runs, for people.
pub(super) fn some(runs: &[&str]) -> String {
    match runs {
        [] => "no run".to_owned(),
        runs => runs.join(", "),
    }
}
