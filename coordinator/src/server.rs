//! The coordinator's life: open the data folder, serve, drain, stop.

use std::sync::Arc;
use std::time::Duration;

use fovea_proto::pb::admin_server::AdminServer;
use fovea_proto::pb::checkpoints_server::CheckpointsServer;
use fovea_proto::pb::cluster_server::ClusterServer;
use fovea_proto::pb::datasets_server::DatasetsServer;
use fovea_proto::pb::groups_server::GroupsServer;
use fovea_proto::pb::identity_server::IdentityServer;
use fovea_proto::pb::runs_server::RunsServer;
use fovea_proto::pb::tokens_server::TokensServer;
use fovea_proto::pb::weights_server::WeightsServer;
use fovea_proto::pb::workers_server::WorkersServer;
use fovea_proto::{CONNECTION_WINDOW, DESCRIPTORS, FRAME, MESSAGE_BYTES, STREAM_WINDOW};
use fovea_security::{Role, Tls};
use fovea_service::{ConfigError, Shutdown, VERSION};
use fovea_traces::{Exporter, Resource, Traces};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};
use tracing::{error, info, warn};

use crate::access::{AccessLayer, Known, Signer};
use crate::cluster::{ActorError, Cluster};
use crate::config::Config;
use crate::dashboard::Dashboard;
use crate::journal::{Journal, Stats};
use crate::net::{Budget, GateLayer, Incoming, Limits, Listeners};
use crate::serve_error::ServeError;
use crate::services::{
    AdminService, CheckpointsService, ClusterService, Context, DatasetsService, GroupsService,
    IdentityService, RunsService, TokensService, WeightsService, WorkersService,
};
use crate::startup::{self, Certified, Opened, Running};
use crate::stop::OnStop;
use crate::vitals::Vitals;

/// Requests of one connection that may be open at the same time.
const CONCURRENT_STREAMS: u32 = 1024;

/// The most bytes of a request's headers. Ours have a few hundred.
const HEADER_BYTES: u32 = 16 << 10;

/// Requests that a client took back before they were begun, and errors of its own making, after
/// which its connection is closed. These are the HTTP/2 library's defaults, named because they end
/// floods of resets.
const PENDING_RESETS: usize = 20;
const ERROR_RESETS: usize = 1024;

/// A coordinator whose data folder is locked and opened, not serving yet.
#[derive(Debug)]
pub struct Coordinator {
    opened: Opened,
    config: Arc<Config>,
    certified: Certified,
    vitals: Option<Vitals>,
    traces: Traces,
    /// Sends spans, if they go anywhere.
    exporter: Option<Exporter>,
    /// Where the dashboard is served.
    dashboard: Option<Listeners>,
}

/// Opens the data folder and serves on `listeners` until `shutdown` asks for a stop and the runs are
/// checkpointed, or handed over (`on_stop`).
///
/// # Errors
/// As [`Coordinator::open`] and [`Coordinator::serve`].
pub async fn serve(
    config: Config,
    listeners: impl Into<Listeners>,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    Coordinator::open(config)
        .await?
        .serve(listeners, shutdown)
        .await
}

impl Coordinator {
    /// Reads the certificate if there is one, creates and locks the data folder, opens journal and stores.
    ///
    /// # Errors
    /// The certificate cannot be used. The folder is used by another coordinator, cannot be used, or is not the one that the journal knows.
    pub async fn open(config: Config) -> Result<Self, ServeError> {
        let certified = match config.tls_files()? {
            Some(files) => {
                let (ca, key) = (files.ca.clone(), config.tls_ca_key.clone());
                let is_coordinator = |role| role == Role::Coordinator;
                let tls = Tls::load(files, "a coordinator", is_coordinator)?;
                let signs = !key.as_os_str().is_empty();
                let signer = signs.then(|| Signer::new(tls.clone(), ca, key)).transpose();
                Certified {
                    tls: Some(tls),
                    signer: signer.map_err(|e| ServeError::CaKey(e.to_string()))?,
                }
            }
            None => Certified::default(),
        };
        let (traces, exporter) = match config.traces()? {
            None => (Traces::default(), None),
            Some(settings) => {
                let resource = Resource {
                    service: "fovea-coordinator",
                    version: VERSION,
                    instance: instance(&certified),
                };
                let started = Traces::start(settings, resource);
                let (traces, exporter) = started.map_err(|e| ConfigError::Value(e.to_string()))?;
                (traces, Some(exporter))
            }
        };
        let config = Arc::new(config);
        let opened = startup::open(Arc::clone(&config)).await?;
        Ok(Self {
            opened,
            config,
            certified,
            vitals: None,
            traces,
            exporter,
            dashboard: None,
        })
    }

    /// Who it is, with TLS.
    pub fn identity(&self) -> Option<fovea_security::Identity> {
        self.certified.tls.as_ref().map(Tls::identity)
    }

    /// Tells `vitals` when it serves.
    #[must_use]
    pub fn with_vitals(mut self, vitals: Vitals) -> Self {
        self.vitals = Some(vitals);
        self
    }

    /// Serves the dashboard on `listeners`, too.
    #[must_use]
    pub fn with_dashboard(mut self, listeners: impl Into<Listeners>) -> Self {
        self.dashboard = Some(listeners.into());
        self
    }

    /// Serves until `shutdown` asks for a stop, then checkpoints and queues the runs again, for at
    /// most `drain_timeout_s`; or, with [`OnStop::HandOver`], leaves them to their workers.
    ///
    /// # Errors
    /// An actor or the network failed, or the runs were not checkpointed or handed over in time.
    pub async fn serve(
        self,
        listeners: impl Into<Listeners>,
        shutdown: Shutdown,
    ) -> Result<(), ServeError> {
        let Self {
            opened,
            config,
            certified,
            vitals,
            traces,
            exporter,
            dashboard,
        } = self;
        let tls = certified.tls.clone();
        let Running {
            context,
            figures,
            mut cluster,
            tasks: mut others,
            journal,
            dir,
        } = {
            // The journal and the stores have their files open by now.
            let limits = Limits::new(&config, &Budget::of_this_process(&config));
            opened.start(limits, certified, traces)
        };
        let (tasks, closing) = (context.tasks.clone(), context.closing.clone());
        let actors = context.runs.cluster.clone();
        if let Some(vitals) = vitals {
            vitals.serves(figures);
        }
        let limits = context.limits.clone();
        let access = AccessLayer {
            known: tls.as_ref().map(|tls| Known {
                cluster: tls.identity().cluster().to_owned(),
                registry: context.registry.clone(),
            }),
        };
        let (routes, health) = routes(context.clone()).await?;
        let router = router(routes.clone(), access.clone());
        if let Some(listeners) = dashboard {
            let dashboard = Dashboard::new(context, access, routes);
            tasks.spawn(dashboard.serve(listeners));
        } else {
            // Both keep the cluster going.
            drop((context, routes));
        }
        if let Some(tls) = tls.clone() {
            others.push(tokio::spawn(tls.reload()));
        }
        let incoming = Incoming::new(
            listeners.into(),
            limits,
            config.deadlines(),
            tls,
            config.tokens,
        );
        let stop = closing.clone();
        let mut server = tokio::spawn(async move {
            let stopped = async move { stop.cancelled().await };
            router.serve_with_incoming_shutdown(incoming, stopped).await
        });

        let mut outcome = tokio::select! {
            // Runs end, too, when the journal is damaged: the cause is reported.
            biased;
            error = journal.damaged() => Err(ServeError::Journal(error)),
            () = shutdown.wait() => {
                let stopped = async {
                    match config.on_stop {
                        OnStop::Checkpoint => drain(&actors, &health, config.drain_timeout_s).await,
                        OnStop::HandOver => {
                            hand_over(&actors, &health, &journal, config.stop_limits().runs).await
                        }
                    }
                };
                tokio::select! {
                    result = stopped => result,
                    ended = &mut cluster => cluster_ended(ended),
                }
            }
            ended = &mut cluster => cluster_ended(ended),
            ended = &mut server => Err(ServeError::Server(match ended {
                Ok(Ok(())) => "it ended by itself".into(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            })),
        };
        closing.cancel();
        tasks.close();
        let limits = config.stop_limits();
        end_connections(server, &tasks, limits.connections).await;
        drop(actors);
        let deadline = Instant::now() + limits.journal;
        // It ends when nobody can reach it any more, its runs with it; what they have is in the journal then.
        if !cluster.is_finished() && timeout_at(deadline, &mut cluster).await.is_err() {
            cluster.abort();
        }
        for task in others {
            task.abort();
        }
        let closed = close_journal(journal, deadline, limits.journal).await;
        outcome = outcome.and(match closed {
            // What was acknowledged is in its log, and the runs were checkpointed.
            Err(ServeError::JournalNotClosed) if config.on_stop == OnStop::Checkpoint => Ok(()),
            closed => closed,
        });
        drop(dir);
        if let Some(exporter) = exporter {
            exporter.close(limits.traces).await;
        }
        match &outcome {
            Ok(()) => match config.on_stop {
                // Not that all is stored: a last checkpoint may have found no room.
                OnStop::Checkpoint => info!(
                    "coordinator.stopped: exiting; at the next start, runs that have not ended go on from their last stored \
                     checkpoint"
                ),
                OnStop::HandOver => {
                    info!("coordinator.stopped: the runs are left to their workers; exiting");
                }
            },
            Err(error) => error!("coordinator.failed: {error}"),
        }
        outcome
    }
}

/// Which coordinator this is, for a collector.
fn instance(certified: &Certified) -> String {
    if let Some(tls) = &certified.tls {
        return tls.identity().to_string();
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "coordinator".into(), |name| name.trim().to_owned())
}

/// Waits until clients have had their answers, for at most `limit`; then connections are closed and transfers abandoned.
async fn end_connections(
    mut server: JoinHandle<Result<(), tonic::transport::Error>>,
    tasks: &TaskTracker,
    limit: Duration,
) {
    let connections = async {
        if !server.is_finished() && timeout(limit, &mut server).await.is_err() {
            warn!(
                "shutdown.connections_cut: some connections did not end within {limit:?}; closing them"
            );
            server.abort();
        }
    };
    let transfers = async {
        if timeout(limit, tasks.wait()).await.is_err() {
            warn!(
                "shutdown.streams_cut: some transfers did not end within {limit:?}; abandoning them"
            );
        }
    };
    tokio::join!(connections, transfers);
}

/// Closes the journal, whose time ends at `deadline` after `limit`.
async fn close_journal(
    journal: Journal,
    deadline: Instant,
    limit: Duration,
) -> Result<(), ServeError> {
    let Stats {
        commits,
        writes,
        commit_time,
    } = journal.stats();
    let mean_ms = commit_time.as_secs_f64() * 1000.0 / commits.max(1) as f64;
    let mean_ms = (mean_ms * 10.0).round() / 10.0;
    info!(
        commits,
        writes, mean_ms, "journal.closing: {writes} writes in {commits} commits of {mean_ms} ms"
    );
    match timeout_at(deadline, journal.close()).await {
        Ok(closed) => closed.map_err(ServeError::Journal),
        Err(_) => {
            warn!(
                "journal.slow: it was not closed within {limit:?}; the next start finishes what it holds"
            );
            Err(ServeError::JournalNotClosed)
        }
    }
}

/// The services behind the gate and the table of access.
type Gated = Router<Stack<AccessLayer, Stack<GateLayer, Identity>>>;

/// Every service, with health and reflection.
async fn routes(context: Context) -> Result<(Routes, HealthReporter), ServeError> {
    let broken = |e: tonic_reflection::server::Error| ServeError::Server(e.to_string());
    let runs = RunsServer::new(RunsService(context.clone()));
    let groups = GroupsServer::new(GroupsService(context.clone()));
    let workers = WorkersServer::new(WorkersService(context.clone()));
    let checkpoints = CheckpointsServer::new(CheckpointsService(context.clone()));
    let admin = AdminServer::new(AdminService(context.clone()));
    let weights = WeightsServer::new(WeightsService(context.clone()));
    let cluster = ClusterServer::new(ClusterService(context.clone()));
    let identity = IdentityServer::new(IdentityService(context.clone()));
    let tokens = TokensServer::new(TokensService(context.clone()));
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
    health.set_serving::<GroupsServer<GroupsService>>().await;
    health.set_serving::<AdminServer<AdminService>>().await;
    health.set_serving::<WeightsServer<WeightsService>>().await;
    health.set_serving::<ClusterServer<ClusterService>>().await;
    health
        .set_serving::<IdentityServer<IdentityService>>()
        .await;
    health.set_serving::<TokensServer<TokensService>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?)
        .add_service(runs)
        .add_service(groups)
        .add_service(datasets)
        .add_service(weights)
        .add_service(workers)
        .add_service(checkpoints)
        .add_service(admin)
        .add_service(cluster)
        .add_service(identity)
        .add_service(tokens);
    Ok((routes.routes(), health))
}

/// The services behind the gate and the table of access.
fn router(routes: Routes, access: AccessLayer) -> Gated {
    Server::builder()
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
        .layer(access)
        .add_routes(routes)
}

/// The server as a whole takes no new work; neither do the services that need the cluster.
async fn set_not_serving(health: &HealthReporter) {
    health
        .set_service_status("", ServingStatus::NotServing)
        .await;
    health.set_not_serving::<RunsServer<RunsService>>().await;
    health
        .set_not_serving::<GroupsServer<GroupsService>>()
        .await;
    health
        .set_not_serving::<WorkersServer<WorkersService>>()
        .await;
    health
        .set_not_serving::<ClusterServer<ClusterService>>()
        .await;
}

/// Leaves the runs to their workers. What is known of them is in the journal when this returns.
async fn hand_over(
    actors: &Cluster,
    health: &HealthReporter,
    journal: &Journal,
    limit: Duration,
) -> Result<(), ServeError> {
    set_not_serving(health).await;
    health
        .set_not_serving::<DatasetsServer<DatasetsService>>()
        .await;
    health
        .set_not_serving::<CheckpointsServer<CheckpointsService>>()
        .await;
    health.set_not_serving::<AdminServer<AdminService>>().await;
    health
        .set_not_serving::<WeightsServer<WeightsService>>()
        .await;
    if timeout(limit, actors.hand_over()).await.is_ok() {
        return Ok(());
    }
    let runs = actors.active_runs().await;
    if runs == 0 {
        return Ok(());
    }
    let reason = journal.blocked().borrow().as_ref().map(ToString::to_string);
    Err(ServeError::HandOverTimeout { runs, reason })
}

async fn drain(actors: &Cluster, health: &HealthReporter, seconds: u64) -> Result<(), ServeError> {
    set_not_serving(health).await;
    let drained = timeout(Duration::from_secs(seconds), actors.drain()).await;
    if drained.is_ok() {
        return Ok(());
    }
    let runs = actors.active_runs().await;
    if runs == 0 {
        return Ok(());
    }
    Err(ServeError::DrainTimeout { runs, seconds })
}

fn cluster_ended(
    ended: Result<Result<(), ActorError>, tokio::task::JoinError>,
) -> Result<(), ServeError> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(ServeError::Server(format!(
            "the cluster's task ended: {error}"
        ))),
    }
}
