//! The session's changes, and messages of the coordinator.

use std::time::Duration;

use fovea_proto::pb;
use fovea_proto::pb::coordinator_message::Message as FromCoordinator;
use fovea_proto::pb::worker_message::Message as FromWorker;
use fovea_service::VERSION;
use tokio::time::Instant;
use tracing::{info, warn};

use super::absence::{Absence, Notice};
use super::convert;
use super::outgoing::MEASURE_AGAIN;
use super::session::Session;
use super::state::{Agent, AgentError, Identity, Preparing, Work, every};
use crate::link::Opening;

impl<W: Work> Agent<W> {
    /// A session is being opened.
    pub(super) fn opened(&mut self, opening: Opening) {
        self.channels.send_replace(Some(opening.channel.clone()));
        let Identity {
            worker,
            address,
            host,
            boot_id,
            gpu_uuid,
            memory,
            machine,
        } = &self.identity;
        let memory = memory();
        self.memory = (memory, Instant::now() + MEASURE_AGAIN);
        let hello = pb::Hello {
            protocol: fovea_proto::PROTOCOL,
            worker_id: worker.to_string(),
            address: address.clone(),
            host: host.clone(),
            device: machine.device.clone(),
            boot_id: boot_id.clone(),
            gpu_uuid: gpu_uuid.clone(),
            memory: Some(convert::memory(memory)),
            machine: Some(convert::machine(machine)),
            version: VERSION.into(),
            serving: self.serving(),
            held_run_id: self
                .work
                .held_run()
                .map_or_else(String::new, |run| run.to_string()),
        };
        self.session = Session::open(opening, hello).ok();
        // The session before may not have delivered it. It is queued until the welcome.
        if let Some(current) = &self.current {
            let again: Vec<FromWorker> = current.unconfirmed().cloned().collect();
            self.reports.send_again();
            again.into_iter().for_each(|message| self.send(message));
        }
        if self.leaving {
            self.send(FromWorker::Leaving(pb::Leaving {}));
        }
    }

    /// A message in the session.
    pub(super) fn received(&mut self, message: Option<FromCoordinator>) {
        match message {
            Some(FromCoordinator::Welcome(welcome)) => {
                let Identity {
                    worker, address, ..
                } = &self.identity;
                if welcome.protocol != fovea_proto::PROTOCOL {
                    self.fail(AgentError::Protocol {
                        // Version 1 did not name itself.
                        coordinator: welcome.protocol.max(1),
                    });
                    return;
                }
                match self.contact.welcomed(Instant::now()) {
                    None => info!(%worker, address, "session.opened: joined the coordinator"),
                    Some(Absence { attempts, away }) => info!(
                        %worker,
                        address,
                        attempts,
                        "session.opened: joined the coordinator, after {:.1} s and {attempts} failed attempts",
                        away.as_secs_f64()
                    ),
                }
                self.beat = every(Duration::from_millis(u64::from(
                    welcome.heartbeat_ms.max(10),
                )));
                if let Some(session) = &mut self.session {
                    session.welcome();
                }
            }
            Some(FromCoordinator::Assignment(assignment)) => self.assigned(assignment),
            Some(FromCoordinator::Stop(pb::Stop { run_id, generation })) => {
                if let Some(current) = self.serves(&run_id, generation) {
                    info!(
                        run_id,
                        generation,
                        "assignment.stopping: stopping at the next step boundary, with a checkpoint"
                    );
                    current.control.stop();
                }
            }
            Some(FromCoordinator::Yield(pb::Yield { run_id, generation })) => {
                self.yield_(&run_id, generation);
            }
            Some(FromCoordinator::Abort(pb::Abort {
                run_id,
                generation,
                reason,
            })) => self.abort(&run_id, generation, &reason),
            Some(FromCoordinator::Prepare(request)) => {
                let run_id = request.run_id.clone();
                info!(run_id, "join.preparing: preparing to join run {run_id}");
                let task = self.work.prepare(request);
                self.preparing = Some(Preparing { run_id, task });
            }
            Some(FromCoordinator::Ack(pb::Ack {
                run_id,
                step,
                next_epoch,
            })) => {
                self.reports.acknowledge(&run_id, step, next_epoch);
                if let Some(current) = &self.current {
                    current.acknowledged.send_replace(self.reports.next_epoch());
                }
            }
            None => warn!(
                "message.unknown: the coordinator sent a message that this version does not know; ignoring it"
            ),
        }
    }

    /// The session has ended, or could not be opened.
    pub(super) fn down(&mut self, reason: &str) {
        match self.contact.down(Instant::now()) {
            Some(Notice::Lost) => {
                warn!(
                    "session.lost: the session with the coordinator broke: {reason}; connecting again"
                );
            }
            Some(Notice::Failed { attempts: 1, .. }) => {
                warn!(
                    "session.failed: cannot open a session with the coordinator: {reason}; trying again"
                );
            }
            Some(Notice::Failed { attempts, away }) => warn!(
                attempts,
                "session.failed: no session with the coordinator for {:.0} s, after {attempts} attempts: {reason}; \
                 trying again",
                away.as_secs_f64()
            ),
            None => {}
        }
        self.close_session();
    }
}
