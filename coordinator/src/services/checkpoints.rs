//! `Checkpoints`: what runs leave behind.

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_proto::pb;
use fovea_proto::pb::checkpoint_chunk::Part;
use fovea_proto::pb::checkpoints_server::Checkpoints;
use tonic::{Request, Response, Status};

use super::transfer::{Answers, Verify, send_file};
use super::{Context, check};
use crate::checkpoints::{self, path_for};
use crate::error::ApiError;
use crate::owner::Message;

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
        let view = self
            .0
            .owner
            .ask(|reply| Message::GetRun { run, reply })
            .await?;
        Ok(Response::new(pb::ListCheckpointsResponse {
            checkpoints: view.run.checkpoints.iter().map(Into::into).collect(),
        }))
    }

    type GetStream = Answers<pb::CheckpointChunk>;

    async fn get(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<Self::GetStream>, Status> {
        let pb::GetCheckpointRequest { run_id, step } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        let (info, path) = {
            let run = run.clone();
            let find = |reply| Message::FindCheckpoint { run, step, reply };
            self.0.owner.ask(find).await?
        };
        let chunk = |part| pb::CheckpointChunk { part: Some(part) };
        let first = chunk(Part::Info((&info).into()));
        let piece = move |data| chunk(Part::Data(data));
        let verify = Verify {
            sha256: info.sha256.clone(),
            damage: Box::new(damage(&run, &info)),
        };
        let answers =
            send_file(&self.0, path, info.bytes, Some(first), piece, Some(verify)).await?;
        Ok(Response::new(answers))
    }

    async fn delete(
        &self,
        _: Request<pb::DeleteCheckpointRequest>,
    ) -> Result<Response<pb::DeleteCheckpointResponse>, Status> {
        Err(Status::unimplemented("Checkpoints.Delete"))
    }

    async fn verify(
        &self,
        request: Request<pb::VerifyCheckpointsRequest>,
    ) -> Result<Response<pb::VerifyCheckpointsResponse>, Status> {
        let pb::VerifyCheckpointsRequest { run_id, step } = request.into_inner();
        let id = check::run_id("run_id", &run_id)?;
        let view = {
            let run = id.clone();
            self.0
                .owner
                .ask(|reply| Message::GetRun { run, reply })
                .await?
        };
        let mut wanted = view.run.checkpoints;
        if let Some(step) = step {
            wanted.retain(|c| c.step == step);
            if wanted.is_empty() {
                return Err(ApiError::NotFound(format!(
                    "run {id} has no checkpoint at step {step}; `fovea checkpoints {id}` lists those there are"
                ))
                .into());
            }
        }
        let folder = self.0.dir.checkpoints().join(id.as_str());
        let mut verified = Vec::with_capacity(wanted.len());
        for info in wanted {
            let path = path_for(&folder, info.step, info.generation);
            let (info, problem) = tokio::task::spawn_blocking(move || {
                let problem = checkpoints::verify(&path, &info);
                (info, problem)
            })
            .await
            .map_err(|e| ApiError::Internal(e.to_string()))?;
            if let Some(reason) = &problem {
                self.0.owner.tell(damage(&id, &info)(reason.clone())).await;
            }
            verified.push(pb::VerifiedCheckpoint {
                checkpoint: Some((&info).into()),
                state: pb::FileState::Unspecified.into(),
                problem: problem.unwrap_or_default(),
            });
        }
        Ok(Response::new(pb::VerifyCheckpointsResponse {
            checkpoints: verified,
        }))
    }
}

/// Tells the owner that a stored file is damaged, given the reason.
fn damage(run: &RunId, info: &CheckpointInfo) -> impl FnOnce(String) -> Message + Send + 'static {
    let (run, step, generation) = (run.clone(), info.step, info.generation);
    move |reason| Message::CheckpointDamaged {
        run,
        step,
        generation,
        reason,
    }
}
