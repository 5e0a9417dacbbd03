//! `Checkpoints`: what runs leave behind.

use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_proto::pb;
use fovea_proto::pb::checkpoint_chunk::Part;
use fovea_proto::pb::checkpoints_server::Checkpoints;
use tonic::{Request, Response, Status};

use super::file_state::{file_state, is_listed, manifest_cure, report_file};
use super::transfer::{Answers, Stored, send_file};
use super::{Context, check, peer};
use crate::access::{Subject, caller};
use crate::blocking::blocking;
use crate::error::ApiError;
use crate::remote::Item;
use crate::run::{RunInput, Shown, opened};

/// The service.
#[derive(Debug)]
pub(crate) struct CheckpointsService(pub Context);

#[tonic::async_trait]
impl Checkpoints for CheckpointsService {
    async fn list(
        &self,
        request: Request<pb::ListCheckpointsRequest>,
    ) -> Result<Response<pb::ListCheckpointsResponse>, Status> {
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        let shown = self.0.runs.shown(&run).await?;
        let infos = shown.run.checkpoints.clone();
        let checkpoints = infos.iter().map(Into::into).collect();
        let Some(view) = self.0.remote.view() else {
            return Ok(Response::new(pb::ListCheckpointsResponse {
                checkpoints,
                ..pb::ListCheckpointsResponse::default()
            }));
        };
        let (store, remote) = (self.0.checkpoints.clone(), Arc::clone(&view));
        let places = move || {
            let place = |info: &CheckpointInfo| {
                let here = store.is_here(&run, info.step, info.generation);
                match (here, remote.stored.contains(&Item::checkpoint(&run, info))) {
                    (true, false) => pb::CheckpointPlace::Local,
                    (false, true) => pb::CheckpointPlace::Remote,
                    (true, true) => pb::CheckpointPlace::Both,
                    (false, false) => pb::CheckpointPlace::Nowhere,
                }
            };
            infos.iter().map(|info| place(info).into()).collect()
        };
        Ok(Response::new(pb::ListCheckpointsResponse {
            checkpoints,
            places: blocking(places).await?,
            store_problem: view.problem.clone().unwrap_or_default(),
        }))
    }

    type GetStream = Answers<pb::CheckpointChunk>;

    async fn get(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<Self::GetStream>, Status> {
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        let pb::GetCheckpointRequest { run_id, step } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        let info = find(&self.0.runs.shown(&run).await?, step)?;
        let opened = opened(&self.0.checkpoints, &self.0.remote, &run, &info).await?;
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                let answer = ApiError::from(&error);
                report_file(&self.0, &run, info, Err(error)).await;
                return Err(answer.into());
            }
        };
        let chunk = |part| pb::CheckpointChunk { part: Some(part) };
        let first = chunk(Part::Info((&info).into()));
        let piece = move |data| chunk(Part::Data(data));
        let stored = Stored {
            file,
            what: format!("checkpoint {} of run {run}", info.step),
            bytes: info.bytes,
            sha256: info.sha256.clone(),
        };
        let context = self.0.clone();
        let read = move |result| async move {
            report_file(&context, &run, info, result).await;
            None
        };
        Ok(Response::new(send_file(
            &self.0,
            stored,
            Some(first),
            piece,
            permit,
            read,
        )))
    }

    async fn verify(
        &self,
        request: Request<pb::VerifyCheckpointsRequest>,
    ) -> Result<Response<pb::VerifyCheckpointsResponse>, Status> {
        let _permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        let subject = Subject::of(&request);
        let pb::VerifyCheckpointsRequest { run_id, step } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        subject.set(format_args!("the checkpoints of {run}"));
        let shown = self.0.runs.shown(&run).await?;
        let wanted = match step {
            Some(_) => vec![find(&shown, step)?],
            None => shown.run.checkpoints.clone(),
        };
        let mut verified = Vec::with_capacity(wanted.len());
        for info in wanted {
            // What is missing here comes from the object store, if it is there, and is read then.
            let _ = opened(&self.0.checkpoints, &self.0.remote, &run, &info).await?;
            let (store, id, reading) = (self.0.checkpoints.clone(), run.clone(), info.clone());
            let verify = move || {
                let result = store.verify(&id, &reading, |_| {});
                let manifest = result.is_ok().then(|| store.verify_manifest(&id, &reading));
                (result, manifest)
            };
            let (result, manifest) = blocking(verify).await?;
            let manifest_problem = match &manifest {
                Some(Err(error)) if is_listed(&self.0, &run, &info).await? => {
                    format!("{error}. {}", manifest_cure(&run, error))
                }
                // Retention or a person removed it since the verification began.
                Some(Err(_)) => continue,
                Some(Ok(())) | None => String::new(),
            };
            verified.push(pb::VerifiedCheckpoint {
                checkpoint: Some((&info).into()),
                state: file_state(&result).into(),
                problem: result
                    .as_ref()
                    .err()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                manifest_state: manifest
                    .as_ref()
                    .map_or(pb::FileState::Unspecified, file_state)
                    .into(),
                manifest_problem,
            });
            report_file(&self.0, &run, info, result).await;
        }
        Ok(Response::new(pb::VerifyCheckpointsResponse {
            checkpoints: verified,
        }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteCheckpointRequest>,
    ) -> Result<Response<pb::DeleteCheckpointResponse>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::DeleteCheckpointRequest { run_id, step } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        subject.set(format_args!("{run} step {step}"));
        self.0.authorize(&caller, &run).await?;
        let delete = |reply| RunInput::DeleteCheckpoint { step, reply };
        let freed_bytes = self.0.runs.ask(&run, delete).await?;
        Ok(Response::new(pb::DeleteCheckpointResponse { freed_bytes }))
    }
}

/// The checkpoint of `step`, or the newest.
fn find(shown: &Shown, step: Option<u64>) -> Result<CheckpointInfo, ApiError> {
    let run = &shown.run;
    let found = match step {
        Some(step) => run.checkpoints.iter().find(|c| c.step == step),
        None => run.checkpoints.last(),
    };
    found.cloned().ok_or_else(|| {
        let (id, which) = (
            &run.id,
            step.map_or("yet".to_owned(), |step| format!("at step {step}")),
        );
        ApiError::NotFound(format!(
            "run {id} has no checkpoint {which}; `fovea checkpoints {id}` lists them"
        ))
    })
}
