//! One assignment from beginning to end: fetch its data, train on the device, upload checkpoints.

use std::fs::File;
use std::future::pending;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::Retryable;
use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_core::run::Outcome;
use fovea_core::spec::RunSpec;
use fovea_proto::pb;
use fovea_traces::{Context as TraceContext, Kind, Work, names};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::cache::CacheError;
use crate::checkpoint;
use crate::context::Context;
use crate::fetch::{Fetched, Refusal, Rest, rank_of, spec_of};
use crate::job::{Ended, FetchCheckpoint, FetchError, FetchWeights, Job, JobEvent};
use crate::link::{Refused, delays};
use crate::progress::Progress;
use crate::training::{Control, Snapshot};
use crate::uploads::upload_all;

/// How often a worker that only waits for the coordinator shows that it is not stuck.
const TICK: Duration = Duration::from_millis(500);

/// An assignment, and its connection with the agent.
pub struct AssignmentHandle {
    /// What to do.
    pub assignment: pb::Assignment,
    /// Requests to stop, yield or abort.
    pub control: Control,
    /// Where work is counted.
    pub progress: Progress,
    /// Where events are sent. It is closed before the assignment ends.
    pub events: mpsc::Sender<JobEvent>,
    /// The first epoch whose result is not acknowledged.
    pub next_epoch: watch::Receiver<u32>,
}

/// Executes an assignment. Returns how it ended.
pub async fn run(context: Context, handle: AssignmentHandle) -> Ended {
    let control = handle.control.clone();
    let prepared = tokio::select! {
        biased;
        () = control.wait_withdrawn() => return Ended::Released(Outcome::Aborted),
        prepared = Prepared::new(&context, handle) => prepared,
    };
    match prepared {
        Ok(prepared) => prepared.execute(&context).await,
        Err(refusal) => Ended::Released(refusal.outcome()),
    }
}

/// An assignment whose data are in the cache and open.
struct Prepared {
    rest: Rest,
    job: Job,
    began: oneshot::Receiver<()>,
    slices: mpsc::Receiver<Snapshot>,
    next_epoch: watch::Receiver<u32>,
    /// Whether the coordinator's traces have the spans of its checkpoints.
    traced: bool,
}

impl Prepared {
    async fn new(context: &Context, handle: AssignmentHandle) -> Result<Self, Refusal> {
        let AssignmentHandle {
            assignment,
            control,
            progress,
            events,
            next_epoch,
        } = handle;
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
            traceparent,
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
                    progress.clone(),
                ))
            }
        };
        // Checked before anything is fetched.
        spec.model.layout().map_err(Refusal::fatal)?;
        let fetched =
            Fetched::new(context, &spec, &dataset_digest, &roster, rank, &progress).await?;
        let may_need = checkpoint.is_none() && context.device.held_run().as_ref() != Some(&run);
        if may_need && !spec.model.weights.is_empty() {
            fetch_ahead(context, &spec, &progress).await;
        }
        let weights = (!spec.model.weights.is_empty())
            .then(|| weights_fetcher(context, &spec, control.clone(), progress.clone()));
        let plan = fetched.plan.clone();
        let (data, rest) = fetched.open(context, &progress);
        let (start, began) = oneshot::channel();
        let (snapshots, slices) = mpsc::channel(1);
        let seconds = Duration::from_secs;
        let job = Job {
            run,
            lineage,
            discard_state,
            spec,
            plan,
            roster,
            rank,
            key,
            mesh: context.mesh.clone(),
            checkpoint,
            weights,
            next_epoch: first_epoch,
            data,
            control,
            progress,
            connect_timeout: seconds(context.config.connect_timeout_s),
            peer_timeout: seconds(context.config.peer_timeout_s),
            allow_plaintext_nccl: context.config.allow_plaintext_nccl,
            began: start,
            events,
            snapshots,
        };
        Ok(Self {
            rest,
            job,
            began,
            slices,
            next_epoch,
            traced: traceparent.parse::<TraceContext>().is_ok(),
        })
    }

    async fn execute(self, context: &Context) -> Ended {
        let Self {
            rest,
            job,
            began,
            slices,
            next_epoch,
            traced,
        } = self;
        let control = job.control.clone();
        let (run, generation) = (job.run.to_string(), job.roster.generation);
        let lineage = job.lineage;
        let (progress, per_epoch) = (job.progress.clone(), job.plan.steps_per_epoch());
        let trained = AtomicBool::new(false);
        let refused = Mutex::new(None);
        let send = |snapshot: Snapshot| {
            let work = Work {
                run: &run,
                lineage,
                generation,
            };
            let parent = traced.then(|| TraceContext::checkpoint(work, snapshot.step));
            let span = context
                .traces
                .child(names::WORKER_SLICE, &run, parent)
                .of_kind(Kind::Client)
                .with(names::GENERATION, generation)
                .with(names::WORKER, context.worker.as_str())
                .with(names::STEP, snapshot.step)
                .with(names::BYTES, snapshot.bytes.len() as u64);
            let (run, worker) = (run.clone(), context.worker.to_string());
            let mut coordinator = context.coordinator.clone();
            // While the device works, an upload must not hide that the device hangs.
            let progress = match trained.load(Ordering::Relaxed) {
                true => progress.clone(),
                false => Progress::default(),
            };
            let refused = &refused;
            async move {
                progress.tick();
                let channel = coordinator.channel().await;
                let upload = checkpoint::Upload {
                    run_id: run,
                    worker_id: worker,
                    generation,
                    snapshot,
                    traceparent: span.context(),
                };
                let sent = upload.send(channel, progress).await;
                match &sent {
                    Ok(()) => span.end(),
                    Err(error) => span.fail(&error.to_string()),
                }
                let reason = sent.as_ref().err().map(ToString::to_string);
                *refused.lock().expect("no holder of this lock panics") = reason;
                sent
            }
        };
        let mut uploading = pin!(upload_all(slices, next_epoch, per_epoch, &control, send));
        let mut uploaded = None;
        let mut prefetching = pin!(async {
            if began.await.is_ok() && context.config.prefetch {
                rest.prefetch(context).await;
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
        // Slices of a generation that others continue without are of no use.
        let (Ended::Released(Outcome::Completed { step })
        | Ended::Released(Outcome::Stopped { step })) = ended
        else {
            return ended;
        };
        // The last checkpoint is uploaded until the coordinator takes it, or ends the assignment. Stalled calls time
        // out, so waiting is not a sign of a stuck worker.
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            if let Some(result) = uploaded {
                break result;
            }
            tokio::select! {
                biased;
                () = control.wait_given_up() => {
                    let refused = refused.lock().expect("no holder of this lock panics").take();
                    not_stored(&run, step, refused, control.leaving());
                    return Ended::Released(match control.aborted() {
                        true => Outcome::Aborted,
                        false => Outcome::Yielded { step },
                    });
                }
                result = &mut uploading => uploaded = Some(result),
                _ = ticks.tick() => progress.tick(),
            }
        };
        match result {
            Ok(()) => ended,
            Err(error) => Ended::failed(error, false),
        }
    }
}

/// Logs that this worker gives up its slice of the last checkpoint.
fn not_stored(run: &str, step: u64, refused: Option<String>, leaving: bool) {
    let why = match leaving {
        true => "this worker shuts down",
        false => "the assignment has ended",
    };
    let refused = refused.unwrap_or_else(|| "it was not sent to the end".into());
    warn!(
        step,
        "checkpoint.not_stored: {why} before its slice of checkpoint {step} is stored ({refused}): unless another worker \
         holds the state, run {run} goes on from its last stored checkpoint and takes the steps since then again"
    );
}

/// Fetches a checkpoint for the device's thread, which blocks on it. A checkpoint that the coordinator cannot read now
/// is asked for again, until the coordinator ends the generation.
fn fetcher(
    context: &Context,
    run: RunId,
    info: CheckpointInfo,
    control: Control,
    progress: Progress,
) -> FetchCheckpoint {
    let runtime = Handle::current();
    let context = context.clone();
    Box::new(move || {
        info!(
            step = info.step,
            bytes = info.bytes,
            "checkpoint.fetching: step {} of run {run}",
            info.step
        );
        let attempt = || {
            context.with_cache("fetching the checkpoint", &progress, |cache| {
                let (run, info) = (&run, &info);
                async move { cache.checkpoint(run, info).await }
            })
        };
        let fetch = attempt
            .retry(delays(Duration::from_millis(250), Duration::from_millis(750)))
            .when(|error: &CacheError| error.refusal() == Some(Refused::Unreadable))
            .notify(|error, delay| {
                progress.tick();
                warn!(
                    step = info.step,
                    "checkpoint.unreadable: the coordinator cannot read it now: {error}; asking again in {delay:.1?}"
                );
            });
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = control.wait_withdrawn() => Err(FetchError::Cancelled),
                fetched = fetch => fetched.map_err(|error| match error.refusal() {
                    Some(Refused::Corrupt) => FetchError::Blocked(error.to_string()),
                    _ => match error.trouble() {
                        Some(trouble) => FetchError::Own(trouble, error.to_string()),
                        None => FetchError::Failed(error.to_string()),
                    },
                }),
            }
        })
    })
}

/// Fetches the run's first weights, so that no peer waits for a download while the members agree on a state. A failure
/// counts only if they turn out to be needed, because no member holds the state.
async fn fetch_ahead(context: &Context, spec: &RunSpec, progress: &Progress) {
    if let Err(error) = fetch_weights(context, spec, progress).await {
        warn!(
            "weights.not_fetched: the run's first weights cannot be fetched now: {error}; they are needed unless a member \
             holds the run's state"
        );
    }
}

/// Fetches the file of the run's first weights.
async fn fetch_weights(
    context: &Context,
    spec: &RunSpec,
    progress: &Progress,
) -> Result<File, FetchError> {
    let (name, sha256) = (&spec.model.weights, &spec.model.weights_sha256);
    if sha256.is_empty() {
        // As older versions accepted.
        return Err(FetchError::Blocked(format!(
            "the run names the weights {name} without their SHA-256, and workers open no path that a run names; `fovea weights \
             add {name}`, cancel this run, and submit it again"
        )));
    }
    let fetched = context
        .with_cache("fetching the first weights", progress, |cache| async move {
            cache.weights(sha256).await
        })
        .await;
    fetched.map_err(|error| match error.trouble() {
        _ if error.is_blocked() => FetchError::Blocked(error.to_string()),
        Some(trouble) => FetchError::Own(trouble, error.to_string()),
        None => FetchError::Failed(error.to_string()),
    })
}

/// Fetches the first weights for the device's thread, which blocks on them.
fn weights_fetcher(
    context: &Context,
    spec: &RunSpec,
    control: Control,
    progress: Progress,
) -> FetchWeights {
    let runtime = Handle::current();
    let (context, spec) = (context.clone(), spec.clone());
    Box::new(move || {
        // A stop that came before takes effect after the first step, when there is a state to keep.
        let stopping = control.stopping();
        let over = async {
            match stopping {
                true => control.wait_given_up().await,
                false => control.wait_withdrawn().await,
            }
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = over => Err(FetchError::Cancelled),
                fetched = fetch_weights(&context, &spec, &progress) => fetched,
            }
        })
    })
}

#[cfg(test)]
#[path = "assignment_tests.rs"]
mod tests;
