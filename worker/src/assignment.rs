//! One assignment from beginning to end: fetch, hand to the device, pass on what happens.

use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::googlenet::FlatLayout;
use fovea_core::ids::{RunId, WorkerId};
use fovea_core::plan::ShardPlan;
use fovea_core::run::Outcome;
use fovea_core::spec::RunSpec;
use fovea_proto::pb;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tracing::{Instrument, info, warn};

use crate::cache::Cache;
use crate::checkpoint;
use crate::collective::Mesh;
use crate::config::WorkerConfig;
use crate::data::{LocalData, packs_of};
use crate::job::{DeviceThread, Job, JobEvent};
use crate::training::{Control, Snapshot, TrainingEvent};

/// Events that may wait between the device and the session.
const EVENTS: usize = 16;

/// What every assignment of a session uses.
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
    pub channel: Channel,
    /// Messages to the coordinator.
    pub outbound: mpsc::Sender<pb::WorkerMessage>,
}

/// Does an assignment and says how it ended.
pub async fn run(context: Context, assignment: pb::Assignment, control: Control) -> Outcome {
    let prepared = tokio::select! {
        biased;
        () = control.wait_aborted() => return Outcome::Aborted,
        prepared = prepare(&context, &assignment, &control) => prepared,
    };
    match prepared {
        Ok((job, events)) => carry_out(context, assignment, job, events).await,
        Err(Refusal { reason, fatal }) => Outcome::Failed { reason, fatal },
    }
}

/// Why an assignment cannot begin.
struct Refusal {
    reason: String,
    fatal: bool,
}

impl Refusal {
    /// The assignment itself makes no sense.
    fn fatal(error: impl ToString) -> Self {
        Self {
            reason: error.to_string(),
            fatal: true,
        }
    }

    /// Another attempt may succeed.
    fn passing(error: impl ToString) -> Self {
        Self {
            reason: error.to_string(),
            fatal: false,
        }
    }
}

async fn prepare(
    context: &Context,
    assignment: &pb::Assignment,
    control: &Control,
) -> Result<(Job, mpsc::Receiver<JobEvent>), Refusal> {
    let roster = assignment.roster().map_err(Refusal::fatal)?;
    let rank = roster
        .rank_of(&context.worker)
        .ok_or_else(|| Refusal::fatal("the roster does not name this worker"))?;
    let spec: RunSpec = assignment
        .spec
        .clone()
        .ok_or_else(|| Refusal::fatal("the assignment has no spec"))?
        .try_into()
        .map_err(Refusal::fatal)?;
    spec.validate().map_err(Refusal::fatal)?;
    let key = assignment.mesh_key[..]
        .try_into()
        .map_err(|_| Refusal::fatal("the mesh key is not 16 bytes"))?;
    let run = RunId::new(assignment.run_id.clone()).map_err(Refusal::fatal)?;

    let cache = Cache::new(context.config.data_dir.clone(), context.channel.clone());
    let (manifest, index, dir) = cache
        .dataset(&assignment.dataset_digest)
        .await
        .map_err(Refusal::passing)?;
    let patients: Vec<u32> = index.train().iter().map(|s| s.patient).collect();
    let plan = ShardPlan::new(
        &patients,
        index.validation().len() as u32,
        spec.train.virtual_ranks,
        spec.train.batch,
        spec.seed,
        spec.train.rotate,
    )
    .map_err(Refusal::fatal)?;
    let packs = packs_of(&plan, &index, &roster.members[rank]);
    cache
        .packs(&manifest, &dir, &packs)
        .await
        .map_err(Refusal::passing)?;
    let data = LocalData::open(&dir, &manifest, index, &packs).map_err(Refusal::passing)?;

    let checkpoint = match assignment.checkpoint.clone() {
        None if roster.start_step > 0 => {
            return Err(Refusal::fatal(
                "the assignment names no checkpoint to start from",
            ));
        }
        None => None,
        Some(wire) => {
            let info = CheckpointInfo::try_from(wire).map_err(Refusal::fatal)?;
            info!(
                step = info.step,
                bytes = info.bytes,
                "fetching the checkpoint"
            );
            Some(
                cache
                    .checkpoint(&run, &info)
                    .await
                    .map_err(Refusal::passing)?,
            )
        }
    };
    // Judged here already, so that the device's thread need not be bothered.
    FlatLayout::new(spec.model.classes, &spec.model.frozen).map_err(Refusal::fatal)?;

    let (events, receive) = mpsc::channel(EVENTS);
    let seconds = std::time::Duration::from_secs;
    let job = Job {
        spec,
        plan,
        roster,
        rank,
        key,
        mesh: context.mesh.clone(),
        checkpoint,
        data,
        control: control.clone(),
        connect_timeout: seconds(context.config.connect_timeout_s),
        peer_timeout: seconds(context.config.peer_timeout_s),
        events,
    };
    Ok((job, receive))
}

async fn carry_out(
    context: Context,
    assignment: pb::Assignment,
    job: Job,
    mut events: mpsc::Receiver<JobEvent>,
) -> Outcome {
    let control = job.control.clone();
    let run_id = assignment.run_id.clone();
    let generation = assignment.generation;
    // One slice travels at a time and one may wait; then training waits, so memory stays bounded.
    let (snapshots, uploads) = mpsc::channel::<Snapshot>(1);
    let uploading = upload_all(context.clone(), run_id.clone(), generation, uploads);
    let uploader = tokio::spawn(uploading.in_current_span());
    let device = context.device.clone();
    let passing_on = async {
        while let Some(event) = events.recv().await {
            let message = match event {
                JobEvent::Ready {
                    state_digest,
                    fingerprint,
                } => pb::worker_message::Message::Ready(pb::Ready {
                    run_id: run_id.clone(),
                    generation,
                    state_digest,
                    fingerprint: Some((&fingerprint).into()),
                }),
                JobEvent::Training(TrainingEvent::Step(report)) => {
                    pb::worker_message::Message::Step(pb::StepCommitted {
                        run_id: run_id.clone(),
                        generation,
                        report: Some((&report).into()),
                    })
                }
                JobEvent::Training(TrainingEvent::Scores { epoch, scores }) => {
                    pb::worker_message::Message::Scores(pb::Scores {
                        run_id: run_id.clone(),
                        generation,
                        epoch,
                        scores: scores.iter().map(Into::into).collect(),
                    })
                }
                JobEvent::Training(TrainingEvent::Snapshot(snapshot)) => {
                    // Closed only when an upload failed, which the uploader reports.
                    let _ = snapshots.send(snapshot).await;
                    continue;
                }
            };
            let message = pb::WorkerMessage {
                message: Some(message),
            };
            // With the session gone there is nobody to tell; its end aborts the job.
            let _ = context.outbound.send(message).await;
        }
        drop(snapshots);
    };
    let (outcome, ()) = tokio::join!(device.run(job), passing_on);
    if outcome == Outcome::Aborted {
        uploader.abort();
        return outcome;
    }
    let uploaded = tokio::select! {
        biased;
        () = control.wait_aborted() => return Outcome::Aborted,
        uploaded = uploader => uploaded,
    };
    match (outcome, uploaded) {
        (outcome, Ok(Ok(()))) => outcome,
        // The error that ended training matters more.
        (failed @ Outcome::Failed { .. }, _) => failed,
        (_, Ok(Err(reason))) => Outcome::Failed {
            reason,
            fatal: false,
        },
        (_, Err(e)) => Outcome::Failed {
            reason: format!("the upload of a checkpoint ended early: {e}"),
            fatal: false,
        },
    }
}

/// Uploads slices one after the other. A failed upload spoils that checkpoint only, unless it was the
/// last one: the coordinator drops what is incomplete.
async fn upload_all(
    context: Context,
    run_id: String,
    generation: u64,
    mut snapshots: mpsc::Receiver<Snapshot>,
) -> Result<(), String> {
    let mut last = Ok(());
    while let Some(snapshot) = snapshots.recv().await {
        let step = snapshot.step;
        last = checkpoint::upload(
            context.channel.clone(),
            run_id.clone(),
            context.worker.to_string(),
            generation,
            snapshot,
        )
        .await
        .map_err(|status| {
            format!(
                "the slice of checkpoint {step} was not taken: {}",
                status.message()
            )
        });
        match &last {
            Ok(()) => info!(step, "uploaded a slice of the checkpoint"),
            Err(reason) => warn!(step, "{reason}"),
        }
    }
    last
}
