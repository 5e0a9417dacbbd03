//! One generation on the device: connect, agree on a state, train.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use fovea_core::googlenet::FlatLayout;
use fovea_core::ids::RunId;
use fovea_core::machine::Machine;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::Member;
use fovea_core::run::Outcome;
use fovea_core::spec::{Reduction, RunSpec};
use tokio::sync::watch;

use super::agreement::{Agreement, Stored};
use super::error::JobError;
use super::first_state::FirstStateError;
use super::types::{Job, JobEvent, Took};
use crate::checkpoint::{self, digest_text};
use crate::collective::{Network, Reducing, TcpCollective, with_nccl};
use crate::data::{LocalData, hosted};
use crate::device::{Device, HeldImages, Image, Split};
use crate::fingerprint::fingerprint;
use crate::gpu;
use crate::loader::{Loader, OnDevice};
use crate::machine;
use crate::profile::Profile;
use crate::threads::supervise;
use crate::training::{State, Training, TrainingEvent, starts_with_evaluation};

/// Makes a device for a run on images of so many pixels in width and height, without a state yet.
pub type MakeDevice = Box<dyn Fn(&RunSpec, &FlatLayout, usize) -> Box<dyn Device> + Send>;
/// Makes the state that a run starts from, given the file of its weights. That may lie on a mount that hangs, so it runs
/// on a thread that can be abandoned.
pub(super) type MakeFirstState =
    fn(&RunSpec, &FlatLayout, Option<File>) -> Result<Vec<f32>, FirstStateError>;

/// A device, and how a run begins on it.
pub(super) struct Place {
    pub(super) device: tch::Device,
    pub(super) machine: Machine,
    pub(super) make: MakeDevice,
    pub(super) first_state: MakeFirstState,
    pub(super) profile: Option<Profile>,
}

impl Place {
    /// Executes a job with `state`, or with the one that the members agree on, and leaves the newest state there. The
    /// run is shown in `shown` once it has a state.
    pub(super) fn execute(
        &mut self,
        job: Job,
        state: &mut Option<State>,
        shown: &watch::Sender<Option<RunId>>,
    ) -> Result<Outcome, JobError> {
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
            mut weights,
            next_epoch,
            data,
            control,
            progress,
            connect_timeout,
            peer_timeout,
            allow_plaintext_nccl,
            began,
            events,
            snapshots,
        } = job;
        let layout = spec.model.layout()?;
        // A stop that came earlier takes effect after the first step, as there is a state to start from.
        let stop_requested = control.stopping();
        let given_up = || control.given_up();
        let waiting = progress.waiting();
        let begun = Instant::now();
        let channels = mesh.connect(&roster, key, rank, connect_timeout, &given_up, waiting)?;
        let connected = Instant::now();
        progress.tick();
        let tcp = TcpCollective::new(&roster, rank, channels, peer_timeout, waiting.clone());
        let reduction = spec.train.reduction;
        let tcp = match reduction {
            Reduction::Ordered => tcp,
            Reduction::Fast => tcp.with_one_part_each(),
        };
        control.connected(tcp.aborter()?);
        let nccl = gpu::nccl_for(self.device);
        let network = Network {
            machine: machine::boot_id(),
            plain_text: allow_plaintext_nccl || !mesh.is_encrypted(),
        };
        let reducing = Reducing {
            reduction,
            roster: &roster,
            rank,
            len: layout.trainable_len(),
            patience: peer_timeout,
        };
        let mut collective = with_nccl(tcp, nccl, network, &reducing)?;
        let joined = Instant::now();
        progress.tick();
        let agreement = Agreement {
            roster: &roster,
            rank,
            collective: &mut *collective,
            progress: &progress,
            control: &control,
            state_len: layout.state_len(),
            fresh: &|| (self.make)(&spec, &layout, data.size()),
        };
        match &mut checkpoint {
            Some(fetch) => {
                let mut read = || Ok(checkpoint::read_state(&layout, &fetch()?)?);
                agreement.reach(state, Stored::Checkpoint(&mut read))?;
            }
            None => {
                let mut make = || {
                    let weights = weights.as_mut().map(|fetch| fetch()).transpose()?;
                    let (make, spec, layout) = (self.first_state, spec.clone(), layout.clone());
                    let given_up = || match stop_requested {
                        true => control.given_up(),
                        false => control.withdrawn(),
                    };
                    let made = supervise("reading the first weights", &given_up, move || {
                        make(&spec, &layout, weights)
                    })?;
                    Ok(made?)
                };
                agreement.reach(state, Stored::First(&mut make))?;
            }
        }
        let Some(state) = state else {
            return Err(JobError::NoState);
        };
        shown.send_replace(Some(run));

        // Without a receiver the worker is shutting down, and an abort follows.
        let send = |event| drop(events.blocking_send(event));
        let state_digest = digest_text(state.device.digest()?);
        send(JobEvent::Ready {
            step: state.step,
            state_digest,
            took: Took {
                connect: connected - begun,
                nccl: joined - connected,
                state: joined.elapsed(),
            },
            fingerprint: fingerprint(&self.machine, &spec, self.device, state.device.path()),
        });
        let _ = began.send(());
        let member = &roster.members[rank];
        let per_epoch = plan.steps_per_epoch();
        let total_steps = per_epoch * u64::from(spec.train.epochs);
        let evaluate = starts_with_evaluation(state.step, per_epoch, next_epoch);
        let on_device = OnDevice {
            held: keep_hosted(&mut *state.device, &plan, &data, member),
            draws_dropout: state.device.draws_dropout(),
        };
        let loader = Loader::start(
            data,
            plan.clone(),
            spec.clone(),
            member,
            state.step..total_steps,
            evaluate,
            on_device,
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
            profile: self.profile.as_mut(),
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
