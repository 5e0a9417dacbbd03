//! The device's thread: keeps a run's state, and executes one generation after the other with it.
//!
//! ```text
//! connect to the peers ──> agree on a state ──> Ready ──> train ──> Ended; the state stays
//! ```
//!
//! The thread itself reads no file that a person names: such reads may hang, and run on threads that can be abandoned.

mod agreement;
mod first_state;

use std::collections::HashSet;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use fovea_core::checkpoint::Fingerprint;
use fovea_core::googlenet::{FlatLayout, LayoutError};
use fovea_core::ids::RunId;
use fovea_core::metrics::Score;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::{Member, Roster};
use fovea_core::run::{Outcome, StepReport};
use fovea_core::spec::{Reduction, RunSpec};
use tokio::sync::{oneshot, watch};

pub use first_state::{FirstStateError, first_state};

use crate::checkpoint::{self, CheckpointError, digest_text};
use crate::collective::{CollectiveError, Mesh, MeshKey, TcpCollective, with_nccl};
use crate::data::{DataError, LocalData, hosted};
use crate::device::{Device, DeviceError, HeldImages, Image, Split};
use crate::fingerprint::fingerprint;
use crate::gpu;
use crate::loader::Loader;
use crate::progress::Progress;
use crate::threads::{SuperviseError, supervise};
use crate::training::{
    Control, Snapshot, State, Training, TrainingError, TrainingEvent, starts_with_evaluation,
};
use agreement::Agreement;

/// Fetches the checkpoint's bytes, and blocks until they are there.
pub type FetchCheckpoint = Box<dyn FnMut() -> Result<Vec<u8>, FetchError> + Send>;
/// Makes a device for a run, without a state yet.
pub type MakeDevice = Box<dyn Fn(&RunSpec, &FlatLayout) -> Box<dyn Device> + Send>;
/// Makes the state that a run starts from. It reads files that may lie on a mount that hangs, so it runs on a thread
/// that can be abandoned.
type MakeFirstState = fn(&RunSpec, &FlatLayout) -> Result<Vec<f32>, FirstStateError>;

/// Why a checkpoint could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The coordinator's copy is corrupt.
    #[error("{0}")]
    Blocked(String),
    /// It is not needed any more.
    #[error("the checkpoint is not needed any more")]
    Cancelled,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// All that one generation needs, fetched and checked.
pub struct Job {
    /// The run's id.
    pub run: RunId,
    /// States of another lineage are void.
    pub lineage: u64,
    /// Forget the state that is held.
    pub discard_state: bool,
    /// The run.
    pub spec: RunSpec,
    /// Its data order.
    pub plan: ShardPlan,
    /// The generation; starts from the checkpoint of `start_step` if no member holds a newer state.
    pub roster: Roster,
    /// This worker's rank in it.
    pub rank: usize,
    /// The secret that its peers show each other.
    pub key: MeshKey,
    /// Connections with peers.
    pub mesh: Mesh,
    /// The checkpoint; None starts from the spec's first weights.
    pub checkpoint: Option<FetchCheckpoint>,
    /// The first epoch without a result.
    pub next_epoch: u32,
    /// The packs.
    pub data: LocalData,
    /// Requests to stop, yield or abort.
    pub control: Control,
    /// Where work is counted.
    pub progress: Progress,
    /// How long peers may take to connect.
    pub connect_timeout: Duration,
    /// How long a peer may keep this worker waiting.
    pub peer_timeout: Duration,
    /// Sent to when the first step, or the evaluation before it, begins.
    pub began: oneshot::Sender<()>,
    /// Where events are sent. Bounded: a slow receiver slows training, and memory stays flat.
    pub events: tokio::sync::mpsc::Sender<JobEvent>,
    /// Where slices of checkpoints go.
    pub snapshots: tokio::sync::mpsc::Sender<Snapshot>,
}

/// An event on the device's thread.
#[derive(Debug)]
pub enum JobEvent {
    /// The peers are connected and agree on a state.
    Ready {
        /// Committed steps.
        step: u64,
        /// Digest of the whole state.
        state_digest: String,
        /// What the bits depend on.
        fingerprint: Fingerprint,
    },
    /// A step is committed.
    Step {
        /// What it did.
        report: StepReport,
        /// Ordinals of the samples that it used.
        samples: Vec<u32>,
    },
    /// The validation split was scored.
    Scores {
        /// 0-based epoch.
        epoch: u32,
        /// One for each sample.
        scores: Vec<Score>,
    },
    /// The state is to be compared.
    Digest {
        /// Committed steps.
        step: u64,
        /// Digest of the whole state.
        digest: String,
    },
}

/// How a generation ended on this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It is over for this worker.
    Released(Outcome),
    /// Peers disconnected, or something is missing now: another generation may continue.
    Interrupted {
        /// What happened.
        reason: String,
    },
    /// Peers that could not be reached.
    Unreachable {
        /// Their worker ids.
        missing: Vec<String>,
    },
}

impl Ended {
    /// It cannot continue.
    pub fn failed(reason: impl ToString, fatal: bool) -> Self {
        Self::Released(Outcome::Failed {
            reason: reason.to_string(),
            fatal,
        })
    }
}

/// Why a job could not be completed.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    FirstState(#[from] FirstStateError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the checkpoint cannot be fetched: {0}")]
    Fetch(#[from] FetchError),
    #[error("the members agreed on no state")]
    NoState,
    #[error("reading the first weights: {0}")]
    Supervise(#[from] SuperviseError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    #[error("cannot set up connections or threads: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Training(TrainingError),
}

impl From<TrainingError> for JobError {
    fn from(error: TrainingError) -> Self {
        match error {
            TrainingError::Collective(error) => Self::Collective(error),
            TrainingError::Device(error) => Self::Device(error),
            error @ (TrainingError::Data(_)
            | TrainingError::NotFinite { .. }
            | TrainingError::Garbled { .. }) => Self::Training(error),
        }
    }
}

impl JobError {
    fn ended(self, control: &Control) -> Ended {
        if control.aborted() {
            return Ended::Released(Outcome::Aborted);
        }
        let reason = self.to_string();
        match self {
            // Requested, or given up before it began.
            Self::Collective(CollectiveError::Aborted) => Ended::Released(Outcome::Aborted),
            Self::Collective(CollectiveError::Incomplete { missing, .. }) => {
                Ended::Unreachable { missing }
            }
            Self::Fetch(FetchError::Cancelled) | Self::Supervise(SuperviseError::GivenUp) => {
                Ended::Released(Outcome::Aborted)
            }
            Self::Training(TrainingError::Data(DataError::Cancelled)) => {
                Ended::Released(Outcome::Aborted)
            }
            // Only a repair at the coordinator helps.
            Self::Fetch(FetchError::Blocked(_))
            | Self::Training(TrainingError::Data(DataError::Blocked { .. })) => {
                Ended::Released(Outcome::Blocked { reason })
            }
            Self::Collective(
                CollectiveError::Peer { .. }
                | CollectiveError::OutOfStep { .. }
                | CollectiveError::Gpu(_),
            )
            | Self::Fetch(FetchError::Failed(_))
            | Self::NoState => Ended::Interrupted { reason },
            // The same file or spec would meet the same error.
            Self::Layout(_) | Self::FirstState(_) | Self::Checkpoint(_) => {
                Ended::failed(reason, true)
            }
            // Every worker sees the same numbers, and would again.
            Self::Training(TrainingError::NotFinite { .. }) => Ended::failed(reason, true),
            Self::Training(_)
            | Self::Device(_)
            | Self::Io(_)
            | Self::Supervise(SuperviseError::Spawn(_) | SuperviseError::Panicked(_)) => {
                Ended::failed(reason, false)
            }
        }
    }
}

/// The device's thread; clones are handles to the same one.
#[derive(Clone)]
pub struct DeviceThread {
    jobs: mpsc::SyncSender<(Job, oneshot::Sender<Ended>)>,
    held: watch::Receiver<Option<RunId>>,
}

impl DeviceThread {
    /// Starts the thread for the device at `place`, which `make` makes; it ends when the last handle is
    /// dropped.
    pub fn start(place: tch::Device, make: MakeDevice) -> std::io::Result<Self> {
        Self::start_with(place, make, first_state)
    }

    fn start_with(
        place: tch::Device,
        make: MakeDevice,
        first_state: MakeFirstState,
    ) -> std::io::Result<Self> {
        // Callers wait for one job before they send another.
        let (send, jobs) = mpsc::sync_channel::<(Job, oneshot::Sender<Ended>)>(1);
        let (shown, held) = watch::channel(None);
        std::thread::Builder::new()
            .name("device".into())
            .spawn(move || {
                let mut owner = Owner {
                    place,
                    make,
                    first_state,
                    held: None,
                    shown,
                };
                let current = gpu::make_current(place);
                for (job, reply) in jobs {
                    let ended = match &current {
                        Ok(()) => owner.guarded(job),
                        Err(problem) => Ended::failed(problem, false),
                    };
                    let _ = reply.send(ended);
                }
            })?;
        Ok(Self { jobs: send, held })
    }

    /// Executes a job. Returns how it ended.
    pub async fn run(&self, job: Job) -> Ended {
        let (reply, ended) = oneshot::channel();
        let gone = || Ended::failed("the device's thread has ended; restart the worker", false);
        match self.jobs.try_send((job, reply)) {
            Ok(()) => ended.await.unwrap_or_else(|_| gone()),
            Err(mpsc::TrySendError::Full(_)) => Ended::failed("the device is busy", false),
            Err(mpsc::TrySendError::Disconnected(_)) => gone(),
        }
    }

    /// The run whose state the device holds.
    pub fn held_run(&self) -> Option<RunId> {
        self.held.borrow().clone()
    }
}

/// A run's state between two generations.
struct Held {
    run: RunId,
    lineage: u64,
    spec: RunSpec,
    state: State,
}

/// What lives on the device's thread.
struct Owner {
    place: tch::Device,
    make: MakeDevice,
    first_state: MakeFirstState,
    held: Option<Held>,
    shown: watch::Sender<Option<RunId>>,
}

impl Owner {
    /// Executes a job. A panic (libtorch out of memory, for example) ends the job and drops its state, not the worker.
    fn guarded(&mut self, job: Job) -> Ended {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.execute(job)));
        self.shown
            .send_replace(self.held.as_ref().map(|held| held.run.clone()));
        done.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Ended::failed(format!("the device's thread panicked: {text}"), false)
        })
    }

    /// Executes a job with the held state, if that is of the same run, and holds the state that results.
    fn execute(&mut self, job: Job) -> Ended {
        let fits = |held: &Held| {
            let same = held.run == job.run && held.lineage == job.lineage && held.spec == job.spec;
            same && !job.discard_state
        };
        // Taken out: a panic drops it.
        let mut state = self.held.take().filter(fits).map(|held| held.state);
        let (run, lineage, spec) = (job.run.clone(), job.lineage, job.spec.clone());
        let control = job.control.clone();
        let done = self.generation(job, &mut state);
        // A step is applied as a whole or not at all, so a state is valid however its generation ended. Only a device
        // that failed may have applied part of a step.
        if !matches!(done, Err(JobError::Device(_))) {
            self.held = state.map(|state| Held {
                run,
                lineage,
                spec,
                state,
            });
        }
        match done {
            Ok(outcome) => Ended::Released(outcome),
            Err(error) => error.ended(&control),
        }
    }

    fn generation(&self, job: Job, state: &mut Option<State>) -> Result<Outcome, JobError> {
        let Job {
            run,
            lineage: _,
            discard_state: _,
            spec,
            plan,
            roster,
            rank,
            key,
            mesh,
            mut checkpoint,
            next_epoch,
            data,
            control,
            progress,
            connect_timeout,
            peer_timeout,
            began,
            events,
            snapshots,
        } = job;
        let layout = FlatLayout::new(spec.model.classes, &spec.model.frozen)?;
        // A stop that came earlier takes effect after the first step, as there is a state to start from.
        let stop_requested = control.stopping();
        let given_up = || control.given_up();
        let waiting = progress.waiting();
        let streams = mesh.connect(&roster, key, rank, connect_timeout, &given_up, waiting)?;
        progress.tick();
        let tcp = TcpCollective::new(&roster, rank, streams, peer_timeout, waiting.clone())?;
        let reduction = spec.train.reduction;
        let tcp = match reduction {
            Reduction::Ordered => tcp,
            Reduction::Fast => tcp.with_one_part_each(),
        };
        control.connected(tcp.aborter()?);
        let nccl = gpu::nccl_for(self.place);
        let mut collective = with_nccl(tcp, nccl, reduction, &roster, rank, peer_timeout)?;
        progress.tick();
        let agreement = Agreement {
            roster: &roster,
            rank,
            collective: &mut *collective,
            progress: &progress,
            state_len: layout.state_len(),
            fresh: &|| (self.make)(&spec, &layout),
        };
        agreement.reach(state, &mut || match &mut checkpoint {
            Some(fetch) => Ok(checkpoint::read_state(&layout, &fetch()?)?),
            None => {
                let (make, spec, layout) = (self.first_state, spec.clone(), layout.clone());
                let given_up = || match stop_requested {
                    true => control.given_up(),
                    false => control.withdrawn(),
                };
                let made = supervise("reading the first weights", &given_up, move || {
                    make(&spec, &layout)
                })?;
                Ok(made?)
            }
        })?;
        let Some(state) = state else {
            return Err(JobError::NoState);
        };
        self.shown.send_replace(Some(run));

        // Without a receiver the worker is shutting down, and an abort follows.
        let send = |event| drop(events.blocking_send(event));
        send(JobEvent::Ready {
            step: state.step,
            state_digest: digest_text(state.device.digest()?),
            fingerprint: fingerprint(&spec, self.place),
        });
        let _ = began.send(());
        let member = &roster.members[rank];
        let per_epoch = plan.steps_per_epoch();
        let total_steps = per_epoch * u64::from(spec.train.epochs);
        let evaluate = starts_with_evaluation(state.step, per_epoch, next_epoch);
        let held = keep_hosted(&mut *state.device, &plan, &data, member);
        let loader = Loader::start(
            data,
            plan.clone(),
            spec.clone(),
            member,
            state.step..total_steps,
            evaluate,
            held,
        )?
        .abortable_by(&control);
        let training = Training {
            spec: &spec,
            plan: &plan,
            rank,
            ranks: roster.members.len(),
            hosted: hosted(member),
            next_epoch,
            stored_step: roster.start_step,
            total_steps,
            state,
            collective: &mut *collective,
            loader,
            control: &control,
            progress: &progress,
        };
        Ok(training.run(&mut |event| match event {
            TrainingEvent::Step { report, samples } => send(JobEvent::Step { report, samples }),
            TrainingEvent::Scores { epoch, scores } => send(JobEvent::Scores { epoch, scores }),
            TrainingEvent::Digest { step, digest } => send(JobEvent::Digest {
                step,
                digest: digest_text(digest),
            }),
            // Received at once, or dropped when the generation is over for this worker.
            TrainingEvent::Snapshot(snapshot) => drop(snapshots.blocking_send(snapshot)),
        })?)
    }
}

#[cfg(test)]
mod tests;

/// Has the device drop the images of virtual ranks that others host now, and make room for those hosted here.
fn keep_hosted(
    device: &mut dyn Device,
    plan: &ShardPlan,
    data: &LocalData,
    member: &Member,
) -> Option<Arc<HeldImages>> {
    let train: HashSet<u32> = hosted(member)
        .flat_map(|rank| plan.shard(rank).iter().copied())
        .collect();
    let scored: Vec<_> = hosted(member)
        .map(|rank| plan.validation_shard(rank))
        .collect();
    let wanted = |image: &Image| match image.split {
        Split::Train => train.contains(&image.sample),
        Split::Validation => scored.iter().any(|range| range.contains(&image.sample)),
    };
    device.keep_cached(&wanted);
    let expected = train.len() + scored.iter().map(ExactSizeIterator::len).sum::<usize>();
    device.hold_images(data.size(), data.samples(), expected, &wanted)
}
