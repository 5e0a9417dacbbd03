//! What may be changed by whom, and the pages that ask whether a change is meant.

use std::fmt::Display;

use fovea_core::ids::{GroupId, RunId};
use fovea_dashboard::Sheet;
use fovea_dashboard::page::{confirm_cancel, confirm_cancel_group};
use hyper::StatusCode;
use tonic::Code;

use super::Dashboard;
use super::views::Refusal;
use super::visitor::Visitor;

/// The methods that change runs and groups, for everybody's own.
const PAUSE: &str = "/fovea.v1.Runs/Pause";
const CANCEL_GROUP: &str = "/fovea.v1.Groups/Cancel";

impl Dashboard {
    /// Whether the visitor may change a run that belongs to `owner`, or why not.
    pub(super) fn may_change_run(
        &self,
        visitor: &Visitor,
        run: &RunId,
        owner: Option<&str>,
    ) -> Result<(), String> {
        self.may_change(visitor, PAUSE, run, owner)
    }

    /// Whether the visitor may change a group that belongs to `owner`, or why not.
    pub(super) fn may_change_group(
        &self,
        visitor: &Visitor,
        group: &GroupId,
        owner: Option<&str>,
    ) -> Result<(), String> {
        self.may_change(visitor, CANCEL_GROUP, group, owner)
    }

    /// The rules are those of the API; the words are for somebody who sees the page and does not ask for the change.
    fn may_change(
        &self,
        visitor: &Visitor,
        method: &str,
        what: impl Display,
        owner: Option<&str>,
    ) -> Result<(), String> {
        let caller = self
            .admit(visitor, method)
            .map_err(|status| match status.code() {
                Code::PermissionDenied => "You may look, not change.".to_owned(),
                _ => status.message().to_owned(),
            })?;
        caller.may_change(what, owner).map_err(|_| match owner {
            Some(owner) => format!("Belongs to {owner}: you may look, not change."),
            None => "Belongs to nobody: an admin may change it.".to_owned(),
        })
    }

    /// Asks whether a run is to be cancelled, if it can be.
    pub(super) async fn ask_cancel(&self, visitor: &Visitor, id: &RunId) -> Result<Sheet, Refusal> {
        let shown = self.0.context.runs.shown(id).await?;
        let run = &shown.run;
        if run.is_terminal() {
            return Err(has_ended(format!(
                "Run {id} has ended ({}); there is nothing to cancel.",
                run.phase_name()
            )));
        }
        self.may_change_run(visitor, id, run.submitted_by.as_deref())
            .map_err(not_allowed)?;
        Ok(confirm_cancel(id.as_str(), &visitor.csrf))
    }

    /// Asks whether the runs of a group are to be cancelled, if one can be.
    pub(super) async fn ask_cancel_group(
        &self,
        visitor: &Visitor,
        id: &GroupId,
    ) -> Result<Sheet, Refusal> {
        let runs = &self.0.context.runs;
        let group = runs.group(id).await?;
        let members = runs.members(&group).await?;
        if members
            .iter()
            .flatten()
            .all(|shown| shown.run.is_terminal())
        {
            return Err(has_ended(format!(
                "All runs of group {id} have ended; there is nothing to cancel."
            )));
        }
        self.may_change_group(visitor, id, group.submitted_by.as_deref())
            .map_err(not_allowed)?;
        Ok(confirm_cancel_group(id.as_str(), &visitor.csrf))
    }
}

fn has_ended(text: String) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "It has ended", text)
}

fn not_allowed(text: String) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "Not allowed", text)
}
