//! `Workers`: the sessions of worker processes, and the slices that they upload.

mod convert;
mod slices;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::pb::workers_server::Workers;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::{Context, peer, transfer};
use crate::access::{Caller, caller};
use crate::cluster::{LastHeard, Request as ClusterRequest, SessionId};
use crate::error::ApiError;
use crate::messages::{CoordinatorMessage, Hello};
use convert::{down, hello, load, wire_message, worker_message};

/// Messages that wait for a worker. It gets a handful for each generation; one that lets so many
/// wait is stuck, and lost.
const OUTBOX: usize = 64;

/// Messages of a worker that may be on their way to its run.
const IN_FLIGHT: usize = 64;

/// A deadline that is noticed so much later says more of this program than of the worker.
const OVERSLEPT: Duration = Duration::from_millis(500);

/// The service.
#[derive(Debug)]
pub(crate) struct WorkersService(pub Context);

type SessionStream = Pin<Box<dyn Stream<Item = Result<pb::CoordinatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Workers for WorkersService {
    type SessionStream = SessionStream;

    async fn session(
        &self,
        request: Request<Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<SessionStream>, Status> {
        let caller = caller(&request);
        let mut stream = request.into_inner();
        let patience = self.0.config.timeout();
        let first = timeout(patience, stream.message())
            .await
            .map_err(|_| ApiError::Silent(format!("hello: did not come within {patience:?}")))?
            .map_err(|status| transfer::broken(&status))?;
        let Some(Up::Hello(wire)) = first.and_then(|message| message.message) else {
            return Err(ApiError::invalid("hello", "must come first").into());
        };
        let hello = hello(wire)?;
        caller.may_speak_for("hello.worker_id", &hello.id)?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let (joined, joining) = oneshot::channel();
        let context = self.0.clone();
        // From here on a task of its own: this call may be dropped at any point, and a session
        // that the cluster knows must have somebody who reports its end.
        self.0
            .tasks
            .spawn(listen(context, caller, hello, stream, outbox, joined));
        joining.await.map_err(|_| ApiError::ShuttingDown)??;
        let welcome = pb::Welcome {
            heartbeat_ms: self.0.config.heartbeat_ms,
            timeout_ms: self.0.config.timeout_ms,
            protocol: fovea_proto::PROTOCOL,
        };
        let answers = tokio_stream::once(Ok(down(Down::Welcome(welcome))))
            .chain(ReceiverStream::new(messages).map(wire_message));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn upload_slice(
        &self,
        request: Request<Streaming<pb::SliceUpload>>,
    ) -> Result<Response<pb::SliceAck>, Status> {
        let permit = self
            .0
            .limits
            .slice_upload(peer(&request))
            .map_err(ApiError::from)?;
        let caller = caller(&request);
        let parent = request.metadata().get(fovea_traces::TRACEPARENT);
        let parent = parent
            .and_then(|text| text.to_str().ok())
            .and_then(|text| text.parse().ok());
        slices::take_slice(&self.0, &caller, parent, request.into_inner()).await?;
        drop(permit);
        Ok(Response::new(pb::SliceAck {}))
    }
}

/// Lets a worker join, listens to it until its session ends, and reports the end.
async fn listen(
    context: Context,
    caller: Caller,
    hello: Hello,
    stream: Streaming<pb::WorkerMessage>,
    outbox: mpsc::Sender<CoordinatorMessage>,
    joined: oneshot::Sender<Result<(), ApiError>>,
) {
    let over = CancellationToken::new();
    let heard = LastHeard::new(context.clock);
    let join = |reply| ClusterRequest::Hello {
        hello: Box::new(hello),
        outbox: outbox.clone(),
        over: over.clone(),
        heard: heard.clone(),
        reply,
    };
    let session = match context.runs.cluster.ask(join).await {
        Ok(session) => {
            // A caller that is gone shows as a closed outbox.
            let _ = joined.send(Ok(()));
            session
        }
        Err(refused) => {
            let _ = joined.send(Err(refused));
            return;
        }
    };
    let end = tokio::select! {
        // The cluster ended it and has sent the reason.
        () = over.cancelled() => return,
        reason = context.registry.until_denied(caller.identity.as_deref()) => ApiError::Denied(reason),
        end = relay(&context, session, stream, &outbox, &heard) => end,
    };
    // The cluster first, so that its reason is this one and not what the worker does about it.
    let reason = end.to_string();
    let ended = |reply| ClusterRequest::SessionEnded {
        session,
        reason,
        reply,
    };
    if context.runs.cluster.ask(ended).await.is_err() {
        debug!(%end, "the cluster is gone");
    }
    // Best effort: a worker that still listens learns why.
    let _ = outbox.try_send(CoordinatorMessage::End(end));
}

/// Passes a worker's messages on, until its session cannot go on. Returns why.
async fn relay(
    context: &Context,
    session: SessionId,
    mut stream: Streaming<pb::WorkerMessage>,
    outbox: &mpsc::Sender<CoordinatorMessage>,
    heard: &LastHeard,
) -> ApiError {
    let patience = context.config.timeout();
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    loop {
        let begun = Instant::now();
        let message = tokio::select! {
            // In this order: what has come is heard before the connection counts as broken.
            biased;
            () = context.closing.cancelled() => return ApiError::ShuttingDown,
            message = timeout(patience, stream.message()) => message,
            () = outbox.closed() => return ApiError::BrokenOff("its session broke".into()),
        };
        let message = match message {
            // This program, or its machine, was stopped meanwhile: its messages wait to be read.
            Err(_) if begun.elapsed() > patience + OVERSLEPT => continue,
            Err(_) => {
                let silence = patience.as_millis();
                return ApiError::Silent(format!("nothing was heard for {silence} ms"));
            }
            Ok(Err(status)) => return transfer::broken(&status),
            Ok(Ok(None)) => return ApiError::BrokenOff("it closed its session".into()),
            Ok(Ok(Some(message))) => message,
        };
        heard.now();
        match load(&message) {
            Ok(Some(load)) => heard.fares(load),
            Ok(None) => {}
            Err(error) => return error,
        }
        let message = match worker_message(message) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(error) => return error,
        };
        // The run's pace is the worker's: a message holds its permit until it has been handled.
        let permit = tokio::select! {
            () = context.closing.cancelled() => return ApiError::ShuttingDown,
            () = outbox.closed() => return ApiError::BrokenOff("its session broke".into()),
            permit = Arc::clone(&in_flight).acquire_owned() => permit,
        };
        let Ok(permit) = permit else {
            return ApiError::ShuttingDown;
        };
        let request = ClusterRequest::Worker {
            session,
            message,
            permit,
        };
        if !context.runs.cluster.send(request).await {
            return ApiError::ShuttingDown;
        }
    }
}
