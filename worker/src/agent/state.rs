//! What the agent knows, who it is, and what it needs.

use std::sync::Arc;
use std::time::Duration;

use fovea_core::ids::{RunId, WorkerId};
use fovea_core::machine::Machine;
use fovea_core::memory::Memory;
use fovea_proto::pb;
use fovea_service::{Shutdown, VERSION};
use fovea_traces::Traces;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tracing::Instrument;

use super::absence::Contact;
use super::current::Current;
use super::session::Session;
use crate::assignment::{self, AssignmentHandle};
use crate::context::Context;
use crate::fetch::{self, Refusal};
use crate::hits::CacheHits;
use crate::job::Ended;
use crate::meter::Meter;
use crate::pulse::{Pulse, Shown};
use crate::reports::Reports;

/// Who this worker is.
pub struct Identity {
    /// Its id.
    pub worker: WorkerId,
    /// Where peers reach it.
    pub address: String,
    /// The machine's name.
    pub host: String,
    /// Boot id of the machine; empty if it is not known.
    pub boot_id: String,
    /// Device and libraries.
    pub machine: Machine,
    /// UUID of its GPU, as nvidia-smi writes it; empty for a CPU, or if it is not known.
    pub gpu_uuid: String,
    /// Measures the memory that this worker can use.
    pub memory: Box<dyn Fn() -> Memory + Send>,
}

/// The work that the agent starts, in tasks that it owns.
pub trait Work {
    /// Begins an assignment.
    fn begin(&self, handle: AssignmentHandle) -> AbortOnDropHandle<Ended>;

    /// Prepares to join a run.
    fn prepare(&self, request: pb::Prepare) -> AbortOnDropHandle<Result<(), Refusal>>;

    /// The run whose state the device holds.
    fn held_run(&self) -> Option<RunId>;
}

impl Work for Context {
    fn begin(&self, handle: AssignmentHandle) -> AbortOnDropHandle<Ended> {
        let task = assignment::run(self.clone(), handle).in_current_span();
        AbortOnDropHandle::new(tokio::spawn(task))
    }

    fn prepare(&self, request: pb::Prepare) -> AbortOnDropHandle<Result<(), Refusal>> {
        let context = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            fetch::prepare(&context, request).await
        }))
    }

    fn held_run(&self) -> Option<RunId> {
        self.device.held_run()
    }
}

/// The worker, as the coordinator knows it.
pub struct Agent<W> {
    pub(super) identity: Identity,
    pub(super) work: W,
    pub(super) shutdown: Shutdown,
    /// The link's newest channel, for work under way.
    pub(super) channels: watch::Sender<Option<Channel>>,
    pub(super) session: Option<Session>,
    pub(super) contact: Contact,
    pub(super) current: Option<Current>,
    /// Replaces `current` as soon as the device is free.
    pub(super) next: Option<pb::Assignment>,
    pub(super) preparing: Option<Preparing>,
    pub(super) reports: Reports,
    pub(super) beat: Interval,
    /// Heartbeats so far.
    pub(super) sequence: u64,
    /// What memory the coordinator knows of, and when it is measured again.
    pub(super) memory: (Memory, Instant),
    pub(super) leaving: bool,
    /// How long it may be idle before it leaves; None for ever.
    pub(super) exit_when_idle: Option<Duration>,
    /// When it leaves if it is idle until then.
    pub(super) idle_until: Option<Instant>,
    /// How long a stop may take; None for ever.
    pub(super) stop_within: Option<Duration>,
    /// When a worker that is leaving stops waiting for its coordinator, however that answers.
    pub(super) leave_by: Option<Instant>,
    /// When a worker that is leaving, or has failed, stops waiting for what it waits for now.
    pub(super) give_up_at: Option<Instant>,
    /// Whether the pause because of full reports was logged.
    pub(super) paused: bool,
    /// Shows that the loop turns.
    pub(super) pulse: Arc<Pulse>,
    /// Where spans go.
    pub(super) traces: Traces,
    /// How this worker fares.
    pub(super) meter: Arc<Meter>,
    /// Why the worker cannot serve this coordinator.
    pub(super) failure: Option<AgentError>,
}

/// Why an agent cannot serve its coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The two have different versions.
    #[error(
        "the coordinator speaks version {coordinator} of the protocol, and this worker ({VERSION}) version {}: run \
         the same release of both",
        fovea_proto::PROTOCOL
    )]
    Protocol {
        /// The coordinator's version of the protocol.
        coordinator: u32,
    },
    /// The coordinator refused this worker's hello, or its address is none; another attempt would meet the same.
    #[error("this worker cannot work for its coordinator: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// A request to prepare for a run, under way.
pub(super) struct Preparing {
    pub(super) run_id: String,
    pub(super) task: AbortOnDropHandle<Result<(), Refusal>>,
}

impl<W: Work> Agent<W> {
    /// An idle worker. It puts the coordinator's newest channel into `channels`.
    pub fn new(
        identity: Identity,
        work: W,
        channels: watch::Sender<Option<Channel>>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            identity,
            work,
            shutdown,
            channels,
            session: None,
            contact: Contact::Starting,
            current: None,
            next: None,
            preparing: None,
            reports: Reports::default(),
            beat: every(Duration::from_secs(1)),
            sequence: 0,
            memory: (Memory::default(), Instant::now()),
            leaving: false,
            exit_when_idle: None,
            idle_until: None,
            stop_within: None,
            leave_by: None,
            give_up_at: None,
            paused: false,
            pulse: Arc::default(),
            traces: Traces::default(),
            meter: Arc::default(),
            failure: None,
        }
    }

    /// Assignments and evaluations are traced there.
    #[must_use]
    pub fn with_traces(mut self, traces: Traces) -> Self {
        self.meter.trace(traces.clone());
        self.traces = traces;
        self
    }

    /// Uses of the caches are counted there.
    #[must_use]
    pub fn with_hits(self, hits: CacheHits) -> Self {
        self.meter.show_hits(hits);
        self
    }

    /// What the operations listener shows of this agent.
    pub fn shown(&self) -> Shown {
        Shown {
            pulse: Arc::clone(&self.pulse),
            meter: self.meter(),
        }
    }

    /// What this agent measures of its work, and where its memory is noted.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// The same worker, which leaves when it has had no assignment for `limit`.
    pub fn exit_when_idle(mut self, limit: Option<Duration>) -> Self {
        self.exit_when_idle = limit;
        self.update_idle();
        self
    }

    /// The same worker, which ends within `limit` when it leaves, unless its device hangs.
    pub fn stop_within(mut self, limit: Duration) -> Self {
        self.stop_within = Some(limit);
        self
    }

    /// Notes until when a worker that is idle stays. Fetching for a run that it is to join is not idleness.
    pub(super) fn update_idle(&mut self) {
        let busy = self.current.is_some() || self.next.is_some() || self.preparing.is_some();
        match self.exit_when_idle {
            Some(limit) if !busy && !self.leaving => {
                // Beyond what a clock can show it is for ever.
                let until = || Instant::now().checked_add(limit);
                self.idle_until = self.idle_until.or_else(until);
            }
            Some(_) | None => self.idle_until = None,
        }
    }

    /// The newest assignment that this worker has not released.
    pub(super) fn serving(&self) -> Option<pb::Serving> {
        let next = self
            .next
            .as_ref()
            .map(|next| (&next.run_id, next.generation));
        let current = self.current.as_ref().map(|c| (&c.run_id, c.generation));
        let (run_id, generation) = next.or(current)?;
        Some(pb::Serving {
            run_id: run_id.clone(),
            generation,
        })
    }

    /// The assignment in progress, if it is that one.
    pub(super) fn serves(&self, run_id: &str, generation: u64) -> Option<&Current> {
        self.current
            .as_ref()
            .filter(|current| current.is(run_id, generation))
    }
}

/// A heartbeat every `period`.
pub(super) fn every(period: Duration) -> Interval {
    let mut beat = interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}
