//! `Checkpoints`: what runs leave behind.

use fovea_proto::pb;
use fovea_proto::pb::checkpoint_chunk::Part;
use fovea_proto::pb::checkpoints_server::Checkpoints;
use tonic::{Request, Response, Status};

use super::transfer::{Answers, send_file};
use super::{Context, check};
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
        let (info, path) = self
            .0
            .owner
            .ask(|reply| Message::FindCheckpoint { run, step, reply })
            .await?;
        let chunk = |part| pb::CheckpointChunk { part: Some(part) };
        let first = chunk(Part::Info((&info).into()));
        let piece = move |data| chunk(Part::Data(data));
        let answers = send_file(&self.0, path, info.bytes, Some(first), piece).await?;
        Ok(Response::new(answers))
    }
}
