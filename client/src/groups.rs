//! Groups of runs: submitting, listing and cancelling them.

use fovea_core::group::GroupPlan;
use fovea_core::priority::Priority;
use fovea_core::spec::RunSpec;
use fovea_proto::pb;
use fovea_proto::pb::groups_client::GroupsClient;

use crate::client::{Client, Service};
use crate::error::Error;
use crate::view::{GroupInfo, Removed};

/// Groups requested at a time.
const PAGE: u32 = 100;

impl Client {
    /// Submits a run of `spec` for each variant, fold and seed of `plan`. When this returns, all of them are in the coordinator's
    /// journal; if it fails, none is.
    pub async fn submit_group(&self, spec: &RunSpec, plan: &GroupPlan) -> Result<GroupInfo, Error> {
        let GroupPlan {
            variants,
            selection,
            folds,
            seeds,
        } = plan;
        let request = pb::SubmitGroupRequest {
            spec: Some(spec.into()),
            folds: *folds,
            seeds: seeds.clone(),
            variants: variants.iter().map(Into::into).collect(),
            selection: selection.as_ref().map(Into::into),
        };
        self.answer(self.groups_client().submit(request))
            .await
            .map_err(|error| error.of_submission("group", "fovea group list"))?
            .try_into()
    }

    /// One group.
    pub async fn group(&self, group_id: &str) -> Result<GroupInfo, Error> {
        let request = pb::GetGroupRequest {
            group_id: group_id.into(),
        };
        self.answer(self.groups_client().get(request))
            .await?
            .try_into()
    }

    /// All groups, newest first.
    pub async fn groups(&self) -> Result<Vec<GroupInfo>, Error> {
        let mut groups = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListGroupsRequest {
                page_size: PAGE,
                page_token,
            };
            let pb::ListGroupsResponse {
                groups: page,
                next_page_token,
            } = self.answer(self.groups_client().list(request)).await?;
            for group in page {
                groups.push(group.try_into()?);
            }
            page_token = next_page_token;
            if page_token.is_empty() {
                return Ok(groups);
            }
        }
    }

    /// Cancels all runs of a group that have not ended, each at its next step boundary, with a checkpoint.
    pub async fn cancel_group(&self, group_id: &str) -> Result<GroupInfo, Error> {
        let request = pb::CancelGroupRequest {
            group_id: group_id.into(),
        };
        // Each run is asked in turn.
        self.unbounded(self.groups_client().cancel(request))
            .await?
            .try_into()
    }

    /// Sets the priority of all runs of a group that have not ended.
    pub async fn set_group_priority(
        &self,
        group_id: &str,
        priority: Priority,
    ) -> Result<GroupInfo, Error> {
        let request = pb::SetGroupPriorityRequest {
            group_id: group_id.into(),
            priority: pb::Priority::from(priority).into(),
        };
        // As a cancellation.
        self.unbounded(self.groups_client().set_priority(request))
            .await?
            .try_into()
    }

    /// Removes all runs of a group, which have ended, and their checkpoints if `with_checkpoints`: all of them or none. Returns how
    /// many runs there were, and what was given back.
    pub async fn remove_group(
        &self,
        group_id: &str,
        with_checkpoints: bool,
    ) -> Result<(u32, Removed), Error> {
        let request = pb::DeleteGroupRequest {
            group_id: group_id.into(),
            with_checkpoints,
        };
        let pb::DeleteGroupResponse {
            runs,
            checkpoints,
            freed_bytes,
        } = self.unbounded(self.groups_client().delete(request)).await?;
        let removed = Removed {
            checkpoints,
            freed_bytes,
        };
        Ok((runs, removed))
    }

    fn groups_client(&self) -> GroupsClient<Service> {
        GroupsClient::new(self.service())
    }
}
