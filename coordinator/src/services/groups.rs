//! `Groups`: runs that are submitted together, ended together and removed together.

mod ending;

use fovea_core::group::{Group, GroupError, GroupPlan, Member, group_id, number_of};
use fovea_core::ids::GroupId;
use fovea_core::run::Run;
use fovea_core::spec::RunSpec;
use fovea_proto::pb;
use fovea_proto::pb::groups_server::Groups;
use tonic::{Request, Response, Status};
use tracing::info;

use super::accepting::{check_weights, new_run, open};
use super::classes::check_dataset;
use super::{Context, check};
use crate::access::{Subject, caller};
use crate::blocking::blocking;
use crate::clock::unix_ms;
use crate::cluster::Request as ClusterRequest;
use crate::error::ApiError;

/// Most groups in a page, and how many there are unless the client says. The phase of each of their runs is looked up.
const PAGE: (u32, u32) = (100, 20);

/// The service.
#[derive(Debug)]
pub(crate) struct GroupsService(pub Context);

#[tonic::async_trait]
impl Groups for GroupsService {
    async fn submit(
        &self,
        request: Request<pb::SubmitGroupRequest>,
    ) -> Result<Response<pb::Group>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::SubmitGroupRequest { spec, folds, seeds } = request.into_inner();
        let spec = spec.ok_or_else(|| ApiError::invalid("spec", "is missing"))?;
        let spec = RunSpec::try_from(spec).map_err(ApiError::from)?;
        spec.validate().map_err(ApiError::from)?;
        if spec.evaluate.is_some() {
            let problem = "is for the coordinator to fill in; a group trains";
            return Err(ApiError::invalid("spec.evaluate", problem).into());
        }
        let plan = GroupPlan { folds, seeds };
        // Until it has an id.
        subject.set(format_args!("a group {}", spec.name));
        // In a task: a client that goes away must not leave runs that are in the journal and have no actors.
        let accepting = accept(self.0.clone(), spec, plan, caller.owner(), subject.clone());
        let accepted = self.0.tasks.spawn(accepting).await;
        let group = accepted.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(self.wire(&group).await?))
    }

    async fn get(
        &self,
        request: Request<pb::GetGroupRequest>,
    ) -> Result<Response<pb::Group>, Status> {
        let id = check::group_id("group_id", &request.into_inner().group_id)?;
        let group = self.find(&id).await?;
        Ok(Response::new(self.wire(&group).await?))
    }

    async fn list(
        &self,
        request: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        let pb::ListGroupsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let check::Page { limit, before } = check::page(page_size, &page_token, PAGE)?;
        // One more than asked for tells whether there is a next page.
        let journal = &self.0.runs.journal;
        let mut groups = journal
            .groups_before(before, limit + 1)
            .await
            .map_err(|e| ApiError::Unavailable(e.to_string()))?;
        let more = groups.len() > limit;
        groups.truncate(limit);
        let next_page_token = match groups.last() {
            Some(last) if more => last.number.to_string(),
            _ => String::new(),
        };
        let mut shown = Vec::new();
        for group in &groups {
            shown.push(self.wire(group).await?);
        }
        Ok(Response::new(pb::ListGroupsResponse {
            groups: shown,
            next_page_token,
        }))
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelGroupRequest>,
    ) -> Result<Response<pb::Group>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let id = check::group_id("group_id", &request.into_inner().group_id)?;
        subject.set(&id);
        let group = self.find(&id).await?;
        caller.may_change(&id, group.submitted_by.as_deref())?;
        // In a task: a client that goes away must not leave half a group.
        let cancelling = ending::cancel(self.0.clone(), group.clone(), subject.clone());
        let cancelled = self.0.tasks.spawn(cancelling).await;
        cancelled.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(self.wire(&group).await?))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::DeleteGroupRequest {
            group_id,
            with_checkpoints,
        } = request.into_inner();
        let id = check::group_id("group_id", &group_id)?;
        subject.set(&id);
        let group = self.find(&id).await?;
        caller.may_change(&id, group.submitted_by.as_deref())?;
        // In a task, as a cancellation.
        let removing = ending::remove(self.0.clone(), group, with_checkpoints, subject.clone());
        let removed = self.0.tasks.spawn(removing).await;
        let removed = removed.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(removed))
    }
}

impl GroupsService {
    async fn find(&self, id: &GroupId) -> Result<Group, ApiError> {
        let number = number_of(id).ok_or_else(|| ApiError::no_group(id))?;
        let group = self.0.runs.journal.group(number).await;
        group
            .map_err(|e| ApiError::Unavailable(e.to_string()))?
            .filter(|group| group.id == *id)
            .ok_or_else(|| ApiError::no_group(id))
    }

    /// A group on the wire, with the phases that its runs are in now.
    async fn wire(&self, group: &Group) -> Result<pb::Group, ApiError> {
        let Group {
            id,
            number: _,
            name,
            submitted_at_ms,
            submitted_by,
            runs,
        } = group;
        let mut members = Vec::new();
        for Member { run, fold, seed } in runs {
            let phase = match self.0.runs.shown(run).await {
                Ok(shown) => pb::Run::from(&*shown.run).phase(),
                Err(ApiError::NotFound(_)) => pb::Phase::Unspecified,
                Err(error) => return Err(error),
            };
            members.push(pb::GroupMember {
                run_id: run.to_string(),
                fold: fold.map(Into::into),
                seed: *seed,
                phase: phase.into(),
            });
        }
        Ok(pb::Group {
            id: id.to_string(),
            name: name.clone(),
            submitted_at_ms: *submitted_at_ms,
            submitted_by: submitted_by.clone().unwrap_or_default(),
            runs: members,
        })
    }
}

/// Accepts the runs of a group, all or none: each meets its dataset and gets a number, then all are journalled at once, then
/// they start.
async fn accept(
    context: Context,
    mut base: RunSpec,
    plan: GroupPlan,
    submitted_by: Option<String>,
    subject: Subject,
) -> Result<Group, ApiError> {
    context.weights.now().pin(&mut base.model)?;
    let specs = plan.specs(&base).map_err(refused)?;
    let dataset = context.datasets.now().find(base.dataset.as_str())?;
    check_weights(&context, &base, &dataset.manifest)?;
    let held = dataset.clone();
    // Dealing a large dataset takes milliseconds, and there may be a hundred runs.
    let specs = blocking(move || {
        let checked = specs.iter().try_for_each(|spec| check_dataset(spec, &held));
        checked.map(|()| specs)
    })
    .await??;
    let number = |reply| ClusterRequest::NextNumber { reply };
    let number = context.runs.cluster.ask(number).await?;
    let id = group_id(&base.name, number).map_err(|e| ApiError::invalid("spec.name", e))?;
    let mut runs: Vec<Run> = Vec::new();
    for spec in specs {
        let mut run = new_run(&context, spec, &dataset, submitted_by.clone()).await?;
        run.group = Some(id.clone());
        runs.push(run);
    }
    let member = |run: &Run| Member {
        run: run.id.clone(),
        fold: run.spec.fold,
        seed: run.spec.seed,
    };
    let group = Group {
        id,
        number,
        name: base.name,
        submitted_at_ms: unix_ms(),
        submitted_by,
        runs: runs.iter().map(member).collect(),
    };
    subject.set(format_args!("{} with {}", group.id, listed(&runs)));
    context
        .runs
        .journal
        .put_group(&group, &runs)
        .await
        .map_err(|e| ApiError::Unavailable(e.to_string()))?;
    info!(
        group_id = %group.id,
        dataset = %base.dataset,
        runs = runs.len(),
        "group.accepted: {}: {} on {}", group.id, listed(&runs), base.dataset
    );
    for run in runs {
        open(&context, run).await?;
    }
    Ok(group)
}

/// Such as `5 runs, dr.f1-8 to dr.f5-12`.
fn listed(runs: &[Run]) -> String {
    let ends = runs.first().zip(runs.last());
    let ends = ends.map(|(first, last)| format!(", {} to {}", first.id, last.id));
    format!("{} runs{}", runs.len(), ends.unwrap_or_default())
}

fn refused(error: GroupError) -> ApiError {
    match error {
        GroupError::Folds(_) => ApiError::invalid("folds", error),
        GroupError::SeedTwice(_) => ApiError::invalid("seeds", error),
        GroupError::LongName { .. } => ApiError::invalid("spec.name", error),
        GroupError::FoldInSpec(_) => ApiError::invalid("spec.fold", error),
        GroupError::TooFew | GroupError::TooMany { .. } | GroupError::Spec { .. } => {
            ApiError::invalid("group", error)
        }
    }
}
