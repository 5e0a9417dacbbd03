//! The typed client: one method for each request that people make of the coordinator.

use std::future::Future;
use std::time::Duration;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::spec::RunSpec;
use fovea_proto::pb::admin_client::AdminClient;
use fovea_proto::pb::checkpoints_client::CheckpointsClient;
use fovea_proto::pb::cluster_client::ClusterClient;
use fovea_proto::pb::datasets_client::DatasetsClient;
use fovea_proto::pb::runs_client::RunsClient;
use fovea_proto::pb::weights_client::WeightsClient;
use fovea_proto::{MESSAGE_BYTES, connect_pinned, connect_with, pb};
use fovea_security::Pin;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::credentials::{Bearer, Credentials};
use crate::error::Error;
use crate::view::{
    AuditInfo, DatasetInfo, QueuedInfo, Removed, RunInfo, StatusInfo, StoreReport,
    StoredCheckpoints, VerifiedCheckpoint, WeightsInfo, WorkerInfo,
};

/// Longest time for one answer. Streams are not bound by it: keep-alive pings detect a dead peer.
const ANSWER: Duration = Duration::from_secs(60);

/// Runs requested at a time.
const PAGE: u32 = 200;

/// A connection to a coordinator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    channel: Channel,
    credentials: Credentials,
}

/// A channel whose requests carry the caller's token, if there is one.
pub(crate) type Service = InterceptedService<Channel, Bearer>;

impl Client {
    /// Connects without TLS to the coordinator at `address`, such as `http://127.0.0.1:7070`.
    pub async fn connect(address: &str, timeout: Duration) -> Result<Self, Error> {
        Self::connect_as(address, &Credentials::Nothing, timeout).await
    }

    /// Connects to the coordinator at `address`, such as `https://node-0:7070`: with TLS if there is a certificate or a
    /// token.
    pub async fn connect_as(
        address: &str,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let channel = match credentials {
            Credentials::Nothing => connect_with(address, None, timeout).await?,
            Credentials::Certificate(tls) => connect_with(address, Some(tls), timeout).await?,
            Credentials::Token(token) => {
                let pin = Pin::new(token.ca_sha256());
                connect_pinned(address, &pin, timeout).await?
            }
        };
        Ok(Self {
            address: address.to_owned(),
            channel,
            credentials: credentials.clone(),
        })
    }

    /// A new connection to the same coordinator, as the same person.
    pub(crate) async fn reconnected(&self, timeout: Duration) -> Result<Self, Error> {
        Self::connect_as(&self.address, &self.credentials, timeout).await
    }

    /// The coordinator's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Submits a run. When this returns, the run is in the coordinator's journal.
    pub async fn submit(&self, spec: &RunSpec) -> Result<RunInfo, Error> {
        let request = pb::SubmitRequest {
            spec: Some(spec.into()),
        };
        let reply = self
            .answer(self.runs_client().submit(request))
            .await
            .map_err(|error| error.of_submission("run", "fovea runs"))?;
        let run = reply
            .run
            .ok_or_else(|| Error::Protocol("the reply to a submission lacks the run".into()))?;
        Ok(run.try_into()?)
    }

    /// One run.
    pub async fn run(&self, run_id: &str) -> Result<RunInfo, Error> {
        let request = pb::GetRunRequest {
            run_id: run_id.into(),
        };
        let run = self.answer(self.runs_client().get(request)).await?;
        Ok(run.try_into()?)
    }

    /// All runs, newest first.
    pub async fn runs(&self) -> Result<Vec<RunInfo>, Error> {
        let (runs, _) = self.runs_and_store().await?;
        Ok(runs)
    }

    /// The same, with what is wrong with the coordinator's object store; empty if nothing is known to be.
    pub async fn runs_and_store(&self) -> Result<(Vec<RunInfo>, String), Error> {
        let mut runs = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListRunsRequest {
                page_size: PAGE,
                page_token,
            };
            let pb::ListRunsResponse {
                runs: page,
                next_page_token,
                store_problem,
            } = self.answer(self.runs_client().list(request)).await?;
            for run in page {
                runs.push(run.try_into()?);
            }
            page_token = next_page_token;
            if page_token.is_empty() {
                return Ok((runs, store_problem));
            }
        }
    }

    /// Compares the samples that each committed step of a run used with the training split.
    pub async fn audit(&self, run_id: &str) -> Result<AuditInfo, Error> {
        let request = pb::AuditRequest {
            run_id: run_id.into(),
        };
        // Reading a long run's ledger may take minutes.
        self.unbounded(self.runs_client().audit(request))
            .await
            .map(Into::into)
    }

    /// The stored checkpoints of a run, by step.
    pub async fn checkpoints(&self, run_id: &str) -> Result<Vec<CheckpointInfo>, Error> {
        let stored = self.stored_checkpoints(run_id).await?;
        let infos = stored.checkpoints.into_iter().map(|(info, _)| info);
        Ok(infos.collect())
    }

    /// The same, with where they are.
    pub async fn stored_checkpoints(&self, run_id: &str) -> Result<StoredCheckpoints, Error> {
        let request = pb::ListCheckpointsRequest {
            run_id: run_id.into(),
        };
        let reply = self.answer(self.checkpoints_client().list(request)).await?;
        reply.try_into()
    }

    /// Has the coordinator verify the checkpoint of that step, or all of the run; by step.
    pub async fn verify_checkpoints(
        &self,
        run_id: &str,
        step: Option<u64>,
    ) -> Result<Vec<VerifiedCheckpoint>, Error> {
        let request = pb::VerifyCheckpointsRequest {
            run_id: run_id.into(),
            step,
        };
        // Reading many large files from a slow disk may take minutes.
        let reply = self
            .unbounded(self.checkpoints_client().verify(request))
            .await?;
        let mut verified = reply
            .checkpoints
            .into_iter()
            .map(VerifiedCheckpoint::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        verified.sort_by_key(|v| v.info.step);
        Ok(verified)
    }

    /// Removes an ended run, and its checkpoints if `with_checkpoints`. Without that, a run that has
    /// checkpoints is refused.
    pub async fn remove_run(&self, run_id: &str, with_checkpoints: bool) -> Result<Removed, Error> {
        let request = pb::DeleteRunRequest {
            run_id: run_id.into(),
            with_checkpoints,
        };
        let pb::DeleteRunResponse {
            checkpoints,
            freed_bytes,
        } = self.unbounded(self.runs_client().delete(request)).await?;
        Ok(Removed {
            checkpoints,
            freed_bytes,
        })
    }

    /// Removes one checkpoint.
    pub async fn remove_checkpoint(&self, run_id: &str, step: u64) -> Result<Removed, Error> {
        let request = pb::DeleteCheckpointRequest {
            run_id: run_id.into(),
            step,
        };
        let pb::DeleteCheckpointResponse { freed_bytes } = self
            .unbounded(self.checkpoints_client().delete(request))
            .await?;
        Ok(Removed {
            checkpoints: 1,
            freed_bytes,
        })
    }

    /// Removes a dataset, given by name or digest.
    pub async fn remove_dataset(&self, dataset: &str) -> Result<Removed, Error> {
        let request = pb::DeleteDatasetRequest {
            dataset: dataset.into(),
        };
        let pb::DeleteDatasetResponse { freed_bytes } = self
            .unbounded(self.datasets_client().delete(request))
            .await?;
        Ok(Removed {
            checkpoints: 0,
            freed_bytes,
        })
    }

    /// Removes weights, given by name or digest.
    pub async fn remove_weights(&self, weights: &str) -> Result<Removed, Error> {
        let request = pb::DeleteWeightsRequest {
            weights: weights.into(),
        };
        let pb::DeleteWeightsResponse { freed_bytes } = self
            .unbounded(self.weights_client().delete(request))
            .await?;
        Ok(Removed {
            checkpoints: 0,
            freed_bytes,
        })
    }

    /// All weights, by name.
    pub async fn weights(&self) -> Result<Vec<WeightsInfo>, Error> {
        let reply = self
            .answer(self.weights_client().list(pb::ListWeightsRequest {}))
            .await?;
        Ok(reply.weights.into_iter().map(Into::into).collect())
    }

    /// Has the coordinator read every pack, checkpoint and weights file of its store, but for what is skipped, and compare
    /// digests.
    pub async fn verify_store(&self, skip: SkipVerify) -> Result<StoreVerification, Error> {
        let SkipVerify {
            checkpoints: skip_checkpoints,
            datasets: skip_datasets,
            weights: skip_weights,
        } = skip;
        let request = pb::VerifyStoreRequest {
            skip_checkpoints,
            skip_datasets,
            skip_weights,
        };
        let stream = self
            .answer(AdminClient::new(self.service()).verify(request))
            .await?;
        Ok(StoreVerification {
            stream,
            address: self.address.clone(),
        })
    }

    /// The raw stream of a backup; [`crate::backup`] verifies and stores it.
    pub(crate) async fn backup_stream(
        &self,
        request: pb::BackupRequest,
    ) -> Result<Streaming<pb::BackupPart>, Error> {
        // Copying a large journal takes a while.
        self.unbounded(AdminClient::new(self.service()).backup(request))
            .await
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

    /// All connected workers, in the order in which they joined.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        let request = pb::ListWorkersRequest {};
        let reply = self
            .answer(self.cluster_client().list_workers(request))
            .await?;
        reply
            .workers
            .into_iter()
            .map(WorkerInfo::try_from)
            .collect()
    }

    /// How the coordinator is.
    pub async fn status(&self) -> Result<StatusInfo, Error> {
        let request = pb::StatusRequest {};
        let reply = self.answer(self.cluster_client().status(request)).await?;
        Ok(reply.into())
    }

    /// The queued runs, in the order in which they get workers.
    pub async fn queue(&self) -> Result<Vec<QueuedInfo>, Error> {
        let request = pb::ListQueueRequest {};
        let reply = self
            .answer(self.cluster_client().list_queue(request))
            .await?;
        Ok(reply.runs.into_iter().map(QueuedInfo::from).collect())
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

    /// The raw stream of one checkpoint; [`crate::download`] verifies and stores it.
    pub(crate) async fn checkpoint_stream(
        &self,
        run_id: &str,
        step: Option<u64>,
    ) -> Result<Streaming<pb::CheckpointChunk>, Status> {
        let request = pb::GetCheckpointRequest {
            run_id: run_id.into(),
            step,
        };
        match tokio::time::timeout(ANSWER, self.checkpoints_client().get(request)).await {
            Ok(reply) => reply.map(Response::into_inner),
            Err(_) => Err(Status::unavailable(format!(
                "no answer in {} s",
                ANSWER.as_secs()
            ))),
        }
    }

    /// The raw upload of a dataset; [`crate::upload`] feeds it and converts the reply.
    pub(crate) async fn create_dataset<S>(
        &self,
        parts: S,
    ) -> Result<pb::CreateDatasetResponse, Error>
    where
        S: tokio_stream::Stream<Item = pb::CreateDatasetRequest> + Send + 'static,
    {
        self.unbounded(self.datasets_client().create(Request::new(parts)))
            .await
    }

    /// The raw upload of weights; [`crate::weights`] feeds it and converts the reply.
    pub(crate) async fn create_weights<S>(
        &self,
        parts: S,
    ) -> Result<pb::CreateWeightsResponse, Error>
    where
        S: tokio_stream::Stream<Item = pb::CreateWeightsRequest> + Send + 'static,
    {
        self.unbounded(self.weights_client().create(Request::new(parts)))
            .await
    }

    /// The error for a status from this coordinator.
    pub(crate) fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.address)
    }

    /// Waits for an answer without a limit: the connection's pings detect a dead peer.
    pub(crate) async fn unbounded<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        call.await
            .map(Response::into_inner)
            .map_err(|status| self.error(&status))
    }

    /// Waits for an answer, but not for ever.
    pub(crate) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(Error::Lost {
                address: self.address.clone(),
                reason: format!("no answer in {} s", ANSWER.as_secs()),
            }),
        }
    }

    /// For the clients of services.
    pub(crate) fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.credentials.bearer())
    }

    pub(crate) fn cluster_client(&self) -> ClusterClient<Service> {
        ClusterClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn runs_client(&self) -> RunsClient<Service> {
        RunsClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn datasets_client(&self) -> DatasetsClient<Service> {
        DatasetsClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }

    fn weights_client(&self) -> WeightsClient<Service> {
        WeightsClient::new(self.service()).max_decoding_message_size(MESSAGE_BYTES)
    }

    fn checkpoints_client(&self) -> CheckpointsClient<Service> {
        CheckpointsClient::new(self.service())
    }
}

/// What a verification of the coordinator's store leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkipVerify {
    /// Checkpoints.
    pub checkpoints: bool,
    /// Datasets.
    pub datasets: bool,
    /// Weights.
    pub weights: bool,
}

/// A verification of the coordinator's store that is under way.
pub struct StoreVerification {
    stream: Streaming<pb::VerifyStoreEvent>,
    address: String,
}

impl StoreVerification {
    /// The next report; None after the end of the stream. Safe to drop and call again.
    pub async fn next(&mut self) -> Result<Option<StoreReport>, Error> {
        loop {
            let message = self
                .stream
                .message()
                .await
                .map_err(|status| Error::from_status(&status, &self.address))?;
            let Some(event) = message else {
                return Ok(None);
            };
            if let Some(report) = StoreReport::from_wire(event)? {
                return Ok(Some(report));
            }
        }
    }
}
