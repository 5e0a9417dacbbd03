//! What is done to all runs of a group: cancelling and removing them.

use std::cmp::Reverse;
use std::sync::Arc;

use fovea_core::group::{Group, Member};
use fovea_core::ids::RunId;
use fovea_core::removal::check_group;
use fovea_core::run::{Phase, Run};
use fovea_proto::pb;

use super::Context;
use super::each::{Asked, ask_each, has_workers, some};
use crate::access::Subject;
use crate::blocking::blocking;
use crate::error::ApiError;
use crate::run::{DeletedRun, PersonRequest, RunInput};

/// Cancels the runs of a group that have not ended.
pub(super) async fn cancel(
    context: Context,
    group: Group,
    subject: Subject,
) -> Result<(), ApiError> {
    let order = |run: &Run| turn(&run.phase, run.number);
    let Asked { runs, failed } = ask_each(&context, &group, order, &PersonRequest::Cancel).await;
    let cancelled: Vec<&str> = runs.iter().map(RunId::as_str).collect();
    if !cancelled.is_empty() {
        subject.set(format_args!("{} with {}", group.id, cancelled.join(", ")));
    }
    match failed {
        Some(error) => Err(ApiError::Incomplete(format!(
            "of group {}, {} will end; at least one run could not be asked ({error}): cancel the group again",
            group.id,
            some(&cancelled)
        ))),
        None if cancelled.is_empty() => Err(ApiError::Precondition(format!(
            "all runs of group {} have ended; there is nothing to cancel",
            group.id
        ))),
        None => Ok(()),
    }
}

/// The turn of a run when a group is cancelled: first those that wait, of these the last in the queue. A worker that a running one
/// gives back, or that comes meanwhile, must not begin with a run that is about to be cancelled.
fn turn(phase: &Phase, number: u64) -> (bool, Reverse<u64>) {
    (has_workers(phase), Reverse(number))
}

/// Removes the runs of a group, and with the last of them the group: all of them or, as far as that can be known before, none.
pub(super) async fn remove(
    context: Context,
    group: Group,
    with_checkpoints: bool,
    subject: Subject,
) -> Result<pb::DeleteGroupResponse, ApiError> {
    let mut runs = Vec::new();
    for Member { run, .. } in &group.runs {
        match context.runs.shown(run).await {
            Ok(shown) => runs.push(shown.run),
            Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let facts = runs
        .iter()
        .map(|run| (run.id.as_str(), run.phase_name(), run.checkpoints.len()));
    check_group(group.id.as_str(), facts, with_checkpoints)
        .map_err(|refused| ApiError::Precondition(refused.to_string()))?;
    let with = if with_checkpoints {
        " --with-checkpoints"
    } else {
        ""
    };
    let again = format!("fovea group rm {}{with}", group.id);
    removable(&context, &group, &runs, &again).await?;

    let mut removed = pb::DeleteGroupResponse::default();
    let mut names = Vec::new();
    for run in &runs {
        let delete = |reply| RunInput::Delete {
            with_checkpoints,
            reply,
        };
        match context.runs.ask(&run.id, delete).await {
            Ok(DeletedRun { checkpoints, bytes }) => {
                removed.runs += 1;
                removed.checkpoints += checkpoints;
                removed.freed_bytes += bytes;
                names.push(run.id.as_str());
                subject.set(format_args!("{} with {}", group.id, names.join(", ")));
            }
            // By another request.
            Err(ApiError::NotFound(_)) => {}
            // Nothing was removed yet: the reason stands for itself.
            Err(error) if names.is_empty() => return Err(error),
            Err(error) => {
                return Err(ApiError::Incomplete(format!(
                    "of group {}, {} {} removed, and the other runs stay: {error}. `{again}` removes the rest",
                    group.id,
                    some(&names),
                    if names.len() == 1 { "is" } else { "are" },
                )));
            }
        }
    }
    Ok(removed)
}

/// Whether the files of all runs can be removed, as far as that shows before it is tried.
async fn removable(
    context: &Context,
    group: &Group,
    runs: &[Arc<Run>],
    again: &str,
) -> Result<(), ApiError> {
    let ids: Vec<RunId> = runs.iter().map(|run| run.id.clone()).collect();
    let store = context.checkpoints.clone();
    let checked = blocking(move || ids.iter().try_for_each(|id| store.check_removable(id))).await?;
    checked.map_err(|error| {
        let what = format!("group {} was not removed and stays listed", group.id);
        ApiError::kept(&what, &error, again)
    })
}

#[cfg(test)]
mod tests {
    use fovea_core::roster::Roster;

    use super::*;

    #[test]
    fn runs_that_wait_are_cancelled_before_those_that_would_free_their_workers() {
        let queued = || Phase::Queued { reason: None };
        let running = || Phase::Running {
            roster: Roster {
                generation: 1,
                members: vec![],
                start_step: 0,
            },
            stopping: None,
        };
        let mut runs = [
            (2, running()),
            (3, running()),
            (4, queued()),
            (5, Phase::Paused),
            (6, queued()),
        ];
        runs.sort_by_key(|(number, phase)| turn(phase, *number));
        assert_eq!(runs.map(|(number, _)| number), [6, 5, 4, 3, 2]);
    }
}
