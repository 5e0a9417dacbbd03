//! What happens to the assignment in progress: begun, replaced by a newer one, ended.

use std::time::Instant;

use fovea_core::roster::UNREACHABLE_HINT;
use fovea_core::run::Outcome;
use fovea_proto::pb;
use fovea_proto::pb::worker_message::Message;
use fovea_traces::{Context as TraceContext, Traces, Work as Traced, names};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, info_span, warn};

use super::convert;
use super::current::{Current, Stage};
use super::state::{Agent, Work};
use crate::assignment::AssignmentHandle;
use crate::collective::list;
use crate::job::{Ended, JobEvent, Took};
use crate::progress::Progress;
use crate::training::Control;

/// Events that may wait between the device and the agent.
const EVENTS: usize = 16;

impl<W: Work> Agent<W> {
    /// A new assignment: it begins now, or when the device is free.
    pub(super) fn assigned(&mut self, assignment: pb::Assignment) {
        let (run_id, generation) = (&assignment.run_id, assignment.generation);
        if self
            .serving()
            .is_some_and(|s| s.run_id == *run_id && s.generation >= generation)
        {
            debug!(
                run_id,
                generation, "ignoring an assignment that is not newer"
            );
            return;
        }
        self.preparing = None;
        match &self.current {
            Some(current) if matches!(current.stage, Stage::Working { .. }) => {
                let at_boundary = assignment.at_boundary && current.run_id == *run_id;
                current.span.in_scope(|| {
                    info!(
                        next = generation,
                        at_boundary,
                        "assignment.replaced: ending this generation for generation {generation}"
                    )
                });
                match at_boundary {
                    true => current.control.yield_(),
                    false => current.control.abort(),
                }
                self.next = Some(assignment);
            }
            Some(_) | None => self.begin_assignment(assignment),
        }
    }

    fn begin_assignment(&mut self, assignment: pb::Assignment) {
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
        let (send, events) = mpsc::channel(EVENTS);
        self.meter.begin();
        let coordinators: Option<TraceContext> = assignment.traceparent.parse().ok();
        let formation = self
            .traces
            .child(names::WORKER_FORMATION, &run_id, coordinators)
            .with(names::GENERATION, generation)
            .with(names::WORKER, worker)
            .with(names::WORKERS, assignment.members.len() as u64);
        let lineage = assignment.lineage;
        let (control, progress) = (Control::default(), Progress::counting(self.meter.images()));
        if self.leaving {
            control.leave();
        }
        let task = span.in_scope(|| {
            info!(
                workers = assignment.members.len(),
                start_step = assignment.start_step,
                "assignment.begun: preparing generation {generation} of run {run_id}"
            );
            self.work.begin(AssignmentHandle {
                assignment,
                control: control.clone(),
                progress: progress.clone(),
                events: send,
                next_epoch,
            })
        });
        self.current = Some(Current {
            run_id,
            generation,
            rank,
            control,
            progress,
            ready: None,
            acknowledged,
            stage: Stage::Working { events, task },
            span,
            begun: Instant::now(),
            formation,
            traced: coordinators.is_some(),
            lineage,
        });
    }

    /// An event on the device.
    pub(super) fn handle_job_event(&mut self, event: JobEvent) {
        let Some(current) = &mut self.current else {
            return;
        };
        let (run_id, generation) = (current.run_id.clone(), current.generation);
        let rank_0 = current.rank == Some(0);
        match event {
            JobEvent::Ready {
                step,
                state_digest,
                fingerprint,
                took,
            } => {
                let Took {
                    connect,
                    nccl,
                    state,
                } = took;
                // What the generation before takes to let go of the device is in it.
                let before = current
                    .begun
                    .elapsed()
                    .saturating_sub(connect + nccl + state);
                let [before, connect, nccl, state] =
                    [before, connect, nccl, state].map(|part| part.as_millis() as u64);
                current.span.in_scope(|| {
                    info!(
                        step,
                        state_digest,
                        "assignment.ready: the members agree on the state of step {step} after {} ms: before the device {before}, \
                         peers {connect}, NCCL {nccl}, state {state}",
                        before + connect + nccl + state
                    )
                });
                let ready = Message::Ready(pb::Ready {
                    run_id,
                    generation,
                    state_digest,
                    fingerprint: Some((&fingerprint).into()),
                    step,
                });
                std::mem::take(&mut current.formation)
                    .with(names::STEP, step)
                    .with(names::BEFORE_MS, before)
                    .with(names::CONNECT_MS, connect)
                    .with(names::NCCL_MS, nccl)
                    .with(names::STATE_MS, state)
                    .end();
                current.ready = Some(ready.clone());
                self.send(ready);
            }
            JobEvent::Step { report, samples } => {
                self.meter.step(&report.phases);
                self.reports.step(report, samples, rank_0);
            }
            JobEvent::Scores { epoch, scores } => {
                let worker = self.identity.worker.as_str();
                evaluated(&self.traces, worker, current, epoch, scores.len());
                self.reports.scores(epoch, scores, rank_0);
            }
            JobEvent::Digest { step, digest } => self.send(Message::StateDigest(pb::StateDigest {
                run_id,
                generation,
                step,
                digest,
            })),
        }
    }

    /// The assignment's task has ended.
    pub(super) fn ended(&mut self, ended: Ended) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        let next = self.next.take();
        let ended = match ended {
            // The others continue without this worker: there is no next generation for it.
            Ended::Interrupted { .. } | Ended::Unreachable { .. }
                if next.is_none() && current.control.yielding() =>
            {
                Ended::Released(Outcome::Aborted)
            }
            ended => ended,
        };
        current.span.in_scope(|| match &ended {
            Ended::Released(Outcome::Failed { reason, fatal }) => {
                warn!(fatal, "assignment.failed: {reason}");
            }
            Ended::Released(Outcome::Blocked { reason }) => warn!("assignment.blocked: {reason}"),
            Ended::Released(Outcome::Unfit { trouble, reason }) => {
                warn!(%trouble, "assignment.unfit: this worker cannot serve the run ({trouble}): {reason}");
            }
            Ended::Released(outcome) => info!(?outcome, "assignment.released: {outcome:?}"),
            Ended::Interrupted { reason } => {
                warn!("assignment.interrupted: {reason}; keeping the state for the next generation");
            }
            Ended::Unreachable { missing } => {
                warn!(
                    "assignment.unreachable: cannot reach {}; keeping the state for the next generation; {UNREACHABLE_HINT}",
                    list(missing)
                );
            }
        });
        std::mem::take(&mut current.formation).fail(&match &ended {
            Ended::Released(outcome) => format!("{outcome:?}"),
            Ended::Interrupted { reason } => reason.clone(),
            Ended::Unreachable { missing } => format!("cannot reach {}", list(missing)),
        });
        let message = convert::ended(&current.run_id, current.generation, &ended);
        match (next, &ended) {
            (Some(next), Ended::Released(Outcome::Failed { fatal: true, .. })) => {
                self.send(message);
                self.begin_assignment(next);
            }
            // The coordinator needs to know nothing more about the old generation.
            (Some(next), _) => self.begin_assignment(next),
            (None, Ended::Released(_)) => self.send(message),
            (None, Ended::Interrupted { .. } | Ended::Unreachable { .. }) => {
                self.send(message.clone());
                current.stage = Stage::Waiting(Box::new(message));
                self.current = Some(current);
            }
        }
    }

    /// Ends the assignment at the next step boundary.
    pub(super) fn yield_(&mut self, run_id: &str, generation: u64) {
        let Some(current) = self.serves(run_id, generation) else {
            return;
        };
        info!(
            run_id,
            generation, "assignment.yielding: yielding at the next step boundary"
        );
        match current.stage {
            Stage::Working { .. } => current.control.yield_(),
            Stage::Waiting(_) => self.release(),
        }
    }

    /// Aborts generations up to `generation`.
    pub(super) fn abort(&mut self, run_id: &str, generation: u64, reason: &str) {
        let named = |run: &str, g: u64| run == run_id && g <= generation;
        let next = self
            .next
            .take_if(|next| named(&next.run_id, next.generation));
        if let Some(next) = next {
            info!(
                run_id,
                generation = next.generation,
                "assignment.aborted: not beginning it: {reason}"
            );
            self.send(convert::released(
                run_id,
                next.generation,
                &Outcome::Aborted,
            ));
        }
        if let Some(current) = &self.current
            && named(&current.run_id, current.generation)
        {
            info!(
                run_id,
                generation = current.generation,
                "assignment.aborted: {reason}"
            );
            match current.stage {
                Stage::Working { .. } => current.control.abort(),
                Stage::Waiting(_) => self.release(),
            }
        }
    }

    /// Releases an assignment that has no task.
    pub(super) fn release(&mut self) {
        if let Some(current) = self.current.take() {
            let outcome = Outcome::Aborted;
            self.send(convert::released(
                &current.run_id,
                current.generation,
                &outcome,
            ));
        }
    }
}

/// The evaluation of `epoch` has ended: its span.
fn evaluated(traces: &Traces, worker: &str, current: &Current, epoch: u32, samples: usize) {
    let work = Traced {
        run: &current.run_id,
        lineage: current.lineage,
        generation: current.generation,
    };
    let parent = current
        .traced
        .then(|| TraceContext::evaluation(work, epoch));
    let mut span = traces
        .child(names::WORKER_EVALUATION, &current.run_id, parent)
        .with(names::GENERATION, current.generation)
        .with(names::WORKER, worker)
        .with(names::EPOCH, u64::from(epoch))
        .with(names::SAMPLES, samples as u64);
    if let Some(began) = current.progress.evaluation_began() {
        span = span.since(began);
    }
    span.end();
}
