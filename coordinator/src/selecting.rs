//! Selection among the runs of a group, as `fovea_core::selection` decides it.
//!
//! A run's actor says when the run comes to rest. Then its group is looked at, and what is decided is asked of the runs that wait.
//! Nothing is kept of it: the decision follows from the runs' results, so it is made again after a restart, or if it could not be
//! carried out.

use std::collections::BTreeSet;
use std::time::Duration;

use fovea_core::group::Group;
use fovea_core::ids::GroupId;
use fovea_core::run::Run;
use fovea_core::selection::{Contender, Decision, decide};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::directory::Directory;
use crate::error::ApiError;
use crate::run::{PersonRequest, RunInput};

/// When a decision is tried again that could not be carried out.
const AGAIN: Duration = Duration::from_secs(2);

/// A group of which a run has come to rest.
pub(crate) type AtRest = mpsc::UnboundedSender<GroupId>;

/// Starts the selection. It ends with `closing`.
pub(crate) fn start(
    runs: Directory,
    mut at_rest: mpsc::UnboundedReceiver<GroupId>,
    closing: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut due: BTreeSet<GroupId> = BTreeSet::new();
        loop {
            let group = tokio::select! {
                () = closing.cancelled() => return,
                group = at_rest.recv() => group,
                () = tokio::time::sleep(AGAIN), if !due.is_empty() => due.first().cloned(),
            };
            // None: the runs are gone, and nobody is left to select from.
            let Some(group) = group else { return };
            due.remove(&group);
            match select(&runs, &group).await {
                Ok(()) => {}
                Err(ApiError::NotFound(_)) => {}
                Err(error) => {
                    warn!(group_id = %group, %error, "group.undecided: {group}: what its selection decides could not be carried out, and is tried again: {error}");
                    due.insert(group);
                }
            }
        }
    })
}

/// Looks at a group, and asks of its runs what is decided.
async fn select(runs: &Directory, id: &GroupId) -> Result<(), ApiError> {
    let group = runs.group(id).await?;
    let members = runs.members(&group).await?;
    let members = members.iter().map(|shown| Some(&*shown.as_ref()?.run));
    for Decision { at, rung, verdict } in decisions(&group, members) {
        let run = &group.runs[at].run;
        info!(group_id = %id, run_id = %run, rung, ?verdict, "group.decided: {id}, after epoch {rung}: {run}: {verdict:?}");
        let ask = |reply| RunInput::Request {
            request: PersonRequest::Selected {
                rung,
                verdict: verdict.clone(),
            },
            reply,
        };
        match runs.ask(run, ask).await {
            Ok(_) => {}
            // Removed, or resumed by a person, in between.
            Err(ApiError::NotFound(_) | ApiError::Precondition(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a group's selection decides now. `runs` are its runs in its order; None: it was removed.
pub(crate) fn decisions<'a>(
    group: &Group,
    runs: impl Iterator<Item = Option<&'a Run>>,
) -> Vec<Decision> {
    let Some(selection) = &group.selection else {
        return Vec::new();
    };
    let contenders: Vec<Contender> = group
        .runs
        .iter()
        .zip(runs)
        .map(|(member, run)| Contender::of(selection, member.variant, run))
        .collect();
    decide(selection, &contenders)
}
