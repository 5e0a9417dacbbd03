//! One assignment on the device's thread: state, peers, training.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use fovea_core::checkpoint::Fingerprint;
use fovea_core::googlenet::{FlatLayout, HEAD, LayoutError, ParamSpec, fill, param_specs};
use fovea_core::plan::ShardPlan;
use fovea_core::roster::Roster;
use fovea_core::run::Outcome;
use fovea_core::spec::RunSpec;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tracing::info;

use crate::checkpoint;
use crate::collective::{CollectiveError, Mesh, MeshKey, TcpCollective};
use crate::data::LocalData;
use crate::device::{CpuDevice, Device, DeviceError};
use crate::fingerprint::fingerprint;
use crate::loader::Loader;
use crate::training::{Control, Training, TrainingError, TrainingEvent};
use crate::weights::{self, WeightsError};

/// All that one assignment needs, fetched and checked.
pub struct Job {
    /// The run.
    pub spec: RunSpec,
    /// Its data order.
    pub plan: ShardPlan,
    /// The generation.
    pub roster: Roster,
    /// This worker's rank in it.
    pub rank: usize,
    /// What its peers show each other.
    pub key: MeshKey,
    /// Connections with peers.
    pub mesh: Mesh,
    /// The checkpoint's bytes; None starts from the spec's first weights.
    pub checkpoint: Option<Vec<u8>>,
    /// The packs.
    pub data: LocalData,
    /// Orders from outside.
    pub control: Control,
    /// How long peers may take to connect.
    pub connect_timeout: Duration,
    /// How long a peer may keep this worker waiting.
    pub peer_timeout: Duration,
    /// Where to tell what happens. Bounded: a slow listener slows training, and memory stays flat.
    pub events: tokio::sync::mpsc::Sender<JobEvent>,
}

/// What happens on the device's thread.
#[derive(Debug)]
pub enum JobEvent {
    /// State loaded, peers connected.
    Ready {
        /// Digest of the whole state.
        state_digest: String,
        /// What the bits depend on.
        fingerprint: Fingerprint,
    },
    /// From the training loop.
    Training(TrainingEvent),
}

/// Why a run cannot start from its spec.
#[derive(Debug, thiserror::Error)]
pub enum FirstStateError {
    /// The weights file.
    #[error("model.weights: {0}")]
    Weights(#[from] WeightsError),
    /// Another file than the one meant.
    #[error(
        "model.weights: {} has SHA-256 {found}, but model.weights_sha256 is {expected}: copy the right \
         file to this worker", path.display()
    )]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The one in the spec.
        expected: String,
    },
}

/// Why a job could not be done.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    FirstState(#[from] FirstStateError),
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    #[error("cannot set up connections or threads: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Training(#[from] TrainingError),
}

impl JobError {
    fn outcome(&self, control: &Control) -> Outcome {
        let fatal = match self {
            Self::Training(error) => return error.outcome(control),
            // The same file or spec would meet the same error.
            Self::Layout(_) | Self::FirstState(_) | Self::Checkpoint(_) => true,
            Self::Device(_) | Self::Collective(_) | Self::Io(_) => false,
        };
        if control.aborted() || matches!(self, Self::Collective(CollectiveError::Aborted)) {
            return Outcome::Aborted;
        }
        Outcome::Failed {
            reason: self.to_string(),
            fatal,
        }
    }
}

/// The one thread that owns the device.
#[derive(Clone)]
pub struct DeviceThread(mpsc::Sender<(Job, oneshot::Sender<Outcome>)>);

impl DeviceThread {
    /// Starts the thread; it ends when the last handle is dropped.
    pub fn start() -> std::io::Result<Self> {
        let (send, jobs) = mpsc::channel::<(Job, oneshot::Sender<Outcome>)>();
        std::thread::Builder::new()
            .name("device".into())
            .spawn(move || {
                for (job, reply) in jobs {
                    let _ = reply.send(guarded(job));
                }
            })?;
        Ok(Self(send))
    }

    /// Does a job and says how it ended.
    pub async fn run(&self, job: Job) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let gone = || Outcome::Failed {
            reason: "the device's thread has ended; restart the worker".into(),
            fatal: false,
        };
        if self.0.send((job, reply)).is_err() {
            return gone();
        }
        outcome.await.unwrap_or_else(|_| gone())
    }
}

/// Does a job; a panic (libtorch out of memory, say) ends the job, not the worker.
fn guarded(job: Job) -> Outcome {
    let control = job.control.clone();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| execute(job)));
    match done {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => error.outcome(&control),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Outcome::Failed {
                reason: format!("the device's thread panicked: {text}"),
                fatal: false,
            }
        }
    }
}

fn execute(job: Job) -> Result<Outcome, JobError> {
    let Job {
        spec,
        plan,
        roster,
        rank,
        key,
        mesh,
        checkpoint,
        data,
        control,
        connect_timeout,
        peer_timeout,
        events,
    } = job;
    let layout = FlatLayout::new(spec.model.classes, &spec.model.frozen)?;
    let state = match checkpoint {
        Some(bytes) => checkpoint::read_state(&layout, &bytes)?,
        None => first_state(&spec, &layout)?,
    };
    let state_digest = checkpoint::digest(&state);
    let mut device = CpuDevice::new(&spec, &layout);
    device.load(&state)?;
    drop(state);

    // A worker that is to leave does not begin.
    let given_up = || control.aborted() || control.stopping();
    let streams = mesh.connect(&roster, key, rank, connect_timeout, &given_up)?;
    let mut collective = TcpCollective::new(&roster, rank, streams, peer_timeout)?;
    control.connected(collective.aborter()?);
    let tell = |event| {
        // With no listener the session is over, and an abort is on its way.
        let _ = events.blocking_send(event);
    };
    tell(JobEvent::Ready {
        state_digest,
        fingerprint: fingerprint(&spec),
    });

    let member = &roster.members[rank];
    let total_steps = plan.steps_per_epoch() * u64::from(spec.train.epochs);
    let loader = Loader::start(
        data,
        plan.clone(),
        spec.clone(),
        member,
        roster.start_step,
        total_steps,
    )?;
    let training = Training {
        spec: &spec,
        plan: &plan,
        rank,
        ranks: roster.members.len(),
        hosted: member.virtual_ranks as usize,
        start_step: roster.start_step,
        total_steps,
        device: &mut device,
        collective: &mut collective,
        loader,
        control: &control,
    };
    Ok(training.run(&mut |event| tell(JobEvent::Training(event)))?)
}

/// The state that a run starts from: drawn by the seed, or read from the spec's weights file with a new
/// classifier. Velocities are zero. The same bits on every worker.
pub fn first_state(spec: &RunSpec, layout: &FlatLayout) -> Result<Vec<f32>, FirstStateError> {
    let mut state = vec![0f32; layout.state_len()];
    let places: HashMap<String, Range<usize>> = layout
        .state_entries()
        .into_iter()
        .map(|entry| (entry.name, entry.offset..entry.offset + entry.len))
        .collect();
    let specs = param_specs(layout.classes());
    for param in &specs {
        let values = &mut state[places[&param.name].clone()];
        fill(param, spec.model.init, spec.seed, values);
    }
    if spec.model.weights.is_empty() {
        return Ok(state);
    }
    let path = Path::new(&spec.model.weights);
    check_digest(path, &spec.model.weights_sha256)?;
    let mut set = |param: &ParamSpec, values: &[f32]| {
        state[places[&param.name].clone()].copy_from_slice(values);
    };
    let loaded = weights::load(path, &specs, &[HEAD], &mut set)?;
    info!(
        layers = loaded.copied.len(),
        ignored = loaded.ignored.join(" "),
        "read the first weights from {}",
        path.display()
    );
    Ok(state)
}

/// The file must be the one that the spec means, where the spec says which.
fn check_digest(path: &Path, expected: &str) -> Result<(), FirstStateError> {
    if expected.is_empty() {
        return Ok(());
    }
    let io = |source| {
        FirstStateError::Weights(WeightsError::Io {
            path: path.to_owned(),
            source,
        })
    };
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path).map_err(io)?;
    std::io::copy(&mut file, &mut hash).map_err(io)?;
    let found = hex::encode(hash.finalize());
    if found == expected {
        return Ok(());
    }
    Err(FirstStateError::OtherFile {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
    })
}
