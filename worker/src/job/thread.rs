//! The device's thread, and the state that it keeps between generations.

use std::sync::mpsc;

use fovea_core::ids::RunId;
use fovea_core::machine::Machine;
use fovea_core::run::Trouble;
use fovea_core::spec::RunSpec;
use tokio::sync::{oneshot, watch};

use super::error::JobError;
use super::first_state::first_state;
use super::generation::{MakeDevice, MakeFirstState, Place};
use super::types::{Ended, Job};
use crate::gpu;
use crate::profile::Profile;
use crate::training::{State, TrainingError};
use crate::trouble;

/// The device's thread; clones are handles to the same one.
#[derive(Clone)]
pub struct DeviceThread {
    jobs: mpsc::SyncSender<(Job, oneshot::Sender<Ended>)>,
    held: watch::Receiver<Option<RunId>>,
}

impl DeviceThread {
    /// Starts the thread for the device at `place` of `machine`, which `make` makes; it ends when the last handle is
    /// dropped. `profile` records some steps.
    pub fn start(
        place: tch::Device,
        machine: Machine,
        make: MakeDevice,
        profile: Option<Profile>,
    ) -> std::io::Result<Self> {
        Self::start_with(place, machine, make, profile, first_state)
    }

    /// As [`Self::start`], with another way to make the first state.
    pub(super) fn start_with(
        place: tch::Device,
        machine: Machine,
        make: MakeDevice,
        profile: Option<Profile>,
        first_state: MakeFirstState,
    ) -> std::io::Result<Self> {
        // Callers wait for one job before they send another.
        let (send, jobs) = mpsc::sync_channel::<(Job, oneshot::Sender<Ended>)>(1);
        let (shown, held) = watch::channel(None);
        std::thread::Builder::new()
            .name("device".into())
            .spawn(move || {
                let mut owner = Owner {
                    place: Place {
                        device: place,
                        machine,
                        make,
                        first_state,
                        profile,
                    },
                    held: None,
                    shown,
                };
                let current = gpu::make_current(place);
                for (job, reply) in jobs {
                    let ended = match &current {
                        Ok(()) => owner.guarded(job),
                        Err(problem) => {
                            Ended::unfit(trouble::of_device(&problem.to_string()), problem)
                        }
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
    place: Place,
    held: Option<Held>,
    shown: watch::Sender<Option<RunId>>,
}

impl Owner {
    /// Executes a job. A panic (libtorch out of memory, for example) ends the job and drops its state, not the worker.
    fn guarded(&mut self, job: Job) -> Ended {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.execute(job)));
        if let Some(profile) = &mut self.place.profile {
            profile.leave();
        }
        self.shown
            .send_replace(self.held.as_ref().map(|held| held.run.clone()));
        done.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            let reason = format!("the device's thread panicked: {text}");
            match trouble::is_out_of_memory(text) {
                true => Ended::unfit(Trouble::Memory, reason),
                false => Ended::failed(reason, false),
            }
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
        let done = self.place.execute(job, &mut state, &self.shown);
        // A step is applied as a whole or not at all, so a state is valid however its generation ended. Only a device
        // that failed may have applied part of a step, or a garbled one.
        let doubtful = matches!(
            done,
            Err(JobError::Device(_)
                | JobError::Training(TrainingError::Garbled { applied: true, .. }))
        );
        if !doubtful {
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
}
