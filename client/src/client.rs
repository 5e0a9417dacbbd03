//! The typed client: one method for each thing that the coordinator does for people.

use std::future::Future;
use std::time::Duration;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::spec::RunSpec;
use fovea_proto::pb::checkpoints_client::CheckpointsClient;
use fovea_proto::pb::datasets_client::DatasetsClient;
use fovea_proto::pb::runs_client::RunsClient;
use fovea_proto::{MESSAGE_BYTES, connect, pb};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::error::Error;
use crate::view::{AuditInfo, DatasetInfo, RunInfo, VerifiedCheckpoint};

/// How long one answer may take. Streams are not bound by it: keep-alive pings find a dead peer.
const ANSWER: Duration = Duration::from_secs(60);

/// Runs asked for at a time.
const PAGE: u32 = 200;

/// A connection to a coordinator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    channel: Channel,
}

impl Client {
    /// Connects to the coordinator at `address`, such as `http://127.0.0.1:7070`.
    pub async fn connect(address: &str, timeout: Duration) -> Result<Self, Error> {
        let channel = connect(address, timeout).await?;
        Ok(Self {
            address: address.to_owned(),
            channel,
        })
    }

    /// The address that it was connected to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Submits a run. When this returns, the run is in the coordinator's journal.
    pub async fn submit(&self, spec: &RunSpec) -> Result<RunInfo, Error> {
        let request = pb::SubmitRequest {
            spec: Some(spec.into()),
        };
        let reply = self.answer(self.runs_client().submit(request)).await?;
        reply
            .run
            .ok_or_else(|| Error::Protocol("an accepted run without the run".into()))?
            .try_into()
    }

    /// One run.
    pub async fn run(&self, run_id: &str) -> Result<RunInfo, Error> {
        let request = pb::GetRunRequest {
            run_id: run_id.into(),
        };
        self.answer(self.runs_client().get(request))
            .await?
            .try_into()
    }

    /// All runs, newest first.
    pub async fn runs(&self) -> Result<Vec<RunInfo>, Error> {
        let mut runs = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListRunsRequest {
                page_size: PAGE,
                page_token,
            };
            let page = self.answer(self.runs_client().list(request)).await?;
            for run in page.runs {
                runs.push(run.try_into()?);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(runs);
            }
        }
    }

    /// Asks a run to stop at the next step boundary, with a checkpoint.
    pub async fn cancel(&self, run_id: &str) -> Result<RunInfo, Error> {
        let request = pb::CancelRequest {
            run_id: run_id.into(),
        };
        self.answer(self.runs_client().cancel(request))
            .await?
            .try_into()
    }

    /// Stops a run at the next step boundary, with a checkpoint, to be resumed.
    pub async fn pause(&self, run_id: &str) -> Result<RunInfo, Error> {
        let request = pb::PauseRequest {
            run_id: run_id.into(),
        };
        self.answer(self.runs_client().pause(request))
            .await?
            .try_into()
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
        self.answer(self.runs_client().resume(request))
            .await?
            .try_into()
    }

    /// Compares the samples that each committed step of a run used with the training split.
    pub async fn audit(&self, run_id: &str) -> Result<AuditInfo, Error> {
        let request = pb::AuditRequest {
            run_id: run_id.into(),
        };
        // A long run's ledger takes as long to go through as it takes.
        self.patient(self.runs_client().audit(request))
            .await
            .map(Into::into)
    }

    /// The stored checkpoints of a run, by step.
    pub async fn checkpoints(&self, run_id: &str) -> Result<Vec<CheckpointInfo>, Error> {
        let request = pb::ListCheckpointsRequest {
            run_id: run_id.into(),
        };
        let reply = self.answer(self.checkpoints_client().list(request)).await?;
        let mut checkpoints = reply
            .checkpoints
            .into_iter()
            .map(CheckpointInfo::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        checkpoints.sort_by_key(|c| c.step);
        Ok(checkpoints)
    }

    /// Reads the stored checkpoint of that step, or all, again; by step.
    pub async fn verify_checkpoints(
        &self,
        run_id: &str,
        step: Option<u64>,
    ) -> Result<Vec<VerifiedCheckpoint>, Error> {
        let request = pb::VerifyCheckpointsRequest {
            run_id: run_id.into(),
            step,
        };
        // Many large files on a slow disk take as long to read as they take.
        let reply = self
            .patient(self.checkpoints_client().verify(request))
            .await?;
        let mut verified = reply
            .checkpoints
            .into_iter()
            .map(VerifiedCheckpoint::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        verified.sort_by_key(|v| v.info.step);
        Ok(verified)
    }

    /// All datasets, by name.
    pub async fn datasets(&self) -> Result<Vec<DatasetInfo>, Error> {
        let reply = self
            .answer(self.datasets_client().list(pb::ListDatasetsRequest {}))
            .await?;
        let mut datasets: Vec<DatasetInfo> = reply.datasets.into_iter().map(Into::into).collect();
        datasets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(datasets)
    }

    /// The raw stream of one watch; [`crate::watch::Watcher`] keeps it going.
    pub(crate) async fn watch(&self, run_id: &str) -> Result<Streaming<pb::RunEvent>, Status> {
        let request = pb::WatchRequest {
            run_id: run_id.into(),
        };
        self.runs_client()
            .watch(request)
            .await
            .map(Response::into_inner)
    }

    /// The raw stream of one checkpoint; [`crate::download`] checks and stores it.
    pub(crate) async fn checkpoint_stream(
        &self,
        run_id: &str,
        step: Option<u64>,
    ) -> Result<Streaming<pb::CheckpointChunk>, Error> {
        let request = pb::GetCheckpointRequest {
            run_id: run_id.into(),
            step,
        };
        self.answer(self.checkpoints_client().get(request)).await
    }

    /// The raw upload of a dataset; [`crate::upload`] feeds it.
    pub(crate) async fn create_dataset<S>(&self, parts: S) -> Result<DatasetInfo, Error>
    where
        S: tokio_stream::Stream<Item = pb::CreateDatasetRequest> + Send + 'static,
    {
        // An upload takes as long as it takes.
        self.patient(self.datasets_client().create(Request::new(parts)))
            .await
            .map(|answer: pb::CreateDatasetResponse| answer.dataset.unwrap_or_default().into())
    }

    /// What a status from this coordinator means.
    pub(crate) fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.address)
    }

    /// An answer that may take any time: only the connection's pings bound it.
    async fn patient<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        call.await
            .map(Response::into_inner)
            .map_err(|status| self.error(&status))
    }

    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(Error::Lost {
                address: self.address.clone(),
                reason: format!("no answer within {} s", ANSWER.as_secs()),
            }),
        }
    }

    fn runs_client(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    fn datasets_client(&self) -> DatasetsClient<Channel> {
        DatasetsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    fn checkpoints_client(&self) -> CheckpointsClient<Channel> {
        CheckpointsClient::new(self.channel.clone())
    }
}
