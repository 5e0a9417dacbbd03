//! The coordinator's life: open the data folder, serve, drain, stop.

use std::sync::Arc;
use std::time::Duration;

use fovea_proto::pb::checkpoints_server::CheckpointsServer;
use fovea_proto::pb::datasets_server::DatasetsServer;
use fovea_proto::pb::runs_server::RunsServer;
use fovea_proto::pb::workers_server::WorkersServer;
use fovea_proto::{CONNECTION_WINDOW, DESCRIPTORS, FRAME, MESSAGE_BYTES, STREAM_WINDOW};
use fovea_service::{FORCED, Shutdown};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::net::{Budget, GateLayer, Incoming, Limits};
use crate::owner::{Handle, Message, Owner, OwnerError};
use crate::services::{CheckpointsService, Context, DatasetsService, RunsService, WorkersService};

/// How long connections may take to end once the drain is over.
const GOODBYE: Duration = Duration::from_secs(5);

/// Requests of one connection that may be open at the same time.
const CONCURRENT_STREAMS: u32 = 1024;

/// The most bytes of a request's headers. Ours have a few hundred.
const HEADER_BYTES: u32 = 16 << 10;

/// Requests that a client took back before they were begun, and errors of its own making, after
/// which its connection is closed. These are the HTTP/2 library's defaults, named because they end
/// floods of resets.
const PENDING_RESETS: usize = 20;
const ERROR_RESETS: usize = 1024;

/// Why the coordinator stopped, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal cannot be opened.
    #[error("data_dir: {0}")]
    Recovery(OwnerError),
    /// It cannot act on what it cannot write down.
    #[error("stopped, because the journal failed: {0}")]
    Owner(OwnerError),
    /// The network.
    #[error("the server failed: {0}")]
    Server(String),
    /// Runs were not checkpointed in time.
    #[error(
        "{runs} runs were not checkpointed within drain_timeout_s ({seconds} s); they go on from \
         their newest checkpoints when the coordinator is back"
    )]
    DrainTimeout {
        /// How many.
        runs: usize,
        /// How long it waited.
        seconds: u64,
    },
}

impl ServeError {
    /// The program's exit code: 4 for the data folder, 5 for a drain by force, else 1.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::DataDir(_) | Self::Recovery(_) => 4,
            Self::DrainTimeout { .. } => FORCED,
            Self::Owner(_) | Self::Server(_) => 1,
        }
    }
}

/// A coordinator whose data folder is locked and whose journal is read, not serving yet.
#[derive(Debug)]
pub struct Coordinator {
    owner: Owner,
    inbox: mpsc::Receiver<Message>,
    context: Context,
    limits: Limits,
}

/// Opens the data folder and serves on `listener` until `shutdown` asks for a stop and the runs are
/// checkpointed.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    Coordinator::open(config)?.serve(listener, shutdown).await
}

impl Coordinator {
    /// Makes and locks the data folder, reads the journal, and takes up the runs in it.
    pub fn open(config: Config) -> Result<Self, ServeError> {
        let config = Arc::new(config);
        let dir = Arc::new(DataDir::open(&config.data_dir)?);
        let tasks = TaskTracker::new();
        let (owner, handle, inbox) =
            Owner::recover(Arc::clone(&config), Arc::clone(&dir), tasks.clone())
                .map_err(ServeError::Recovery)?;
        let uploads = Arc::new(Semaphore::new(config.max_uploads as usize));
        let context = Context {
            config,
            dir,
            owner: handle,
            tasks,
            closing: CancellationToken::new(),
            uploads,
        };
        // The journal and the stores have their files open by now.
        let limits = Limits::new(&context.config, &Budget::of_this_process(&context.config));
        Ok(Self {
            owner,
            inbox,
            context,
            limits,
        })
    }

    /// Serves until `shutdown` asks for a stop, then checkpoints and queues the runs again, for at
    /// most `drain_timeout_s`.
    pub async fn serve(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), ServeError> {
        let Self {
            owner,
            inbox,
            context,
            limits,
        } = self;
        let Context {
            owner: handle,
            tasks,
            closing,
            config,
            ..
        } = context.clone();
        let (router, health) = router(context).await?;
        let incoming = Incoming::new(listener, limits, config.deadlines());
        let stop = closing.clone();
        let mut server = tokio::spawn(async move {
            let stopped = async move { stop.cancelled().await };
            router.serve_with_incoming_shutdown(incoming, stopped).await
        });
        let mut owner = tokio::spawn(owner.run(inbox));

        let outcome = tokio::select! {
            () = shutdown.wait() => {
                let drained = drain(&handle, &health, config.drain_timeout_s);
                tokio::select! {
                    result = drained => result,
                    ended = &mut owner => owner_ended(ended),
                }
            }
            ended = &mut owner => owner_ended(ended),
            ended = &mut server => Err(ServeError::Server(match ended {
                Ok(Ok(())) => "it ended by itself".into(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            })),
        };
        closing.cancel();
        if !server.is_finished() && timeout(GOODBYE, &mut server).await.is_err() {
            warn!(
                "shutdown.connections_cut: some connections did not end within {} s; closing them",
                GOODBYE.as_secs()
            );
            server.abort();
        }
        tasks.close();
        if timeout(GOODBYE, tasks.wait()).await.is_err() {
            warn!(
                "shutdown.streams_cut: some transfers did not end within {} s; abandoning them",
                GOODBYE.as_secs()
            );
        }
        drop(handle);
        // It ends when nobody can reach it any more; its journal is closed then.
        if !owner.is_finished() && timeout(GOODBYE, &mut owner).await.is_err() {
            owner.abort();
        }
        match &outcome {
            Ok(()) => info!("coordinator.stopped: all runs are stored; exiting"),
            Err(error) => error!("coordinator.failed: {error}"),
        }
        outcome
    }
}

/// The services behind the gate.
type Gated = Router<Stack<GateLayer, Identity>>;

/// Every service, with health and reflection.
async fn router(context: Context) -> Result<(Gated, HealthReporter), ServeError> {
    let broken = |e: tonic_reflection::server::Error| ServeError::Server(e.to_string());
    let runs = RunsServer::new(RunsService(context.clone()));
    let workers = WorkersServer::new(WorkersService(context.clone()));
    let checkpoints = CheckpointsServer::new(CheckpointsService(context.clone()));
    // A dataset's index comes in one message; nothing else is large.
    let datasets =
        DatasetsServer::new(DatasetsService(context)).max_decoding_message_size(MESSAGE_BYTES);

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RunsServer<RunsService>>().await;
    health.set_serving::<WorkersServer<WorkersService>>().await;
    health
        .set_serving::<DatasetsServer<DatasetsService>>()
        .await;
    health
        .set_serving::<CheckpointsServer<CheckpointsService>>()
        .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // As in `fovea_proto::connect`: an upload must not hold up heartbeats behind it.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(Some(FRAME))
        .max_concurrent_streams(CONCURRENT_STREAMS)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS))
        .layer(GateLayer)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?)
        .add_service(runs)
        .add_service(datasets)
        .add_service(workers)
        .add_service(checkpoints);
    Ok((router, health))
}

async fn drain(handle: &Handle, health: &HealthReporter, seconds: u64) -> Result<(), ServeError> {
    health.set_not_serving::<RunsServer<RunsService>>().await;
    health
        .set_not_serving::<WorkersServer<WorkersService>>()
        .await;
    let drained = timeout(Duration::from_secs(seconds), handle.drain()).await;
    if drained.is_ok() {
        return Ok(());
    }
    let runs = handle.active_runs().await;
    if runs == 0 {
        return Ok(());
    }
    Err(ServeError::DrainTimeout { runs, seconds })
}

fn owner_ended(
    ended: Result<Result<(), OwnerError>, tokio::task::JoinError>,
) -> Result<(), ServeError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ServeError::Owner(error)),
        Err(error) => Err(ServeError::Server(format!("the owner died: {error}"))),
    }
}
