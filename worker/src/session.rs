//! The session with the coordinator: says hello, beats, takes assignments, lets go of them.

use std::sync::Arc;
use std::time::Duration;

use fovea_core::ids::WorkerId;
use fovea_core::run::Outcome;
use fovea_proto::pb::coordinator_message::Message as FromCoordinator;
use fovea_proto::pb::worker_message::Message as FromWorker;
use fovea_proto::{connect, pb};
use fovea_service::{Shutdown, VERSION};
use rand_chacha::rand_core::RngCore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tracing::{Instrument, info, info_span, warn};

use crate::assignment::{self, Context};
use crate::collective::Mesh;
use crate::config::WorkerConfig;
use crate::job::DeviceThread;
use crate::training::Control;

/// Messages to the coordinator that may wait.
const OUTBOUND: usize = 256;
/// How long a connection attempt may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Waits between attempts grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long an aborted assignment may take to let go of the device.
const LET_GO: Duration = Duration::from_secs(120);

/// Who this worker is.
pub struct Identity {
    /// Its id.
    pub worker: WorkerId,
    /// Where peers reach it.
    pub address: String,
    /// The machine's name.
    pub host: String,
    /// Its device.
    pub device: String,
}

/// Serves coordinators until asked to stop: reconnects with growing, jittered waits.
pub async fn serve(
    identity: Identity,
    config: Arc<WorkerConfig>,
    mesh: Mesh,
    device: DeviceThread,
    shutdown: Shutdown,
) {
    let mut pause = BACKOFF.0;
    loop {
        let begun = Instant::now();
        let ended = match connect(&config.coordinator, CONNECT).await {
            Err(e) => e.to_string(),
            Ok(channel) => {
                let session = Session {
                    identity: &identity,
                    config: config.clone(),
                    mesh: mesh.clone(),
                    device: device.clone(),
                    channel,
                    shutdown: shutdown.clone(),
                };
                match session.run().await {
                    Ok(()) => "the coordinator closed the session".into(),
                    Err(status) => status.message().to_owned(),
                }
            }
        };
        if shutdown.requested() {
            return;
        }
        if begun.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        warn!("no session: {ended}; trying again");
        // Half fixed, half random, so that many workers do not come back at once.
        let jitter = f64::from(random_u32()) / f64::from(u32::MAX);
        tokio::select! {
            () = sleep(pause.mul_f64(0.5 + jitter / 2.0)) => {}
            () = shutdown.wait() => return,
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

struct Session<'a> {
    identity: &'a Identity,
    config: Arc<WorkerConfig>,
    mesh: Mesh,
    device: DeviceThread,
    channel: Channel,
    shutdown: Shutdown,
}

/// The assignment under way.
struct Current {
    run_id: String,
    generation: u64,
    control: Control,
    task: JoinHandle<Outcome>,
}

impl Session<'_> {
    async fn run(self) -> Result<(), tonic::Status> {
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let hello = FromWorker::Hello(pb::Hello {
            worker_id: self.identity.worker.to_string(),
            address: self.identity.address.clone(),
            host: self.identity.host.clone(),
            device: self.identity.device.clone(),
            version: VERSION.into(),
        });
        say(&outbound, hello).await;
        let mut inbound = pb::workers_client::WorkersClient::new(self.channel.clone())
            .session(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let welcome = match timeout(CONNECT, inbound.message()).await {
            Ok(message) => message?.and_then(|m| m.message),
            Err(_) => return Err(tonic::Status::deadline_exceeded("no welcome came")),
        };
        let Some(FromCoordinator::Welcome(welcome)) = welcome else {
            return Err(tonic::Status::internal(
                "the coordinator's first message is not a welcome",
            ));
        };
        info!(worker = %self.identity.worker, address = %self.identity.address, "joined the coordinator");

        let mut beat = interval(Duration::from_millis(u64::from(
            welcome.heartbeat_ms.max(10),
        )));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sequence = 0;
        let mut current: Option<Current> = None;
        let mut leaving = false;
        let result = loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.received(message.message, &mut current, &outbound).await,
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                },
                _ = beat.tick() => {
                    sequence += 1;
                    say(&outbound, FromWorker::Heartbeat(pb::Heartbeat { sequence })).await;
                }
                outcome = finished(&mut current) => {
                    self.release(current.take(), outcome, &outbound).await;
                    if leaving {
                        break Ok(());
                    }
                }
                () = self.shutdown.wait(), if !leaving => {
                    leaving = true;
                    say(&outbound, FromWorker::Leaving(pb::Leaving {})).await;
                    match &current {
                        Some(current) => {
                            info!("stopping at the next step boundary, with a checkpoint");
                            current.control.stop();
                        }
                        None => break Ok(()),
                    }
                }
            }
        };
        if let Some(current) = current {
            warn!(
                run_id = current.run_id,
                "the session ended: letting go of the run"
            );
            current.control.abort();
            if timeout(LET_GO, current.task).await.is_err() {
                warn!("the device did not let go within {LET_GO:?}");
            }
        }
        // The stream ends when `outbound` is dropped; what was said before still goes out.
        drop(outbound);
        if leaving {
            let _ = timeout(CONNECT, async {
                while let Ok(Some(_)) = inbound.message().await {}
            })
            .await;
        }
        result
    }

    async fn received(
        &self,
        message: Option<FromCoordinator>,
        current: &mut Option<Current>,
        outbound: &mpsc::Sender<pb::WorkerMessage>,
    ) {
        match message {
            Some(FromCoordinator::Assignment(assignment)) => {
                if let Some(busy) = current {
                    warn!(
                        run_id = assignment.run_id,
                        busy_with = busy.run_id,
                        "refused an assignment while busy"
                    );
                    let reason = format!("still busy with run {}", busy.run_id);
                    let outcome = Outcome::Failed {
                        reason,
                        fatal: false,
                    };
                    say(
                        outbound,
                        released(&assignment.run_id, assignment.generation, &outcome),
                    )
                    .await;
                    return;
                }
                *current = Some(self.take_on(assignment, outbound));
            }
            Some(FromCoordinator::Stop(pb::Stop { run_id, generation })) => {
                if let Some(current) = matching(current, &run_id, generation) {
                    info!(run_id, generation, "stopping at the next step boundary");
                    current.control.stop();
                }
            }
            Some(FromCoordinator::Abort(pb::Abort {
                run_id,
                generation,
                reason,
            })) => {
                if let Some(current) = matching(current, &run_id, generation) {
                    info!(run_id, generation, "letting go: {reason}");
                    current.control.abort();
                }
            }
            Some(FromCoordinator::Welcome(_)) | None => {
                warn!("the coordinator sent a message that makes no sense here");
            }
        }
    }

    fn take_on(
        &self,
        assignment: pb::Assignment,
        outbound: &mpsc::Sender<pb::WorkerMessage>,
    ) -> Current {
        let control = Control::default();
        let run_id = assignment.run_id.clone();
        let generation = assignment.generation;
        let rank = assignment
            .members
            .iter()
            .position(|m| m.worker_id == self.identity.worker.as_str());
        let span = info_span!("run", run_id, generation, rank);
        span.in_scope(|| {
            info!(
                workers = assignment.members.len(),
                start_step = assignment.start_step,
                "took on an assignment"
            );
        });
        let context = Context {
            worker: self.identity.worker.clone(),
            config: self.config.clone(),
            mesh: self.mesh.clone(),
            device: self.device.clone(),
            channel: self.channel.clone(),
            outbound: outbound.clone(),
        };
        let task =
            tokio::spawn(assignment::run(context, assignment, control.clone()).instrument(span));
        Current {
            run_id,
            generation,
            control,
            task,
        }
    }

    async fn release(
        &self,
        current: Option<Current>,
        outcome: Outcome,
        outbound: &mpsc::Sender<pb::WorkerMessage>,
    ) {
        let Some(current) = current else { return };
        let Current {
            run_id, generation, ..
        } = current;
        match &outcome {
            Outcome::Failed { reason, fatal } => {
                warn!(run_id, generation, fatal, "let go of the run: {reason}");
            }
            Outcome::Completed { .. } | Outcome::Stopped { .. } | Outcome::Aborted => {
                info!(run_id, generation, ?outcome, "let go of the run");
            }
        }
        say(outbound, released(&run_id, generation, &outcome)).await;
    }
}

/// Ends with the outcome of the assignment under way; never, if there is none.
async fn finished(current: &mut Option<Current>) -> Outcome {
    match current {
        None => std::future::pending().await,
        Some(current) => (&mut current.task)
            .await
            .unwrap_or_else(|e| Outcome::Failed {
                reason: format!("the assignment's task ended early: {e}"),
                fatal: false,
            }),
    }
}

fn matching<'a>(
    current: &'a Option<Current>,
    run_id: &str,
    generation: u64,
) -> Option<&'a Current> {
    current
        .as_ref()
        .filter(|c| c.run_id == run_id && c.generation == generation)
}

fn released(run_id: &str, generation: u64, outcome: &Outcome) -> FromWorker {
    FromWorker::Released(pb::Released {
        run_id: run_id.to_owned(),
        generation,
        outcome: Some(outcome.into()),
    })
}

async fn say(outbound: &mpsc::Sender<pb::WorkerMessage>, message: FromWorker) {
    // Closed means that the session is over; the caller sees that from the inbound stream.
    let _ = outbound
        .send(pb::WorkerMessage {
            message: Some(message),
        })
        .await;
}

/// Randomness that no run depends on: ids and waits.
pub fn random_u32() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let seed = std::hash::RandomState::new().build_hasher().finish();
    fovea_core::random::stream("process", &[seed, u64::from(std::process::id())]).next_u32()
}
