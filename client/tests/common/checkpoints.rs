//! `Checkpoints`.

use super::*;

#[tonic::async_trait]
impl Checkpoints for Fake {
    async fn list(
        &self,
        request: Request<pb::ListCheckpointsRequest>,
    ) -> Reply<pb::ListCheckpointsResponse> {
        let run = self.known(&request.into_inner().run_id)?;
        Ok(Response::new(pb::ListCheckpointsResponse {
            checkpoints: run.checkpoints,
            ..Default::default()
        }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteCheckpointRequest>,
    ) -> Reply<pb::DeleteCheckpointResponse> {
        let pb::DeleteCheckpointRequest { run_id, step } = request.into_inner();
        Fake::delete(self, &format!("{run_id}/{step}"), "")?;
        Ok(Response::new(pb::DeleteCheckpointResponse {
            freed_bytes: 47_000_000,
        }))
    }

    type GetStream = Out<pb::CheckpointChunk>;

    async fn get(&self, request: Request<pb::GetCheckpointRequest>) -> Reply<Self::GetStream> {
        use pb::checkpoint_chunk::Part;
        self.known(&request.into_inner().run_id)?;
        let mut state = self.0.lock().unwrap();
        let (bytes, digest) = state
            .checkpoint
            .clone()
            .ok_or_else(|| Status::not_found("there is no such checkpoint"))?;
        let mut info = checkpoint(24);
        info.size_bytes = bytes.len() as u64;
        info.sha256 = digest;
        let sent = state.cut_checkpoint_at.unwrap_or(bytes.len());
        let mut parts = vec![Part::Info(info)];
        parts.extend(
            bytes[..sent]
                .chunks(1000)
                .map(|c| Part::Data(c.to_vec().into())),
        );
        let mut chunks = parts
            .into_iter()
            .map(|part| Ok(pb::CheckpointChunk { part: Some(part) }))
            .collect::<Vec<_>>();
        if let Some(status) = state.checkpoint_lost.clone() {
            if state.lost_at_once {
                chunks.clear();
            }
            if let (tonic::Code::DataLoss, Some(run)) = (status.code(), &mut state.run) {
                run.checkpoints.retain(|c| c.step != 24);
            }
            chunks.push(Err(status));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn verify(
        &self,
        request: Request<pb::VerifyCheckpointsRequest>,
    ) -> Reply<pb::VerifyCheckpointsResponse> {
        let pb::VerifyCheckpointsRequest { run_id, step } = request.into_inner();
        let mut checkpoints = self.known(&run_id)?.checkpoints;
        if let Some(step) = step {
            checkpoints.retain(|c| c.step == step);
            if checkpoints.is_empty() {
                return Err(Status::not_found(format!(
                    "run {run_id} has no checkpoint at step {step}"
                )));
            }
        }
        let state = self.0.lock().unwrap();
        let verified = |checkpoint: pb::Checkpoint| {
            let (file, problem) = state
                .damaged
                .get(&checkpoint.step)
                .cloned()
                .unwrap_or((pb::FileState::Ok, String::new()));
            let (manifest, manifest_problem) = state
                .damaged_manifests
                .get(&checkpoint.step)
                .cloned()
                .unwrap_or_default();
            pb::VerifiedCheckpoint {
                state: file.into(),
                problem,
                manifest_state: manifest.into(),
                manifest_problem,
                checkpoint: Some(checkpoint),
            }
        };
        Ok(Response::new(pb::VerifyCheckpointsResponse {
            checkpoints: checkpoints.into_iter().map(verified).collect(),
        }))
    }
}
