//! One assignment from beginning to end: fetch, hand to the device, upload.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::googlenet::FlatLayout;
use fovea_core::ids::{RunId, WorkerId};
use fovea_core::run::Outcome;
use fovea_proto::pb;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use crate::cache::{Cache, CacheError};
use crate::checkpoint;
use crate::collective::Mesh;
use crate::config::WorkerConfig;
use crate::fetch::{Fetched, Refusal, rank_of, spec_of};
use crate::job::{DeviceThread, Ended, FetchCheckpoint, Job, JobEvent};
use crate::link::Coordinator;
use crate::training::{Control, Snapshot};
use crate::uploads::upload_all;
use crate::vitals::Vitals;

/// What every assignment uses.
#[derive(Clone)]
pub struct Context {
    /// This worker.
    pub worker: WorkerId,
    /// Its configuration.
    pub config: Arc<WorkerConfig>,
    /// Connections with peers.
    pub mesh: Mesh,
    /// The device's thread.
    pub device: DeviceThread,
    /// The coordinator.
    pub coordinator: Coordinator,
}

/// An assignment, and how it is in touch with the agent.
pub struct Order {
    /// What to do.
    pub assignment: pb::Assignment,
    /// Orders on the way.
    pub control: Control,
    /// Where work is shown.
    pub vitals: Vitals,
    /// Where to tell what happens. It is closed before the end is told.
    pub events: mpsc::Sender<JobEvent>,
    /// The first epoch whose result is not acknowledged.
    pub next_epoch: watch::Receiver<u32>,
}

/// Does an assignment and says how it ended.
pub async fn run(context: Context, order: Order) -> Ended {
    let control = order.control.clone();
    let taken_on = tokio::select! {
        biased;
        () = control.wait_given_up() => return Ended::Released(Outcome::Aborted),
        taken_on = TakenOn::new(&context, order) => taken_on,
    };
    match taken_on {
        Ok(taken_on) => taken_on.carry_out(&context).await,
        Err(Refusal { reason, fatal }) => Ended::failed(reason, fatal),
    }
}

/// An assignment for which all is there.
struct TakenOn {
    fetched: Fetched,
    job: Job,
    began: oneshot::Receiver<()>,
    slices: mpsc::Receiver<Snapshot>,
    next_epoch: watch::Receiver<u32>,
}

impl TakenOn {
    async fn new(context: &Context, order: Order) -> Result<Self, Refusal> {
        let Order {
            assignment,
            control,
            vitals,
            events,
            next_epoch,
        } = order;
        let roster = assignment.roster().map_err(Refusal::fatal)?;
        let pb::Assignment {
            run_id,
            generation: _,
            spec,
            dataset_digest,
            members: _,
            start_step: _,
            checkpoint,
            mesh_key,
            lineage,
            at_boundary: _,
            discard_state,
            next_epoch: first_epoch,
        } = assignment;
        let rank = rank_of(&roster, &context.worker)?;
        let spec = spec_of(spec)?;
        let key = mesh_key[..]
            .try_into()
            .map_err(|_| Refusal::fatal("the mesh key is not 16 bytes"))?;
        let run = RunId::new(run_id).map_err(Refusal::fatal)?;
        let checkpoint = match checkpoint.map(CheckpointInfo::try_from) {
            None if roster.start_step > 0 => {
                let problem = "the assignment names no checkpoint to start from";
                return Err(Refusal::fatal(problem));
            }
            None => None,
            Some(info) => {
                let info = info.map_err(Refusal::fatal)?;
                Some(fetcher(
                    context,
                    run.clone(),
                    info,
                    control.clone(),
                    vitals.clone(),
                ))
            }
        };
        // Judged here already, so that the device's thread need not be bothered.
        FlatLayout::new(spec.model.classes, &spec.model.frozen).map_err(Refusal::fatal)?;
        let fetched = Fetched::new(context, &spec, &dataset_digest, &roster, rank, &vitals).await?;
        let data = fetched.open().map_err(Refusal::passing)?;
        let (start, began) = oneshot::channel();
        let (snapshots, slices) = mpsc::channel(1);
        let seconds = Duration::from_secs;
        let job = Job {
            run,
            lineage,
            discard_state,
            spec,
            plan: fetched.plan.clone(),
            roster,
            rank,
            key,
            mesh: context.mesh.clone(),
            checkpoint,
            next_epoch: first_epoch,
            data,
            control,
            vitals,
            connect_timeout: seconds(context.config.connect_timeout_s),
            peer_timeout: seconds(context.config.peer_timeout_s),
            began: start,
            events,
            snapshots,
        };
        Ok(Self {
            fetched,
            job,
            began,
            slices,
            next_epoch,
        })
    }

    async fn carry_out(self, context: &Context) -> Ended {
        let Self {
            fetched,
            job,
            began,
            slices,
            next_epoch,
        } = self;
        let control = job.control.clone();
        let (run, generation) = (job.run.to_string(), job.roster.generation);
        let (vitals, per_epoch) = (job.vitals.clone(), job.plan.steps_per_epoch());
        let trained = AtomicBool::new(false);
        let send = |snapshot| {
            let (run, worker) = (run.clone(), context.worker.to_string());
            let mut coordinator = context.coordinator.clone();
            // Who tries again is not stuck, once there is nothing else to do; before, it must not hide that
            // the device is.
            let vitals = match trained.load(Ordering::Relaxed) {
                true => vitals.clone(),
                false => Vitals::default(),
            };
            async move {
                vitals.tick();
                let channel = coordinator.channel().await;
                checkpoint::upload(channel, run, worker, generation, snapshot, vitals).await
            }
        };
        let mut uploading = pin!(upload_all(slices, next_epoch, per_epoch, send));
        let mut uploaded = None;
        let mut prefetching = pin!(async {
            if began.await.is_ok() && context.config.prefetch {
                fetched.rest(context).await;
            }
            pending::<()>().await
        });
        let mut working = pin!(context.device.run(job));
        let ended = loop {
            tokio::select! {
                ended = &mut working => break ended,
                result = &mut uploading, if uploaded.is_none() => uploaded = Some(result),
                () = &mut prefetching => {}
            }
        };
        trained.store(true, Ordering::Relaxed);
        // Slices of a generation that others leave behind are of no use to anyone.
        let (Ended::Released(Outcome::Completed { step })
        | Ended::Released(Outcome::Stopped { step })) = ended
        else {
            return ended;
        };
        let result = match uploaded {
            Some(result) => result,
            None => tokio::select! {
                biased;
                () = control.wait_given_up() => {
                    return Ended::Released(match control.aborted() {
                        true => Outcome::Aborted,
                        false => Outcome::Yielded { step },
                    });
                }
                result = uploading => result,
            },
        };
        match result {
            Ok(()) => ended,
            Err(reason) => Ended::failed(reason, false),
        }
    }
}

/// Fetches a checkpoint for the device's thread, which blocks on it; an abort ends that.
fn fetcher(
    context: &Context,
    run: RunId,
    info: CheckpointInfo,
    control: Control,
    vitals: Vitals,
) -> FetchCheckpoint {
    let runtime = Handle::current();
    let dir = context.config.data_dir.clone();
    let mut coordinator = context.coordinator.clone();
    Box::new(move || {
        info!(
            step = info.step,
            bytes = info.bytes,
            "fetching the checkpoint"
        );
        let fetch =
            coordinator.patiently("fetching the checkpoint", CacheError::is_away, |channel| {
                let cache = Cache::new(dir.clone(), channel, vitals.clone());
                let (run, info) = (&run, &info);
                async move { cache.checkpoint(run, info).await }
            });
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = control.wait_aborted() => Err("it is not needed any more".into()),
                fetched = fetch => fetched.map_err(|e| e.to_string()),
            }
        })
    })
}
