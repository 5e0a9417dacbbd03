//! A simulated worker: it speaks the protocol over a connection of its own, computes nothing and holds no state.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fovea_core::plan::ShardPlan;
use fovea_proto::pb;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::pb::workers_client::WorkersClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::epoch_samples;

/// A step a second in each run.
const STEP: Duration = Duration::from_secs(1);
/// Workers that share a client address: a coordinator limits the connections of one.
const PER_ADDRESS: usize = 100;

/// What all simulated workers share.
pub struct Fleet {
    pub coordinator: String,
    pub plan: ShardPlan,
    pub validation: u32,
    /// Whether steps are to be taken.
    pub go: watch::Receiver<bool>,
    pub counts: Counts,
    epochs: Mutex<HashMap<u32, Arc<Vec<Vec<u32>>>>>,
}

/// What the simulated workers have seen.
#[derive(Default)]
pub struct Counts {
    pub joined: AtomicU64,
    pub assignments: AtomicU64,
    pub steps: AtomicU64,
    pub lost_sessions: AtomicU64,
    /// From sending a step to its acknowledgement.
    pub acknowledged: Mutex<Vec<Duration>>,
    /// Why sessions ended.
    pub reasons: Mutex<Vec<String>>,
}

/// An assignment under way.
struct Serving {
    run: String,
    generation: u64,
    /// Rank 0 reports the steps.
    leads: bool,
    step: u64,
    unacknowledged: BTreeMap<u64, Instant>,
    ticks: u64,
}

impl Fleet {
    pub fn new(
        coordinator: &str,
        plan: ShardPlan,
        validation: u32,
        go: watch::Receiver<bool>,
    ) -> Self {
        Self {
            coordinator: coordinator.to_owned(),
            plan,
            validation,
            go,
            counts: Counts::default(),
            epochs: Mutex::default(),
        }
    }

    /// Works until the session ends or the future is dropped.
    pub async fn worker(self: Arc<Self>, number: usize) {
        if let Err(reason) = self.session(number).await {
            self.counts.lost_sessions.fetch_add(1, Ordering::Relaxed);
            let mut reasons = self.counts.reasons.lock().expect("no holder panics");
            if reasons.len() < 10 {
                reasons.push(format!("worker {number}: {reason}"));
            }
        }
    }

    async fn session(&self, number: usize) -> Result<(), String> {
        let id = format!("sim-{number}");
        let (up, mut down) = self.open(number, &id).await?;
        let Some(Down::Welcome(welcome)) = next(&mut down).await? else {
            return Err("the coordinator did not answer Hello".into());
        };
        self.counts.joined.fetch_add(1, Ordering::Relaxed);
        let period = Duration::from_millis(welcome.heartbeat_ms.into());
        let mut heartbeat = tokio::time::interval(period);
        // Runs do not take their steps all at the same moment.
        let offset = Duration::from_millis(number as u64 * 37 % 1000);
        let mut step = tokio::time::interval_at(tokio::time::Instant::now() + offset, STEP);
        let mut serving: Option<Serving> = None;
        let mut sequence = 0;
        loop {
            let message = tokio::select! {
                message = next(&mut down) => match message? {
                    Some(message) => self.answer(&id, message, &mut serving),
                    None => return Err("the coordinator ended the session".into()),
                },
                _ = heartbeat.tick() => {
                    sequence += 1;
                    vec![beat(sequence, serving.as_mut())]
                }
                _ = step.tick() => match &mut serving {
                    Some(serving) if serving.leads && *self.go.borrow() => self.step(serving),
                    Some(_) | None => Vec::new(),
                },
            };
            for message in message {
                let message = pb::WorkerMessage {
                    message: Some(message),
                };
                if up.send(message).await.is_err() {
                    return Err("the stream to the coordinator is closed".into());
                }
            }
        }
    }

    async fn open(
        &self,
        number: usize,
        id: &str,
    ) -> Result<
        (
            mpsc::Sender<pb::WorkerMessage>,
            Streaming<pb::CoordinatorMessage>,
        ),
        String,
    > {
        let group = (number / PER_ADDRESS) as u8;
        let channel = Endpoint::from_shared(format!("http://{}", self.coordinator))
            .map_err(|e| e.to_string())?
            .local_address(Some(Ipv4Addr::new(127, 1, group, 1).into()))
            .connect_timeout(Duration::from_secs(60))
            .tcp_nodelay(true)
            // As a real worker's.
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(|e| format!("{e:?}"))?;
        let (up, messages) = mpsc::channel(64);
        let hello = Up::Hello(pb::Hello {
            protocol: fovea_proto::PROTOCOL,
            worker_id: id.into(),
            address: format!("127.0.0.1:{}", 1024 + number),
            host: "simulated".into(),
            device: "cpu".into(),
            version: "simulated".into(),
            serving: None,
            held_run_id: String::new(),
            boot_id: String::new(),
            gpu_uuid: String::new(),
            memory: None,
            machine: None,
        });
        let hello = pb::WorkerMessage {
            message: Some(hello),
        };
        up.send(hello).await.expect("the receiver is here");
        let down = WorkersClient::new(channel)
            .session(ReceiverStream::new(messages))
            .await
            .map_err(|e| e.to_string())?;
        Ok((up, down.into_inner()))
    }

    /// What a worker answers to a message.
    fn answer(&self, id: &str, message: Down, serving: &mut Option<Serving>) -> Vec<Up> {
        match message {
            Down::Assignment(assignment) => {
                self.counts.assignments.fetch_add(1, Ordering::Relaxed);
                let first = assignment.members.first();
                *serving = Some(Serving {
                    run: assignment.run_id.clone(),
                    generation: assignment.generation,
                    leads: first.is_some_and(|member| member.worker_id == id),
                    step: assignment.start_step,
                    unacknowledged: BTreeMap::new(),
                    ticks: 0,
                });
                vec![Up::Ready(pb::Ready {
                    run_id: assignment.run_id,
                    generation: assignment.generation,
                    state_digest: "a".repeat(32),
                    step: assignment.start_step,
                    fingerprint: Some(pb::Fingerprint {
                        device: "cpu".into(),
                        threads: 1,
                        ..Default::default()
                    }),
                })]
            }
            Down::Ack(ack) => {
                if let Some(serving) = serving
                    && serving.run == ack.run_id
                {
                    let later = serving.unacknowledged.split_off(&(ack.step + 1));
                    let done = std::mem::replace(&mut serving.unacknowledged, later);
                    let mut times = self.counts.acknowledged.lock().expect("no holder panics");
                    times.extend(done.into_values().map(|sent| sent.elapsed()));
                }
                Vec::new()
            }
            Down::Abort(_) | Down::Stop(_) | Down::Yield(_) => match serving.take() {
                Some(serving) => vec![Up::Released(pb::Released {
                    run_id: serving.run,
                    generation: serving.generation,
                    outcome: Some(pb::released::Outcome::Aborted(pb::Aborted {})),
                })],
                None => Vec::new(),
            },
            Down::Prepare(prepare) => vec![Up::Prepared(pb::Prepared {
                run_id: prepare.run_id,
                problem: String::new(),
                trouble: pb::Trouble::Unspecified as i32,
            })],
            Down::Welcome(_) => Vec::new(),
        }
    }

    /// The next step of a run, and the scores of an epoch that ends with it.
    fn step(&self, serving: &mut Serving) -> Vec<Up> {
        let position = self.plan.position(serving.step);
        let samples = self.samples(position.epoch);
        let samples = samples[position.step_in_epoch as usize].clone();
        serving.step += 1;
        serving.unacknowledged.insert(serving.step, Instant::now());
        self.counts.steps.fetch_add(1, Ordering::Relaxed);
        let report = pb::StepReport {
            step: serving.step,
            loss: 0.5,
            images: samples.len() as u32,
            images_per_s: 10.0,
            learning_rate: 0.001,
            phases: Some(pb::StepPhases {
                forward_ms: 400.0,
                backward_ms: 500.0,
                ..Default::default()
            }),
        };
        let mut messages = vec![Up::Step(pb::StepCommitted {
            run_id: serving.run.clone(),
            generation: serving.generation,
            report: Some(report),
            samples,
        })];
        if serving.step.is_multiple_of(self.plan.steps_per_epoch()) {
            messages.push(Up::Scores(pb::Scores {
                run_id: serving.run.clone(),
                generation: serving.generation,
                epoch: position.epoch,
                scores: (0..self.validation).map(score).collect(),
            }));
        }
        messages
    }

    fn samples(&self, epoch: u32) -> Arc<Vec<Vec<u32>>> {
        let mut epochs = self.epochs.lock().expect("no holder panics");
        let samples = epochs
            .entry(epoch)
            .or_insert_with(|| Arc::new(epoch_samples(&self.plan, epoch)));
        Arc::clone(samples)
    }
}

async fn next(down: &mut Streaming<pb::CoordinatorMessage>) -> Result<Option<Down>, String> {
    match down.message().await {
        Ok(Some(message)) => Ok(message.message),
        Ok(None) => Ok(None),
        Err(status) => Err(status.to_string()),
    }
}

fn beat(sequence: u64, serving: Option<&mut Serving>) -> Up {
    let mut heartbeat = pb::Heartbeat {
        sequence,
        ..Default::default()
    };
    if let Some(serving) = serving {
        // A worker that makes progress all the time.
        serving.ticks += 1;
        heartbeat.ticks = serving.ticks;
        heartbeat.serving = Some(pb::Serving {
            run_id: serving.run.clone(),
            generation: serving.generation,
        });
    }
    Up::Heartbeat(heartbeat)
}

fn score(sample: u32) -> pb::Score {
    let label = sample % 2;
    let positive = if label == 1 { 0.9 } else { 0.1 };
    pb::Score {
        sample,
        label,
        probabilities: vec![1.0 - positive, positive],
        loss: 0.1,
        ..pb::Score::default()
    }
}
