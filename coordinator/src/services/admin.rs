//! `Admin`: looking after the stores.

use fovea_proto::pb;
use fovea_proto::pb::admin_server::Admin;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::transfer::Answers;
use super::verification::{AHEAD, Verification};
use super::{Context, peer};
use crate::access::Subject;
use crate::error::ApiError;

/// The service.
#[derive(Debug)]
pub(crate) struct AdminService(pub Context);

#[tonic::async_trait]
impl Admin for AdminService {
    type VerifyStream = Answers<pb::VerifyStoreEvent>;

    async fn verify(
        &self,
        request: Request<pb::VerifyStoreRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        Subject::of(&request).set("the store");
        let pb::VerifyStoreRequest {
            skip_checkpoints,
            skip_datasets,
        } = request.into_inner();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let context = self.0.clone();
        self.0.tasks.spawn(async move {
            let _permit = permit;
            let closing = context.closing.clone();
            let verification = Verification::new(context, sender.clone());
            tokio::select! {
                () = closing.cancelled() => drop(sender.try_send(Err(ApiError::ShuttingDown.into()))),
                // The file that is being read is read to its end; no other is begun.
                () = sender.closed() => {}
                result = verification.run(!skip_checkpoints, !skip_datasets) => {
                    if let Err(error) = result {
                        let _ = sender.send(Err(error.into())).await;
                    }
                }
            }
        });
        Ok(Response::new(Answers::new(receiver)))
    }
}
