//! The assignment under way: taken on, replaced by a newer one, let go of.

use fovea_core::run::{Heartbeat, Outcome};
use fovea_proto::pb;
use fovea_proto::pb::worker_message::Message;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Span, debug, info, info_span, warn};

use super::{Agent, Work, words};
use crate::assignment::Order;
use crate::job::{Ended, JobEvent};
use crate::training::Control;
use crate::vitals::Vitals;

/// Events that may wait between the device and the agent.
const EVENTS: usize = 16;

/// The assignment under way.
pub(super) struct Current {
    run_id: String,
    generation: u64,
    rank: Option<u32>,
    pub(super) control: Control,
    vitals: Vitals,
    /// Said once the members have agreed on a state.
    ready: Option<Message>,
    /// The first epoch whose result is not acknowledged, for the uploads.
    pub(super) acknowledged: watch::Sender<u32>,
    pub(super) stage: Stage,
    span: Span,
}

/// How far it is.
pub(super) enum Stage {
    /// A task does it.
    Working {
        events: mpsc::Receiver<JobEvent>,
        task: AbortOnDropHandle<Ended>,
    },
    /// Peers broke off, which this message says. The state stays on the device for the next generation.
    Waiting(Message),
}

impl Current {
    /// What a new session must hear of it.
    pub(super) fn news(&self) -> impl Iterator<Item = &Message> {
        let waiting = match &self.stage {
            Stage::Working { .. } => None,
            Stage::Waiting(message) => Some(message),
        };
        self.ready.iter().chain(waiting)
    }

    /// What the heartbeat numbered `sequence` says. Who waits for the next generation waits for nobody else,
    /// and says so, lest it be taken for stuck.
    pub(super) fn heartbeat(&self, sequence: u64) -> Heartbeat {
        let waiting = self.vitals.waiting();
        let (waiting_for, polls) = match &self.stage {
            Stage::Working { .. } => (waiting.on(), waiting.polls()),
            Stage::Waiting(_) => (self.rank, sequence),
        };
        Heartbeat {
            ticks: self.vitals.ticks(),
            waiting_for,
            polls,
        }
    }

    fn is(&self, run_id: &str, generation: u64) -> bool {
        self.run_id == run_id && self.generation == generation
    }
}

impl<W: Work> Agent<W> {
    /// The newest assignment that this worker has not let go of.
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

    /// The assignment under way, if it is that one.
    pub(super) fn serves(&self, run_id: &str, generation: u64) -> Option<&Current> {
        self.current
            .as_ref()
            .filter(|current| current.is(run_id, generation))
    }

    pub(super) fn assigned(&mut self, assignment: pb::Assignment) {
        let (run_id, generation) = (&assignment.run_id, assignment.generation);
        if self
            .serving()
            .is_some_and(|s| s.run_id == *run_id && s.generation >= generation)
        {
            debug!(run_id, generation, "ignoring an assignment that is not new");
            return;
        }
        self.preparing = None;
        match &self.current {
            Some(current) if matches!(current.stage, Stage::Working { .. }) => {
                let at_boundary = assignment.at_boundary && current.run_id == *run_id;
                current
                    .span
                    .in_scope(|| info!(next = generation, at_boundary, "a new generation"));
                match at_boundary {
                    true => current.control.yield_(),
                    false => current.control.abort(),
                }
                self.next = Some(assignment);
            }
            Some(_) | None => self.take_on(assignment),
        }
    }

    fn take_on(&mut self, assignment: pb::Assignment) {
        let (run_id, generation) = (assignment.run_id.clone(), assignment.generation);
        let worker = self.identity.worker.as_str();
        let place = assignment
            .members
            .iter()
            .position(|m| m.worker_id == worker);
        let rank = place.map(|rank| rank as u32);
        let span = info_span!("run", run_id, generation, rank);
        self.reports.begin(
            &run_id,
            generation,
            assignment.lineage,
            assignment.next_epoch,
        );
        let (acknowledged, next_epoch) = watch::channel(self.reports.next_epoch());
        let (tell, events) = mpsc::channel(EVENTS);
        let (control, vitals) = (Control::default(), Vitals::default());
        let task = span.in_scope(|| {
            info!(
                workers = assignment.members.len(),
                start_step = assignment.start_step,
                "took on an assignment"
            );
            self.work.begin(Order {
                assignment,
                control: control.clone(),
                vitals: vitals.clone(),
                events: tell,
                next_epoch,
            })
        });
        self.current = Some(Current {
            run_id,
            generation,
            rank,
            control,
            vitals,
            ready: None,
            acknowledged,
            stage: Stage::Working { events, task },
            span,
        });
    }

    /// Something happened on the device.
    pub(super) fn happened(&mut self, event: JobEvent) {
        let Some(current) = &mut self.current else {
            return;
        };
        let (run_id, generation) = (current.run_id.clone(), current.generation);
        let others_tell = current.rank != Some(0);
        match event {
            JobEvent::Ready {
                step,
                state_digest,
                fingerprint,
            } => {
                current.span.in_scope(|| info!(step, state_digest, "ready"));
                let ready = Message::Ready(pb::Ready {
                    run_id,
                    generation,
                    state_digest,
                    fingerprint: Some((&fingerprint).into()),
                    step,
                });
                current.ready = Some(ready.clone());
                self.say(ready);
            }
            JobEvent::Step { report, samples } => self.reports.step(report, samples, others_tell),
            JobEvent::Scores { epoch, scores } => self.reports.scores(epoch, scores, others_tell),
            JobEvent::Digest { step, digest } => self.say(Message::StateDigest(pb::StateDigest {
                run_id,
                generation,
                step,
                digest,
            })),
        }
    }

    /// The task under way has ended.
    pub(super) fn ended(&mut self, ended: Ended) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        let next = self.next.take();
        let ended = match ended {
            // Others go on already, without waiting for this worker: there is no next generation for it.
            Ended::Interrupted { .. } | Ended::Unreachable { .. }
                if next.is_none() && current.control.yielding() =>
            {
                Ended::Released(Outcome::Aborted)
            }
            ended => ended,
        };
        current.span.in_scope(|| match &ended {
            Ended::Released(Outcome::Failed { reason, fatal }) => {
                warn!(fatal, "let go of the run: {reason}");
            }
            Ended::Released(outcome) => info!(?outcome, "let go of the run"),
            Ended::Interrupted { reason } => warn!("interrupted, keeping the state: {reason}"),
            Ended::Unreachable { missing } => {
                warn!("cannot reach {}, keeping the state", missing.join(" "));
            }
        });
        let message = words::ended(&current.run_id, current.generation, &ended);
        match (next, &ended) {
            (Some(next), Ended::Released(Outcome::Failed { fatal: true, .. })) => {
                self.say(message);
                self.take_on(next);
            }
            // The coordinator is not interested in the old generation any more.
            (Some(next), _) => self.take_on(next),
            (None, Ended::Released(_)) => self.say(message),
            (None, Ended::Interrupted { .. } | Ended::Unreachable { .. }) => {
                self.say(message.clone());
                current.stage = Stage::Waiting(message);
                self.current = Some(current);
            }
        }
    }

    /// Lets go at the next step boundary.
    pub(super) fn yield_(&mut self, run_id: &str, generation: u64) {
        let Some(current) = self.serves(run_id, generation) else {
            return;
        };
        info!(run_id, generation, "yielding at the next step boundary");
        match current.stage {
            Stage::Working { .. } => current.control.yield_(),
            Stage::Waiting(_) => self.let_go(),
        }
    }

    /// Lets go at once of generations up to `generation`.
    pub(super) fn abort(&mut self, run_id: &str, generation: u64, reason: &str) {
        let meant = |run: &str, g: u64| run == run_id && g <= generation;
        let next = self
            .next
            .take_if(|next| meant(&next.run_id, next.generation));
        if let Some(next) = next {
            info!(
                run_id,
                generation = next.generation,
                "will not begin: {reason}"
            );
            self.say(words::released(run_id, next.generation, &Outcome::Aborted));
        }
        if let Some(current) = &self.current
            && meant(&current.run_id, current.generation)
        {
            info!(
                run_id,
                generation = current.generation,
                "letting go: {reason}"
            );
            match current.stage {
                Stage::Working { .. } => current.control.abort(),
                Stage::Waiting(_) => self.let_go(),
            }
        }
    }

    /// Lets go of an assignment that no task works at.
    fn let_go(&mut self) {
        if let Some(current) = self.current.take() {
            let outcome = Outcome::Aborted;
            self.say(words::released(
                &current.run_id,
                current.generation,
                &outcome,
            ));
        }
    }
}
