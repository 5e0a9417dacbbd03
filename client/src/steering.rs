//! What is asked of runs under way: to stop, to go on, to come earlier or later.

use fovea_core::priority::Priority;
use fovea_proto::pb;

use crate::client::Client;
use crate::error::Error;
use crate::view::RunInfo;

impl Client {
    /// Cancels a run at its next step boundary, with a checkpoint.
    pub async fn cancel(&self, run_id: &str) -> Result<RunInfo, Error> {
        let request = pb::CancelRequest {
            run_id: run_id.into(),
        };
        let run = self.answer(self.runs_client().cancel(request)).await?;
        Ok(run.try_into()?)
    }

    /// Pauses a run at its next step boundary, with a checkpoint.
    pub async fn pause(&self, run_id: &str) -> Result<RunInfo, Error> {
        let request = pb::PauseRequest {
            run_id: run_id.into(),
        };
        let run = self.answer(self.runs_client().pause(request)).await?;
        Ok(run.try_into()?)
    }

    /// Queues a paused, failed or cancelled run again, from the checkpoint of that step or the newest.
    pub async fn resume(
        &self,
        run_id: &str,
        checkpoint_step: Option<u64>,
    ) -> Result<RunInfo, Error> {
        let request = pb::ResumeRequest {
            run_id: run_id.into(),
            checkpoint_step,
        };
        let run = self.answer(self.runs_client().resume(request)).await?;
        Ok(run.try_into()?)
    }

    /// Sets the priority of a run that has not ended.
    pub async fn set_priority(&self, run_id: &str, priority: Priority) -> Result<RunInfo, Error> {
        let request = pb::SetPriorityRequest {
            run_id: run_id.into(),
            priority: pb::Priority::from(priority).into(),
        };
        let run = self
            .answer(self.runs_client().set_priority(request))
            .await?;
        Ok(run.try_into()?)
    }
}
