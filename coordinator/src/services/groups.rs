//! `Groups`: runs that are submitted together, ended together and removed together.

mod each;
mod ending;
mod priority;

use std::collections::BTreeMap;
use std::sync::Arc;

use fovea_core::group::{
    Group, GroupError, GroupPlan, MAX_RUNS, Member, Planned, Variant, group_id,
};
use fovea_core::ids::DatasetName;
use fovea_core::run::Run;
use fovea_core::selection::Selection;
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
use crate::selecting::decisions;
use crate::store::HeldDataset;

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
        let pb::SubmitGroupRequest {
            spec,
            folds,
            seeds,
            variants,
            selection,
        } = request.into_inner();
        let spec = spec.ok_or_else(|| ApiError::invalid("spec", "is missing"))?;
        let spec = RunSpec::try_from(spec).map_err(ApiError::from)?;
        spec.validate().map_err(ApiError::from)?;
        // Before any of them is looked at: no submission of millions costs more than its message.
        if variants.len() > MAX_RUNS {
            let runs = variants.len() as u64;
            return Err(refused(GroupError::TooMany { runs }).into());
        }
        let variants: Vec<Variant> = variants
            .into_iter()
            .map(|variant| Variant::try_from(variant).map_err(ApiError::from))
            .collect::<Result<_, _>>()?;
        let selection = selection.map(Selection::try_from).transpose();
        let plan = GroupPlan {
            variants,
            selection: selection.map_err(ApiError::from)?,
            folds,
            seeds,
        };
        let evaluates = |spec: &RunSpec| spec.evaluate.is_some();
        if evaluates(&spec) || plan.variants.iter().any(|v| evaluates(&v.spec)) {
            let problem = "is for the coordinator to fill in; a group trains";
            return Err(ApiError::invalid("spec.evaluate", problem).into());
        }
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
        let group = self.0.runs.group(&id).await?;
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
        let group = self.0.runs.group(&id).await?;
        caller.may_change(&id, group.submitted_by.as_deref())?;
        // In a task: a client that goes away must not leave half a group.
        let cancelling = ending::cancel(self.0.clone(), group.clone(), subject.clone());
        let cancelled = self.0.tasks.spawn(cancelling).await;
        cancelled.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(self.wire(&group).await?))
    }

    async fn set_priority(
        &self,
        request: Request<pb::SetGroupPriorityRequest>,
    ) -> Result<Response<pb::Group>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::SetGroupPriorityRequest { group_id, priority } = request.into_inner();
        let id = check::group_id("group_id", &group_id)?;
        let priority = check::priority("priority", priority)?;
        subject.set(format_args!("{id} to {priority}"));
        let group = self.0.runs.group(&id).await?;
        caller.may_change(&id, group.submitted_by.as_deref())?;
        // In a task, as a cancellation.
        let (of, by) = (group.clone(), caller.owner());
        let setting = priority::set(self.0.clone(), of, priority, by, subject.clone());
        let set = self.0.tasks.spawn(setting).await;
        set.map_err(|error| ApiError::Internal(error.to_string()))??;
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
        let group = self.0.runs.group(&id).await?;
        caller.may_change(&id, group.submitted_by.as_deref())?;
        // In a task, as a cancellation.
        let removing = ending::remove(self.0.clone(), group, with_checkpoints, subject.clone());
        let removed = self.0.tasks.spawn(removing).await;
        let removed = removed.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(removed))
    }
}

impl GroupsService {
    /// A group on the wire, with the phases that its runs are in now.
    async fn wire(&self, group: &Group) -> Result<pb::Group, ApiError> {
        let Group {
            id,
            number: _,
            name,
            submitted_at_ms,
            submitted_by,
            variants,
            selection,
            runs,
        } = group;
        let shown = self.0.runs.members(group).await?;
        let now = || shown.iter().map(|shown| Some(&*shown.as_ref()?.run));
        let members = runs.iter().zip(now()).map(|(member, run)| {
            let Member {
                run: id,
                variant,
                fold,
                seed,
            } = member;
            let phase = run.map_or(pb::Phase::Unspecified, |run| pb::Run::from(run).phase());
            pb::GroupMember {
                run_id: id.to_string(),
                fold: fold.map(Into::into),
                seed: *seed,
                phase: phase.into(),
                variant: *variant,
            }
        });
        Ok(pb::Group {
            id: id.to_string(),
            name: name.clone(),
            submitted_at_ms: *submitted_at_ms,
            submitted_by: submitted_by.clone().unwrap_or_default(),
            runs: members.collect(),
            variants: variants.clone(),
            selection: selection.as_ref().map(Into::into),
            deciding: !decisions(group, now()).is_empty(),
        })
    }
}

/// Accepts the runs of a group, all or none: each meets its dataset and gets a number, then all are journalled at once, then
/// they start.
async fn accept(
    context: Context,
    mut base: RunSpec,
    mut plan: GroupPlan,
    submitted_by: Option<String>,
    subject: Subject,
) -> Result<Group, ApiError> {
    let weights = context.weights.now();
    weights.pin(&mut base.model)?;
    for variant in &mut plan.variants {
        weights.pin(&mut variant.spec.model)?;
    }
    let labels = plan
        .variants
        .iter()
        .map(|variant| variant.label.clone())
        .collect();
    let hold = plan.selection.as_ref().map(Selection::hold);
    let planned = plan.runs(&base).map_err(refused)?;
    // The runs of a sweep may be of several datasets.
    let mut datasets: BTreeMap<DatasetName, Arc<HeldDataset>> = BTreeMap::new();
    for Planned { spec, .. } in &planned {
        if !datasets.contains_key(&spec.dataset) {
            let dataset = context.datasets.now().find(spec.dataset.as_str())?;
            datasets.insert(spec.dataset.clone(), dataset);
        }
        check_weights(&context, spec, &datasets[&spec.dataset].manifest)?;
    }
    let held = datasets.clone();
    // Dealing a large dataset takes milliseconds, and there may be a hundred runs.
    let planned = blocking(move || {
        let mut specs = planned.iter().map(|planned| &planned.spec);
        let checked = specs.try_for_each(|spec| check_dataset(spec, &held[&spec.dataset]));
        checked.map(|()| planned)
    })
    .await??;
    let number = |reply| ClusterRequest::NextNumber { reply };
    let number = context.runs.cluster.ask(number).await?;
    let id = group_id(&base.name, number).map_err(|e| ApiError::invalid("spec.name", e))?;
    let mut runs: Vec<Run> = Vec::new();
    let mut members = Vec::new();
    for Planned { variant, spec } in planned {
        let dataset = datasets[&spec.dataset].clone();
        let mut run = new_run(&context, spec, &dataset, submitted_by.clone()).await?;
        (run.group, run.hold) = (Some(id.clone()), hold);
        members.push(Member {
            run: run.id.clone(),
            variant,
            fold: run.spec.fold,
            seed: run.spec.seed,
        });
        runs.push(run);
    }
    let group = Group {
        id,
        number,
        name: base.name,
        submitted_at_ms: unix_ms(),
        submitted_by,
        variants: labels,
        selection: plan.selection,
        runs: members,
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
        GroupError::VariantTwice(_) | GroupError::Label(_) => ApiError::invalid("variants", error),
        GroupError::Selection(_) => ApiError::invalid("selection", error),
        GroupError::TooFew | GroupError::TooMany { .. } | GroupError::Spec { .. } => {
            ApiError::invalid("group", error)
        }
    }
}
