//! `Cluster`: what people see of the workers.

use fovea_core::ids::{RunId, WorkerId};
use fovea_core::memory::Memory;
use fovea_core::run::LeftOut;
use fovea_proto::pb;
use fovea_proto::pb::cluster_server::Cluster;
use fovea_security::{Identity, Role};
use fovea_service::VERSION;
use tonic::{Request, Response, Status};

use super::{Context, check};
use crate::access::{Denied, Subject, caller};
use crate::clock::unix_ms;
use crate::cluster::{QueuedRun, WorkerState, WorkerView};
use crate::error::ApiError;
use crate::messages::Load;

/// The service.
#[derive(Debug)]
pub(crate) struct ClusterService(pub Context);

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn list_workers(
        &self,
        request: Request<pb::ListWorkersRequest>,
    ) -> Result<Response<pb::ListWorkersResponse>, Status> {
        let pb::ListWorkersRequest {} = request.into_inner();
        let workers = self.0.runs.cluster.workers().await?;
        let now = self.0.clock.now();
        Ok(Response::new(pb::ListWorkersResponse {
            workers: workers
                .iter()
                .map(|worker| pb::Worker {
                    token_id: self
                        .0
                        .registry
                        .joined_with(worker.id.as_str())
                        .unwrap_or_default(),
                    ..wire(worker, now)
                })
                .collect(),
        }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let pb::StatusRequest {} = request.into_inner();
        Ok(Response::new(pb::StatusResponse {
            version: VERSION.into(),
            up_ms: self.0.clock.now(),
            disk_free_bytes: self.0.space.known().await.map(|space| space.free),
            disk_min_free_bytes: self.0.config.min_free_mib << 20,
        }))
    }

    async fn list_queue(
        &self,
        request: Request<pb::ListQueueRequest>,
    ) -> Result<Response<pb::ListQueueResponse>, Status> {
        let pb::ListQueueRequest {} = request.into_inner();
        let queue = self.0.runs.cluster.queue().await?;
        Ok(Response::new(pb::ListQueueResponse {
            runs: queue.into_iter().map(queued).collect(),
        }))
    }

    async fn deny_worker(
        &self,
        request: Request<pb::DenyWorkerRequest>,
    ) -> Result<Response<pb::DenyWorkerResponse>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::DenyWorkerRequest { name, reason } = request.into_inner();
        let worker = self.named(&name)?;
        subject.set(format_args!("worker {name}"));
        let reason = check::label("reason", &reason)?;
        let connected = self.0.runs.cluster.workers().await?;
        let sessions = connected
            .iter()
            .filter(|connected| worker.owns_worker(connected.id.as_str()))
            .count();
        let denied = Denied {
            name,
            reason,
            since_ms: unix_ms(),
            by: caller.owner(),
        };
        let registry = self.0.registry.clone();
        // In a task: a client that goes away must not leave a denial that is in the journal and not known here.
        let denying = self
            .0
            .tasks
            .spawn(async move { registry.deny(denied).await });
        let done = denying.await;
        done.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(pb::DenyWorkerResponse {
            sessions: sessions as u32,
        }))
    }

    async fn allow_worker(
        &self,
        request: Request<pb::AllowWorkerRequest>,
    ) -> Result<Response<pb::AllowWorkerResponse>, Status> {
        let subject = Subject::of(&request);
        let pb::AllowWorkerRequest { name } = request.into_inner();
        subject.set(format_args!("worker {name}"));
        let registry = self.0.registry.clone();
        let allowing = self
            .0
            .tasks
            .spawn(async move { registry.allow(&name).await });
        let done = allowing.await;
        done.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(pb::AllowWorkerResponse {}))
    }

    async fn list_denied(
        &self,
        _: Request<pb::ListDeniedRequest>,
    ) -> Result<Response<pb::ListDeniedResponse>, Status> {
        let denied = self.0.registry.denied().into_iter().map(|denied| {
            let Denied {
                name,
                reason,
                since_ms,
                by,
            } = denied;
            pb::DeniedWorker {
                name,
                reason,
                since_ms,
                by: by.unwrap_or_default(),
            }
        });
        Ok(Response::new(pb::ListDeniedResponse {
            denied: denied.collect(),
        }))
    }
}

impl ClusterService {
    /// The worker of that name.
    fn named(&self, name: &str) -> Result<Identity, ApiError> {
        let Some(tls) = &self.0.tls else {
            return Err(ApiError::Precondition(
                "this coordinator has no TLS, so that nobody has a name that could be denied; set tls_certificate, \
                 tls_key and tls_ca (`fovea certs init` makes the files)"
                    .into(),
            ));
        };
        Identity::new(tls.identity().cluster(), Role::Worker, name)
            .map_err(|error| ApiError::invalid("name", error))
    }
}

/// A queued run on the wire.
fn queued(run: QueuedRun) -> pb::QueuedRun {
    let QueuedRun {
        id,
        priority,
        place,
        owner,
        min,
        max,
        waited_ms,
        waiting,
    } = run;
    pb::QueuedRun {
        run_id: id.to_string(),
        priority: pb::Priority::from(priority).into(),
        place: pb::Priority::from(place).into(),
        submitted_by: owner.unwrap_or_default(),
        min_workers: min,
        max_workers: max,
        waited_ms,
        waiting,
    }
}

/// A worker on the wire, at `now` on the actors' clock.
fn wire(worker: &WorkerView, now: u64) -> pb::Worker {
    let WorkerView {
        id,
        state,
        host,
        address,
        device,
        version,
        memory,
        hosts,
        heard,
        since,
        left_out,
        load,
    } = worker;
    let Memory {
        host: host_bytes,
        gpu: gpu_bytes,
        gpu_free: gpu_free_bytes,
    } = *memory;
    let (first_virtual_rank, virtual_ranks) = hosts.unwrap_or_default();
    let left_out: Vec<pb::LeftOut> = left_out
        .iter()
        .map(|(run, why)| left_out_of(id, run, why, now))
        .collect();
    let (state, run, reason) = match state {
        WorkerState::Idle => (pb::WorkerState::Idle, None, String::new()),
        WorkerState::Preparing(run) => (pb::WorkerState::Preparing, Some(run), String::new()),
        WorkerState::Training(run) => (pb::WorkerState::Training, Some(run), String::new()),
        WorkerState::Waiting { reason } => (pb::WorkerState::Waiting, None, reason.clone()),
        WorkerState::Barred { run, until } => {
            (pb::WorkerState::Barred, None, barred(run, *until, now))
        }
        WorkerState::LeftOut => {
            let reasons: Vec<String> = left_out.iter().map(left_out_reason).collect();
            (pb::WorkerState::LeftOut, None, reasons.join("; "))
        }
        WorkerState::Leaving(run) => {
            let reason = "it shuts down".to_owned();
            (pb::WorkerState::Leaving, run.as_ref(), reason)
        }
    };
    pb::Worker {
        id: id.to_string(),
        state: state as i32,
        reason,
        host: host.clone(),
        address: address.clone(),
        device: device.clone(),
        version: version.clone(),
        host_bytes,
        gpu_bytes,
        gpu_free_bytes,
        run_id: run.map_or_else(String::new, ToString::to_string),
        first_virtual_rank,
        virtual_ranks,
        last_seen_ms: now.saturating_sub(*heard),
        connected_ms: now.saturating_sub(*since),
        left_out,
        // Filled in by who knows the tokens.
        token_id: String::new(),
        load: load_of(load),
    }
}

/// Load of a worker, on the wire; None if it has not reported any.
fn load_of(load: &Load) -> Option<pb::Load> {
    let Load {
        step_ms,
        wait_ratio,
        gpu_used,
        resident,
    } = *load;
    let wire = pb::Load {
        step_ms,
        wait_ratio,
        gpu_used_bytes: gpu_used,
        resident_bytes: resident,
    };
    (wire != pb::Load::default()).then_some(wire)
}

fn barred(run: &RunId, until: u64, now: u64) -> String {
    match until {
        u64::MAX => format!("from {run}: its state differed twice; test its memory"),
        _ => format!(
            "from {run} for {} s, because it failed there",
            until.saturating_sub(now).div_ceil(1000)
        ),
    }
}

fn left_out_reason(left_out: &pb::LeftOut) -> String {
    let again = match left_out.again_in_ms.div_ceil(1000) {
        0 => "offered again at the next opportunity".to_owned(),
        seconds => format!("offered again in {seconds} s"),
    };
    let trouble = left_out.trouble().as_str_name();
    let trouble = trouble.trim_start_matches("TROUBLE_").to_lowercase();
    let pb::LeftOut { run_id, reason, .. } = left_out;
    format!("of {run_id} ({trouble}): {reason} ({again})")
}

/// A worker that is left out of a run, on the wire, at `now` on the actors' clock.
pub(super) fn left_out_of(
    worker: &WorkerId,
    run: &RunId,
    left_out: &LeftOut,
    now: u64,
) -> pb::LeftOut {
    let LeftOut {
        trouble,
        reason,
        since_ms,
        until_ms,
    } = left_out;
    pb::LeftOut {
        worker_id: worker.to_string(),
        run_id: run.to_string(),
        trouble: pb::Trouble::from(*trouble) as i32,
        reason: reason.clone(),
        for_ms: now.saturating_sub(*since_ms),
        again_in_ms: until_ms.saturating_sub(now),
    }
}
