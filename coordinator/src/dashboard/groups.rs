//! What the pages of groups show.

use fovea_core::group::Group;
use fovea_core::ids::GroupId;
use fovea_core::run::Run;
use fovea_dashboard::model::{GroupList, GroupPage, GroupRow};

use super::Dashboard;
use super::lists::row;
use super::views::Refusal;
use super::visitor::Visitor;
use crate::error::ApiError;
use crate::run::Shown;
use crate::selecting::decisions;

/// Groups of a page. Each of their runs is looked up.
const GROUPS: usize = 20;

impl Dashboard {
    pub(super) async fn groups(&self, before: Option<u64>) -> Result<GroupList, Refusal> {
        let runs = &self.0.context.runs;
        let journal = &runs.journal;
        // One more tells whether there are more.
        let page = journal.groups_before(before.unwrap_or(u64::MAX), GROUPS + 1);
        let mut page = page
            .await
            .map_err(|e| ApiError::Unavailable(e.to_string()))?;
        let more = page.len() > GROUPS;
        page.truncate(GROUPS);
        let mut groups = Vec::new();
        for group in &page {
            let members = runs.members(group).await?;
            let now: Vec<Option<&Run>> = members.iter().map(known).collect();
            groups.push(GroupRow::of(group, &now, is_deciding(group, &now)));
        }
        Ok(GroupList {
            groups,
            older: page.last().map(|group| group.number).filter(|_| more),
            is_later: before.is_some(),
        })
    }

    pub(super) async fn group(
        &self,
        visitor: &Visitor,
        id: &GroupId,
    ) -> Result<GroupPage, Refusal> {
        let runs = &self.0.context.runs;
        let group = runs.group(id).await?;
        let members = runs.members(&group).await?;
        let may = self.may_change_group(visitor, id, group.submitted_by.as_deref());
        let now: Vec<Option<&Run>> = members.iter().map(known).collect();
        let deciding = is_deciding(&group, &now);
        let rows: Vec<_> = members
            .iter()
            .map(|shown| shown.as_ref().map(|shown| (&*shown.run, row(shown))))
            .collect();
        Ok(GroupPage::of(&group, &rows, deciding, may))
    }
}

fn known(shown: &Option<Shown>) -> Option<&Run> {
    shown.as_ref().map(|shown| &*shown.run)
}

fn is_deciding(group: &Group, runs: &[Option<&Run>]) -> bool {
    !decisions(group, runs.iter().copied()).is_empty()
}
